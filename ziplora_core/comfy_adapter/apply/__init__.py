"""LoRAs, pruned LoRAs, sliders and UnZipLoRA merges on clones of MODEL and CLIP."""
