"""Complex arrays as pairs of real ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.decorators import per_tree
from gradtx.core.problem import seen_as
from gradtx.core.rule import Rule
from gradtx.core.run import update as update_inner
from gradtx.core.state import OptState
from gradtx.core.transformation import GradientTransformation

__all__ = ["SplitRealAndImaginaryArrays", "SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """The two parts of a complex array, in its place in the tree."""

    real: Any
    imaginary: Any


class SplitRealAndImaginaryState(NamedTuple):
    """The state of the inner transformation, of the real arrays."""

    inner_state: OptState


@per_tree
def split_real_and_imaginary(inner: GradientTransformation) -> Any:
    """Let a transformation see each complex array as two real ones; real arrays stay as they are.

        u = a + ib,                 (a, b) = inner(Re g, Im g)

    so that, for example, Adam's second moment is one for each part and not one for both.
    """

    def init(stored_params: Any) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.init(_split(stored_params)))

    def update(
        updates: Any, state: SplitRealAndImaginaryState, stored_params: Any = None, **extra: Any
    ) -> Any:
        parts = None if stored_params is None else _split(stored_params)
        extra = seen_as(extra, grad=_split, params=_joined)
        made, inner_state = update_inner(
            inner, _split(updates), state.inner_state, parts, extra, rounded=False
        )
        return _joined(made), SplitRealAndImaginaryState(inner_state)

    return Rule(init, update)


def _split(tree: Any) -> Any:
    def parts(x: Any) -> Any:
        if jnp.iscomplexobj(x):
            return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x))
        return x

    return jax.tree.map(parts, tree)


def _joined(tree: Any) -> Any:
    def is_pair(x: Any) -> bool:
        return isinstance(x, SplitRealAndImaginaryArrays)

    def whole(x: Any) -> Any:
        return lax.complex(x.real, x.imaginary) if is_pair(x) else x

    return jax.tree.map(whole, tree, is_leaf=is_pair)
