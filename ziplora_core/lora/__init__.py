"""LoRA algebra on factors, torch only: pairs, merges, singular values, norms, pruning."""
