"""How fast and how large: the merge engine and the trainer, beside what others do."""
