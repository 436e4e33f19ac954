"""UnZipLoRA on one picture of the miniature world: one run, its figures and its pictures."""
