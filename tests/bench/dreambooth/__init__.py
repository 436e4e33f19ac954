"""A DreamBooth LoRA: our trainer beside diffusers', ComfyUI's own and full fine-tuning."""
