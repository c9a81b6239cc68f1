"""Looking at transformations."""

from gradtx.inspection.describe import describe
from gradtx.inspection.state_size import state_bytes_per_parameter

__all__ = ["describe", "state_bytes_per_parameter"]
