"""Show a transformation complex arrays as pairs of real ones."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.decorators import per_tree
from gradtx.core.inner import Inner
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.state import OptState, Updates
from gradtx.core.transformation import TransformationLike

__all__ = ["SplitRealAndImaginaryArrays", "SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """The two parts of a complex array, each of its shape, in its place in the tree."""

    real: jax.Array
    imaginary: jax.Array


class SplitRealAndImaginaryState(NamedTuple):
    """The state of the inner transformation, whose arrays are real."""

    inner_state: OptState


@per_tree
def split_real_and_imaginary(inner: TransformationLike) -> Rule:
    """Show a transformation each complex array as two real ones; real arrays stay as they are.

        u = a + ib,                 (a, b) = inner(Re g, Im g)

    With Adam, for example, each part has a second moment of its own.

    State: that of `inner`, whose arrays are real.

    Example:
        >>> params = jnp.array([3.0 + 4.0j])
        >>> tx = gradtx.split_real_and_imaginary(gradtx.clip(1.0))
        >>> updates, _ = tx.update(params, tx.init(params))
        >>> updates
        Array([1.+1.j], dtype=complex64)
    """

    def init(inner: Inner) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.at(_split(inner.params)).init())

    def update(
        updates: Updates, state: SplitRealAndImaginaryState, inner: Inner
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        of_parts = inner.at(_split(inner.params)).seeing(grad=_split, params=_joined)
        made, inner_state = of_parts(_split(updates), state.inner_state)
        return _joined(made), SplitRealAndImaginaryState(inner_state)

    return Rule(init, update, place=inner.place & Place.LAST)


def _split(tree: Updates) -> Updates:
    def parts(x: jax.Array) -> jax.Array | SplitRealAndImaginaryArrays:
        if jnp.iscomplexobj(x):
            return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x))
        return x

    return jax.tree.map(parts, tree)


def _joined(tree: Updates) -> Updates:
    def is_pair(x: object) -> bool:
        return isinstance(x, SplitRealAndImaginaryArrays)

    def whole(x: jax.Array | SplitRealAndImaginaryArrays) -> jax.Array:
        if isinstance(x, SplitRealAndImaginaryArrays):
            return lax.complex(x.real, x.imaginary)
        return x

    return jax.tree.map(whole, tree, is_leaf=is_pair)
