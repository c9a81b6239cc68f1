"""Which leaves a transformation acts on, and that Optax's masks mean the same."""

import pickle
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import MaskedNode, matching

PARAMS = {
    "encoder": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "decoder": [{"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, {"scale": jnp.ones(())}],
}
PATHS = [
    "decoder/0/bias",
    "decoder/0/kernel",
    "decoder/1/scale",
    "encoder/bias",
    "encoder/kernel",
]


def zeroed(tx: Any, params: Any = PARAMS) -> list[str]:
    """The paths of the leaves that become zero."""
    updates, _ = tx.update(params, tx.init(params), params)
    entries = jax.tree_util.tree_leaves_with_path(updates)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, u in entries if not u.any()
    ]


def touched(mask: Any, params: Any = PARAMS) -> list[str]:
    """The paths of the leaves that a mask selects."""
    return zeroed(gradtx.masked(gradtx.set_to_zero(), mask), params)


def kernels(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


TREE = {
    "encoder": {"kernel": True, "bias": False},
    "decoder": [{"kernel": True, "bias": False}, {"scale": False}],
}
PREFIX = {"encoder": True, "decoder": [False, {"scale": True}]}


@pytest.mark.parametrize(
    ("mask", "paths"),
    [
        (TREE, ["decoder/0/kernel", "encoder/kernel"]),
        (lambda params: TREE, ["decoder/0/kernel", "encoder/kernel"]),
        (kernels, ["decoder/0/kernel", "encoder/kernel"]),
        (PREFIX, ["decoder/1/scale", "encoder/bias", "encoder/kernel"]),
        ({"encoder": None, "decoder": True}, PATHS[:3]),
        (True, PATHS),
        (False, []),
        ("kernel", ["decoder/0/kernel", "encoder/kernel"]),
        ("^encoder/", ["encoder/bias", "encoder/kernel"]),
        (r"decoder/\d/(bias|scale)$", ["decoder/0/bias", "decoder/1/scale"]),
        ("(?i)KERNEL", ["decoder/0/kernel", "encoder/kernel"]),
        (matching("bias|scale"), ["decoder/0/bias", "decoder/1/scale", "encoder/bias"]),
        (~matching("bias|scale"), ["decoder/0/kernel", "encoder/kernel"]),
        (~~matching("scale"), ["decoder/1/scale"]),
        (~matching("."), []),
        (lambda params: np.bool_(True), PATHS),
        (np.array(True), PATHS),
        (
            {"encoder": jnp.array(True), "decoder": np.array(False)},
            ["encoder/bias", "encoder/kernel"],
        ),
        (jax.tree_util.Partial(lambda params: True), PATHS),
    ],
)
def test_a_mask_selects(mask: Any, paths: list[str]) -> None:
    assert touched(mask) == paths


@jax.tree_util.register_dataclass
@dataclass
class Module:
    """A tree that can be called, as Equinox' modules are."""

    kernel: Any
    bias: Any

    def __call__(self, x: Any) -> Any:
        return self.kernel @ x + self.bias


def module() -> Any:
    return Module(kernel=2 * jnp.ones((2, 2)), bias=jnp.ones(2))


def test_a_module_that_can_be_called_is_a_tree() -> None:
    tx = gradtx.masked(gradtx.scale(2.0), Module(kernel=True, bias=False))
    updates, _ = tx.update(module(), tx.init(module()), module())
    assert (updates.kernel[0, 0], updates.bias[0]) == (4, 1)


LABELS = Module(kernel="up", bias="down")
GROUPS = {"up": gradtx.scale(3.0), "down": gradtx.scale(-1.0)}


@pytest.mark.parametrize(
    ("tx", "kernel", "bias"),
    [
        (gradtx.partition(GROUPS, LABELS), 6, -1),
        (gradtx.partition(GROUPS, lambda params: LABELS), 6, -1),
        (gradtx.layerwise_lr_decay(0.5, Module(kernel=0, bias=1)), 1, 1),
        (gradtx.layerwise_lr_decay(0.5, lambda path: int(path == "bias")), 1, 1),
        (
            gradtx.inject_hyperparams(gradtx.masked)(
                inner=gradtx.scale(2.0), mask=Module(kernel=True, bias=False)
            ),
            4,
            1,
        ),
        (
            gradtx.inject_hyperparams(gradtx.selective_transform)(
                gradtx.scale(2.0), freeze_mask=Module(kernel=True, bias=False)
            ),
            0,
            2,
        ),
        (gradtx.inject_hyperparams(gradtx.partition)(GROUPS, LABELS), 6, -1),
    ],
    ids=["labels", "function", "layers", "of path", "masked", "selective", "partition"],
)
def test_a_module_in_place_of_a_function(tx: Any, kernel: float, bias: float) -> None:
    updates, _ = jax.jit(tx.update)(module(), tx.init(module()), module())
    assert (updates.kernel[0, 0], updates.bias[0]) == (kernel, bias)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (gradtx.scale_by_muon, gradtx.MuonDimensionNumbers()),
        (
            lambda weight_dimension_numbers: gradtx.muon(
                0.1, muon_weight_dimension_numbers=weight_dimension_numbers
            ),
            gradtx.MuonDimensionNumbers(),
        ),
        (lambda **given: gradtx.scale_by_galore(1, **given), gradtx.GaLoreDimensionNumbers()),
    ],
    ids=["scale_by_muon", "muon", "galore"],
)
def test_a_module_of_dimension_numbers(make: Any, numbers: Any) -> None:
    params = Module(kernel=jnp.asarray([[1.0, 2.0], [3.0, -4.0]]), bias=jnp.ones((2, 2)))
    known = Module(kernel=numbers, bias=numbers)
    made = []
    for given in (known, lambda params: known):
        tx = make(weight_dimension_numbers=given)
        made.append(tx.update(params, tx.init(params), params)[0])
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), *made))


