"""To and from Optax."""
