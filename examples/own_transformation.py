"""Write a transformation of your own: the maths of one array, in nine lines."""

import jax
import jax.numpy as jnp
import optax

import gradtx


@gradtx.per_leaf
def scale_by_soft_sign(decay: gradtx.Decay = 0.9, softness: gradtx.Positive = 1.0):
    """The sign of the running mean of the gradient, softened where the mean is small."""

    def init(param):
        return gradtx.zeros_like(param)

    def update(grad, state):
        mean = decay * state + (1 - decay) * grad
        return mean / (jnp.abs(mean) + softness), mean

    return gradtx.Rule(init, update)


def rosenbrock(params):
    x, y = params["x"], params["y"]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


@jax.jit
def final_loss(tx):
    def step(_, carry):
        params, state = carry
        updates, state = tx.update(jax.grad(rosenbrock)(params), state, params)
        return gradtx.apply_updates(params, updates), state

    params = {"x": jnp.float32(-1.0), "y": jnp.float32(1.0)}
    params, _ = jax.lax.fori_loop(0, 500, step, (params, tx.init(params)))
    return rosenbrock(params)


# It prints as it was written, and knows what its arguments may be.
print(scale_by_soft_sign(0.95))
try:
    scale_by_soft_sign(decay=1.5)
except ValueError as error:
    print(error)

# It is a link like any other, here between two of Optax's; any argument may be a schedule.
softness = gradtx.linear_schedule(0.1, 1.0, transition_steps=500)
tx = gradtx.chain(optax.clip(100.0), scale_by_soft_sign(0.9, softness), optax.scale(-0.02))
print(tx.parts[1])
print(f"softer and softer   loss {final_loss(tx):.1e}")

# Its numbers are the leaves of a pytree: map over the decay, in one compiled program.
decays = jnp.array([0.0, 0.5, 0.9, 0.95, 0.99])
tx = gradtx.chain(scale_by_soft_sign(decays), gradtx.scale(-0.02))
axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, tx)
for decay, loss in zip(decays, jax.vmap(final_loss, in_axes=(axes,))(tx), strict=True):
    print(f"decay {decay:<14.2f}loss {loss:.1e}")
