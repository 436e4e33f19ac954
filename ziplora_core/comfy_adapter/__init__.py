"""The only part of the core that imports ComfyUI."""
