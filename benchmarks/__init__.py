"""Measurements whose results are recorded in `benchmarks/results`; none of them is a test."""
