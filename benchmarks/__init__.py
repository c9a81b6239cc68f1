"""gradtx and Optax side by side: ``python -m benchmarks``."""
