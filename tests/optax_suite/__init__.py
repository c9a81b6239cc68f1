"""Optax's own tests, run on gradtx."""
