"""What trained sliders do in the miniature world: one run, its figures and its pictures."""
