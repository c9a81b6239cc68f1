"""A transformation is an instance of Optax's class too, where Optax is there.

Optax's wrappers pass extra arguments on to instances of its class only, and other libraries refuse
what is none. `isinstance` asks an object for its `__class__` where its type does not decide.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


class KinOfOptax:
    """Makes `isinstance(tx, optax.GradientTransformationExtraArgs)` true.

    Optax is not imported for this: who asks has done so. `type(tx)`, by which JAX and pickle go, is
    unchanged.
    """

    @property  # type: ignore[misc]  # that of `object` can be assigned to
    def __class__(self) -> Any:
        own: type = type(self)
        theirs = getattr(sys.modules.get("optax"), "GradientTransformationExtraArgs", None)
        return own if theirs is None else _both(own, theirs)


class _Both(type):
    """The class of a class that stands for two, ours before Optax's."""

    def mro(cls) -> list[type]:
        """Optax's is a tuple, and a transformation is not: what treats tuples as containers, as
        code on trees does, would take it apart."""
        return [base for base in super().mro() if base is not tuple]


@functools.cache
def _both(ours: type, theirs: type) -> Any:
    names = {name: ours.__dict__[name] for name in ("__module__", "__doc__")}
    return _Both(ours.__name__, (ours, theirs), names | {"__qualname__": ours.__qualname__})
