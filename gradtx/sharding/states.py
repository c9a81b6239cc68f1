"""Where the state of any optimizer lies, and making it there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core.state import OptState, Params
from gradtx.core.transformation import TransformationLike, as_transformation
from gradtx.sharding.layout import AnyMesh, Layout, Shardings, layout_of, plain
from gradtx.sharding.spread import zero as spread_over

__all__ = ["init", "state_shardings"]


def state_shardings(
    tx: TransformationLike,
    params: Params,
    shardings: Shardings | None = None,
    *,
    zero: str | tuple[str, ...] | None = None,
) -> Shardings:
    """Say where the state of an optimizer lies on the mesh of its parameters.

    It is found by tracing `tx.init` with types that say how each array is divided, so it holds for
    any optimizer, and no array is made. What is shaped like a parameter is divided as that is, what
    has fewer axes as far as it has them, and counts are on every device.

    Args:
        tx: a transformation, gradtx's or Optax's.
        params: the parameters on their mesh: arrays, or `jax.ShapeDtypeStruct`s with shardings,
            also on a `jax.sharding.AbstractMesh`, for a machine that is not there.
        shardings: how the parameters will lie, a tree of NamedShardings like params; None means as
            they do. With them params may be shapes, or lie anywhere.
        zero: the axis of the mesh to spread the state over, or several: where the state of
            `zero(tx, params, zero)` lies. None spreads nothing.

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

    See also: `init`, `zero`, `bytes_per_device`, `replicated`.
    """
    where = "state_shardings"
    layout = layout_of(where, params, shardings)
    return _shardings(layout, _made(where, tx, layout, zero))


def init(
    tx: TransformationLike, params: Params, *, zero: str | tuple[str, ...] | None = None
) -> OptState:
    """Make the state of an optimizer where it belongs: nothing is made on one device first.

    It is `tx.init(params)`, compiled, with the shardings that `state_shardings` tells.

    Args:
        tx: a transformation, gradtx's or Optax's.
        params: the parameters on their mesh, a tree of arrays.
        zero: the axis of the mesh to spread the state over, or several: the state is that of
            `zero(tx, params, zero)`. None spreads nothing.

    Returns: the state.

    Raises: what `state_shardings` raises.

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
    made = _made("init", tx, layout, zero)
    shardings = _shardings(layout, made)
    if _sees_shards(layout, made):
        return jax.device_put(made(params), shardings)
    return jax.jit(made, out_shardings=shardings)(params)


def _sees_shards(layout: Layout, init: Callable[[Params], OptState]) -> bool:
    """Whether the shapes of a state depend on how the params are divided, as blocks of `store` do,
    which is not seen while a program is traced."""
    seen, unseen = _typed(layout, init), jax.eval_shape(init, layout.shapes(layout.mesh))
    return seen is not None and jax.tree.map(jnp.shape, seen) != jax.tree.map(jnp.shape, unseen)


def _made(
    where: str, tx: TransformationLike, layout: Layout, axis: str | tuple[str, ...] | None
) -> Callable[[Params], OptState]:
    """The init whose state it is."""
    transformation = as_transformation(tx, f"{where}: tx")
    if axis is None:
        return transformation.init
    return spread_over(transformation, layout.shapes(layout.mesh), axis).init


def _shardings(layout: Layout, init: Callable[[Params], OptState]) -> Shardings:
    """The shardings of init(params), for params of a layout."""
    typed = _typed(layout, init)
    if typed is None:
        compiled = jax.jit(init).lower(layout.shapes(layout.mesh)).compile()
        return jax.tree.map(lambda found: _on_mesh(layout.mesh, found), compiled.output_shardings)
    return jax.tree.map(lambda x: _on_mesh(layout.mesh, x.sharding), typed)


def _typed(layout: Layout, init: Callable[[Params], OptState]) -> OptState | None:
    """The shapes of init(params), with types that say how they are divided. None where some
    operation has no rule for types, if there are devices, so that XLA can be asked instead."""
    typed = explicit(layout.mesh)
    try:
        with _using(typed):
            state: OptState = jax.eval_shape(init, layout.shapes(typed))
    except Exception as error:
        if type(error).__name__ != "ShardingTypeError" or isinstance(layout.mesh, AbstractMesh):
            raise
        return None
    return state


def _on_mesh(mesh: AnyMesh, found: Any) -> NamedSharding:
    make: Any = PartitionSpec
    return NamedSharding(mesh, make(*plain(found.spec if isinstance(found, NamedSharding) else ())))


def explicit(mesh: Any) -> AbstractMesh:
    """The mesh as one over which the types of arrays say how they are divided."""
    names, sizes = tuple(mesh.shape.keys()), tuple(mesh.shape.values())
    return AbstractMesh(sizes, names, axis_types=(AxisType.Explicit,) * len(names))


def _using(mesh: AbstractMesh) -> contextlib.AbstractContextManager[Any]:
    use: Any = getattr(jax.sharding, "use_abstract_mesh", None)
    return contextlib.nullcontext() if use is None else use(mesh)
