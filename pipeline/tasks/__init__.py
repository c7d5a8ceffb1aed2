"""Labelled sets: manifests, masks, the public thyroid set."""
