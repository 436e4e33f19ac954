"""The merge engine: steps, the closed form, merges without training, saving."""
