"""Benchmarks of time and memory: merging and training, compared with other programs."""
