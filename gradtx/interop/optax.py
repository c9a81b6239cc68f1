"""To and from Optax, which is imported only when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradtx.core.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)

if TYPE_CHECKING:
    import optax

__all__ = ["from_optax", "to_optax"]


def from_optax(tx: TransformationLike) -> GradientTransformation:
    """Make a gradtx transformation from an Optax one.

    `chain`, `masked` and all others that take a transformation do this by themselves. Its
    hyperparameters stay hidden in its functions: they cannot be read or replaced.

    Args:
        tx: an Optax transformation, or any pair of an init and an update function.

    Raises: TypeError for anything without init and update.

    Example:
        >>> from collections import namedtuple
        >>> pair = namedtuple("Pair", "init update")
        >>> halve = pair(lambda params: (), lambda g, state, params=None: (g / 2, state))
        >>> tx = gradtx.interop.from_optax(halve)
        >>> tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)))[0]
        Array([1.5], dtype=float32)

    See also: `to_optax`.
    """
    return as_transformation(tx, "from_optax: the argument")


def to_optax(tx: GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Make an `optax.GradientTransformationExtraArgs` from a gradtx transformation.

    Where Optax is imported a gradtx transformation is an instance of this class already, so that
    Optax's wrappers and other libraries take it as it is. This is for code that needs the named
    tuple itself: its `_replace`, `len`, `type(tx)`.

    Args:
        tx: a gradtx transformation.

    Raises: ImportError without Optax.

    Example:
        >>> tx = gradtx.interop.to_optax(gradtx.sgd(0.5))
        >>> updates, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
        >>> updates
        Array([-0.5], dtype=float32)

    See also: `from_optax`.
    """
    import optax

    return optax.GradientTransformationExtraArgs(tx.init, tx.update)
