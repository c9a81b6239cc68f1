"""Uses of which a type checker must not complain. test_types.py runs the file, too."""

from __future__ import annotations

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import gradtx
from gradtx import Decay, GradientTransformation, Real, Rule, Schedule, Step

# -- numbers, arrays, schedules and functions ------------------------------------------------------

schedule = gradtx.cosine_decay_schedule(0.1, 100)
assert_type(schedule, Schedule)


def by_function(step: Array) -> Array:
    return 0.1 / (1 + step)


def half(step: Any) -> float:
    return 0.5


assert_type(gradtx.adamw(1e-3), GradientTransformation)
gradtx.adamw(1, b1=0)
gradtx.adamw(schedule, b1=schedule.clip(0.05, 0.95))
gradtx.adamw(by_function, b1=half)
gradtx.adamw(lambda step: 0.1 / (1 + step), 0.9, weight_decay=lambda step: 0.1)
gradtx.adamw(optax.cosine_decay_schedule(0.1, 100))
gradtx.adamw(jnp.array(0.1), b1=jnp.linspace(0.8, 0.9, 3))
gradtx.adamw(np.float32(0.1), b1=np.linspace(0.8, 0.9, 3))
gradtx.adamw(0.1, mu_dtype=jnp.bfloat16, nu_dtype="float32", mask="kernel")
gradtx.adamw(0.1, mu_dtype=np.dtype("float32"), nu_dtype=None)
gradtx.lion(0.1, b1=0.9).replace(learning_rate=schedule)
gradtx.linear_schedule(0.1, by_function, transition_steps=np.int32(5))
gradtx.add_noise(0.1, 0.55, seed=1)
gradtx.add_noise(0.1, 0.55, jax.random.key(1))

gradtx.join_schedules([schedule, by_function, lambda step: 0.1], [10, 20])
gradtx.join_schedules((schedule, schedule), np.array([10]))
gradtx.piecewise_constant_schedule(0.1, {10: 0.5, 20: half})

# -- arithmetic on schedules -----------------------------------------------------------------------

assert_type(0.5 * schedule, Schedule)
assert_type(schedule * 2, Schedule)
assert_type(schedule + schedule, Schedule)
assert_type(schedule - by_function, Schedule)
assert_type(1 - schedule / 2, Schedule)
assert_type(-(schedule**2), Schedule)
assert_type(2**schedule, Schedule)
assert_type(schedule * jnp.array(2.0), Schedule)
assert_type(jnp.array(2.0) * schedule, Schedule)
assert_type(schedule.clip(low=1e-4), Schedule)
assert_type(schedule.shift(-10), Schedule)
gradtx.sgd(0.5 * schedule)

# -- words and formats -----------------------------------------------------------------------------

tx = gradtx.adamw(0.1)
assert_type(gradtx.store(tx, "int8"), GradientTransformation)
gradtx.store(tx, {"^nu": "bfloat16", "kernel": "bfloat16+8"})
gradtx.scale_by_lion(mode="smooth")
gradtx.amsgrad(0.1, max_of="raw")

# -- compositions ----------------------------------------------------------------------------------

both = gradtx.chain(gradtx.clip_by_global_norm(1.0), optax.scale_by_adam(), tx)
parts: tuple[GradientTransformation, ...] = both.parts
smaller: GradientTransformation = both.replace(max_norm=0.5)
gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", optax.adam(1e-3)))
gradtx.partition({"kernel": tx, ".*": optax.sgd(0.1)})
gradtx.masked(tx, "kernel")
gradtx.store(optax.adam(1e-3), "int8")
gradtx.apply_if_finite(optax.adam(1e-3), 5)
gradtx.accumulate(tx, 4)
gradtx.accumulate(optax.adam(1e-3), lambda step: jnp.where(step < 100, 1, 4))
gradtx.MultiSteps(tx, gradtx.constant_schedule(4))

params = {"w": jnp.ones(3)}
init, update = tx
state = tx.init(params)
updates, state = tx.update(params, state, params)
jax.jit(tx.update)(params, state, params)

# -- a rule of one's own: inside, a hyperparameter is a number -------------------------------------


@gradtx.per_leaf
def own_momentum(decay: Decay = 0.9, shift: Real = 0.0) -> Any:
    def init(param: Array) -> Array:
        return jnp.zeros_like(param)

    def update(grad: Array, state: Array, step: Step) -> tuple[Array, Array]:
        mean = decay * state + (1 - decay) * jnp.maximum(grad, shift)
        return -mean / (1 - decay**2), mean

    return Rule(init, update)


assert_type(own_momentum(half), GradientTransformation)


@gradtx.schedule
def own_schedule(peak: Real, steps: gradtx.PositiveSteps) -> Any:
    return lambda step: peak * jnp.minimum(step / steps, 1.0)


assert_type(own_schedule(0.1, 5) * 2, Schedule)
