"""Transformations around others: conditions, guards, layouts, measurements, injected numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import LookaheadParams, Rule

from . import own
from .example import E, Example, T, linear, only_w


def every_second(step: Any) -> Any:
    """A condition of the step."""
    return step % 2 == 0


def while_small(step: Any, *, value: Any) -> Any:
    """A condition of an extra argument."""
    return value < 1.0


def depth_of(path: str) -> int:
    """Layers as a function of the path."""
    return "bsw".index(path[0]) if path else 0


class Pair(NamedTuple):
    """The slow parameters beside a lookahead's own state."""

    slow: Any
    inner: Any


@gradtx.per_tree
def with_slow_in_state(inner: gradtx.GradientTransformation) -> Any:
    """A lookahead on plain parameters, which are its fast ones: the laws know no pairs."""

    def init(params: Any) -> Pair:
        return Pair(LookaheadParams.init_synced(params).slow, inner.init(params))

    def update(updates: Any, state: Any, params: Any, **extra: Any) -> Any:
        pair = LookaheadParams(params, state.slow)
        u, new = inner.update(updates, state.inner, pair, **extra)
        return u.fast, Pair(gradtx.apply_updates(state.slow, u.slow), new)

    return Rule(init, update)


def norm(updates: Any) -> Any:
    """What `snapshot` measures."""
    return gradtx.global_norm(updates)


def is_large(updates: Any) -> Any:
    """A flag to be averaged."""
    return gradtx.global_norm(updates) > 1.0


def largest(updates: Any) -> Any:
    """A number for each leaf."""
    return jax.tree.map(lambda x: jnp.max(jnp.abs(x), initial=0), updates)


def sgd_of(lib: Any) -> Any:
    return lib.sgd(0.1, 0.9)


# They matter when a gradient is not finite, or the scale is far from where it starts.
_BOUNDS = ("backoff_factor", "min_scale", "max_scale")

