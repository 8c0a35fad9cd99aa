"""Training: what the methods cost, and what they are good for."""
