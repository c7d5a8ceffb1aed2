"""Which patient and image is in which set: splits, near-duplicates, leaks, the pretraining pool."""
