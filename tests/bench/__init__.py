"""How fast and how large: our trainer beside ComfyUI's own, diffusers' and full fine-tuning."""
