"""UnZipLoRA nodes: train, apply, recombine."""
