"""Train a Flax NNX model: a gradtx transformation goes where an Optax one would."""

import jax
import jax.numpy as jnp
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

STEPS, BATCH = 400, 128

digits = load_digits()
train_x, test_x, train_y, test_y = map(
    jnp.asarray, train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
)


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.output = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        """The logits of a batch of images."""
        return self.output(nnx.relu(self.hidden(x)))


def loss(model, x, y):
    log_probs = nnx.log_softmax(model(x))
    return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean()


# nnx.Optimizer asks of a transformation only init and update, so it takes this one as it is. It
# keeps tx as a static attribute: give hyperparameters as Python numbers or schedules, not arrays.
model = Network(nnx.Rngs(0))
rate = gradtx.cosine_decay_schedule(5e-3, decay_steps=STEPS)
tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate, mask="kernel"))
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, key):
    batch = jax.random.choice(key, len(train_x), (BATCH,))
    value, grads = nnx.value_and_grad(loss)(model, train_x[batch], train_y[batch])
    optimizer.update(model, grads)
    return value


for step, key in enumerate(jax.random.split(jax.random.key(1), STEPS), start=1):
    value = train_step(model, optimizer, key)
    if step % 100 == 0:
        accuracy = (model(test_x).argmax(axis=1) == test_y).mean()
        print(f"step {step:3d}   loss {value:.4f}   test accuracy {accuracy:.1%}")

adam, decay, rate = optimizer.opt_state[1]  # the state of adamw, part by part
mu = adam.mu["output"]["kernel"].get_value()
print(f"the running mean of the output kernel's gradient: {mu.shape}, {mu.dtype}")
