"""ZipLoRA: merger coefficients for the input columns of a content and a style LoRA."""
