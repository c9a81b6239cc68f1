"""Oracles that share no code with the library, and the tests that use them."""
