"""Readers and writers for LoRA files in the key formats of many programs."""

from .reader import lora_from_tensors, read_lora

__all__ = ["lora_from_tensors", "read_lora"]
