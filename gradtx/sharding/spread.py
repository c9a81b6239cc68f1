"""Each device keeps a part of the state, even where every device has all of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import jax
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from gradtx.core.apply import Applied
from gradtx.core.definition import makes
from gradtx.core.dtypes import cast, compute_dtype
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.hyperparameters import Kind
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves
from gradtx.core.meshes.placing import axes_of, laid, mesh_at, spread
from gradtx.core.meshes.told import telling
from gradtx.core.place import Place
from gradtx.core.printing import show
from gradtx.core.run import Stage
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, Inside, TransformationLike
from gradtx.core.value import thaw
from gradtx.sharding.layout import AnyMesh, sizes
from gradtx.sharding.places import Places, Spec, is_names, spec_of

__all__ = ["zero"]


class Zero(GradientTransformation):
    """Runs the inner transformation on parts of the arrays; the state is that of the inner one."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation that is run on the parts."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation that is run on the parts."""
        return (self.inner,)

    @property
    def place(self) -> Place:
        """Where the inner one must stand."""
        return self.inner.place

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        return [Inside("", self.inner, state)]

    @cached_property
    def _spread(self) -> Spread:
        return Spread(self.definition.name, thaw(self.arguments["params"]), self._axes)

    @cached_property
    def _axes(self) -> tuple[str, ...]:
        return axes_of(thaw(self.arguments["axis"]))

    def _init(self, params: Params) -> OptState:
        leaves = Leaves.of(params)
        return self.inner._init(self._spread.divided(leaves, leaves))

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        spread, from_examples = self._spread, Place.FIRST in self.place
        grads, params = Leaves.of(flat.tree(selected)), flat.stored_params_tree(selected)
        like = grads if params is None else Leaves.of(params)
        part = None if params is None else spread.divided(like, like)
        inner = Inner(
            self.inner,
            part,
            flat.visible(stage.extra, link.masks),
            applies=stage.applying and all(selected) and not flat.frozen,
        )
        # Gradients of single examples lie as the examples do.
        given = grads.tree(grads.values) if from_examples else spread.divided(grads, like)
        with spread.telling(like):
            u, state = inner.emit(given, state)
        if isinstance(u, Applied):
            u = Applied(spread.gathered(u.params, like))
        elif Place.LAST in self.place and params is not None:
            u = _to(spread.gathered(_landed(u, part), like), params)
        else:  # in the dtypes in which they leave there is less to gather
            dtypes = flat.with_values(flat.out_dtypes if stage.leaving else flat.dtypes)
            u = spread.gathered(_map(cast, u, dtypes.tree(selected)), like)
        return flat.put(u, selected, self.definition.name, from_examples=from_examples), [state]


def _landed(updates: Updates, params: Params) -> Params:
    """The params after updates that lead to rounded ones: if they are narrow, they are less to
    gather than the updates."""
    return _map(lambda u, p: cast(lax.add(cast(p, u.dtype), u), p.dtype), updates, params)


def _to(after: Params, before: Params) -> Updates:
    """The updates that lead from some params to others, in float32 or wider."""

    def update(x: Any, p: Any) -> jax.Array:
        dtype = compute_dtype(p.dtype)
        return lax.sub(cast(x, dtype), cast(p, dtype))

    return _map(update, after, before)


def _map(function: Callable[[Any, Any], Any], tree: Any, other: Any) -> Any:
    """The function of two trees, leaf by leaf; None stays."""
    leaves, values = Leaves.of(tree), Leaves.of(other).values
    pairs = zip(leaves.values, values, strict=True)
    return leaves.tree(None if x is None else function(x, y) for x, y in pairs)


@dataclass(frozen=True)
class Spread:
    """Divides arrays over axes of a mesh, and puts them back together.

    specs: by path, how parameters that are not on every device are divided, for where their types
    do not say it.
    """

    where: str
    specs: Mapping[str, Spec]
    axes: tuple[str, ...]

    def divided(self, leaves: Leaves, like: Leaves) -> Any:
        """The tree with each array divided over the axes as well, as those of `like` would be."""
        return self._laid(leaves, like, spreading=True)

    def gathered(self, tree: Any, like: Leaves) -> Any:
        """The tree with each array where the parameter lies."""
        return self._laid(Leaves.of(tree), like, spreading=False)

    def _laid(self, leaves: Leaves, like: Leaves, *, spreading: bool) -> Any:
        mesh = self._mesh(like)
        if mesh is None:
            return leaves.tree(leaves.values)

        def lay(i: int, x: Any) -> Any:
            if x is None or isinstance(x, jax.ShapeDtypeStruct) or not np.ndim(x):
                return x
            own, spec = self._specs(mesh, like, i)
            if spec == own:
                return x
            # XLA also lays out what comes before as the first says. When spreading, that may be a
            # branch of an accumulation, which must not be divided for this; when gathering, it is a
            # new state, which must be.
            first, last = (own, spec) if spreading else (spec, own)
            return laid(laid(x, mesh, first), mesh, last)

        return leaves.tree(lay(i, x) for i, x in enumerate(leaves.values))

    def telling(self, like: Leaves) -> AbstractContextManager[None]:
        """Tells what is traced meanwhile how the divided arrays lie."""
        mesh = self._mesh(like)
        if mesh is None:
            return nullcontext()
        present = (i if x is not None else None for i, x in enumerate(like.values))
        specs = [None if i is None else self._specs(mesh, like, i)[1] for i in present]
        return telling(like, specs)

    def _specs(self, mesh: AnyMesh, like: Leaves, i: int) -> tuple[PartitionSpec, PartitionSpec]:
        """How parameter i is divided, and how it is when divided over the axes as well."""
        own = spec_of(self.where, self.specs, mesh, like, i)
        return own, spread(mesh, own, np.shape(like.values[i]), self.axes)

    def _mesh(self, like: Leaves) -> AnyMesh | None:
        """The mesh that the arrays lie on; None for arrays of one device."""
        if any(map(_is_piece, like.values)):
            raise ValueError(
                f"{self.where}: inside a shard_map arrays are parts already: call init and update "
                "outside of it, or let on_shards(inner, specs) take its place, which spreads "
                "nothing further"
            )
        found = (mesh_at(x) for x in like.values if x is not None)
        mesh = next((mesh for mesh in found if mesh is not None), None)
        if mesh is None:
            return None
        for axis in self.axes:
            if axis not in mesh.axis_names:
                raise ValueError(
                    f"{self.where}: the mesh ({sizes(mesh)}) has no axis {axis!r} to spread the "
                    "state over"
                )
        return mesh


def _is_piece(x: Any) -> bool:
    """Whether x is a device's piece inside a `shard_map`, not a whole array as in `on_shards`."""
    return isinstance(x, jax.core.Tracer) and bool(jax.typeof(x).sharding.mesh.manual_axes)


