"""To and from Optax."""

from gradtx.interop.optax import from_optax, to_optax

__all__ = ["from_optax", "to_optax"]
