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
from gradtx.core.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.tree.access import map_params
from gradtx.tree.types import Tree

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
    transforms: Mapping[Any, TransformationLike],
    param_labels: Tree | Callable[[Params], Tree] | None = None,
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """Apply to each leaf its group's transformation: the older name of `partition`.

    Args:
        transforms: the transformation of each group, by label, or, without param_labels, by a
            regular expression that is searched for in the leaf's path.
        param_labels: a tree of labels shaped like the params, a prefix of such a tree, or a
            function from the params to one. None means that the keys of transforms are patterns.
        mask_compatible_extra_args: show a group only its own leaves of extra arguments of update
            that are trees like the updates.

    Raises: what `partition` raises.

    Example:
        >>> params = {"w": jnp.ones(2), "b": jnp.ones(2)}
        >>> groups = {"fast": gradtx.sgd(1.0), "slow": gradtx.sgd(0.5)}
        >>> tx = gradtx.multi_transform(groups, {"w": "fast", "b": "slow"})
        >>> updates, _ = tx.update(params, tx.init(params))
        >>> updates["w"], updates["b"]
        (Array([-1., -1.], dtype=float32), Array([-0.5, -0.5], dtype=float32))

    See also: `partition`.
    """
    return partition(
        transforms, param_labels, mask_compatible_extra_args=mask_compatible_extra_args
    )


def init_empty_state(params: Params) -> EmptyState:
    """Make the state of a transformation that keeps none.

    It is the init of a pair of functions, for code that builds transformations in Optax's way.

    Args:
        params: the parameters; they make no difference.

    Example:
        >>> double = gradtx.GradientTransformation(
        ...     gradtx.init_empty_state, lambda g, state, params=None: (2 * g, state)
        ... )
        >>> double.init(jnp.ones(1))
        EmptyState()

    See also: `stateless`, `per_leaf`.
    """
    return EmptyState()


def with_extra_args_support(tx: TransformationLike) -> GradientTransformation:
    """Make a transformation whose update takes extra arguments and passes on those that are known.

    gradtx's own do so by themselves; this is for a pair of functions, or for Optax's.

    Args:
        tx: a transformation, gradtx's or Optax's, or anything with an init and an update.

    Raises: TypeError for anything else.

    Example:
        >>> tx = gradtx.with_extra_args_support(gradtx.sgd(0.5))
        >>> updates, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)), value=1.0)
        >>> updates
        Array([-0.5], dtype=float32)

    See also: `from_optax`.
    """
    return as_transformation(tx, "with_extra_args_support: tx")


def inject_stateful_hyperparams(
    inner_factory: Callable[..., TransformationLike],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformation]:
    """Keep the numeric arguments of a factory in the state: an older name of `inject_hyperparams`.

    Args:
        inner_factory: a function that returns a transformation, such as `adamw`, or one of your
            own.
        static_args: the name, or the names, of arguments to pass on as they are.
        hyperparam_dtype: the dtype of the numbers in the state. None means float32 (float64 under
            x64), and for an array its own.

    Returns: a function that takes the arguments of inner_factory and returns the transformation.

    Raises: ValueError for a name in static_args that the factory does not have.

    Example:
        >>> tx = gradtx.inject_stateful_hyperparams(gradtx.sgd)(learning_rate=0.5)
        >>> tx.init(jnp.ones(1)).hyperparams["learning_rate"]
        Array(0.5, dtype=float32)

    See also: `inject_hyperparams`.
    """
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
    """Compute a norm that is at least min_norm, with a gradient that is finite even at 0.

        max(|x|, min_norm)

    Its derivative is 0 where min_norm is the larger; that of `jnp.linalg.norm` at x = 0 is NaN.

    Args:
        x: the array. The result is in float32 or wider.
        min_norm: the smallest value of the result, >= 0.
        ord: which norm, as in `jnp.linalg.norm`; None is the Euclidean one.
        axis: the axis or the axes along which the norm is taken; None takes all.
        keepdims: keep these axes in the result, with length 1.

    Example:
        >>> jax.grad(lambda x: gradtx.safe_norm(x, 0.0))(jnp.zeros(2))
        Array([0., 0.], dtype=float32)
        >>> gradtx.safe_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]), 1.0, axis=1)
        Array([5., 1.], dtype=float32)

    See also: `safe_root_mean_squares`, `global_norm`.
    """
    x = _wide(x)
    norm_in = functools.partial(_norm, ord=ord, axis=axis)
    small = norm_in(x) <= min_norm
    # The derivative of the branch that is not taken must be finite too.
    norm = norm_in(jnp.where(small, 1, x))
    norm = jnp.where(small, cast(min_norm, norm.dtype), norm)
    return norm if keepdims else jnp.squeeze(norm, axis=axis)


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> jax.Array:
    """Compute a root mean square of at least min_rms, with a gradient that is finite even at 0.

        max(sqrt(mean(|x|^2)), min_rms)

    Its derivative is 0 where min_rms is the larger.

    Args:
        x: the array; all of its elements count. The result is in float32 or wider.
        min_rms: the smallest value of the result, >= 0.

    Example:
        >>> print(gradtx.safe_root_mean_squares(jnp.array([1.0, 7.0]), 0.0))
        5.0
        >>> jax.grad(lambda x: gradtx.safe_root_mean_squares(x, 0.0))(jnp.zeros(2))
        Array([0., 0.], dtype=float32)

    See also: `safe_norm`.
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
    """Add 1 to a count, which stays at the largest number of its dtype instead of overflowing.

        min(count + 1, largest)

    Args:
        count: a number or an array of any integer or floating dtype, which the result keeps.

    Raises: ValueError for a dtype that is neither integer nor floating.

    Example:
        >>> gradtx.safe_increment(jnp.array([7, 127], jnp.int8))
        Array([  8, 127], dtype=int8)
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
    """Return the inputs unchanged; the gradient that flows back to them is scaled.

    It goes into the model's code, not into an optimizer: with 0.1, say, a shared encoder learns
    less from one of its heads.

    Args:
        inputs: a tree of arrays.
        scale: the factor on the gradient, a number or a traced array. A literal 0 stops the
            gradient; -1 reverses it.

    Example:
        >>> def loss(x):
        ...     return jnp.sum(gradtx.scale_gradient(x, 0.5) ** 2)
        >>> print(loss(jnp.array([3.0])), jax.grad(loss)(jnp.array([3.0])))
        9.0 [3.]

    See also: `scale`, which scales the updates of an optimizer.
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
