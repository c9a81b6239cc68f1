"""Complex arrays as pairs of real ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.decorators import per_tree
from gradtx.core.inner import Inner
from gradtx.core.place import Place
from gradtx.core.rule import Rule
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

    def init(inner: Inner) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.at(_split(inner.params)).init())

    def update(updates: Any, state: SplitRealAndImaginaryState, inner: Inner) -> Any:
        of_parts = inner.at(_split(inner.params)).seeing(grad=_split, params=_joined)
        made, inner_state = of_parts(_split(updates), state.inner_state)
        return _joined(made), SplitRealAndImaginaryState(inner_state)

    return Rule(init, update, place=inner.place & Place.LAST)


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