def test_schedules_that_are_kept_are_still_functions() -> None:
    one = gradtx.constant_schedule(1.0)

    def factory(rate: Any, scale: Any = one) -> Any:
        return gradtx.scale_by_learning_rate(rate)

    for rate in (
        lambda t: 0.5,
        gradtx.constant_schedule(0.5),
        jax.tree_util.Partial(lambda t: 0.5),
    ):
        state = gradtx.inject_hyperparams(factory)(rate).init(PARAMS)
        assert list(state.hyperparams) == ["rate"]


def test_paths_are_without_the_boxes_of_flax() -> None:
    flax = pytest.importorskip("flax")
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.layers = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0))])
            self.value = nnx.Param({"value": jnp.ones(2), "b": jnp.ones(1)})

    names = ["layers/0/bias", "layers/0/kernel", "value/b", "value/value"]
    state = jax.tree.map(jnp.ones_like, nnx.state(Model(), nnx.Param))
    assert touched("^layers/0/kernel$", state) == ["layers/0/kernel/value"]
    assert list(gradtx.partition({".*": gradtx.sgd(1.0)}).assignment(state)) == names
    boxes = {"kernel": flax.linen.Partitioned(jnp.ones(2), names=("x",)), "value": jnp.ones(2)}
    assert list(gradtx.partition({".*": gradtx.sgd(1.0)}).assignment(boxes)) == ["kernel", "value"]
    stored = gradtx.store(gradtx.adam(0.1), {"^nu/kernel$": "bfloat16"}, min_size=0)
    held = stored.init(boxes).inner_state[0]
    assert held.nu["kernel"].value.dtype == jnp.bfloat16
    assert held.nu["value"].dtype == held.mu["kernel"].value.dtype == jnp.float32
    eqx = pytest.importorskip("equinox")

    class Scale(eqx.Module):
        value: Any

        def __call__(self, x: Any) -> Any:
            return x

    assert touched("^scale/value$", {"scale": Scale(jnp.ones(2))}) == ["scale/value"]


def test_paths_of_other_containers() -> None:
    class Layer:
        def __init__(self, kernel: Any, bias: Any):
            self.kernel, self.bias = kernel, bias

    jax.tree_util.register_dataclass(Layer, ["kernel", "bias"], [])
    params = {"layers": (Layer(jnp.ones(2), jnp.ones(2)),)}
    tx = gradtx.masked(gradtx.set_to_zero(), "^layers/0/bias$")
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["layers"][0].bias.tolist() == [0, 0]
    assert updates["layers"][0].kernel.tolist() == [1, 1]


