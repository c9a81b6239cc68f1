"""Inside `jax.shard_map`, where each device sees its piece of every array: `on_shards` makes the
numbers those of the whole, and without it what would sum over a piece is refused."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import gradtx

from .registry import Example, for_every
from .running import assert_same, given
from .test_sharding import comparable

RNG = np.random.default_rng(1)
SHAPES = {"w": (8, 8), "b": (8,), "s": ()}
PARAMS = {k: np.asarray(RNG.uniform(0.5, 2, shape), np.float32) for k, shape in SHAPES.items()}
GRADS = {k: np.asarray(RNG.uniform(-2, 2, shape), np.float32) for k, shape in SHAPES.items()}
MESHES: dict[str, Any] = {
    "8": (((8,), ("rows",)), {"w": P("rows"), "b": P("rows"), "s": P()}),
    "2x4": (((2, 4), ("data", "model")), {"w": P("data", "model"), "b": P("model"), "s": P()}),
}

# After few steps there are directions without a gradient, in which the bases are any: rounding
# chooses them.
UNSTABLE = ("soap", "scale_by_soap")


def mesh_of(name: str) -> tuple[Mesh, Any]:
    if jax.device_count() < 8 or not hasattr(jax, "shard_map"):
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    (shape, axes), specs = MESHES[name]
    return Mesh(np.asarray(jax.devices()[:8]).reshape(shape), axes), specs


class Maths(NamedTuple):
    """The same steps on whole arrays and on pieces of them."""

    init: Any
    step: Any

    def run(self, example: Example) -> Any:
        params, gradient = PARAMS, given(example, GRADS)
        state = self.init(params)
        for factor in (1.0, 0.5)[: 1 if example.name in UNSTABLE else 2]:
            scaled = jax.tree.map(lambda g, factor=factor: np.float32(factor) * g, gradient)
            updates, params, state = self.step(scaled, params, state, arrays_of(example.extra))
        return updates, params, state


def arrays_of(extra: Any) -> dict[str, Any]:
    return {name: x for name, x in extra.items() if not callable(x)}


def whole(tx: Any, example: Example) -> Maths:
    functions = {name: x for name, x in example.extra.items() if callable(x)}

    def step(gradient: Any, params: Any, state: Any, extra: Any) -> Any:
        updates, state = tx.update(gradient, state, params, **(extra | functions))
        return updates, gradtx.apply_updates(params, updates), state

    return Maths(tx.init, step)


def on_mesh(tx: Any, example: Example, name: str, of_state: Any) -> Maths:
    """Both in `jax.shard_map`."""
    mesh, specs = mesh_of(name)
    of_grads = jax.tree.map(lambda s: P(*[None] * bool(example.per_example), *s), specs)
    extra = {
        k: of_grads if isinstance(x, dict) else P() for k, x in arrays_of(example.extra).items()
    }
    mapped: Any = functools.partial(jax.shard_map, mesh=mesh)
    init, step = whole(tx, example)
    return Maths(
        jax.jit(mapped(init, in_specs=(specs,), out_specs=of_state)),
        jax.jit(
            mapped(
                step,
                in_specs=(of_grads, specs, of_state, extra),
                out_specs=(specs, specs, of_state),
            )
        ),
    )


@pytest.mark.parametrize("mesh", MESHES)
@for_every()
def test_on_shards_equals_the_whole(example: Example, mesh: str) -> None:
    tx, specs = example.make(), mesh_of(mesh)[1]
    of_state = gradtx.sharding.state_specs(tx, PARAMS, specs)
    pieces = on_mesh(gradtx.sharding.on_shards(tx, specs), example, mesh, of_state)
    if any(callable(x) and tx.takes(name, example.extra) for name, x in example.extra.items()):
        with pytest.raises(TypeError, match=r"on_shards: .* calls \w+, a function of"):
            pieces.run(example)
        return
    got = pieces.run(example)
    init, step = whole(tx, example)
    expected = Maths(jax.jit(init), jax.jit(step)).run(example)
    assert_same(comparable(got), comparable(expected), 1e-5)


@for_every(
    where=lambda e: not (e.noisy or e.coded or any(map(callable, e.extra.values()))), slow=True
)
def test_alone_it_is_right_or_refused(example: Example) -> None:
    """Not tried: random numbers, which would be the same in each piece, blocks of few bits, which
    are those of it, and functions of the parameters, which a user writes for pieces."""
    tx, specs = example.make(), mesh_of("8")[1]
    of_state = gradtx.sharding.state_specs(tx, PARAMS, specs)
    try:
        got = on_mesh(tx, example, "8", of_state).run(example)
    except (TypeError, ValueError) as error:
        # JAX itself refuses a state that is not divided as that of the whole arrays.
        if not any(word in str(error) for word in ("on_shards", "out_specs")):
            raise
        return
    init, step = whole(tx, example)
    expected = Maths(jax.jit(init), jax.jit(step)).run(example)
    assert_same(comparable(got), comparable(expected), 1e-5)
