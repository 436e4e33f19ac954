"""Benchmark of Concept Sliders: training steps from prompts and from picture pairs."""
