"""Weak labels from header fields: the radiologist's study groups, the probe, and other fields of a recipe."""
