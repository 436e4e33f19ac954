"""Code for the loaded MODEL: private copies, branches, conditioning, sampling, memory."""
