"""Benchmark of merging: gradient steps, the closed form, merges without training, saving."""
