"""Nodes that merge without training, apply merges, and resize or extract LoRAs."""
