"""Log every step with `gradtx.report`, in a file that `gradtx plot run.jsonl` draws."""

import json

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import gradtx

STEPS, BATCH = 300, 128
digits = load_digits()
x, y = jnp.asarray(digits.data / 16), jnp.asarray(digits.target)

rate = gradtx.warmup_cosine_decay_schedule(0.0, 1e-2, warmup_steps=30, decay_steps=STEPS)
tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate))


def loss(params, x, y):
    logits = jax.nn.relu(x @ params["hidden"]) @ params["output"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


@jax.jit
def train_step(params, state, key):
    batch = jax.random.choice(key, len(x), (BATCH,))
    value, grads = jax.value_and_grad(loss)(params, x[batch], y[batch])
    updates, new_state = tx.update(grads, state, params)
    report = gradtx.report(tx, grads, updates, state, params, groups=["hidden", "output"])
    return gradtx.apply_updates(params, updates), new_state, {"loss": value, **report}


keys = jax.random.split(jax.random.key(0), STEPS)
params = {"hidden": jax.random.normal(keys[0], (64, 64)) / 8, "output": jnp.zeros((64, 10))}
state = tx.init(params)
with open("run.jsonl", "w") as log:
    for step, key in enumerate(keys, start=1):
        params, state, measured = train_step(params, state, key)
        print(json.dumps({"step": step} | {k: float(v) for k, v in measured.items()}), file=log)
