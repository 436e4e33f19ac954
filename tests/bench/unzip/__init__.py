"""What a step of UnZipLoRA costs."""
