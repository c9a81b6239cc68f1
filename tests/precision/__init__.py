"""Rounding of parameters and storage of state."""
