"""What does not fit is refused, by name, and with the way out."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

import gradtx
from gradtx.sharding import bytes_per_device, collectives, init, replicated, zero

from .places import P, abstract, mesh_of, placed

ADAM = gradtx.adam(1e-2)
shape_of: Any = jax.ShapeDtypeStruct


def params() -> Any:
    return placed(mesh_of("2x4"), {"w": P(None, "model"), "b": P()}, {"w": (8, 16), "b": (16,)})


@pytest.mark.parametrize("axis", [None, 3, (), ("data", "data"), (None,)])
def test_an_axis_of_a_mesh_is_a_name(axis: Any) -> None:
    with pytest.raises(TypeError, match=r"sharding.zero: axis must be the name of an axis"):
        zero(ADAM, params(), axis)


def test_axes_in_a_list() -> None:
    assert hash(zero(ADAM, params(), ["data", "model"])) == hash(  # type: ignore[arg-type]
        zero(ADAM, params(), ("data", "model"))
    )


def test_absent_leaves_are_no_spec() -> None:
    """A tuple of absent parameters is written like the spec of one that is whole."""
    given = params() | {"absent": (None, None)}
    tx = zero(ADAM, given)
    assert tx == zero(ADAM, jax.tree.map(lambda x: x.sharding, given)) == zero(ADAM, params())
    assert tx.init(given)[0].mu["absent"] == (None, None)


def test_the_way_out_is_one() -> None:
    """`shardings=` is offered by the functions that take it."""
    alone = {"w": jnp.ones(8)}
    for function in (zero, gradtx.sharding.plan, gradtx.sharding.state_shardings):
        with pytest.raises(TypeError, match=r"at w: .* lies on one device: put") as raised:
            function(ADAM, alone)
        takes = function is gradtx.sharding.state_shardings
        assert ("shardings=" in str(raised.value)) == takes


def test_a_state_is_made_of_arrays() -> None:
    where = NamedSharding(abstract(mesh_of("8")), P())
    with pytest.raises(TypeError, match=r"init: at w: float32\[8\] is a shape"):
        init(ADAM, {"w": shape_of((8,), jnp.float32, sharding=where)})


def test_bytes_of_what_does_not_fit() -> None:
    where = NamedSharding(mesh_of("8"), P("data"))
    arrays = {"v": np.ones(7), "w": np.ones(())}
    for given, kind, message in (
        ({"v": where, "w": where}, ValueError, "at ['v']: float64[7]: "),
        ({"v": NamedSharding(mesh_of("8"), P()), "w": where}, ValueError, "at ['w']: "),
        ({"v": where}, ValueError, "['w'] is in the arrays only"),
        ({"v": P(), "w": P()}, TypeError, "is no sharding"),
    ):
        with pytest.raises(kind, match=re.escape(message)):
            bytes_per_device(arrays, given)


def test_replicated_over_several_axes() -> None:
    """What is divided over one of them alone is listed."""
    state = zero(ADAM, params(), "model").init(params())
    assert replicated(state, axis=("model",)) == replicated(state, axis="model")
    assert len(replicated(state, axis=("data", "model"))) == len(jax.tree.leaves(state))
    state = zero(ADAM, params(), ("data", "model")).init(params())
    assert list(replicated(state, axis=("data", "model"))) == ["[0].count"]
    with pytest.raises(ValueError, match="the mesh has no axis 'dta'"):
        replicated(state, axis=("data", "dta"))


def test_collectives_are_those_of_a_compiled_program() -> None:
    lowered = jax.jit(jnp.sum).lower(jnp.ones(4))
    with pytest.raises(TypeError, match=r"compiled.as_text\(\), got a Compiled"):
        collectives(lowered.compile())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only lowered"):
        collectives(lowered.as_text())


@pytest.mark.parametrize("step", [False, True])
def test_eagerly_what_lies_elsewhere_is_named(step: bool) -> None:
    """JAX would speak of its own functions."""
    given = params()
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), zero(gradtx.accumulate(ADAM, 2), given))
    state = tx.init(given)
    first = jax.devices()[0]

    def run(grads: Any, state: Any, given: Any) -> Any:
        if step:
            return gradtx.step(tx, grads, state, given)
        return tx.update(grads, state, given)

    count = state[1].mini_step
    moved = state[0], state[1]._replace(mini_step=jax.device_put(count, first))
    with pytest.raises(ValueError, match=r"^chain: state\[1\].mini_step, int32\[\], lies on") as e:
        run(given, moved, given)
    assert "jax.device_put(state, gradtx.sharding.state_shardings(tx, params))" in str(e.value)
    with pytest.raises(ValueError, match=r"state\[1\].* on the mesh .* and params at b, .* lies"):
        run(jax.device_put(given, first), state, jax.device_put(given, first))
    run(given, state, given)


def test_gradients_on_one_device_are_named() -> None:
    given = params()
    grads = jax.device_put(given, jax.devices()[0])
    with pytest.raises(ValueError, match=r"^adam: updates at b, float32\[16\], lies on") as raised:
        ADAM.update(grads, ADAM.init(given), given)
    assert "jax.device_put(updates, jax.tree.map(" in str(raised.value)


def test_other_errors_stay() -> None:
    state = jax.device_put(ADAM.init(params()), jax.devices()[0])
    with pytest.raises(ValueError, match="at w"):
        ADAM.update({**params(), "w": jnp.ones(3)}, state, params())
