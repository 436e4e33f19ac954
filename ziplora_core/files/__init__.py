"""LoRA files: read from every program's spelling."""

from .reader import lora_from_tensors, read_lora

__all__ = ["lora_from_tensors", "read_lora"]
