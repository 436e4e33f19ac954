"""Concept Slider nodes: train, apply, compare."""
