"""State spread over the devices that share the parameters: the numbers, the bytes, the places."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

import gradtx
from gradtx.sharding import bytes_per_device, init, replicated, state_shardings, zero

from .places import P, abstract, mesh_of, placed, same_places

# Parameters that are on every device of "data"; on "2x4" they are divided over "model".
SHARED = {
    "8": {"w": P(), "b": P(), "s": P(), "odd": P()},
    "2x4": {"w": P(None, "model"), "b": P("model"), "s": P(), "odd": P()},
}
SHAPES = {"w": (16, 32), "b": (32,), "s": (), "odd": (3, 5)}


def shared(mesh: str, dtype: Any = jnp.float32) -> Any:
    params = placed(mesh_of(mesh), SHARED[mesh], SHAPES)
    return jax.tree.map(lambda x: x.astype(dtype), params)


def on_one_device(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), tree)


def trained(tx: Any, params: Any, steps: int = 3) -> tuple[Any, Any, int]:
    """Parameters and state after some steps, and how many programs they took."""
    step: Any = jax.jit(lambda grads, state, params: gradtx.step(tx, grads, state, params))
    state, rng = tx.init(params), np.random.default_rng(1)
    for _ in range(steps):
        noise = {k: rng.normal(size=np.shape(params[k])) for k in sorted(params)}
        grads = jax.tree.map(
            lambda n, p: jax.device_put(n.astype(p.dtype), p.sharding), noise, params
        )
        params, state = step(grads, state, params)
    return params, state, step._cache_size()


ADAMW, FALL = gradtx.adamw(1e-2), gradtx.scale(-0.1)
MADE: dict[str, Any] = {
    "adamw": lambda p: (zero(ADAMW, p), ADAMW),
    "in a chain": lambda p: (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), zero(ADAMW, p)),
        gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW),
    ),
    "accumulating": lambda p: (zero(around(ADAMW), p), around(ADAMW)),
    "in an accumulation": lambda p: (around(zero(ADAMW, p)), around(ADAMW)),
    "few bits": lambda p: (
        zero(gradtx.store(ADAMW, "int8", min_size=64), p),
        gradtx.store(ADAMW, "int8", min_size=64),
    ),
    "a momentum after another": lambda p: (
        gradtx.chain(zero(gradtx.scale_by_adam(), p), zero(gradtx.trace(0.9), p), FALL),
        gradtx.chain(gradtx.scale_by_adam(), gradtx.trace(0.9), FALL),
    ),
    "muon": lambda p: (zero(gradtx.muon(1e-2), p), gradtx.muon(1e-2)),
    "in a group": lambda p: (
        gradtx.partition({"w": zero(ADAMW, p), ".*": gradtx.sgd(0.1)}),
        gradtx.partition({"w": ADAMW, ".*": gradtx.sgd(0.1)}),
    ),
    "of Optax": lambda p: (zero(optax.adamw(1e-2), p), gradtx.chain(optax.adamw(1e-2))),
}


def around(inner: Any) -> Any:
    return gradtx.accumulate(inner, 2)


@pytest.mark.parametrize("mesh", SHARED)
@pytest.mark.parametrize("name", MADE)
def test_only_the_state_lies_elsewhere(name: str, mesh: str) -> None:
    """The numbers are those of one device, the parameters stay, one program serves all steps."""
    params = shared(mesh)
    tx, plain = MADE[name](params)
    got, state, programs = trained(tx, params)
    expected, _, _ = trained(plain, on_one_device(params))
    # Blocks of int8 lie inside of the parts, and so are others than those of the whole.
    error = 2e-3 if name == "few bits" else 2e-6
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=error, atol=error)
    assert same_places(got, params) == []
    assert same_places(state, state_shardings(tx, params)) == []
    if name != "few bits":  # compiled, init does not see how to cut them
        assert same_places(jax.jit(tx.init)(params), state) == []
    assert programs == 1


@pytest.mark.parametrize("mesh", SHARED)
def test_each_device_has_its_part(mesh: str) -> None:
    params = shared(mesh)
    tx = zero(ADAMW, params)
    state, plain = init(tx, params), init(ADAMW, params)
    assert same_places(state, init(ADAMW, params, zero="data")) == []
    assert same_places(state, state_shardings(ADAMW, params, zero="data")) == []
    left = replicated(state, axis="data")
    assert {re.sub(r".*\.", "", path) for path in left} == {
        *("count", "mu['s']", "nu['s']", "mu['odd']", "nu['odd']")
    }
    parts = mesh_of(mesh).shape["data"]
    assert bytes_per_device(state) <= bytes_per_device(plain) / parts + sum(left.values())


def test_which_axis_is_spread() -> None:
    """The longest that is whole and can be, or one that is divided already."""
    mesh = abstract(mesh_of("2x4"))
    where = {
        "long": ((8, 32, 16), P(), P(None, "data")),
        "whole": ((8, 32), P(None, "model"), P("data", "model")),
        "both": ((3, 32), P(None, "model"), P(None, ("model", "data"))),
        "none": ((3, 5), P(), P()),
        "done": ((8, 8), P("data"), P("data")),
    }
    shape: Any = jax.ShapeDtypeStruct
    params = {
        k: shape(n, jnp.float32, sharding=NamedSharding(mesh, spec))
        for k, (n, spec, _) in where.items()
    }
    found = state_shardings(gradtx.sgd(0.1, 0.9), params, zero="data")
    specs = {k: tuple(x.spec) for k, x in found[0].trace.items()}
    assert specs == {k: tuple(spec) for k, (_, _, spec) in where.items()}


def test_parameters_are_rounded_as_ever() -> None:
    """Also from updates that lead to them exactly."""
    params = shared("8", jnp.bfloat16)
    plain = gradtx.master_weights(gradtx.sgd(2.0**-10))
    tx = zero(plain, params)
    expected, _, _ = trained(plain, on_one_device(params))
    got, state, _ = trained(tx, params)
    assert all(np.array_equal(got[k], expected[k]) for k in params)
    update = jax.jit(tx.update)
    updates, _ = update(params, state, params)
    alone, _ = plain.update(on_one_device(params), on_one_device(state), on_one_device(params))
    assert all(np.array_equal(updates[k], alone[k]) for k in params)


SIZES = {"f64": 8, "f32": 4, "bf16": 2, "u16": 2, "s32": 4, "pred": 1}
COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def collectives(function: Any, *args: Any) -> dict[str, int]:
    """The bytes of the results of the collectives of a compiled program, by kind."""
    found: dict[str, int] = {}
    for line in function.lower(*args).compile().as_text().splitlines():
        if match := COLLECTIVE.search(line):
            arrays = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(
                SIZES[d] * int(np.prod([int(n) for n in s.split(",") if n])) for d, s in arrays
            )
            found[match[2]] = found.get(match[2], 0) + size
    return found


@pytest.mark.usefixtures("compiled_afresh")
def test_what_is_sent() -> None:
    """The gradients once, reduced, and the parameters once, gathered."""
    mesh = mesh_of("8")
    params = placed(mesh, {"w": P(), "v": P()}, {"w": (64, 32), "v": (32, 16)})
    batch = jax.device_put(jnp.ones((32, 64)), NamedSharding(mesh, P("data")))
    size = sum(x.nbytes for x in params.values())

    def sent(tx: Any) -> dict[str, int]:
        def step(params: Any, state: Any, batch: Any) -> Any:
            loss = lambda p: jnp.mean(jnp.square(jnp.tanh(batch @ p["w"]) @ p["v"]))  # noqa: E731
            return gradtx.step(tx, jax.grad(loss)(params), state, params)

        return collectives(jax.jit(step), params, tx.init(params), batch)

    alone = sent(ADAMW)
    spread = sent(zero(ADAMW, params))
    assert alone == {"all-reduce": size}
    assert spread["all-gather"] == size
    assert spread.get("all-reduce", 0) + 8 * spread.get("reduce-scatter", 0) <= size
    assert set(spread) <= {"all-reduce", "reduce-scatter", "all-gather"}


def test_without_it_nothing_is_sent() -> None:
    params = shared("2x4")
    grads = jax.tree.map(jnp.copy, params)
    assert collectives(jax.jit(ADAMW.update), grads, ADAMW.init(params), params) == {}
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW)
    found = collectives(jax.jit(tx.update), grads, tx.init(params), params)
    assert set(found) == {"all-reduce"}
    assert found["all-reduce"] <= 3 * 8  # a CPU adds up in float64


def test_it_is_a_value() -> None:
    params = shared("2x4")
    tx = zero(ADAMW, params)
    shapes = jax.tree.map(lambda x: x.sharding, params)
    assert tx == zero(ADAMW, shapes) == pickle.loads(pickle.dumps(tx))
    assert hash(tx) == hash(zero(ADAMW, {k: P(*SHARED["2x4"][k]) for k in params}))
    assert gradtx.parse(repr(tx)) == tx
    assert gradtx.from_config(tx.to_config()) == tx
    assert tx.params == {"b": ("model",), "w": (None, "model")}
    assert tx.replace(axis="model") != tx
    assert zero(ADAMW, mesh_of("8")).params == {}


def test_an_array_of_numpy_beside_others() -> None:
    params = {**shared("8"), "n": np.ones(16, np.float32)}
    tx = zero(ADAMW, mesh_of("8"))
    state = tx.init(params)
    updates, _ = tx.update(params, state, params)
    assert state[0].mu["n"].sharding.spec == P("data")
    np.testing.assert_allclose(updates["n"], -1e-2, rtol=1e-3)


def test_explicit_axes() -> None:
    """There the types say how the parameters lie."""
    if not hasattr(jax, "set_mesh"):
        pytest.skip("this JAX has no jax.set_mesh")
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=kinds)
    params = placed(mesh, {**SHARED["2x4"], "odd": P(None, None)}, SHAPES)  # as types write them
    tx = zero(ADAMW, params)
    with jax.set_mesh(mesh):
        got, state, programs = trained(tx, params)
        assert same_places(jax.jit(tx.init)(params), state) == []
    expected, _, _ = trained(ADAMW, on_one_device(params))
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=2e-6)
    assert same_places(got, params) == []
    assert programs == 1


def test_what_cannot_be_is_refused() -> None:
    params = shared("2x4")
    alone = on_one_device(params)
    with pytest.raises(TypeError, match=r"sharding.zero: params: at b: float32\[32\] lies on one"):
        zero(ADAMW, alone)
    with pytest.raises(ValueError, match=r"mesh \(data=2, model=4\) has no axis 'dta'"):
        zero(ADAMW, params, "dta").init(params)
    with pytest.raises(ValueError, match=r"at b: float32\[32\] is divided as .*, and params said"):
        zero(ADAMW, mesh_of("2x4")).init(params)
    collide = {"a/b": params["b"], "a": {"b": params["w"]}}
    with pytest.raises(ValueError, match=r"at a/b are two parameters, of which one is divided as"):
        zero(ADAMW, collide)
    for axis in ("data", "model"):
        mapped = jax.shard_map(
            zero(ADAMW, mesh_of("2x4")).init,
            mesh=mesh_of("2x4"),
            in_specs=P(),
            out_specs=P(),
            axis_names={axis},
        )
        with pytest.raises(ValueError, match="inside a shard_map arrays are parts already"):
            jax.jit(mapped)({"b": jnp.ones(16)})
    other = placed(mesh_of("2x4"), {"w": P()}, {"w": (6,)})
    with pytest.raises(
        ValueError, match=r"at w: float32\[6\]: .* is of 2 axes, and the array has 1"
    ):
        jax.jit(zero(ADAMW, params).init)(other)
