"""Benchmarks. Each measures sonotag and a peer in the same run and prints the ratio."""
