"""Frozen evaluation: what an encoder's features tell without fine-tuning, in seconds per encoder."""
