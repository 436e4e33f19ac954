"""LoRA files: read from every program's spelling, written in the one every program reads."""

from .reader import lora_from_tensors, read_lora

__all__ = ["lora_from_tensors", "read_lora"]
