"""Encoders, decoder, discriminator and task heads."""