EXAMPLES: tuple[Example, ...] = (
    E(
        "GradientTransformationExtraArgs",
        "a pair of functions",
        own.pair,
        written_out=False,
    ),
    # -- frozen ----------------------------------------------------------------------------------
    E("freeze", "everything", gradtx.freeze, twin=lambda: optax.freeze(True)),
    E(
        "freeze",
        "tree",
        lambda: gradtx.freeze(T),
        twin=lambda: optax.freeze(T),
        whole_tree=True,
    ),
    E(
        "freeze",
        "pattern",
        lambda: gradtx.chain(gradtx.adam(0.1), gradtx.freeze("^w")),
        by_path=True,
    ),
    E(
        "selective_transform",
        "tree",
        lambda: gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=T),
        twin=lambda: optax.selective_transform(optax.adam(0.1), freeze_mask=T),
        whole_tree=True,
        written_out=False,
    ),
    E(
        "selective_transform",
        "function",
        lambda: gradtx.selective_transform(gradtx.adamw(0.1), freeze_mask=only_w),
        needs_params=True,
        by_path=True,
        written_out=False,
    ),
    # -- on some steps only ----------------------------------------------------------------------
    E(
        "conditionally_transform",
        "every second step",
        lambda: gradtx.conditionally_transform(sgd_of(gradtx), every_second),
        twin=lambda: optax.conditionally_transform(sgd_of(optax), every_second),
        written_out=False,
    ),
    E(
        "conditionally_transform",
        "by an extra argument",
        lambda: gradtx.conditionally_transform(gradtx.adamw(0.1), while_small, True),
        needs_params=True,
        extra={"value": jnp.float32(0.5)},
        written_out=False,
    ),
    E(
        "conditionally_mask",
        "every second step",
        lambda: gradtx.conditionally_mask(gradtx.adam(0.1), every_second),
        twin=lambda: optax.conditionally_mask(optax.adam(0.1), every_second),
        written_out=False,
    ),
    E(
        "apply_if_finite",
        "default",
        lambda: gradtx.apply_if_finite(gradtx.adam(0.1), 3),
        twin=lambda: optax.apply_if_finite(optax.adam(0.1), 3),
        couples=True,
        idle=("max_consecutive_errors",),
        unread=True,
        written_out=False,
    ),
    E(
        "finite_guard",
        "default",
        lambda: gradtx.finite_guard(gradtx.adamw(0.1)),
        needs_params=True,
        couples=True,
        written_out=False,
    ),
    E(
        "finite_guard",
        "gradients only",
        lambda: gradtx.finite_guard(gradtx.sgd(linear(), 0.9), check_result=False),
        couples=True,
        written_out=False,
    ),
    E(
        "dynamic_loss_scale",
        "default",
        lambda: gradtx.dynamic_loss_scale(gradtx.adam(0.1)),
        idle=("init_scale", "growth_interval", "growth_factor", *_BOUNDS),
        couples=True,
        written_out=False,
    ),
    E(
        "dynamic_loss_scale",
        "growing",
        lambda: gradtx.dynamic_loss_scale(gradtx.sgd(0.1, 0.9), 2.0, 1, 4.0, 0.25),
        idle=("growth_interval", *_BOUNDS),
        unmoved=("init_scale", "growth_factor", "backoff_factor"),
        couples=True,
        written_out=False,
    ),
    # -- around an optimizer ---------------------------------------------------------------------
    E(
        "lookahead",
        "sgd",
        lambda: with_slow_in_state(gradtx.lookahead(gradtx.sgd(0.1, 0.9), 2, 0.5)),
        needs_params=True,
        written_out=False,
    ),
    E(
        "lookahead",
        "reset",
        lambda: with_slow_in_state(gradtx.lookahead(gradtx.adam(0.1), 3, 0.8, True)),
        needs_params=True,
        written_out=False,
    ),
    E(
        "flatten",
        "adam",
        lambda: gradtx.flatten(gradtx.adam(0.1)),
        twin=lambda: optax.flatten(optax.adam(0.1)),
        one_vector=True,
        written_out=False,
    ),
    E(
        "flatten",
        "norm of all",
        lambda: gradtx.flatten(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))),
        needs_params=True,
        couples=True,
        one_vector=True,
        written_out=False,
    ),
    E(
        "sharding.zero",
        "adamw",
        lambda: gradtx.sharding.zero(gradtx.adamw(0.1), {"w": (None, "model")}),
        needs_params=True,
        spreads=True,
        written_out=False,
    ),
    E(
        "sharding.zero",
        "around accumulation",
        lambda: gradtx.sharding.zero(gradtx.accumulate(gradtx.adam(0.1), 2), {}),
        spreads=True,
        couples=True,
        accumulates=True,
        written_out=False,
    ),
    E(
        "sharding.on_mesh",
        "adamw",
        lambda: gradtx.sharding.on_mesh(gradtx.adamw(0.1), {"w": (None, "model")}),
        needs_params=True,
        spreads=True,
        written_out=False,
    ),
    E(
        "sharding.on_mesh",
        "clipped by the tree",
        lambda: gradtx.sharding.on_mesh(
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), {}
        ),
        spreads=True,
        couples=True,
        written_out=False,
    ),
    E(
        "averaged",
        "the mean of all",
        lambda: gradtx.averaged(gradtx.adamw(0.1)),
        needs_params=True,
        written_out=False,
    ),
    E(
        "averaged",
        "exponential around accumulation",
        lambda: gradtx.averaged(gradtx.accumulate(gradtx.adam(0.1), 2), 0.5, 1, 2, debias=False),
        needs_params=True,
        idle=("decay",),
        couples=True,
        accumulates=True,
        written_out=False,
    ),
    E(
        "averaged",
        "scheduled",
        lambda: gradtx.averaged(gradtx.sgd(0.1), linear()),
        needs_params=True,
        idle=("decay",),
        written_out=False,
    ),
    E(
        "cautious",
        "adam",
        lambda: gradtx.cautious(gradtx.adam(0.1)),
        idle=("floor",),
        written_out=False,
    ),
    E(
        "cautious",
        "added",
        lambda: gradtx.cautious(gradtx.adamw(0.1), 0.5, normalizer="added"),
        needs_params=True,
        written_out=False,
    ),
    E(
        "cautious",
        "uphill without normalizer",
        lambda: gradtx.cautious(gradtx.trace(0.9), normalizer="none", descends=False),
        idle=("floor",),
        written_out=False,
    ),
    E(
        "layerwise_lr_decay",
        "function of the path",
        lambda: gradtx.layerwise_lr_decay(0.5, depth_of),
        by_path=True,
        written_out=False,
    ),
    E(
        "layerwise_lr_decay",
        "patterns after adam",
        lambda: gradtx.chain(gradtx.adam(0.1), gradtx.layerwise_lr_decay(0.5, ["[bs]", "w"])),
        by_path=True,
        whole_tree=True,
        written_out=False,
    ),
    # -- measurements ----------------------------------------------------------------------------
    E(
        "snapshot",
        "norm",
        lambda: gradtx.snapshot("norm", norm),
        twin=lambda: optax.snapshot("norm", norm),
        unread=True,
        written_out=False,
    ),
    E(
        "monitor",
        "function and mean",
        lambda: gradtx.monitor(
            {
                "norm": norm,
                "large": gradtx.measure_with_ema(is_large, 0.9),
            }
        ),
        idle=("measures",),
        unread=True,
        written_out=False,
    ),
    E(
        "monitor",
        "transformations and numbers of each leaf",
        lambda: gradtx.monitor(
            {
                "half": gradtx.scale(0.5),
                "mean": gradtx.ema(0.9),
                "largest": largest,
                "mean of largest": gradtx.measure_with_ema(largest, 0.9),
            }
        ),
        idle=("measures",),
        unread=True,
        written_out=False,
    ),
    E(
        "snapshot",
        "of each leaf",
        lambda: gradtx.snapshot("largest", largest),
        unread=True,
        written_out=False,
    ),
    # -- injected --------------------------------------------------------------------------------
    E(
        "own inject_hyperparams",
        "adamw",
        lambda: gradtx.inject_hyperparams(gradtx.adamw)(linear(), b2=0.9),
        twin=lambda: optax.inject_hyperparams(optax.adamw)(
            optax.linear_schedule(0.2, 0.05, 6), b2=0.9
        ),
        needs_params=True,
        unread=True,
        written_out=False,
    ),
    E(
        "own inject_hyperparams",
        "of an own factory",
        lambda: gradtx.inject_hyperparams(own.signed_momentum)(0.1, decay=0.5),
        needs_params=True,
        written_out=False,
    ),
    # -- inside jax.shard_map --------------------------------------------------------------------
    E(
        "sharding.on_shards",
        "lamb",
        lambda: gradtx.sharding.on_shards(gradtx.lamb(0.1), P("rows")),
        needs_params=True,
        written_out=False,
    ),
    E(
        "sharding.on_shards",
        "clipped by the tree",
        lambda: gradtx.sharding.on_shards(
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), None
        ),
        couples=True,
        written_out=False,
    ),
)
