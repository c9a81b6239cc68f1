"""Params spread over eight devices: the state lies where they lie, and nothing changes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

from .registry import Example, for_every, is_first
from .running import assert_close, assert_same, given

SPECS = {"w": P("rows", None), "b": P("rows"), "s": P()}
RNG = np.random.default_rng(1)
SHAPES = {"w": (16, 2), "b": (8,), "s": ()}


@pytest.fixture(scope="module")
def shardings() -> Any:
    devices = jax.devices()
    if len(devices) < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = Mesh(np.asarray(devices[:8]), ("rows",))
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def some_tree() -> Any:
    return {k: jnp.asarray(RNG.uniform(0.5, 2, shape), jnp.float32) for k, shape in SHAPES.items()}


def misplaced(tree: Any, shardings: Any) -> list[str]:
    """The leaves that belong to a parameter, have its shape, and lie elsewhere."""
    wrong = []
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        names = [key.key for key in path if getattr(key, "key", None) in SHAPES]
        if names and x.shape == SHAPES[names[-1]]:
            expected = shardings[names[-1]]
            if not x.sharding.is_equivalent_to(expected, x.ndim):
                wrong.append(f"{jax.tree_util.keystr(path)} is {x.sharding}")
    return wrong


def comparable(tree: Any) -> Any:
    """Without what a search notes of its error: a difference of two values of the function, small
    beside their rounding, which depends on the order of a sum."""

    def but_errors(path: Any, x: Any) -> Any:
        return jnp.zeros_like(x) if getattr(path[-1], "name", "") == "decrease_error" else x

    return jax.tree_util.tree_map_with_path(but_errors, tree)


@for_every(where=lambda e: not e.foreign and not e.spreads)
def test_init_places_the_state_with_the_params(example: Example, shardings: Any) -> None:
    state = example.make().init(jax.device_put(some_tree(), shardings))
    assert misplaced(state, shardings) == []


@for_every(where=lambda e: is_first(e) and not e.spreads, slow=True)
def test_sharded_equals_unsharded(example: Example, shardings: Any) -> None:
    tx, gradient, params = example.make(), given(example, some_tree()), some_tree()

    @jax.jit
    def step(gradient: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(gradient, state, params, **example.extra)
        return updates, state, gradtx.apply_updates(params, updates)

    with jax.disable_jit():
        expected = step(gradient, tx.init(params), params)
    behind = lambda s: NamedSharding(s.mesh, P(*[None] * bool(example.per_example), *s.spec))  # noqa: E731
    of_gradient = jax.tree.map(behind, shardings)
    placed = jax.device_put((gradient, params), (of_gradient, shardings))
    updates, state, params = step(placed[0], tx.init(placed[1]), placed[1])
    assert_same(comparable((updates, state, params)), comparable(expected), 1e-5)
    # Updates may be constants, which lie nowhere in particular.
    assert misplaced((state, params), shardings) == []


MESHES = {
    "8": ((8,), {"w": P("data"), "b": P("data"), "s": P()}),
    "2x4": ((2, 4), {"w": P("data", "model"), "b": P("model"), "s": P()}),
}


def on_mesh(name: str) -> Any:
    """Parameters on a mesh."""
    sizes, specs = MESHES[name]
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = Mesh(np.asarray(jax.devices()[:8]).reshape(sizes), ("data", "model")[: len(sizes)])
    shapes = {"w": (8, 16), "b": (16,), "s": ()}
    places = {k: NamedSharding(mesh, spec) for k, spec in specs.items()}
    params = {k: jnp.asarray(RNG.uniform(0.5, 2, x), jnp.float32) for k, x in shapes.items()}
    return jax.device_put(params, places)


def moved(tree: Any, expected: Any) -> list[str]:
    """The arrays that lie elsewhere than in the other tree."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True)
    return [
        f"{jax.tree_util.keystr(path)} is {x.sharding}, not {y.sharding}"
        for (path, x), y in pairs
        if isinstance(x, jax.Array) and not x.sharding.is_equivalent_to(y.sharding, x.ndim)
    ]


@pytest.mark.parametrize("mesh", MESHES)
@for_every(where=lambda e: is_first(e) and not e.spreads, slow=True)
def test_the_state_stays_on_the_mesh(example: Example, mesh: str) -> None:
    """From init on, compiled or not; a step leaves it there, so that one program serves all."""
    params = on_mesh(mesh)
    tx, extra = example.make(), example.extra
    state = tx.init(params)
    arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array)]
    assert all(len(x.sharding.device_set) == 8 for x in arrays)
    assert moved(jax.jit(tx.init)(params), state) == []
    gradient = given(example, params)
    step: Any = jax.jit(lambda g, s, p: gradtx.step(tx, g, s, p, **extra))
    new, after = step(gradient, state, params)
    assert moved((new, after), (params, state)) == []
    step(gradient, after, new)
    assert step._cache_size() == 1


