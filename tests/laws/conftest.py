"""Which laws are tried every time: of the essential names all, of the others a part."""

import zlib

import pytest

from .examples.essential import EXAMPLES as ESSENTIAL
from .registry import Example, is_first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all but one law in four of the first example of a name that is not essential,
    and of further examples of one that is; one in sixteen of the rest. Which, differs from one
    example to the next, so that every law is tried on many."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        example = parameters.params.get("example") if parameters else None
        if isinstance(example, Example):
            parts = (1 if example in ESSENTIAL else 4) * (1 if is_first(example) else 4)
            if zlib.crc32(item.name.encode()) % parts:
                item.add_marker(pytest.mark.slow)
