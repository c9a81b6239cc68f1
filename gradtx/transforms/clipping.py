"""Clipping: bounds on the size of updates."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.decorators import per_leaf
from gradtx.core.dtypes import cast, compute_dtype, is_inexact, real_dtype
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.norms import Factor, Norm, norm_of, norm_over, rms_of
from gradtx.core.rule import Rule
from gradtx.core.state import Updates
from gradtx.tree.arithmetic import length

__all__ = [
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_norm",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "unitwise_clip",
    "unitwise_norm",
]

Axes = int | tuple[int, ...] | None


@per_leaf
def clip(max_delta: NonNegative) -> Callable[..., Array]:
    """Limit every element of the updates to between -max_delta and max_delta.

        u = min(max(g, -max_delta), max_delta)

    This changes the direction of the updates, since it flattens only the elements that are too
    large; `clip_by_global_norm` keeps it.

    Args:
        max_delta: the largest magnitude of an element. Smaller clips more.

    State: none.

    Example:
        >>> tx = gradtx.clip(1.0)
        >>> grads = jnp.array([-3.0, 0.5, 2.0])
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> print(updates)
        [-1.   0.5  1. ]

    See also: `clip_by_global_norm`, `clip_by_block_rms`.
    """
    return lambda grad: jnp.clip(grad, -max_delta, max_delta)


@per_leaf
def clip_by_global_norm(max_norm: NonNegative) -> Rule:
    """Scale the updates down so that the norm of the whole tree is at most max_norm.

        u = g * min(1, max_norm / ||g||)

    The norm is a single scalar, accumulated in float32 or wider; zero updates stay zero and have a
    finite derivative. A NaN anywhere makes every update NaN. As the first link of a `chain` it
    keeps a single large gradient from ruining the moments of an optimizer.

    Args:
        max_norm: the largest norm that is left as it is. Choose it near the norms of ordinary
            gradients, which `snapshot` or `monitor` show; 1.0 is usual for language models.

    State: none.

    Example:
        >>> tx = gradtx.clip_by_global_norm(2.5)
        >>> grads = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}  # of norm 5
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> print(updates["w"], updates["b"])
        [1.5 0. ] [2.]

    See also: `clip_by_norm`, for each array; `clip`, `adaptive_grad_clip`, `gradtx.global_norm`.

    References: Pascanu et al., 2013, https://arxiv.org/abs/1211.5063
    """

    def precompute(updates: Updates) -> Factor:
        return length(updates).shrinking_to(max_norm)

    return Rule(None, lambda grad, precomputed: precomputed.times(grad), precompute)


@per_leaf
def clip_by_norm(max_norm: NonNegative) -> Callable[..., Array]:
    """Scale each array down so that its norm is at most max_norm.

        u = g * min(1, max_norm / ||g||)            with the norm of the array alone

    A layer with a large gradient is held back on its own, whereas `clip_by_global_norm` shortens
    every layer's step. Each norm is accumulated in float32 or wider; zero updates stay zero and
    have a finite derivative. A NaN spoils its own array only.

    Args:
        max_norm: the largest norm of an array. Smaller clips more. Larger arrays have larger norms:
            `clip_by_block_rms` has a threshold that fits arrays of any size.

    State: none.

    Example:
        >>> tx = gradtx.clip_by_norm(2.5)
        >>> grads = {"w": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])}  # of norms 5 and 1
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> print(updates["w"], updates["b"])
        [1.5 2. ] [1.]

    See also: `clip_by_global_norm`, `clip_by_block_rms`, `adaptive_grad_clip`.
    """
    return lambda grad: norm_of([grad]).shrinking_to(max_norm).times(grad)


@per_leaf
def clip_by_block_rms(threshold: NonNegative) -> Callable[..., Array]:
    """Scale each array down so that its root mean square is at most threshold.

        u = g * min(1, threshold / rms(g))

    Each array is scaled on its own, whatever its size: a threshold of 1 fits updates that were
    divided by their root mean square, as in Adafactor.

    Args:
        threshold: the largest root mean square of an array. Smaller clips more.

    State: none.

    Example:
        >>> tx = gradtx.clip_by_block_rms(1.5)
        >>> grads = {"w": jnp.array([3.0, -3.0]), "b": jnp.array([0.5])}
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> print(updates["w"].round(2), updates["b"])
        [ 1.5 -1.5] [0.5]

    See also: `clip_by_norm`, `clip_by_global_norm`, `adafactor`.

    References: Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235
    """
    return lambda grad: rms_of(grad).shrinking_to(threshold).times(grad)


@per_leaf
def adaptive_grad_clip(
    clipping: NonNegative, eps: NonNegative = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Callable[..., Array]:
    """Clip the norm of each unit's update to a fraction of the norm of the unit's parameters.

        u = g * min(1, clipping * max(||p_i||, eps) / ||g_i||)      for the unit i of each element

    A unit is the set of weights behind one output of a layer, such as a column of a matrix: how far
    a step goes matters in proportion to the unit's size. update needs the parameters.

    Args:
        clipping: the largest update, as a fraction of the parameters. Smaller clips more; 0.01 to
            0.1 are usual, smaller ones for larger batches.
        eps: a lower bound on the norm of a unit's parameters, so that units that are zero can move.
        axis: the axes that make up a unit, see `unitwise_norm`. None takes the usual ones for a
            layer's arrays.

    State: none.

    Raises: ValueError for arrays of more than five axes unless axis is given.

    Example:
        >>> tx = gradtx.adaptive_grad_clip(0.1)
        >>> params = jnp.array([[3.0, 0.0], [4.0, 2.0]])  # columns of norm 5 and 2
        >>> grads = jnp.array([[3.0, 0.06], [4.0, 0.08]])  # columns of norm 5 and 0.1
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> np.asarray(updates).round(2)
        array([[0.3 , 0.06],
               [0.4 , 0.08]], dtype=float32)

    See also: `unitwise_norm`, `clip_by_global_norm`.

    References: Brock et al., 2021, https://arxiv.org/abs/2102.06171
    """

    def update(grad: Array, param: Array) -> Array:
        limit = clipping * jnp.maximum(_unit_norms(param, axis).value, eps)
        return _along(grad, _unit_norms(grad, axis).shrinking_to(limit)).times(grad)

    return update


def unitwise_norm(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Array:
    """Compute the norm of each unit of x, broadcast to the shape of x, in float32 or wider.

    Args:
        x: an array, such as the kernel or the bias of a layer.
        axis: the axes that make up a unit. By default a vector (even with extra axes of length 1)
            is a single unit; a matrix or an array of three axes has one unit per index of the axes
            after the first; a kernel of four or five axes has one per index of the last axis.

    Raises: ValueError for more than five axes unless axis is given.

    Example:
        >>> x = jnp.array([[3.0, 0.0], [4.0, 1.0]])
        >>> print(gradtx.unitwise_norm(x))  # of the columns
        [[5. 1.]
         [5. 1.]]
        >>> print(gradtx.unitwise_norm(x, axis=1)[0])  # of the first row
        [3. 3.]

    See also: `unitwise_clip`, `adaptive_grad_clip`.
    """
    x = jnp.asarray(x)
    x = cast(x, compute_dtype(x.dtype))
    return jnp.broadcast_to(_unit_norms(x, axis).value, x.shape)


def unitwise_clip(
    g_norm: ArrayLike, max_norm: ArrayLike, grad: ArrayLike, div_eps: float = 1e-6
) -> Array:
    """Scale a gradient down where its norm exceeds the largest norm allowed.

        u = grad                                        where g_norm < max_norm
        u = grad * max_norm / max(g_norm, div_eps)      elsewhere

    The result has the dtype of grad.

    Args:
        g_norm: the norm of each element's unit, such as `unitwise_norm(grad)`.
        max_norm: the largest norm of each element's unit.
        grad: the gradient. All three have the same shape.
        div_eps: the least denominator, which avoids a division by 0.

    Raises: ValueError if the shapes differ.

    Example:
        >>> grad = jnp.array([3.0, 4.0])
        >>> limit = jnp.array([2.5, 2.5])
        >>> print(gradtx.unitwise_clip(gradtx.unitwise_norm(grad), limit, grad))
        [1.5 2. ]

    See also: `unitwise_norm`, `adaptive_grad_clip`.
    """
    g_norm, max_norm, grad = map(jnp.asarray, (g_norm, max_norm, grad))
    if not g_norm.shape == max_norm.shape == grad.shape:
        raise ValueError(
            "unitwise_clip: g_norm, max_norm and grad must have the same shape, got "
            f"{g_norm.shape}, {max_norm.shape} and {grad.shape}"
        )
    wide = cast(grad, compute_dtype(grad.dtype))
    clipped = (
        Norm(cast(g_norm, compute_dtype(g_norm.dtype)))
        .at_least(div_eps)
        .below(max_norm)
        .times(wide)
    )
    return cast(jnp.where(g_norm <= max_norm, wide, clipped), grad.dtype)


def _unit_norms(x: Array, axis: Axes) -> Norm:
    """The norm of each unit, whose axes are kept with length 1."""
    return norm_over(x, axes_of_units(x.shape) if axis is None else axis)


def _along(x: Array, factor: Factor) -> Factor:
    """The factor of each unit, broadcast to the shape of x."""
    return Factor(*(jnp.broadcast_to(part, x.shape) for part in factor))


def axes_of_units(shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """The axes over which a unit of a layer's array extends."""
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(len(shape)))
    if len(shape) in (2, 3):
        return 0
    if len(shape) in (4, 5):
        return tuple(range(len(shape) - 1))
    raise ValueError(
        f"an array of {len(shape)} axes has no default units: pass axis=, the axes over which "
        "a unit extends"
    )