def test_the_norm_is_of_the_whole_tree(shardings: Any) -> None:
    """Not of the part on one device."""
    gradient = jax.device_put(some_tree(), shardings)
    tx = gradtx.clip_by_global_norm(1.0)
    clipped, _ = jax.jit(tx.update)(gradient, tx.init(gradient))
    squares = [np.sum(np.square(np.asarray(x, np.float64))) for x in clipped.values()]
    assert_close(np.sqrt(sum(squares)), 1.0, 1e-6)


def test_misplaced_leaves_are_found(shardings: Any) -> None:
    """So that the laws above are known to fail."""
    params = jax.device_put(some_tree(), shardings)
    elsewhere = {**params, "w": jax.device_put(params["w"], jax.devices()[0])}
    assert len(misplaced({"mu": elsewhere}, shardings)) == 1


# -- explicit axes ---------------------------------------------------------------------------------

BLOCKS = {"w": P("data", "model"), "b": P("model"), "s": P()}
WIDE = {"w": (8, 16), "b": (16,), "s": ()}


def _wide_tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)  # the same for whichever tests are run
    return {k: jnp.asarray(rng.uniform(0.5, 2, n), jnp.float32) for k, n in WIDE.items()}


@for_every(where=lambda e: is_first(e) and not e.spreads, slow=True)
def test_with_explicit_axes(example: Example) -> None:
    """Where types say how a mesh divides arrays: the same numbers, compiled once, and a state that
    stays where it was."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    if not hasattr(jax, "set_mesh"):
        pytest.skip("needs a JAX that has `jax.set_mesh`")
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    tree = _wide_tree()
    # Two, since of one alone SOAP's second moments are rounding errors.
    gradients = [given(example, {k: x - shift for k, x in tree.items()}) for shift in (0, 1)]

    def after_two_steps(gradients: Any, params: Any) -> Any:
        tx = example.make()
        first = tx.init(params)
        step = jax.jit(
            lambda gradient, state, params: gradtx.step(
                tx, gradient, state, params, **example.extra
            )
        )
        state = first
        for gradient in gradients:
            params, state = step(gradient, state, params)
        return params, first, state, step._cache_size()

    expected, *_ = after_two_steps(gradients, tree)
    with jax.set_mesh(mesh):
        divided = {k: NamedSharding(mesh, spec) for k, spec in BLOCKS.items()}
        behind = {
            k: NamedSharding(mesh, P(*[None] * bool(example.per_example), *spec))
            for k, spec in BLOCKS.items()
        }
        got, first, last, compiled = after_two_steps(
            [jax.device_put(gradient, behind) for gradient in gradients],
            jax.device_put(tree, divided),
        )
    assert compiled == 1
    assert_same(got, expected, 1e-4)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(last), strict=True
    ):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim), jax.tree_util.keystr(path)


def _has_no_objective(example: Example) -> bool:
    """One that is evaluated eagerly needs a mesh to be set."""
    return is_first(example) and not example.spreads and "value_fn" not in example.extra


@for_every(where=_has_no_objective, slow=True)
def test_eagerly_with_explicit_axes(example: Example) -> None:
    """Nobody has to set the mesh for a step that is not compiled."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    if not hasattr(jax.sharding, "auto_axes"):
        pytest.skip("needs a JAX that has `jax.sharding.auto_axes`")
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    tree = _wide_tree()
    gradient, tx = given(example, tree), example.make()
    expected, _ = gradtx.step(tx, gradient, tx.init(tree), tree, **example.extra)

    def divided(tree: Any, behind: int = 0) -> Any:
        where = {k: NamedSharding(mesh, P(*[None] * behind, *s)) for k, s in BLOCKS.items()}
        return jax.device_put(tree, where)

    params = divided(tree)
    state = tx.init(params)
    grads = divided(gradient, int(bool(example.per_example)))
    got, last = gradtx.step(tx, grads, state, params, **example.extra)
    assert_same(got, expected, 1e-4)
    for x, y in zip(jax.tree.leaves((got, last)), jax.tree.leaves((params, state)), strict=True):
        assert jax.typeof(x) == jax.typeof(y)
