"""To and from Optax, which is imported only when it is needed."""

from __future__ import annotations

from typing import Any

from gradtx.core.transformation import GradientTransformation, as_transformation

__all__ = ["from_optax", "to_optax"]


def from_optax(tx: Any) -> GradientTransformation:
    """An Optax transformation as a gradtx one. `chain` and `masked` do this by themselves.

    Its hyperparameters stay hidden in its functions.

    Raises: TypeError for anything without init and update.
    """
    return as_transformation(tx, "from_optax: the argument")


def to_optax(tx: GradientTransformation) -> Any:
    """A gradtx transformation as an `optax.GradientTransformationExtraArgs`.

    Optax's wrappers take a gradtx transformation as it is, but pass extra arguments (`value=loss`)
    on only to one converted like this.

    Raises: ImportError without Optax.
    """
    import optax

    return optax.GradientTransformationExtraArgs(tx.init, tx.update)
