"""Benchmark of DreamBooth: our trainer, diffusers', ComfyUI's own and full fine-tuning."""
