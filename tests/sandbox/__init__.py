"""How the tests and the demo get a real ComfyUI with tiny models on a bare machine."""
