"""Benchmarks: each measures the project and a peer in the same run, and prints their ratio."""
