"""Show an inner transformation the parameters in another layout."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.core.definition import makes
from gradtx.core.dtypes import cast, compute_dtype
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.inner import Inner
from gradtx.core.leaves import at
from gradtx.core.meshes.explicit import everywhere, on_auto_axes
from gradtx.core.meshes.placing import parted
from gradtx.core.problem import seen_as
from gradtx.core.run import Stage
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import (
    GradientTransformation,
    Inside,
    TransformationLike,
    check_rounds_outside,
)
from gradtx.tree import cast_like

__all__ = ["flatten"]


class Flatten(GradientTransformation):
    """Runs the inner transformation on one vector; the state is that of the inner one."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation that sees the vector."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation that sees the vector."""
        return (self.inner,)

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        return [Inside("", self.inner, state)]

    def _check(self) -> None:
        check_rounds_outside("flatten", self.parts)

    def _init(self, params: Params) -> OptState:
        vector = on_auto_axes(_vector, (params,), everywhere(params, 1))
        return self.inner._init(vector)

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
        # Whole on every device of a mesh, like the state: otherwise XLA would divide what is cut
        # from it, and with it the new parameters, as it likes.
        u = parted(u, next(iter(jax.tree.leaves(updates)), None))
        return flat.put(_split(u, updates), selected, "flatten"), [state]


@makes(Flatten)
def flatten(inner: TransformationLike) -> GradientTransformation:
    """Run the inner transformation on all parameters as one vector.

        u = split(inner(concatenate(g)))

    The norm of a leaf is then the norm of all parameters, and a mask sees a single leaf. With many
    small leaves it saves the overhead of each; with large ones it costs a copy of everything on
    the way in and on the way out.

    State: that of `inner`, in which the vector takes the place of the params.

    Raises: ValueError if a gradient is None, since the vector is of all parameters, and for an
    inner transformation that rounds the parameters.

    Example:
        >>> grads = {"a": jnp.array([1.0]), "b": jnp.array([7.0])}
        >>> clip = gradtx.clip_by_block_rms(1.0)
        >>> for tx in (clip, gradtx.flatten(clip)):
        ...     updates, _ = tx.update(grads, tx.init(grads))
        ...     print(updates["a"], updates["b"])
        [1.] [1.]
        [0.2] [1.4]
    """
    return inner


def _vector(tree: Updates) -> jax.Array:
    """All leaves, one after the other, in float32 or wider: shape (size,)."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(*(x.dtype for x in leaves))
    return jnp.concatenate([jnp.zeros(0, dtype), *(cast(x, dtype).reshape(-1) for x in leaves)])


def _split(vector: jax.Array, like: Updates) -> Updates:
    """The vector as a tree like the one that it was made from."""
    leaves, treedef = jax.tree.flatten(like)
    parts, start = [], 0
    for x in leaves:
        part = vector[start : start + x.size].reshape(x.shape)
        parts.append(part if jnp.iscomplexobj(x) else part.real)
        start += x.size
    return jax.tree.unflatten(treedef, parts)
