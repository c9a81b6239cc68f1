"""States of PyTorch's optimizers: imported in mid-run, the curve goes on; exported, it does in
PyTorch. Recorded runs, and PyTorch itself where it is installed."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import torch as gt

from .cases import GO_ON, STOP, STOPPED, Case, matrices

every = pytest.mark.parametrize("label", STOPPED)


@functools.cache
def golden() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "states.json").read_text())["cases"]


def recorded(label: str) -> dict[str, Any]:
    """The record, with arrays as `state_dict()` has them, and its numbers as keys."""
    found = copy.deepcopy(golden()[label])
    found["state_dict"]["state"] = {
        int(number): {name: None if x is None else np.array(x) for name, x in own.items()}
        for number, own in found["state_dict"]["state"].items()
    }
    for when in ("stopped", "end"):
        found[when] = {k: np.array(x) for k, x in found[when].items()}
    return found


def optimizer(case: Case) -> Any:
    more = {"ns_dtype": "float64"} if case.optimizer == "Muon" else {}
    return getattr(gt, case.optimizer.lower())(**case.arguments, **more)


def go_on(tx: Any, state: Any, params: Any, curvatures: Any) -> Any:
    @jax.jit
    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grads = jax.tree.map(jnp.multiply, curvatures, params)
        return gradtx.step(tx, grads, state, params), None

    return jax.lax.scan(step, (params, state), length=GO_ON)[0][0]


def assert_follows(got: Any, expected: Any, start: Any) -> None:
    """1e-12 of the way from the start, for each leaf."""
    for k, x in expected.items():
        way = np.max(np.abs(x - start[k]))
        np.testing.assert_allclose(got[k], x, rtol=0, atol=1e-12 * way, err_msg=k)


def test_the_file_holds_the_cases_of_the_table() -> None:
    assert {k: x["case"] for k, x in golden().items()} == json.loads(json.dumps(STOPPED))


@every
def test_a_recorded_run_goes_on(label: str) -> None:
    record, case = recorded(label), STOPPED[label]
    curvatures, start = matrices(case.optimizer)
    with jax.enable_x64(True):
        tx = optimizer(case)
        params = jax.tree.map(jnp.asarray, record["stopped"])
        state = gt.import_state(tx, record["state_dict"], params)
        initial = tx.init(params)
        assert jax.tree.structure(state) == jax.tree.structure(initial)
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(initial), strict=True):
            assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
        buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
        assert len(set(buffers)) == len(buffers)
        assert_follows(go_on(tx, state, params, curvatures), record["end"], start)


@every
def test_a_recorded_optimizer_is_read_with_its_arguments(label: str) -> None:
    record, case = recorded(label), STOPPED[label]
    curvatures, start = matrices(case.optimizer)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, record["stopped"])
        tx, state = gt.from_state_dict(record["state_dict"], params)
        if case.optimizer == "Muon":
            tx = tx.replace(ns_dtype="float64")
        assert_follows(go_on(tx, state, params, curvatures), record["end"], start)


@every
def test_what_was_imported_is_exported_again(label: str) -> None:
    record = recorded(label)
    with jax.enable_x64(True):
        tx, params = optimizer(STOPPED[label]), jax.tree.map(jnp.asarray, record["stopped"])
        state = gt.import_state(tx, record["state_dict"], params)
        back = gt.export_state(tx, state, params, step=STOP)
    kept = {n: own for n, own in record["state_dict"]["state"].items() if own}
    assert back["state"].keys() == kept.keys()
    for number, own in kept.items():
        assert back["state"][number].keys() == own.keys()
        for name, x in own.items():
            np.testing.assert_allclose(back["state"][number][name], x, rtol=1e-15, err_msg=name)
    (group,), (given,) = back["param_groups"], record["state_dict"]["param_groups"]
    for name, x in group.items():
        assert json.loads(json.dumps(x)) == given[name], name


@every
def test_an_empty_state_is_that_of_init(label: str) -> None:
    case = STOPPED[label]
    tx, params = optimizer(case), jax.tree.map(jnp.asarray, matrices(case.optimizer)[1])
    empty = {"state": {}, "param_groups": recorded(label)["state_dict"]["param_groups"]}
    state, expected = gt.import_state(tx, empty, params), tx.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


# -- which parameter is which ----------------------------------------------------------------------

PARAMS = {"dense": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))}, "out": jnp.zeros((4, 3))}


def adam_entries(shape: tuple[int, ...], value: float, step: int = 5) -> dict[str, Any]:
    ramp = value + np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return {"step": np.array(float(step)), "exp_avg": ramp, "exp_avg_sq": ramp**2}


def in_torchs_order() -> dict[str, Any]:
    """Of out, the kernel (outputs, inputs), and the bias, as a model may have them."""
    shapes = ((4, 3), (3, 2), (3,))
    return {
        "state": {i: adam_entries(shape, 100.0 * i) for i, shape in enumerate(shapes)},
        "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}],
    }


NAMES = {"out": "out.weight", "dense/kernel": "fc.weight", "dense/bias": "fc.bias"}


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (NAMES, None),
        ({x: k for k, x in NAMES.items()}, None),
        (dict(sorted(NAMES.items())), list(NAMES.values())),
        ({x: k for k, x in sorted(NAMES.items())}, list(NAMES.values())),
        ({"dense/bias": 2, "dense/kernel": 1, "out": 0}, None),
        ({"dense": {"bias": "fc.bias", "kernel": "fc.weight"}, "out": "out.weight"}, "known"),
    ],
    ids=["paths", "names", "paths, known", "names, known", "numbers", "tree"],
)
@pytest.mark.parametrize(
    "transpose", ["kernel", {"dense": {"bias": False, "kernel": True}, "out": False}]
)
def test_parameters_are_found_by_name(names: Any, known: Any, transpose: Any) -> None:
    saved, tx = in_torchs_order(), gt.adam()
    if known:
        saved["param_groups"][0]["param_names"] = list(NAMES.values())
    state = gt.import_state(tx, saved, PARAMS, names=names, transpose=transpose)
    mu = gradtx.tree.get(state, "mu")
    np.testing.assert_array_equal(mu["out"], saved["state"][0]["exp_avg"])
    np.testing.assert_array_equal(mu["dense"]["kernel"], saved["state"][1]["exp_avg"].T)
    np.testing.assert_array_equal(mu["dense"]["bias"], saved["state"][2]["exp_avg"])
    assert gradtx.tree.get(state, "count") == 5
    if not known:
        back = gt.export_state(tx, state, PARAMS, names=names, transpose=transpose)
        for number, own in saved["state"].items():
            for name, x in own.items():
                np.testing.assert_array_equal(back["state"][number][name], x)


def test_a_kernel_of_a_convolution_is_transposed() -> None:
    params = {"kernel": jnp.zeros((5, 6, 2, 3))}  # window, inputs, outputs
    own = adam_entries((3, 2, 5, 6), 0.0)
    saved = {"state": {0: own}, "param_groups": [{"params": [0]}]}
    state = gt.import_state(gt.adam(), saved, params, transpose="kernel")
    np.testing.assert_array_equal(state[0].mu["kernel"], np.einsum("oihw->hwio", own["exp_avg"]))
    back = gt.export_state(gt.adam(), state, params, transpose="kernel")
    np.testing.assert_array_equal(back["state"][0]["exp_avg"], own["exp_avg"])


def test_absent_leaves_and_narrow_params() -> None:
    params = {"a": None, "b": jnp.zeros(3, jnp.bfloat16)}
    saved = {"state": {0: adam_entries((3,), 1.0)}, "param_groups": [{"params": [0]}]}
    state = gt.import_state(gt.adam(), saved, params)
    assert state[0].mu["a"] is None
    assert state[0].mu["b"].dtype == jnp.float32


# -- in other transformations ----------------------------------------------------------------------


def test_in_a_chain_and_with_a_schedule() -> None:
    rate = gt.step_lr(0.1, 3)
    saved = {"state": {0: adam_entries((3,), 1.0)}, "param_groups": [{"params": [0]}]}
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gt.adam(rate))
    state = gt.import_state(tx, saved, jnp.zeros(3))
    counts = [int(x) for _, x in gradtx.tree.get_all_with_path(state, "count")]
    assert counts == [5, 5]
    named = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", gt.adam()))
    assert gt.import_state(named, saved, jnp.zeros(3))["adam"][0].count == 5
    back = gt.export_state(tx, state, jnp.zeros(3))
    assert back["param_groups"][0]["lr"] == pytest.approx(0.01)


def test_groups_become_a_partition() -> None:
    saved = in_torchs_order()
    adam = {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "amsgrad": False, "maximize": False}
    adam |= {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
    decays = {"weight_decay": 0.5, "decoupled_weight_decay": True, "params": [0, 1]}
    plain = {"weight_decay": 0, "decoupled_weight_decay": True, "params": [2], "initial_lr": 0.1}
    saved["param_groups"] = [adam | decays, adam | plain]
    tx, state = gt.from_state_dict(saved, PARAMS, names=NAMES, transpose="kernel")
    assert dict(tx.assignment(PARAMS)) == {
        "dense/bias": "group 1",
        "dense/kernel": "group 0",
        "out": "group 0",
    }
    assert tx.transforms["group 0"] == gt.adam(
        0.1, (0.9, 0.99), weight_decay=0.5, decoupled_weight_decay=True
    )
    same = gt.import_state(tx, saved, PARAMS, names=NAMES, transpose="kernel")
    jax.tree.map(np.testing.assert_array_equal, state, same)
    back = gt.export_state(tx, state, PARAMS, names=NAMES, transpose="kernel")
    assert [group["params"] for group in back["param_groups"]] == [[1, 0], [2]]
    np.testing.assert_array_equal(back["state"][1]["exp_avg"], saved["state"][1]["exp_avg"])
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)


def test_a_frozen_group_takes_no_parameter() -> None:
    params = {"frozen": jnp.zeros(7), "head": jnp.zeros(3)}
    saved = {"state": {0: adam_entries((3,), 1.0)}, "param_groups": [{"params": [0]}]}
    tx = gradtx.partition({"frozen": gradtx.freeze(), ".*": gt.adam()})
    state = gt.import_state(tx, saved, params)
    np.testing.assert_array_equal(gradtx.tree.get(state, "mu")["head"], [1, 2, 3])


# -- errors ----------------------------------------------------------------------------------------


def one(**changes: Any) -> dict[str, Any]:
    own = {name: x for name, x in (adam_entries((3,), 1.0) | changes).items() if x is not None}
    return {"state": {0: own}, "param_groups": [{"params": [0]}]}


@pytest.mark.parametrize(
    ("change", "tx", "message"),
    [
        ({"exp_avg_sq": None}, gt.adam(), r"torch\.adam: parameter 0 \(at w\) has no exp_avg_sq"),
        ({"step": None}, gt.adam(), r"parameter 0 \(at w\) has no step"),
        ({"max_exp_avg_sq": np.ones(3)}, gt.adam(), "has max_exp_avg_sq, for which torch.adam"),
        ({}, gt.adam(amsgrad=True), "has no max_exp_avg_sq"),
        ({"exp_avg": np.ones(4)}, gt.adam(), r"exp_avg has the shape \(4,\), expected \(3,\)"),
        ({}, gradtx.adam(0.1), "no counterpart of the state of"),
        ({}, gradtx.accumulate(gt.adam(), 2), "no counterpart of the state of accumulate"),
        ({}, gradtx.clip(1.0), "none of gradtx.torch's optimizers in clip"),
        ({}, gradtx.chain(gt.adam(), gt.sgd()), "two of gradtx.torch's optimizers .* move w"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, tx: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        gt.import_state(tx, one(**change), {"w": jnp.zeros(3)})


def test_other_errors() -> None:
    params, adam = {"w": jnp.zeros(3)}, gt.adam()
    two = {"w": jnp.zeros(3), "v": jnp.zeros(3)}
    with pytest.raises(ValueError, match="1 parameters, the optimizer here 2: v, w"):
        gt.import_state(adam, one(), two)
    with pytest.raises(TypeError, match=r"what optimizer.state_dict.. returns.* got a dict of w"):
        gt.import_state(adam, params, params)
    with pytest.raises(ValueError, match="'x' is no leaf; the leaves are w"):
        gt.import_state(adam, one(), params, names={"x": "weight"})
    with pytest.raises(ValueError, match="nothing for 'v'"):
        gt.import_state(adam, one(), two, names={"w": 0})
    with pytest.raises(ValueError, match="matches no leaf"):
        gt.import_state(adam, one(), params, transpose="kernel")
    with pytest.raises(ValueError, match="PyTorch made 5 updates, step=6"):
        gt.import_state(adam, one(), params, step=6)
    late = {"state": {0: adam_entries((3,), 1.0, 5), 1: adam_entries((3,), 1.0, 6)}}
    with pytest.raises(ValueError, match=r"parameter 0 \(at v\) has step 5.0, .*\(at w\) has 6.0"):
        gt.import_state(adam, late, two)
    momentum = {"state": {0: {"momentum_buffer": np.ones(3)}}}
    scheduled = gt.sgd(gt.step_lr(0.1, 3), momentum=0.9)
    with pytest.raises(ValueError, match="give step, the number of updates made"):
        gt.import_state(scheduled, momentum, params)
    assert gradtx.tree.get(gt.import_state(scheduled, momentum, params, step=7), "count") == 7
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    old = {"state": {}, "param_groups": [group | {"maximize": False, "params": [0]}]}
    assert gt.from_state_dict(old, params, optimizer=gt.adamw)[0] == gt.adamw(0.1, weight_decay=0)
    with pytest.raises(
        ValueError, match=r"none of .* takes exactly lr, betas.*=gradtx.torch.adamw"
    ):
        gt.from_state_dict(old, params)
    with pytest.raises(TypeError, match=r"one of gradtx.torch's, got <function"):
        gt.from_state_dict(old, params, optimizer=lambda: adam)


# -- live ------------------------------------------------------------------------------------------


@every
def test_live_back_and_forth(label: str) -> None:
    """PyTorch stops; gradtx goes on, and hands over to another optimizer of PyTorch."""
    torch = pytest.importorskip("torch")
    from .make_golden import in_one_dtype, optimizer_and_scheduler

    case = STOPPED[label]
    curvatures, starts = matrices(case.optimizer)

    def run(optimizer: Any, params: Any, steps: int) -> None:
        for _ in range(steps):
            for k, x in params.items():
                x.grad = torch.tensor(curvatures[k] * x.detach().numpy())
            optimizer.step()

    with in_one_dtype(torch.float64), jax.enable_x64(True):
        there = {k: torch.tensor(x, requires_grad=True) for k, x in starts.items()}
        running, _ = optimizer_and_scheduler(case, list(there.values()))
        run(running, there, STOP)
        params = {k: jnp.array(x.detach().numpy()) for k, x in there.items()}
        tx = optimizer(case)
        state = gt.import_state(tx, running.state_dict(), params)
        frozen = jax.tree.map(np.array, state)
        back = gt.export_state(tx, state, params, step=STOP)
        again = {k: torch.tensor(np.array(x), requires_grad=True) for k, x in params.items()}
        taken_over, _ = optimizer_and_scheduler(case, list(again.values()))
        taken_over.load_state_dict(back)
        run(running, there, GO_ON)
        run(taken_over, again, GO_ON)
        jax.tree.map(np.testing.assert_array_equal, state, frozen)  # no memory is shared
        expected = {k: x.detach().numpy() for k, x in there.items()}
        assert_follows(go_on(tx, state, params, curvatures), expected, starts)
        assert_follows({k: x.detach().numpy() for k, x in again.items()}, expected, starts)
