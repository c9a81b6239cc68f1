"""The trees of parameters to measure on, as shapes; arrays are drawn when they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from gradtx import Params

Shapes = dict[str, Any]  # nested; the leaves are shapes


@dataclass(frozen=True)
class ParameterSet:
    """A tree of float32 parameters.

    build: from the arguments `full`, or for tests `quick`, to the shapes; in those sets that
    `benchmarks.device` measures, the tiny ones have a leaf of 4096, the least that `store` stores.
    weight: its share of the run's time, about what it needs at least. eager: whether the step
    outside of jit is measured too. platform: the only one that it fits on.
    """

    title: str
    build: Callable[..., Shapes]
    quick: dict[str, Any]
    full: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    eager: bool = False
    platform: str | None = None

    def shapes(self, quick: bool) -> Shapes:
        """The tree of shapes."""
        return self.build(**(self.quick if quick else self.full))


def gpt2(
    width: int = 768, layers: int = 12, vocabulary: int = 50257, context: int = 1024
) -> Shapes:
    """GPT-2 with tied embeddings. Radford et al., 2019."""

    def linear(inputs: int, outputs: int) -> Shapes:
        return {"weight": (inputs, outputs), "bias": (outputs,)}

    def norm() -> Shapes:
        return {"weight": (width,), "bias": (width,)}

    def block() -> Shapes:
        return {
            "ln_1": norm(),
            "attn": {"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)},
            "ln_2": norm(),
            "mlp": {"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)},
        }

    return {
        "wte": (vocabulary, width),
        "wpe": (context, width),
        "h": {f"{i:02}": block() for i in range(layers)},
        "ln_f": norm(),
    }


def blocks(width: int = 768, layers: int = 12) -> Shapes:
    """The matrices of GPT-2's blocks."""
    tree: Shapes = gpt2(width, layers)["h"]
    parts = (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))
    return {
        name: {f"{a}/{b}": block[a][b]["weight"] for a, b in parts} for name, block in tree.items()
    }


def resnet50(
    width: int = 64, classes: int = 1000, blocks: tuple[int, ...] = (3, 4, 6, 3)
) -> Shapes:
    """ResNet with bottleneck blocks. He et al., 2015, https://arxiv.org/abs/1512.03385"""

    def conv(name: str, size: int, inputs: int, outputs: int) -> Shapes:
        norm = {"scale": (outputs,), "bias": (outputs,)}
        return {f"conv{name}": (size, size, inputs, outputs), f"bn{name}": norm}

    def block(inputs: int, inner: int, first: bool) -> Shapes:
        convs = conv("1", 1, inputs, inner) | conv("2", 3, inner, inner)
        convs |= conv("3", 1, inner, 4 * inner)
        return convs | (conv("_down", 1, inputs, 4 * inner) if first else {})

    tree = conv("1", 7, 3, width)
    inputs = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        for i in range(count):
            tree[f"layer{stage + 1}_{i}"] = block(inputs, inner, first=i == 0)
            inputs = 4 * inner
    return tree | {"fc": {"kernel": (inputs, classes), "bias": (classes,)}}


def equal_leaves(count: int, shape: tuple[int, ...]) -> Shapes:
    """Many leaves of one shape."""
    return {f"leaf{i:04}": shape for i in range(count)}


def mlp(sizes: tuple[int, ...] = (17, 256, 256, 6)) -> Shapes:
    """The policy of a small reinforcement-learning agent: HalfCheetah's sizes."""
    pairs = itertools.pairwise(sizes)
    return {f"dense{i}": {"kernel": (a, b), "bias": (b,)} for i, (a, b) in enumerate(pairs)}


def llama(
    width: int = 2048,
    layers: int = 16,
    hidden: int = 8192,
    key_value: int = 512,
    vocabulary: int = 128256,
) -> Shapes:
    """Llama 3.2 1B: grouped queries, gated MLP, tied embeddings. https://arxiv.org/abs/2407.21783"""

    def block() -> Shapes:
        return {
            "attention_norm": (width,),
            "wq": (width, width),
            "wk": (width, key_value),
            "wv": (width, key_value),
            "wo": (width, width),
            "ffn_norm": (width,),
            "w1": (width, hidden),
            "w2": (hidden, width),
            "w3": (width, hidden),
        }

    layer = {f"{i:02}": block() for i in range(layers)}
    return {"embeddings": (vocabulary, width), "layers": layer, "norm": (width,)}


# In the order in which they run: the time that a cheap set leaves goes to the next ones.
PARAMETER_SETS: dict[str, ParameterSet] = {
    "mlp": ParameterSet("RL-sized MLP", mlp, {"sizes": (3, 8, 2)}, weight=0.5, eager=True),
    "small": ParameterSet(
        "200 leaves of 32",
        equal_leaves,
        {"count": 5, "shape": (4,)},
        {"count": 200, "shape": (32,)},
        weight=0.7,
    ),
    "vector": ParameterSet(
        "one 64M vector",
        equal_leaves,
        {"count": 1, "shape": (4096,)},
        {"count": 1, "shape": (2**26,)},
    ),
    "resnet50": ParameterSet(
        "ResNet-50",
        resnet50,
        {"width": 2, "classes": 256, "blocks": (1, 1)},
        weight=2,
        eager=True,
    ),
    "gpt2": ParameterSet(
        "GPT-2 124M",
        gpt2,
        {"width": 32, "layers": 1, "vocabulary": 16, "context": 8},
        weight=2,
    ),
    "blocks": ParameterSet(
        "GPT-2's matrices",
        blocks,
        {"width": 8, "layers": 2},
        weight=4,
    ),
    "matrices": ParameterSet(
        "1000 leaves of 64x64",
        equal_leaves,
        {"count": 3, "shape": (64, 64)},
        {"count": 1000, "shape": (64, 64)},
        weight=5,
        eager=True,
    ),
    "llama1b": ParameterSet(
        "Llama-like 1B",
        llama,
        {"width": 32, "layers": 1, "hidden": 128, "key_value": 4, "vocabulary": 16},
        weight=2,
        platform="gpu",
    ),
}


def draw(shapes: Shapes, seed: int, scale: float, device: jax.Device) -> Params:
    """A tree of normal random numbers on the device; a leaf larger than the pool repeats it."""
    random = np.random.default_rng(seed)
    pool = np.float32(scale) * random.standard_normal(2**24, np.float32)

    def leaf(shape: tuple[int, ...]) -> jax.Array:
        count = int(np.prod(shape))
        start = random.integers(max(1, len(pool) - count))
        return jax.device_put(np.resize(pool[start : start + count], shape), device)

    return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))


def abstract(shapes: Shapes, dtype: DTypeLike) -> Params:
    """A tree of arrays that are only shapes and a dtype."""

    def leaf(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]

    return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))


def size(shapes: Shapes) -> tuple[int, int]:
    """The number of leaves, and of parameters."""
    leaves = jax.tree.leaves(shapes, is_leaf=lambda x: isinstance(x, tuple))
    return len(leaves), sum(int(np.prod(shape)) for shape in leaves)
