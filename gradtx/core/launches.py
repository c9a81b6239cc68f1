"""Small leaves, many at a time, on a GPU, where launching a kernel takes longer than running it.

Left to itself, XLA for GPU makes kernels for each leaf. It makes one for several leaves of equal
shape in two cases: if they are stacked only to be reduced, since the stack is then read where it is
reduced and never stored, and if loops that write arrays of one shape read a common array. A common
scalar does not count, so scalars are read from one array.

Other compilers gain nothing from this, and their programs are left as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Axes = tuple[int, ...]

# In elements. An H100 reads and writes the moments of that many in about the time of a launch.
SMALL = 2**18
# The same for leaves to be stacked: computed values are stored first, 8 bytes more per element,
# which count unless leaves are very small.
STACKABLE = 2**14
# Leaves in a stack: XLA is slow to compile what reads many more arrays at once.
STACKED = 32

# Reduces an array over some of its axes, in the same way for each index along the others.
Reduction = Callable[[Axes, jax.Array], jax.Array]


def reduce_each(
    reduction: Reduction, arrays: Sequence[jax.Array], axes: Sequence[Axes] | None = None
) -> list[jax.Array]:
    """reduction(axes, x) for each of the arrays, in some order, in stacks along a new first axis.

    axes: those of each array (default: all).
    """
    every = [tuple(range(x.ndim)) for x in arrays] if axes is None else axes
    equal: dict[Any, list[jax.Array]] = {}
    for x, own in zip(arrays, every, strict=True):
        equal.setdefault((own, jax.typeof(x)), []).append(x)
    return [
        _reduce_equal(reduction, own, *members[i : i + STACKED])
        for (own, _), members in equal.items()
        for i in range(0, len(members), STACKED)
    ]


# Jitted so that stacks of equal shapes share one trace.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _reduce_equal(reduction: Reduction, axes: Axes, *arrays: jax.Array) -> jax.Array:
    def one_by_one(*arrays: jax.Array) -> jax.Array:
        each = [reduction(axes, x)[None] for x in arrays]
        return each[0] if len(each) == 1 else lax.concatenate(each, 0)

    def stacked(*arrays: jax.Array) -> jax.Array:
        return reduction(tuple([axis + 1 for axis in axes]), jnp.stack(arrays))

    if len(arrays) == 1 or arrays[0].size > STACKABLE:
        return one_by_one(*arrays)
    return lax.platform_dependent(*arrays, cuda=stacked, rocm=stacked, default=one_by_one)


def in_one_array(tree: Any) -> Any:
    """The tree with its traced floating scalars read from one array; None if it has no such
    scalars."""
    leaves, treedef = jax.tree.flatten(tree)
    scalars: dict[Any, list[int]] = {}  # by type, which in a shard_map says where they vary
    for i, x in enumerate(leaves):
        if isinstance(x, jax.core.Tracer) and _is_number(x):
            scalars.setdefault(jax.typeof(x), []).append(i)
    if not scalars:
        return None
    for own in scalars.values():
        for i, x in zip(own, _in_one_array(*[leaves[i] for i in own]), strict=True):
            leaves[i] = x
    return jax.tree.unflatten(treedef, leaves)


def _is_number(x: Any) -> bool:
    return x.shape == () and not x.weak_type and jnp.issubdtype(x.dtype, np.floating)


def _in_one_array(*scalars: jax.Array) -> tuple[jax.Array, ...]:
    def from_array(*scalars: jax.Array) -> tuple[jax.Array, ...]:
        # An array of one element would become a scalar. The barrier outlasts XLA's simplification.
        stacked = jnp.stack([*scalars, scalars[0]])
        array = lax.optimization_barrier(stacked)  # type: ignore[no-untyped-call]
        return tuple([array[i] for i in range(len(scalars))])

    return lax.platform_dependent(
        *scalars, cuda=from_array, rocm=from_array, default=lambda *scalars: scalars
    )
