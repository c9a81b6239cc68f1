"""Transformations of transformations."""
