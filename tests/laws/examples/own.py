"""Transformations as a user would write them: they get every law that the library's own get."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx
from gradtx import Decay, NonNegative, Real, Rule


@gradtx.per_leaf
def mean_of_signs(decay: Decay = 0.9) -> Any:
    """m <- decay * m + (1 - decay) * sign(g), u = m / (1 - decay^t); the state is a bare array."""

    def init(param: Any) -> Any:
        return gradtx.zeros_like(param)

    def update(grad: Any, state: Any, step: Any) -> Any:
        state = decay * state + (1 - decay) * jnp.sign(grad)
        return step.debias(state, decay), state

    return Rule(init, update)


@gradtx.per_leaf
def shrink(amount: NonNegative) -> Any:
    """u = g + amount * param"""
    return lambda grad, param: grad + amount * param


@gradtx.per_leaf
def times_value(factor: Real) -> Any:
    """u = factor * value * g"""
    return lambda grad, *, value: factor * value * grad


@gradtx.per_tree
def by_largest() -> Any:
    """u = g / max |g| over all leaves; 0 where that is 0"""

    def update(updates: Any) -> Any:
        leaves = jax.tree.leaves(updates)
        largest = [jnp.max(jnp.abs(x), initial=0) for x in leaves]
        norm = jnp.max(jnp.asarray(largest), initial=0)
        return jax.tree.map(lambda x: x / jnp.where(norm > 0, norm, 1), updates)

    return update


@gradtx.per_leaf
def to_unit_norm(decay: Decay) -> Any:
    """m <- decay * m + (1 - decay) * g, u = m / |m|, leaf by leaf."""

    def update(grad: Any, state: Any) -> Any:
        state = decay * state + (1 - decay) * grad
        norm = gradtx.tree.global_norm(state)
        return state / jnp.where(norm > 0, norm, 1), state

    return Rule(gradtx.zeros_like, update)


class AgainstMeanState(NamedTuple):
    """A running mean of params."""

    mean: Any


def map_all(function: Any, *trees: Any) -> Any:
    """`jax.tree.map` that also visits absent leaves."""
    return jax.tree.map(function, *trees, is_leaf=lambda x: x is None)


@gradtx.per_tree
def against_mean(decay: Decay) -> Any:
    """mean <- decay * mean + (1 - decay) * params, u = g + params - mean"""

    def init(params: Any) -> AgainstMeanState:
        return AgainstMeanState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: AgainstMeanState, params: Any) -> Any:
        # None where there is no gradient: params may then be None too, and the mean stays.
        def follow(g: Any, m: Any, p: Any) -> Any:
            return m if g is None else decay * m + (1 - decay) * p

        def pull(g: Any, m: Any, p: Any) -> Any:
            return None if g is None else g + p - m

        mean = map_all(follow, updates, state.mean, params)
        new = map_all(pull, updates, mean, params)
        return new, AgainstMeanState(mean)

    return Rule(init, update)


@gradtx.recipe
def signed_momentum(
    learning_rate: NonNegative, decay: Decay = 0.9, weight_decay: NonNegative = 0.1
):
    """The rules above, in a row."""
    return gradtx.chain(
        mean_of_signs(decay), shrink(weight_decay), gradtx.scale_by_learning_rate(learning_rate)
    )


class CountState(NamedTuple):
    """The number of updates, in a field of the user's own."""

    updates_so_far: jax.Array


def _init(params: Any) -> CountState:
    return CountState(jnp.zeros((), jnp.int32))


def _update(updates: Any, state: CountState, params: Any = None) -> Any:
    count = gradtx.safe_increment(state.updates_so_far)
    halved = jax.tree.map(lambda g: g * jnp.asarray(0.5, g.dtype), updates)
    return halved, CountState(count)


def pair() -> Any:
    """Two plain functions, without the library's plumbing."""
    return gradtx.GradientTransformation(_init, _update)


def skip_nonfinite(updates: Any, gradient_step: Any, params: Any) -> tuple[Any, Any]:
    """What `MultiSteps` is told to skip."""
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(updates)]
    return ~jnp.all(jnp.asarray(finite)), ()
