"""Training data: pictures, captions, class pictures, noisy samples and sample pictures."""
