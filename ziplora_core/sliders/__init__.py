"""Concept Sliders: LoRAs trained along one direction, from prompts or from picture pairs."""
