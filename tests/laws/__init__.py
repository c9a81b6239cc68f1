"""The laws that every public transformation and schedule obeys."""
