"""An experiment: many small leaves in one flat buffer a dtype.

`python -m benchmarks.packed` trains with the parameters as a tree and as one vector, interleaved,
and prints the ratios. It is not part of the library: see NOTES.md for what came out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

Unpack = Callable[[jax.Array], Any]


def pack(tree: Any) -> tuple[jax.Array, Unpack]:
    """All leaves (of one dtype) as one vector, and the function that gives the tree back.

    The transpose of `unpack` is one concatenate, so that gradients arrive packed.
    """
    leaves, treedef = jax.tree.flatten(tree)
    shapes = [x.shape for x in leaves]
    ends = np.cumsum([x.size for x in leaves]).tolist()

    def flatten(leaves: Any) -> jax.Array:
        return jnp.concatenate([x.reshape(-1) for x in leaves])

    @jax.custom_vjp
    def unpack(flat: jax.Array) -> Any:
        pieces = jnp.split(flat, ends[:-1])
        leaves = [x.reshape(shape) for x, shape in zip(pieces, shapes, strict=True)]
        return jax.tree.unflatten(treedef, leaves)

    def forward(flat: jax.Array) -> tuple[Any, None]:
        return unpack(flat), None

    def backward(_: None, cotangent: Any) -> tuple[jax.Array]:
        return (flatten(jax.tree.leaves(cotangent)),)

    unpack.defvjp(forward, backward)
    return flatten(leaves), unpack


def mlp(depth: int = 100, width: int = 64) -> tuple[Any, Callable[[Any], jax.Array]]:
    """A deep narrow network (two leaves a layer) and its loss."""
    keys = jax.random.split(jax.random.key(0), depth)
    params = [{"w": jax.random.normal(k, (width, width)) / 8, "b": jnp.zeros(width)} for k in keys]
    x = jax.random.normal(jax.random.key(1), (32, width))

    def loss(params: Any) -> jax.Array:
        h = x
        for layer in params:
            h = h + jnp.tanh(h @ layer["w"] + layer["b"])
        return jnp.mean(h**2)

    return params, loss


def many(n: int = 1000, side: int = 64) -> tuple[Any, Callable[[Any], jax.Array]]:
    """Many leaves whose gradient costs next to nothing: the optimizer step alone."""
    params = {f"w{i}": jnp.full((side, side), 0.5) for i in range(n)}

    def loss(tree: Any) -> jax.Array:
        return 0.5 * gradtx.tree.norm(tree, squared=True)

    return params, loss


def compiled(params: Any, loss: Callable[[Any], jax.Array]) -> tuple[Any, Any, float]:
    """The donated training step, its first arguments and the seconds to compile it."""
    tx = gradtx.adamw(1e-3)

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return gradtx.apply_updates(params, updates), state

    arguments = (params, tx.init(params))
    start = time.perf_counter()
    program = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
    return program, arguments, time.perf_counter() - start


def compare(name: str, params: Any, loss: Callable[[Any], jax.Array], rounds: int = 60) -> None:
    """Print the ratios packed / tree of the step and of trace and compile."""
    flat, unpack = pack(params)
    tree_step, tree, tree_seconds = compiled(jax.tree.map(jnp.copy, params), loss)
    flat_step, packed, flat_seconds = compiled(flat, lambda flat: loss(unpack(flat)))
    ratios, seconds = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        tree = jax.block_until_ready(tree_step(*tree))  # type: ignore[no-untyped-call]
        middle = time.perf_counter()
        packed = jax.block_until_ready(flat_step(*packed))  # type: ignore[no-untyped-call]
        end = time.perf_counter()
        ratios.append((end - middle) / (middle - start))
        seconds.append((middle - start, end - middle))
    each = [1e3 * statistics.median(column) for column in zip(*seconds, strict=True)]
    print(
        f"{name}: step {statistics.median(ratios):.2f} ({each[1]:.1f} of {each[0]:.1f} ms), "
        f"trace and compile {flat_seconds / tree_seconds:.2f} "
        f"({flat_seconds:.2f} of {tree_seconds:.2f} s)"
    )


def main() -> None:
    """Run the experiment."""
    compare("1000 leaves of 64x64", *many())
    compare("MLP of 100 layers of 64", *mlp())


if __name__ == "__main__":
    main()