def test_an_absent_leaf_stays_absent() -> None:
    params = {"a": jnp.ones(2), "b": None, "c": jnp.ones(2)}
    assert touched("a|b", params) == ["a"]
    tx = gradtx.masked(gradtx.trace(0.9), {"a": True, "b": True, "c": False})
    state = tx.init(params)
    assert state.inner_state.trace["b"] is None
    assert tx.update(params, state)[0]["b"] is None


def test_a_function_sees_the_params_where_they_are_given() -> None:
    seen = []

    def mask(tree: Any) -> Any:
        seen.append(float(jax.tree.leaves(tree)[0].ravel()[0]))
        return True

    tx = gradtx.masked(gradtx.scale(2.0), mask)
    grads = jax.tree.map(lambda p: 5 * p, PARAMS)
    state = tx.init(PARAMS)
    tx.update(grads, state, PARAMS)
    tx.update(grads, state)
    assert seen == [1.0, 1.0, 5.0]


def test_matching_is_a_value() -> None:
    assert repr(matching("a|b")) == "matching('a|b')"
    assert repr(~matching("a|b")) == "~matching('a|b')"
    assert matching("a") == matching("a") != ~matching("a")
    assert hash(~matching("a")) == hash(~matching("a"))
    assert pickle.loads(pickle.dumps(~matching("a"))) == ~matching("a")


# -- the state -----------------------------------------------------------------------------------


def test_a_leaf_that_is_left_out_has_no_state() -> None:
    state = gradtx.masked(gradtx.trace(0.9), TREE).init(PARAMS)
    assert isinstance(state, gradtx.MaskedState)
    buffer = state.inner_state.trace
    assert buffer["encoder"]["kernel"].shape == (2, 3)
    assert buffer["encoder"]["bias"] == MaskedNode()
    assert buffer["decoder"][1]["scale"] == MaskedNode()
    assert len(jax.tree.leaves(state)) == 2


def test_a_leaf_that_is_left_out_passes_and_counts_in_no_norm() -> None:
    grads = jax.tree.map(lambda p: 2 * p, PARAMS)
    tx = gradtx.masked(gradtx.clip_by_global_norm(1.0), "scale")
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert updates["decoder"][1]["scale"] == 1.0  # its own norm is 2
    np.testing.assert_array_equal(updates["encoder"]["bias"], grads["encoder"]["bias"])


def test_masks_nest() -> None:
    def both(outer: Any, inner: Any) -> list[str]:
        return zeroed(gradtx.masked(gradtx.masked(gradtx.set_to_zero(), inner), outer))

    assert both("encoder", "kernel") == ["encoder/kernel"]
    assert both("kernel", "encoder") == ["encoder/kernel"]
    assert both(~matching("encoder"), "kernel") == ["decoder/0/kernel"]
    assert both("encoder", TREE) == ["encoder/kernel"]
    assert both(TREE, "encoder") == ["encoder/kernel"]
    assert both("encoder", {"encoder": {"kernel": False, "bias": True}, "decoder": True}) == [
        "encoder/bias"
    ]


