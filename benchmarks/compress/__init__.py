"""Compression: what it costs, gains and reproduces."""
