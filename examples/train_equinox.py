"""Train an Equinox model, and change the learning rate on the way without compiling again."""

import equinox as eqx
import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

STEPS, BATCH = 400, 128

digits = load_digits()
train_x, test_x, train_y, test_y = map(
    jnp.asarray, train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
)
traces = 0


def loss(model, x, y):
    log_probs = jax.nn.log_softmax(jax.vmap(model)(x))
    return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean()


# A transformation is a pytree, just as the model is: both are arguments here. filter_jit traces
# arrays and compiles everything else in, so the rate, which is to change, is given as an array.
@eqx.filter_jit(donate="all-except-first")
def train_step(tx, model, state, key):
    global traces
    traces += 1
    batch = jax.random.choice(key, len(train_x), (BATCH,))
    value, grads = eqx.filter_value_and_grad(loss)(model, train_x[batch], train_y[batch])
    updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), state, value


model_key, data_key = jax.random.split(jax.random.key(0))
model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=model_key)
tx = gradtx.adamw(jnp.float32(5e-3), weight_decay=1e-2, mask="weight")
state = tx.init(eqx.filter(model, eqx.is_inexact_array))

for step, key in enumerate(jax.random.split(data_key, STEPS), start=1):
    model, state, value = train_step(tx, model, state, key)
    if step % 100 == 0:
        accuracy = (jax.vmap(model)(test_x).argmax(axis=1) == test_y).mean()
        rate = tx.learning_rate
        print(f"step {step:3d}   rate {rate:.4f}   loss {value:.4f}   test accuracy {accuracy:.1%}")
        tx = tx.replace(learning_rate=rate / 2)

print(f"four learning rates, compiled {traces} time(s)")