def test_a_chain_under_a_mask_and_masks_inside_a_chain() -> None:
    inner = gradtx.chain(gradtx.trace(0.9), gradtx.masked(gradtx.scale(2.0), "bias"))
    tx = gradtx.chain(gradtx.scale(10.0), gradtx.masked(inner, "encoder"), gradtx.scale(0.5))
    state = tx.init(PARAMS)
    for _ in range(2):
        updates, state = tx.update(PARAMS, state, PARAMS)
    encoder = updates["encoder"]
    np.testing.assert_allclose(encoder["kernel"], 10 * 1.9 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(encoder["bias"], 10 * 1.9 * 2 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["decoder"][0]["kernel"], 5.0)
    assert len(jax.tree.leaves(state)) == 2


def test_a_tree_rule_under_a_mask_sees_the_selected_leaves() -> None:
    seen = []

    @gradtx.per_tree
    def watched() -> Any:
        def update(updates: Any, params: Any) -> Any:
            seen.append((len(jax.tree.leaves(updates)), len(jax.tree.leaves(params))))
            return jax.tree.map(lambda u: 0 * u, updates)

        return update

    tx = gradtx.masked(watched(), "kernel")
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert seen == [(2, 2)]
    assert updates["encoder"]["kernel"].tolist() == np.zeros((2, 3)).tolist()
    assert updates["encoder"]["bias"].tolist() == [1, 1, 1]


def test_integer_leaves_may_be_masked_out() -> None:
    params = {"w": jnp.ones(2), "ids": jnp.arange(2)}
    tx = gradtx.masked(gradtx.trace(0.9), {"w": True, "ids": False})
    state = tx.init(params)
    assert state.inner_state.trace["ids"] == MaskedNode()
    updates, _ = tx.update(params, state, params)
    assert updates["ids"].tolist() == [0, 1]
    assert updates["ids"].dtype == params["ids"].dtype


# -- Optax's -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [TREE, PREFIX, kernels, lambda params: TREE])
@pytest.mark.parametrize(
    "inner",
    [
        lambda lib: lib.adamw(0.1, weight_decay=0.1),
        lambda lib: lib.clip_by_global_norm(1.0),
        lambda lib: lib.chain(lib.trace(0.9), lib.masked(lib.scale(-0.1), kernels)),
    ],
    ids=["adamw", "clip", "chain"],
)
def test_equal_to_optax(inner: Any, mask: Any) -> None:
    optax = pytest.importorskip("optax")

    def run(lib: Any) -> Any:
        tx = lib.chain(lib.masked(inner(lib), mask), lib.scale(1.5))
        params, state = PARAMS, tx.init(PARAMS)
        step = jax.jit(tx.update)
        for seed in range(3):
            keys = jax.random.split(jax.random.key(seed), len(PATHS))
            grads = jax.tree.unflatten(jax.tree.structure(PARAMS), list(keys))
            grads = jax.tree.map(lambda p, k: jax.random.normal(k, p.shape), PARAMS, grads)
            updates, state = step(grads, state, params)
            params = lib.apply_updates(params, updates)
        return params, state

    (ours, our_state), (theirs, their_state) = run(gradtx), run(optax)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)

    def paths(state: Any) -> list[str]:
        return [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]

    assert paths(our_state) == paths(their_state)


def test_optax_masks_our_transformations_and_we_mask_theirs() -> None:
    optax = pytest.importorskip("optax")
    ours = gradtx.masked(optax.trace(0.9), kernels)
    theirs = optax.masked(gradtx.trace(0.9), kernels)
    both = optax.masked(optax.trace(0.9), kernels)
    results = []
    for tx in (ours, theirs, both):
        state = tx.init(PARAMS)
        for _ in range(2):
            updates, state = tx.update(PARAMS, state, PARAMS)
        results.append(jax.tree.leaves((updates, state)))
    for a, b, c in zip(*results, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-6)
        np.testing.assert_allclose(b, c, rtol=1e-6)


def _by_shape(params: Any) -> Any:
    return jax.tree.map(lambda x: "matrix" if x.ndim == 2 else "other", params)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.muon(0.1),
        gradtx.partition(
            {"matrix": gradtx.finite_guard(gradtx.adam(0.1)), "other": gradtx.sgd(0.1, 0.9)},
            _by_shape,
        ),
        gradtx.masked(gradtx.lbfgs(0.1, linesearch=None), kernels),
        gradtx.galore(0.1, rank=1),
    ],
    ids=lambda tx: tx.definition.name,
)
def test_an_absent_gradient_of_a_leaf_that_a_mask_knows_by_its_parameter(tx: Any) -> None:
    state = tx.init(PARAMS)
    absent = {**PARAMS, "encoder": {"kernel": None, "bias": None}}
    for update in (tx.update, jax.jit(tx.update)):
        updates, new = update(absent, state, PARAMS)
        assert updates["encoder"] == {"kernel": None, "bias": None}
        assert np.all(np.isfinite(updates["decoder"][0]["kernel"]))
        assert jax.tree.structure(new) == jax.tree.structure(state)
