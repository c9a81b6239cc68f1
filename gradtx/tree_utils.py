"""The names of `optax.tree_utils` for code written for Optax: `tree_add` is `gradtx.tree.add`."""

from typing import Any

from gradtx import tree as _tree

_NAMES = [f"tree_{name}" for name in vars(_tree)["__all__"]]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(_tree, name.removeprefix("tree_"))
    raise AttributeError(f"gradtx.tree_utils has no {name!r}; it has {', '.join(_NAMES)}")


def __dir__() -> list[str]:
    return _NAMES
