"""Looking at transformations."""
