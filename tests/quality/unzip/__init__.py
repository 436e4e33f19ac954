"""What UnZipLoRA makes of one picture in the miniature world: one run, figures, pictures."""
