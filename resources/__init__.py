"""Dagster resources: archive, store, tracking, compute; and the commands that serve Dagster's and MLflow's pages."""
