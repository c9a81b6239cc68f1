"""The parameters of an inner transformation in another layout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.definition import makes
from gradtx.core.dtypes import cast, compute_dtype
from gradtx.core.leaves import at
from gradtx.core.problem import seen_as
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, Link, check_rounds_outside
from gradtx.core.whole import Wrapper
from gradtx.core.work import Work
from gradtx.tree import cast_like


class Flatten(Wrapper):
    """Runs the inner transformation on one vector."""

    def _check(self) -> None:
        check_rounds_outside("flatten", self.parts)

    def _init(self, params: Params) -> OptState:
        return self.inner._init(_vector(params))

    def _run(self, state: OptState, work: Work, link: Link, extra: dict[str, Any]) -> OptState:
        for path in work.without_update(work.selected(link.masks)):
            raise ValueError(
                f"flatten: {at(path)}: there is no gradient, and the vector is of all parameters: "
                "give zeros, or leave the leaf out by masked(flatten(...), mask)"
            )
        return super()._run(state, work, link, extra)

    def _step(
        self, updates: Updates, state: OptState, params: Params | None, extra: dict[str, Any]
    ) -> tuple[Updates, OptState]:
        together = None if params is None else _vector(params)
        extra = seen_as(
            extra,
            grad=_vector,
            params=lambda vector: _split(vector, params),
            searched=lambda vector: cast_like(_split(vector, params), params),
        )
        u, state = self._inside(_vector(updates), state, together, extra)
        return _split(u, updates), state


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
