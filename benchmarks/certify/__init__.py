"""Certificates on real data, and simulations of their validity."""
