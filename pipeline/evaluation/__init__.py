"""Predictions to numbers, tables and figures."""
