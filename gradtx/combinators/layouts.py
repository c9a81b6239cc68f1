"""The parameters of an inner transformation in another layout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.definition import makes
from gradtx.core.dtypes import cast, compute_dtype
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.inner import Inner
from gradtx.core.leaves import at
from gradtx.core.problem import seen_as
from gradtx.core.run import Stage
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation, check_rounds_outside
from gradtx.tree import cast_like

__all__ = ["flatten"]


class Flatten(GradientTransformation):
    """Runs the inner transformation on one vector; its state is that one's."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation that sees the vector."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation that sees the vector."""
        return (self.inner,)

    def _check(self) -> None:
        check_rounds_outside("flatten", self.parts)

    def _init(self, params: Params) -> OptState:
        return self.inner._init(_vector(params))

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        for path in flat.without_update(selected):
            raise ValueError(
                f"flatten: {at(path)}: there is no gradient, and the vector is of all parameters: "
                "give zeros, or leave the leaf out by masked(flatten(...), mask)"
            )
        flat = flat.widened()
        updates, params = flat.tree(selected), flat.stored_params_tree(selected)
        inner = Inner(
            self.inner,
            None if params is None else _vector(params),
            seen_as(
                flat.visible(stage.extra, link.masks),
                grad=_vector,
                params=lambda vector: _split(vector, params),
                searched=lambda vector: cast_like(_split(vector, params), params),
            ),
        )
        u, state = inner(_vector(updates), state)
        return flat.put(_split(u, updates), selected, "flatten"), [state]


@makes(Flatten)
def flatten(inner: GradientTransformation) -> Any:
    """Run the inner transformation on all parameters as one vector, its state being vectors too.

    A norm of a leaf then is the norm of all, a mask sees a single leaf. On many small leaves it
    saves handling them; on large ones it costs a copy of everything in and out.
    """
    return inner


def _vector(tree: Any) -> jax.Array:
    """All leaves, one after the other, in float32 or wider."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(*(x.dtype for x in leaves))
    return jnp.concatenate([jnp.zeros(0, dtype), *(cast(x, dtype).reshape(-1) for x in leaves)])


def _split(vector: jax.Array, like: Any) -> Any:
    """The vector as the tree that it was made of."""
    leaves, treedef = jax.tree.flatten(like)
    parts, start = [], 0
    for x in leaves:
        part = vector[start : start + x.size].reshape(x.shape)
        parts.append(part if jnp.iscomplexobj(x) else part.real)
        start += x.size
    return jax.tree.unflatten(treedef, parts)