class AxisNames(Kind):
    """One axis of a mesh, or several."""

    def convert(self, where: str, value: Any) -> str | tuple[str, ...]:
        """A name, or a tuple of names."""
        if isinstance(value, str):
            return value
        if not is_names(value) or not value or len({*value}) < len(value):
            raise TypeError(
                f"{where} must be the name of an axis of the mesh, 'data', or a tuple of such "
                f"names, each once, got {show(value)}"
            )
        return tuple(value)


@makes(Zero, name="sharding.zero")
def zero(
    inner: TransformationLike,
    params: Annotated[Params | AnyMesh, Places()],
    axis: Annotated[str | tuple[str, ...], AxisNames()] = "data",
) -> GradientTransformation:
    """Let each device keep, and update, a part of the state: ZeRO's first stage.

        g <- a part of g        u = inner(g, at a part of the params)        u <- all of u

    Data-parallel devices hold the same parameters and, with them, the same state. Here the state is
    divided among them, over an axis of the mesh that the parameters are not divided over: each
    device adds up the gradients of its part, updates it and sends it to the others. The numbers and
    the state are those of `inner`; the state only lies elsewhere. Each array is divided along its
    longest axis that is whole and can be divided, or else along one that another axis of the mesh
    already divides. One that cannot be divided is on every device, and `gradtx.sharding.replicated`
    lists it. `gradtx.step` gathers the new parameters, `tx.update` the updates.

    On arrays of one device it does nothing. Around `accumulate` the mean of the gradients is
    divided as well; inside, updates are gathered only when a step is due.

    Args:
        inner: the transformation whose state is divided, gradtx's or Optax's: a whole optimizer or
            a part of one.
        params: the parameters, which say how they are divided: arrays on a mesh, shapes with
            shardings, or the shardings; or the mesh, if every device has all of them. Only what is
            divided is kept, by path: `{"blocks/kernel": (None, "model")}`.
        axis: the axis of the mesh to spread the state over, or several. What is divided over it
            already stays as it is.

    State: that of `inner`, of which each device has a part.

    Raises: TypeError for params on one device, and for an axis that is no name; ValueError, in init
    and update, for an axis that the mesh does not have, and inside a `shard_map`.

    Example:
        >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
        >>> tx = gradtx.sharding.zero(gradtx.adamw(1e-3), mesh)
        >>> everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        >>> params = jax.device_put(jnp.ones((64, 3)), everywhere)
        >>> state = tx.init(params)
        >>> rows = state[0].mu.sharding.shard_shape((64, 3))[0]
        >>> rows == 64 // jax.device_count()
        True

    See also: `gradtx.sharding.state_shardings`, `gradtx.sharding.init`.

    References: Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054
    """
    return inner
