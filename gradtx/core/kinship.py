"""A transformation is also an instance of Optax's class, if Optax has been imported.

Optax's wrappers pass extra arguments on only to instances of that class, and other libraries refuse
anything else. `isinstance` asks an object for its `__class__` if its type does not decide.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


class KinOfOptax:
    """Makes `isinstance(tx, optax.GradientTransformationExtraArgs)` true.

    Optax is not imported for this: whoever asks has done so. `type(tx)`, which JAX and pickle go
    by, is unchanged.
    """

    @property  # type: ignore[misc]  # `object`'s can be assigned to
    def __class__(self) -> Any:
        own: type = type(self)
        theirs = getattr(sys.modules.get("optax"), "GradientTransformationExtraArgs", None)
        return own if theirs is None else _both(own, theirs)


class _Both(type):
    """The metaclass of a class that combines two, ours before Optax's."""

    def mro(cls) -> list[type]:
        """The bases without `tuple`: Optax's class is one and a transformation is not. Code that
        treats tuples as containers, as code on trees does, would take it apart."""
        return [base for base in super().mro() if base is not tuple]


@functools.cache
def _both(ours: type, theirs: type) -> Any:
    names = {name: ours.__dict__[name] for name in ("__module__", "__doc__")}
    return _Both(ours.__name__, (ours, theirs), names | {"__qualname__": ours.__qualname__})
