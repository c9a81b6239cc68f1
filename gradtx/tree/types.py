"""The types of functions on trees."""

from __future__ import annotations

from typing import Any

# Any pytree: a leaf, or containers of leaves.
Tree = Any
