"""Differentiate through training: which learning rate and momentum would have been better?"""

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

STEPS = 20

digits = load_digits()
train_x, test_x, train_y, test_y = map(
    jnp.asarray, train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
)


def loss(weights, x, y):
    log_probs = jax.nn.log_softmax(x @ weights)
    return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean()


def final_loss(tx):
    """The held-out loss after STEPS steps from zero: a function of the optimizer alone."""

    def step(carry, _):
        weights, state = carry
        updates, state = tx.update(jax.grad(loss)(weights, train_x, train_y), state, weights)
        return (gradtx.apply_updates(weights, updates), state), None

    weights = jnp.zeros((64, 10))
    (weights, _), _ = jax.lax.scan(step, (weights, tx.init(weights)), length=STEPS)
    return loss(weights, test_x, test_y)


# The leaves of a transformation are its hyperparameters, so its gradient is a transformation of
# the same shape, which holds the derivative with respect to each of them.
tx = gradtx.sgd(learning_rate=0.05, momentum=0.1)
print("the optimizer    ", tx)
print("its hypergradient", jax.grad(final_loss)(tx))

# Descent by hand. The rate changes by a factor and the momentum through its distance from 1, so
# that both stay where they make sense: rate > 0 and momentum < 1.
value_and_grad = jax.jit(jax.value_and_grad(final_loss))
for step in range(41):
    value, slope = value_and_grad(tx)
    rate, momentum = tx.learning_rate, tx.momentum
    if step % 5 == 0:
        print(f"{step:2d}   rate {rate:.3f}   momentum {momentum:.3f}   held-out loss {value:.4f}")
    tx = tx.replace(
        learning_rate=rate * jnp.exp(-0.5 * rate * slope.learning_rate),
        momentum=1 - (1 - momentum) * jnp.exp(0.1 * slope.momentum),
    )
