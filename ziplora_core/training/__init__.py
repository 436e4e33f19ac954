"""The training loop, its options and checkpoints, and the parts that all objectives share."""