def per_example_global_norm_clip(
    grads: Updates, l2_norm_clip: float | Array
) -> tuple[Updates, Array]:
    """Clip each example's gradient to a norm of at most l2_norm_clip, and sum over the examples.

        sum_i g_i * min(1, l2_norm_clip / ||g_i||)      with the norm over all arrays of example i

    No example moves the sum by more than l2_norm_clip, which is what differential privacy builds
    on. Factors below the smallest normal number, 1e-38 in float32, may be flushed to 0.

    Returns the sums, in the dtypes of grads (integers become float32), and the number of examples
    that were clipped.

    Args:
        grads: the gradients of the examples, a tree of arrays of shape (examples, ...), such as the
            result of `jax.vmap(jax.grad(loss), (None, 0))`.
        l2_norm_clip: the largest norm of an example's gradient. Smaller clips more.

    Raises: ValueError if the arrays differ in their number of examples.

    Example:
        >>> grads = jnp.array([[6.0, 8.0], [0.0, 1.0]])  # two examples, of norm 10 and 1
        >>> sums, clipped = gradtx.per_example_global_norm_clip(grads, 5.0)
        >>> print(sums.round(2), clipped)
        [3. 5.] 1

    See also: `per_example_layer_norm_clip`, `differentially_private_aggregate`.

    References: Abadi et al., 2016, https://arxiv.org/abs/1607.00133
    """
    _check_examples("per_example_global_norm_clip", grads)
    arrays = [jnp.asarray(g) for g in jax.tree.leaves(grads)]
    norms = norm_of(arrays, [tuple(range(1, g.ndim)) for g in arrays])
    factor = norms.shrinking_to(l2_norm_clip)
    sums = jax.tree.map(lambda g: _weighted_sum(factor.first * factor.second, g), grads)
    return sums, jnp.sum(norms.value > l2_norm_clip)


