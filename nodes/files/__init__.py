"""Nodes that read and write LoRA files."""
