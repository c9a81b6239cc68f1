"""Looking at transformations."""

from gradtx.inspection.describe import describe, state_bytes_per_parameter

__all__ = ["describe", "state_bytes_per_parameter"]