def _weighted_sum(weights: Array, x: ArrayLike) -> Array:
    """The weighted sum over the first axis, accumulated in float32 or wider, in the dtype of x."""
    x = jnp.asarray(x)
    dtype = compute_dtype(x.dtype)
    weights = cast(cast(weights, real_dtype(dtype)), dtype)
    total = jnp.tensordot(weights, cast(x, dtype), axes=1)
    return cast(total, x.dtype) if is_inexact(x) else total


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: float | Array, uniform: bool = True
) -> tuple[Updates, Updates]:
    """Clip each array of each example's gradient on its own, and sum over the examples.

        sum_i g_i * min(1, C_k / ||g_i||)               with the norm of array k of example i
        C_k = global_l2_norm_clip * sqrt(1 / K)         of K arrays; with uniform=False
        C_k = global_l2_norm_clip * sqrt(D_k / D)       array k has D_k of the D parameters

    so that the norm of an example over all arrays is at most global_l2_norm_clip.

    Returns the sums and the number of clipped examples per array: two trees like grads.

    Args:
        grads: the gradients of the examples, a tree of arrays of shape (examples, ...), such as the
            result of `jax.vmap(jax.grad(loss), (None, 0))`.
        global_l2_norm_clip: the largest norm of an example's gradient over all arrays. Smaller
            clips more.
        uniform: allow every array the same norm, rather than larger arrays a larger one.

    Raises: ValueError if the arrays differ in their number of examples.

    Example:
        >>> grads = {"w": jnp.array([[6.0, 8.0], [0.0, 1.0]]), "b": jnp.array([[3.0], [2.0]])}
        >>> sums, clipped = gradtx.per_example_layer_norm_clip(grads, 50**0.5)  # 5 for each array
        >>> print(sums["w"].round(2), sums["b"].round(2))
        [3. 5.] [5.]
        >>> print(clipped["w"], clipped["b"])
        1 0

    See also: `per_example_global_norm_clip`, `differentially_private_aggregate`.

    References: McMahan et al., 2017, https://arxiv.org/abs/1710.06963
    """
    _check_examples("per_example_layer_norm_clip", grads)
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [1 if uniform else math.prod(g.shape[1:]) for g in leaves]
    limits = [global_l2_norm_clip * math.sqrt(size / sum(sizes)) for size in sizes]
    clipped = [
        per_example_global_norm_clip(g, limit) for g, limit in zip(leaves, limits, strict=True)
    ]
    sums, counts = zip(*clipped, strict=True)
    return jax.tree.unflatten(treedef, sums), jax.tree.unflatten(treedef, counts)


def _check_examples(where: str, grads: Updates) -> None:
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(x)
        for path, x in jax.tree_util.tree_leaves_with_path(grads)
    }
    if len({shape[:1] for shape in shapes.values()}) != 1 or () in shapes.values():
        shown = ", ".join(f"{path or 'the root'}: {shape}" for path, shape in shapes.items())
        raise ValueError(
            f"{where}: the first axis of every array must be the example, of one length, got "
            f"{shown or 'no arrays'}"
        )
