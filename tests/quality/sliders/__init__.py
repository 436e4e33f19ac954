"""Trained sliders in the miniature world: one run, its figures and its pictures."""
