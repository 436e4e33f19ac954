"""DreamBooth: LoRA training on pictures of a subject or a style."""
