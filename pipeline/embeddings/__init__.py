"""Embeddings: the vectors of images by each encoder, a map of them, and the nearest neighbours of an image."""
