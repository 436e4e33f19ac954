"""A real ComfyUI with tiny models on a bare machine, for the tests and the demo."""
