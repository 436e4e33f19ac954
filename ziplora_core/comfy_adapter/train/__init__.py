"""Training sessions, one per method, and the run of the training loop that they share."""
