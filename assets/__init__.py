"""Dagster: what is materialized, and when."""
