"""Try eight learning rates at once: one array in place of one number, and one compilation."""

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

STEPS, BATCH = 100, 128

digits = load_digits()
train_x, test_x, train_y, test_y = map(
    jnp.asarray, train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
)


def init_params(key):
    key1, key2 = jax.random.split(key)
    kernel1 = jax.random.normal(key1, (64, 64)) * (2 / 64) ** 0.5
    kernel2 = jax.random.normal(key2, (64, 10)) * (2 / 64) ** 0.5
    return [(kernel1, jnp.zeros(64)), (kernel2, jnp.zeros(10))]


def logits(params, x):
    (kernel1, bias1), (kernel2, bias2) = params
    return jax.nn.relu(x @ kernel1 + bias1) @ kernel2 + bias2


def loss(params, x, y):
    log_probs = jax.nn.log_softmax(logits(params, x))
    return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean()


def train(tx):
    """The whole run of one optimizer: test accuracy after STEPS steps."""

    def step(carry, key):
        params, state = carry
        batch = jax.random.choice(key, len(train_x), (BATCH,))
        grads = jax.grad(loss)(params, train_x[batch], train_y[batch])
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    params = init_params(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), STEPS)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
    return (logits(params, test_x).argmax(axis=1) == test_y).mean()


# The transformation is a pytree whose leaves are its hyperparameters, so vmap can map over it.
# in_axes has the same shape: 0 for the learning rate, None for those that all runs share.
rates = jnp.logspace(-4, -1, 8)
tx = gradtx.adamw(rates)
axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, tx)
accuracies = jax.jit(jax.vmap(train, in_axes=(axes,)))(tx)

for rate, accuracy in zip(rates, accuracies, strict=True):
    print(f"{rate:.5f}  {accuracy:6.1%}  {'#' * round(40 * accuracy)}")
print(f"best learning rate: {rates[accuracies.argmax()]:.5f}")
