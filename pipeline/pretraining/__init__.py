"""Pretraining of an encoder, paper sections 3 and 4.2."""
