"""Benchmark of UnZipLoRA: training steps."""
