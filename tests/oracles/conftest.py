"""Every test in this folder runs with 64-bit types, and leaves the setting as it found it."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def wide_types() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
