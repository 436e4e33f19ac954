"""UnZipLoRA: a content and a style LoRA trained together on one picture."""
