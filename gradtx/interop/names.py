"""Names that only code written for Optax uses.

They are here for `import gradtx as optax`, and nothing else in gradtx uses them. Most are second
names for something that has one already.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.combinators.inject import inject_hyperparams
from gradtx.combinators.partition import PartitionState, partition
from gradtx.core.dtypes import cast, compute_dtype
from gradtx.core.mask import MaskLike
from gradtx.core.norms import norm_over, root_mean_square
from gradtx.core.schedule import Schedule
from gradtx.core.state import EmptyState, OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.tree.access import map_params

__all__ = [
    "AdaptiveGradClipState",
    "AddDecayedWeightsState",
    "ClipByGlobalNormState",
    "ClipState",
    "GradientTransformationExtraArgs",
    "InjectHyperparamsState",
    "MaskOrFn",
    "MultiTransformState",
    "NonNegativeParamsState",
    "NormalizeState",
    "ScalarOrSchedule",
    "ScaleByTrustRatioState",
    "ScaleState",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "init_empty_state",
    "inject_stateful_hyperparams",
    "multi_transform",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "scale_gradient",
    "tree_map_params",
    "with_extra_args_support",
]

# -- transformations, and mapping over their states ----------------------------------------------

# In Optax a transformation whose update takes extra arguments. Here all of them do.
GradientTransformationExtraArgs = GradientTransformation
tree_map_params = map_params


def multi_transform(
    transforms: Mapping[Any, Any],
    param_labels: Any | Callable[[Params], Any] | None = None,
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """The older name of `partition`."""
    return partition(
        transforms, param_labels, mask_compatible_extra_args=mask_compatible_extra_args
    )


def init_empty_state(params: Params) -> EmptyState:
    """The state of a transformation that keeps none."""
    return EmptyState()


def with_extra_args_support(tx: Any) -> Any:
    """A transformation whose update takes extra arguments and passes on those that are known.

    gradtx's own do so by themselves; this is for a pair of functions, or for Optax's.
    """
    return as_transformation(tx, "with_extra_args_support: tx")


def inject_stateful_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformation]:
    """An older name for `inject_hyperparams`."""
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)


# -- states --------------------------------------------------------------------------------------

# States of transformations that keep none.
AdaptiveGradClipState = EmptyState
AddDecayedWeightsState = EmptyState
ClipByGlobalNormState = EmptyState
ClipState = EmptyState
NonNegativeParamsState = EmptyState
NormalizeState = EmptyState
ScaleByTrustRatioState = EmptyState
ScaleState = EmptyState

MultiTransformState = PartitionState


class InjectHyperparamsState(NamedTuple):
    """The older form of `InjectStatefulHyperparamsState`, without the states of schedules."""

    count: jax.Array  # type: ignore[assignment]  # not the method of tuples
    hyperparams: dict[str, Any]
    inner_state: OptState


# -- types for annotations -----------------------------------------------------------------------

ScalarOrSchedule = float | jax.Array | Schedule | Callable[[Any], Any]
MaskOrFn = MaskLike | None


class TransformInitFn(Protocol):
    """The first half of a transformation."""

    def __call__(self, params: Params) -> OptState:
        """The state before the first update."""


class TransformUpdateFn(Protocol):
    """The second half of a transformation that takes no extra arguments."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]:
        """The transformed updates and the next state."""


class TransformUpdateExtraArgsFn(Protocol):
    """The second half of a transformation."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        """The transformed updates and the next state."""


# -- numbers that stay finite, and a gradient scaled in backpropagation --------------------------


def safe_norm(
    x: ArrayLike,
    min_norm: ArrayLike,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """max(|x|, min_norm), with derivative 0 where min_norm is the larger, even at x = 0.

    ord, axis and keepdims are as in `jnp.linalg.norm`. The result is in float32 or wider.
    """
    x = _wide(x)
    norm_in = functools.partial(_norm, ord=ord, axis=axis)
    small = norm_in(x) <= min_norm
    # The derivative of the branch that is not taken must be finite too.
    norm = norm_in(jnp.where(small, 1, x))
    norm = jnp.where(small, cast(min_norm, norm.dtype), norm)
    return norm if keepdims else jnp.squeeze(norm, axis=axis)


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> jax.Array:
    """max(sqrt(mean(|x|^2)), min_rms), with derivative 0 where min_rms is the larger.

    The result is in float32 or wider.
    """
    x = _wide(x)
    small = root_mean_square(x) <= min_rms
    rms = root_mean_square(jnp.where(small, 1, x))
    return jnp.where(small, cast(min_rms, rms.dtype), rms)


def _norm(
    x: jax.Array, ord: int | float | str | None, axis: int | tuple[int, ...] | None
) -> jax.Array:
    """`jnp.linalg.norm` with the axes kept; the Euclidean norm does not overflow or underflow."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis)
    euclidean = ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2)
    if euclidean and x.ndim:
        return norm_over(x, tuple(axes)).value
    return jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=True)


def _wide(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x)
    return cast(x, compute_dtype(x.dtype))


def safe_increment(count: ArrayLike) -> jax.Array:
    """count + 1, staying at the largest number of its dtype instead of overflowing.

    Raises: ValueError for a dtype that is neither integer nor floating.
    """
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.integer):
        top: Any = np.iinfo(count.dtype).max
    elif jnp.issubdtype(count.dtype, jnp.floating):
        top = jnp.finfo(count.dtype).max  # type: ignore[no-untyped-call]
    else:
        raise ValueError(
            f"safe_increment: count must be of an integer or floating dtype, got {count.dtype}"
        )
    # As an array of that dtype: the largest uint32, as a Python number, would not fit an int32.
    top = np.asarray(top, count.dtype)
    return jnp.where(count < top, count + jnp.ones_like(count), jnp.full_like(count, top))


safe_int32_increment = safe_increment


def scale_gradient(inputs: Updates, scale: ArrayLike) -> Updates:
    """The inputs, a tree, unchanged; the gradient that flows back to them is scaled.

    scale: a number or a traced array. A literal 0 stops the gradient.
    """
    known = not isinstance(scale, jax.core.Tracer)
    if known and scale == 1:
        return inputs
    if known and scale == 0:
        return jax.lax.stop_gradient(inputs)
    return jax.tree.map(functools.partial(_scaled_backwards, scale), inputs)


@jax.custom_vjp
def _scaled_backwards(scale: ArrayLike, x: jax.Array) -> jax.Array:
    return x


def _forwards(scale: ArrayLike, x: jax.Array) -> tuple[jax.Array, ArrayLike]:
    return x, scale


def _backwards(scale: ArrayLike, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    scaled = cast(cast(g, compute_dtype(g.dtype)) * scale, g.dtype)
    return jax.tree.map(jnp.zeros_like, scale), scaled


_scaled_backwards.defvjp(_forwards, _backwards)
