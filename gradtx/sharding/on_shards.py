"""The same numbers inside `jax.shard_map` as outside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gradtx.core.definition import makes
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.inner import Inner
from gradtx.core.leaves import KeyPath, describe
from gradtx.core.meshes.manual import manual_axes, varies_over, varying
from gradtx.core.place import Place
from gradtx.core.problem import Extra
from gradtx.core.run import Stage
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, Inside, TransformationLike
from gradtx.sharding.divisions import (
    Layout,
    Specs,
    division_by,
    divisions_of,
    layout_of_state,
    leaves_of,
)
from gradtx.sharding.pieces import Division, piece_shape, whole, whole_shape
from gradtx.sharding.whole import call_on_pieces

__all__ = ["on_shards", "state_specs"]

# From the key path of an array, and the array, to its division.
Divided = Callable[[KeyPath, Any], Division]


class OnShards(GradientTransformation):
    """Runs the inner transformation on whole arrays, of which each device holds a piece; the state
    is that of the inner one."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation of whole arrays."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation of whole arrays."""
        return (self.inner,)

    @property
    def place(self) -> Place:
        """That of the inner transformation."""
        return self.inner.place

    def _check(self) -> None:
        division_by(self.specs, "on_shards")

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        return [Inside("", self.inner, state)]

    def _init(self, params: Params) -> OptState:
        if not manual_axes():
            return self.inner._init(params)
        of_param = division_by(self.specs, "on_shards")
        layout = _layout(self.inner, params, of_param)
        return _on_whole_trees(
            lambda tx, params: tx._init(params),
            [(self.inner, _undivided), (params, of_param)],
            [division for _, division in layout.values()],
        )

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        flat = flat.widened()
        updates, params = flat.tree(selected), flat.stored_params_tree(selected)
        extra = flat.visible(stage.extra, link.masks)
        run = self._on_pieces if manual_axes() else partial(_run, self.inner)
        updates, new = run(updates, state, params, extra)
        per_example = Place.FIRST in self.place
        return flat.put(updates, selected, "on_shards", from_examples=per_example), [new]

    def _on_pieces(
        self, updates: Updates, state: OptState, params: Params | None, extra: Extra
    ) -> tuple[Updates, OptState]:
        _check_extra(self.inner, extra)
        of_param = division_by(self.specs, "on_shards")
        of_update, seen = of_param, updates
        if Place.FIRST in self.place:  # a leading axis of examples
            seen = jax.tree.map(lambda x: x[0], updates)

            def of_update(path: KeyPath, x: Any) -> Division:
                return ((), *of_param(path, x[0]))

        layout = _layout(self.inner, seen if params is None else params, of_param)
        of_state = partial(_held, layout)
        results = [of_param(path, x) for path, x in leaves_of(seen)]
        results += [of_state(path, x) for path, x in leaves_of(state)]
        given: list[tuple[Any, Divided]] = [
            (self.inner, _undivided),
            (updates, of_update),
            (state, of_state),
            (params, of_param),
            (extra, partial(_of_extra, updates, extra, of_update)),
        ]
        updates, new = _on_whole_trees(_run, given, results)
        return updates, jax.tree.map(lambda x, old: varying(x, varies_over(old)), new, state)


def _run(
    tx: GradientTransformation, updates: Updates, state: OptState, params: Params | None, extra: Any
) -> tuple[Updates, OptState]:
    return Inner(tx, params, extra)(updates, state)


def _on_whole_trees(
    function: Callable[..., Any],
    given: Sequence[tuple[Any, Divided]],
    results: Sequence[Division],
) -> Any:
    """The pieces of what function(*trees) returns for whole arrays, from trees of pieces."""
    leaves, treedef = jax.tree.flatten([tree for tree, _ in given])
    divisions = [divided(path, x) for tree, divided in given for path, x in leaves_of(tree)]
    every = [_as_whole(x, own) for x, own in zip(leaves, divisions, strict=True)]
    traced = [i for i, x in enumerate(every) if isinstance(x, jax.Array)]
    structures: list[Any] = []

    def of_leaves(*arrays: jax.Array) -> list[jax.Array]:
        known = dict(zip(traced, arrays, strict=True))
        trees = jax.tree.unflatten(treedef, [known.get(i, x) for i, x in enumerate(every)])
        made, structure = jax.tree.flatten(function(*trees))
        structures.append(structure)
        return list(map(jnp.asarray, made))

    arrays, own = [every[i] for i in traced], [divisions[i] for i in traced]
    made = call_on_pieces(of_leaves, arrays, own, results)
    return jax.tree.unflatten(structures[-1], made)


def _as_whole(x: Any, division: Division) -> Any:
    """A leaf as a JAX array, a piece of the whole one, or as the whole value where that is known: a
    number, or the zeros that stand for the gradient of integers."""
    if not isinstance(x, np.ndarray):
        return x
    no_gradient = x.dtype == jax.dtypes.float0
    return np.zeros(whole_shape(x.shape, division), x.dtype) if no_gradient else jnp.asarray(x)


# -- how each array is divided ---------------------------------------------------------------------


def _undivided(path: KeyPath, x: Any) -> Division:
    return whole(np.shape(x))


def _layout(tx: GradientTransformation, params: Params, of_param: Divided) -> Layout:
    """How the state is divided, from pieces of the params."""

    def as_whole(path: KeyPath, x: Any) -> Any:
        shape = whole_shape(x.shape, of_param(path, x))
        return jax.ShapeDtypeStruct(shape, x.dtype)  # type: ignore[no-untyped-call]

    wholes = jax.tree_util.tree_map_with_path(as_whole, params)
    return layout_of_state(jax.eval_shape(tx._init, wholes), wholes, of_param)


def _held(layout: Layout, path: KeyPath, x: Any) -> Division:
    """How a leaf of the state is divided: as `init` divides it, not at all, or in the one way that
    its shape and the axes that it varies over allow."""
    shape, division = layout.get(path, (np.shape(x), _undivided(path, x)))
    found = [d for d in divisions_of(shape, x) if d == division] or divisions_of(shape, x)
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"on_shards: the state{jax.tree_util.keystr(path)} is {describe(x)} here; it cannot be "
        f"told which piece of {shape} that is; init makes {piece_shape(shape, division)}. Divide "
        "it as gradtx.sharding.state_specs(tx, params, specs) says"
    )


def _of_extra(
    updates: Updates, extra: Extra, of_update: Divided, path: KeyPath, x: Any
) -> Division:
    """An extra argument that is a tree like the updates is divided like them; any other is the
    same on every device."""
    name, *rest = path
    like: Any = jax.tree.structure(updates)
    if jax.tree.structure(extra[name.key]) != like or (not rest and np.ndim(x) == 0):
        return _undivided(path, x)
    return of_update(tuple(rest), x)


def _check_extra(tx: GradientTransformation, extra: Extra) -> None:
    for name, x in extra.items():
        if callable(x) and tx.takes(name, extra):
            raise TypeError(
                f"on_shards: {tx.definition.name} calls {name}, a function of what one device "
                "holds of the parameters, and would give it whole ones. Run it outside of "
                "jax.shard_map, in a jitted function of sharded arrays"
            )


@makes(OnShards, name="sharding.on_shards")
def on_shards(inner: TransformationLike, specs: Specs) -> tuple[object, ...]:
    """Inside `jax.shard_map`, run a transformation as if the arrays were whole.

        u = the piece of inner(whole g)

    There each device sees its piece of every array, and what sums over an array or over all of
    them (norms, means, factored moments, trust ratios) would sum over the piece: gradtx refuses it.
    This wrapper knows which mesh axes cut which dimensions. It traces `inner` for the whole shapes
    and runs it operation by operation: elementwise ones on the pieces, sums as sums of the pieces
    and a `psum` over exactly the axes that cut what is summed, and those that need whole arrays,
    such as an orthogonalisation, a sort or random numbers, on arrays gathered for them and cut
    again. Outside of a shard_map it changes nothing, and the state is that of `inner`.

    Gradients must be summed over the axes that divide the batch before they get here, as always.

    Args:
        inner: the transformation, gradtx's or Optax's
        specs: how the params are divided: a tree of `PartitionSpec`s like the params, or a prefix
            of it, such as one spec for all, as in `in_specs`. `PartitionSpec()` says that every
            device holds all of an array: tx in `on_shards(tx, P())` sums over the arrays that it is
            given, which is how to ask for the norm of a shard.

    State: that of `inner`; its arrays are divided as `state_specs` says, or not at all.

    Raises: ValueError for a spec that is longer than an array's rank, for a mesh axis that does
    not exist, for a parameter without a spec, and for a state that is divided otherwise; TypeError
    if `inner` calls a function of the parameters, as a line search does.

    Example:
        >>> from jax.sharding import PartitionSpec as P
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("model",))
        >>> tx = gradtx.sharding.on_shards(gradtx.clip_by_global_norm(1.0), P("model"))
        >>> def clipped(grads):
        ...     return tx.update(grads, tx.init(grads))[0]
        >>> run = jax.shard_map(clipped, mesh=mesh, in_specs=P("model"), out_specs=P("model"))
        >>> print(run(jnp.array([3.0, 4.0])))
        [0.6 0.8]

    See also: `state_specs`.
    """
    return inner, specs


def state_specs(tx: TransformationLike, params: Params, specs: Specs) -> Any:
    """How `jax.shard_map` takes and returns the state of a transformation in `on_shards`.

    Every array of the state is divided like the parameter that it belongs to, along the leading
    dimensions whose lengths are the parameter's. Along other dimensions, and where it belongs to
    no parameter, each device holds all of it.

    Args:
        tx: a transformation, gradtx's or Optax's
        params: the whole parameters, or `ShapeDtypeStruct`s of them
        specs: how they are divided, as `on_shards` takes it

    Returns: a tree like the state, of `PartitionSpec`s, for `in_specs` and `out_specs`.

    Raises: TypeError and ValueError for specs that do not fit the params.

    Example:
        >>> from jax.sharding import PartitionSpec as P
        >>> params = {"w": jnp.ones((8, 2))}
        >>> specs = gradtx.sharding.state_specs(gradtx.scale_by_adam(), params, P("model"))
        >>> specs.mu["w"] == P("model", None), specs.count == P()
        (True, True)

    See also: `on_shards`.
    """
    state = jax.eval_shape(tx.init, params)
    layout = layout_of_state(state, params, division_by(specs, "state_specs"))
    return jax.tree_util.tree_map_with_path(lambda path, _: _spec(layout[path][1]), state)


def _spec(division: Division) -> PartitionSpec:
    entries = [axes if len(axes) > 1 else axes[0] if axes else None for axes in division]
    made: PartitionSpec = PartitionSpec(*entries)  # type: ignore[no-untyped-call]
    return made
