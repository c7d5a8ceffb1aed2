"""Dagster: with what: archive, store, tracking, compute."""
