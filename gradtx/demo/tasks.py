"""What the comparison trains: a small model, real data, and how to draw a batch.

``digits``  scikit-learn's handwritten digits, 8 x 8 pixels, through a 64-64-10 network.
``text``    the prose of Python's own manual (``pydoc_data.topics``), character by
            character, through a small transformer.

Both are plain functions of ``(params, batch)``, so that every optimizer gets exactly the same start
and the same batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx.demo.errors import unknown
from gradtx.demo.extras import load

Params = dict[str, Any]  # arrays, nested
Batch = tuple[Array, Array]  # (inputs, labels); the logits have one more axis than the labels

_F = jnp.float32  # explicit everywhere, so that JAX_ENABLE_X64 changes nothing


@dataclass(frozen=True)
class Task:
    """A model and its data; the functions are pure, so that they can run inside a scan."""

    name: str
    about: str
    steps: int  # how long the comparison trains unless told otherwise
    data: Any  # arrays that ``draw`` draws from
    held_out: Batch
    init: Callable[[Array], Params]  # key -> params
    logits: Callable[[Params, Array], Array]  # params, inputs -> [*labels.shape, classes]
    draw: Callable[[Array, Any], Batch]  # key, data -> one training batch

    def loss(self, params: Params, batch: Batch) -> Array:
        """Mean cross-entropy in nats."""
        inputs, labels = batch
        log_probs = jax.nn.log_softmax(self.logits(params, inputs))
        return -jnp.mean(jnp.take_along_axis(log_probs, labels[..., None], axis=-1))

    def accuracy(self, params: Params, batch: Batch) -> Array:
        """The share of labels with the largest logit."""
        inputs, labels = batch
        return jnp.mean(jnp.argmax(self.logits(params, inputs), axis=-1) == labels)

    def batches(self, key: Array, first: int, count: int) -> Batch:
        """The batches of ``count`` steps from the step ``first``, stacked."""
        batches: Batch = self._draw_many(key, first, count, self.data)
        return batches

    def score(self, params: Params) -> tuple[float, float]:
        """Loss and accuracy on what was held out."""
        loss, accuracy = self._score(params, self.held_out)
        return float(loss), float(accuracy)

    # Both are compiled once, for all optimizers.

    @cached_property
    def _draw_many(self) -> Callable[..., Any]:
        def draw_many(key: Array, first: Array, count: int, data: Any) -> Batch:
            keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(first + jnp.arange(count))
            return jax.vmap(self.draw, (0, None))(keys, data)

        return jax.jit(draw_many, static_argnums=2)

    @cached_property
    def _score(self) -> Callable[..., Any]:
        return jax.jit(
            lambda params, batch: (self.loss(params, batch), self.accuracy(params, batch))
        )


# --------------------------------------------------------------------------- digits


def digits() -> Task:
    """1,797 handwritten digits (UCI, bundled with scikit-learn); one in five is held out."""
    bunch = load("sklearn.datasets", command="compare").load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = jnp.asarray(bunch.data[order] / 16, jnp.float32)  # [1797, 64] in [0, 1]
    labels = jnp.asarray(bunch.target[order], jnp.int32)
    cut = len(order) // 5
    return Task(
        name="digits",
        about="handwritten digits (scikit-learn), 64-64-10 tanh network, batches of 64",
        steps=300,
        data=(images[cut:], labels[cut:]),
        held_out=(images[:cut], labels[:cut]),
        init=_init_network,
        logits=_network,
        draw=_draw_examples,
    )


def _init_network(key: Array) -> Params:
    hidden, out = jax.random.split(key)
    return {
        "hidden": {"w": _lecun(hidden, 64, 64), "b": jnp.zeros(64, _F)},
        "out": {"w": _lecun(out, 64, 10), "b": jnp.zeros(10, _F)},
    }


def _network(params: Params, images: Array) -> Array:
    hidden = jnp.tanh(images @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["out"]["w"] + params["out"]["b"]


def _draw_examples(key: Array, data: Batch, size: int = 64) -> Batch:
    images, labels = data
    chosen = jax.random.randint(key, (size,), 0, len(labels), jnp.int32)
    return images[chosen], labels[chosen]


# ----------------------------------------------------------------------------- text

_CONTEXT, _WIDTH, _LAYERS, _HEADS = 64, 64, 2, 4


def text() -> Task:
    """Next-character prediction over half a million characters; the last tenth is held out.

    The two libraries stay less close here than on the digits: the embedding of a rare character
    has gradients that nearly cancel, and dividing by their size magnifies their rounding errors.
    """
    # Bundled with CPython, though some distributions split the standard library.
    topics = load("pydoc_data.topics", command="compare --task text").topics
    prose = "\n".join(topics[name] for name in sorted(topics))
    alphabet, codes = np.unique(np.array(list(prose)), return_inverse=True)
    cut = len(codes) * 9 // 10
    train, held_out = np.split(codes.astype(np.int32), [cut])
    windows = held_out[: 64 * (_CONTEXT + 1)].reshape(64, _CONTEXT + 1)
    return Task(
        name="text",
        about=f"{len(prose):,} characters of Python's manual, {_LAYERS}-layer transformer "
        f"of width {_WIDTH}, context {_CONTEXT}, batches of 8",
        steps=120,
        data=jnp.asarray(train),
        held_out=(jnp.asarray(windows[:, :-1]), jnp.asarray(windows[:, 1:])),
        init=lambda key: _init_transformer(key, len(alphabet)),
        logits=_transformer,
        draw=_draw_windows,
    )


def _init_transformer(key: Array, characters: int) -> Params:
    keys = iter(jax.random.split(key, 7))

    def block(inputs: int, outputs: int) -> Array:  # one matrix per layer, stacked
        return jnp.stack(
            [_lecun(k, inputs, outputs) for k in jax.random.split(next(keys), _LAYERS)]
        )

    return {
        "characters": 0.1 * _normal(next(keys), characters, _WIDTH),
        "positions": 0.1 * _normal(next(keys), _CONTEXT, _WIDTH),
        "blocks": {
            "norm1": jnp.ones((_LAYERS, _WIDTH), _F),
            "qkv": block(_WIDTH, 3 * _WIDTH),
            "mix": block(_WIDTH, _WIDTH),
            "norm2": jnp.ones((_LAYERS, _WIDTH), _F),
            "up": block(_WIDTH, 4 * _WIDTH),
            "down": block(4 * _WIDTH, _WIDTH),
        },
        "norm": jnp.ones(_WIDTH, _F),
        "out": _lecun(next(keys), _WIDTH, characters),
    }


def _transformer(params: Params, codes: Array) -> Array:
    """[batch, context] character codes -> [batch, context, characters] logits."""
    hidden = params["characters"][codes] + params["positions"]

    def layer(hidden: Array, block: Params) -> tuple[Array, None]:
        hidden = hidden + _attention(_normed(hidden, block["norm1"]), block["qkv"]) @ block["mix"]
        inner = jax.nn.gelu(_normed(hidden, block["norm2"]) @ block["up"])
        return hidden + inner @ block["down"], None

    # A scan over the stacked layers, so that only one layer is compiled.
    hidden, _ = lax.scan(layer, hidden, params["blocks"])
    return _normed(hidden, params["norm"]) @ params["out"]


def _attention(hidden: Array, qkv: Array) -> Array:
    """Causal self-attention, before its output projection: [batch, context, width]."""
    batch, context, width = hidden.shape
    q, k, v = jnp.split((hidden @ qkv).reshape(batch, context, _HEADS, -1), 3, axis=-1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width / _HEADS) ** -0.5
    causal = jnp.tril(jnp.ones((context, context), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, context, width)


def _normed(hidden: Array, scale: Array) -> Array:
    mean_square = jnp.mean(hidden**2, axis=-1, keepdims=True)
    return hidden * lax.rsqrt(mean_square + 1e-6) * scale


def _draw_windows(key: Array, data: Array, size: int = 8) -> Batch:
    starts = jax.random.randint(key, (size, 1), 0, len(data) - _CONTEXT, jnp.int32)
    windows = data[starts + jnp.arange(_CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


# -------------------------------------------------------------------------- together


def _normal(key: Array, *shape: int) -> Array:
    return jax.random.normal(key, shape, _F)


def _lecun(key: Array, inputs: int, outputs: int) -> Array:
    """A matrix that preserves the scale of its input: entries of variance 1/inputs."""
    return inputs**-0.5 * _normal(key, inputs, outputs)


TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "text": text}


def make_task(name: str) -> Task:
    """The task of that name, with its data loaded."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]()
