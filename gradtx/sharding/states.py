"""Where the state of any optimizer lies, and making it there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core.leaves import at, describe, is_shape
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import TransformationLike, as_transformation
from gradtx.sharding.layout import (
    GIVE_SHARDINGS,
    AnyMesh,
    Layout,
    Shardings,
    layout_of,
    plain,
)
from gradtx.sharding.spread import zero as spread_over

__all__ = ["init", "state_shapes", "state_shardings"]


def state_shardings(
    tx: TransformationLike,
    params: Params,
    shardings: Shardings | None = None,
    *,
    zero: str | tuple[str, ...] | None = None,
) -> Shardings:
    """Say where the state of an optimizer lies on the mesh of its parameters.

    It is found by tracing `tx.init` with types that say how each array is divided, so it holds for
    any optimizer, and no array is made. An array shaped like a parameter is divided like it, one
    with fewer axes along those that it has, and counts are on every device.

    Args:
        tx: a transformation, gradtx's or Optax's.
        params: the parameters on their mesh: arrays, or `jax.ShapeDtypeStruct`s with shardings,
            also on a `jax.sharding.AbstractMesh`, for a machine that is not there.
        shardings: how the parameters will lie, a tree of NamedShardings like params; None means as
            they do now. If shardings are given, params may be shapes, or lie anywhere.
        zero: the axis of the mesh to spread the state over, or several: the result is where the
            state of `zero(tx, params, zero)` lies. None spreads nothing.

    Returns: a tree of NamedShardings, structured like `tx.init(params)`: for `jax.jit`'s
    `in_shardings` and `out_shardings`, or to restore a checkpoint into.

    Raises: TypeError, with the leaf's path, for a parameter that lies on one device; ValueError for
    shardings that do not fit.

    Example:
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        >>> params = {"w": jax.device_put(jnp.ones((4, 2)), where)}
        >>> found = gradtx.sharding.state_shardings(gradtx.adam(1e-3), params)
        >>> found[0].mu["w"].spec[0], found[0].count.is_fully_replicated
        ('data', True)

    See also: `state_shapes`, `init`, `zero`, `bytes_per_device`, `replicated`.
    """
    where = "state_shardings"
    layout = layout_of(where, params, shardings, instead=GIVE_SHARDINGS)
    return _shardings(_shapes(layout, _made(where, tx, layout, zero)))


def state_shapes(
    tx: TransformationLike,
    params: Params,
    shardings: Shardings | None = None,
    *,
    zero: str | tuple[str, ...] | None = None,
) -> OptState:
    """Say what the state of an optimizer is and where it lies, without making it.

    It is what `jax.eval_shape(tx.init, params)` says, with shardings: what a checkpoint is restored
    into. The two have the same shapes, unless `store` cuts an array into smaller blocks because a
    mesh divides it, which `jax.eval_shape` does not see.

    Args:
        tx: a transformation, gradtx's or Optax's.
        params: the parameters on their mesh, or their shapes, as for `state_shardings`.
        shardings: how the parameters will lie, a tree of NamedShardings like params; None means as
            they do now.
        zero: the axis of the mesh to spread the state over, or several; None spreads nothing.

    Returns: a tree of `jax.ShapeDtypeStruct`s with shardings, structured like `tx.init(params)`.

    Raises: what `state_shardings` raises.

    Example:
        >>> mesh = jax.sharding.AbstractMesh((8,), ("data",))
        >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        >>> params = {"w": jax.ShapeDtypeStruct((64, 2), jnp.float32, sharding=rows)}
        >>> mu = gradtx.sharding.state_shapes(gradtx.adam(1e-3), params)[0].mu["w"]
        >>> print(mu.shape, mu.sharding.spec)
        (64, 2) P('data',)

    See also: `state_shardings`, `bytes_per_device`.
    """
    where = "state_shapes"
    layout = layout_of(where, params, shardings, instead=GIVE_SHARDINGS)
    return _shapes(layout, _made(where, tx, layout, zero))


def init(
    tx: TransformationLike, params: Params, *, zero: str | tuple[str, ...] | None = None
) -> OptState:
    """Make the state of an optimizer where it belongs: nothing is made on one device first.

    It is `tx.init(params)`, compiled, with the shardings that `state_shardings` gives.

    Args:
        tx: a transformation, gradtx's or Optax's.
        params: the parameters on their mesh, a tree of arrays.
        zero: the axis of the mesh to spread the state over, or several: the state is that of
            `zero(tx, params, zero)`. None spreads nothing.

    Returns: the state.

    Raises: what `state_shardings` raises; TypeError for shapes.

    Example:
        >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
        >>> everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        >>> params = {"w": jax.device_put(jnp.ones((64, 2)), everywhere)}
        >>> state = gradtx.sharding.init(gradtx.adam(1e-3), params)
        >>> state[0].mu["w"].sharding.is_equivalent_to(everywhere, 2)
        True

    See also: `state_shardings`, `zero`.
    """
    layout = layout_of("init", params)
    for x, path in zip(layout.leaves.values, layout.leaves.paths, strict=True):
        if is_shape(x):
            raise TypeError(
                f"init: {at(path)}: {describe(x)} is a shape, and a state is made of arrays: "
                "state_shapes says what it would be"
            )
    made = _made("init", tx, layout, zero)
    shapes = _shapes(layout, made)
    if jax.tree.map(jnp.shape, shapes) != jax.tree.map(jnp.shape, jax.eval_shape(made, params)):
        # Blocks of `store`: when compiled, init does not see how the params are divided.
        return jax.device_put(made(params), _shardings(shapes))
    return jax.jit(made, out_shardings=_shardings(shapes))(params)


def _made(
    where: str, tx: TransformationLike, layout: Layout, axis: str | tuple[str, ...] | None
) -> Callable[[Params], OptState]:
    """The init of tx, spread over an axis if one is given."""
    transformation = as_transformation(tx, f"{where}: tx")
    if axis is None:
        return transformation.init
    return spread_over(transformation, layout.shapes(layout.mesh), axis).init


def _shardings(state: OptState) -> Shardings:
    return jax.tree.map(lambda x: x.sharding, state)


def _shapes(layout: Layout, init: Callable[[Params], OptState]) -> OptState:
    """The shapes and shardings of init(params), for params of a layout."""
    typed = explicit(layout.mesh)
    try:
        with _using(typed):
            state: OptState = jax.eval_shape(init, layout.shapes(typed))
        found = [x.sharding for x in jax.tree.leaves(state)]
    except Exception as error:
        # Some operations have no rule for types. Where there are devices, XLA's choice is taken.
        if type(error).__name__ != "ShardingTypeError" or isinstance(layout.mesh, AbstractMesh):
            raise
        shapes = layout.shapes(layout.mesh)
        state = jax.eval_shape(init, shapes)
        found = jax.tree.leaves(jax.jit(init).lower(shapes).compile().output_shardings)
    leaves, structure = jax.tree.flatten(state)
    made = [_on_mesh(layout.mesh, x, own) for x, own in zip(leaves, found, strict=True)]
    return jax.tree.unflatten(structure, made)


def _on_mesh(mesh: AnyMesh, x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    """The shape of x, divided on the mesh as that sharding says."""
    make: Any = PartitionSpec
    spec = make(*plain(sharding.spec if isinstance(sharding, NamedSharding) else ()))
    shaped: Any = jax.ShapeDtypeStruct
    made: jax.ShapeDtypeStruct = shaped(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
    return made


def explicit(mesh: Any) -> AbstractMesh:
    """The mesh with explicit axes, over which the types of arrays say how they are divided."""
    names, sizes = tuple(mesh.shape.keys()), tuple(mesh.shape.values())
    return AbstractMesh(sizes, names, axis_types=(AxisType.Explicit,) * len(names))


def _using(mesh: AbstractMesh) -> contextlib.AbstractContextManager[Any]:
    use: Any = getattr(jax.sharding, "use_abstract_mesh", None)
    return contextlib.nullcontext() if use is None else use(mesh)
