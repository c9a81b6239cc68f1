"""Train a small network on handwritten digits, in plain JAX."""

from functools import partial

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

STEPS, BATCH = 600, 128

digits = load_digits()  # 1797 images of 8 x 8 pixels, values 0 to 16
train_x, test_x, train_y, test_y = map(
    jnp.asarray, train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
)

# An optimizer is a chain. Any hyperparameter may be a schedule; here it is the learning rate.
# Weight decay goes to the leaves whose path matches: "hidden/kernel" and "output/kernel".
schedule = gradtx.warmup_cosine_decay_schedule(0.0, 5e-3, warmup_steps=60, decay_steps=STEPS)
tx = gradtx.chain(
    gradtx.clip_by_global_norm(1.0),
    gradtx.adamw(schedule, weight_decay=1e-2, mask="kernel"),
)


def init_dense(key, inputs, outputs):
    kernel = jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def logits(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"]


def loss(params, x, y):
    log_probs = jax.nn.log_softmax(logits(params, x))
    return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean()


@partial(jax.jit, donate_argnums=(0, 1))  # the old params and state are updated in place
def train_step(params, state, key):
    batch = jax.random.choice(key, len(train_x), (BATCH,))
    value, grads = jax.value_and_grad(loss)(params, train_x[batch], train_y[batch])
    updates, state = tx.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state, value


hidden_key, output_key, data_key = jax.random.split(jax.random.key(0), 3)
params = {"hidden": init_dense(hidden_key, 64, 64), "output": init_dense(output_key, 64, 10)}
state = tx.init(params)
print(tx)
for step, key in enumerate(jax.random.split(data_key, STEPS), start=1):
    params, state, value = train_step(params, state, key)
    if step % 100 == 0:
        accuracy = (logits(params, test_x).argmax(axis=1) == test_y).mean()
        print(f"step {step:3d}   loss {value:.4f}   test accuracy {accuracy:.1%}")
