"""gradtx.torch in complex numbers: each leaf moves as its two parts do, side by side.

That the parts move as PyTorch's do is in `tests/golden`; here it is trees, masks, tracing and what
the state looks like.
"""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import torch as gt
from gradtx.torch import transforms

STEPS = 4
OPTIMIZERS = {
    "sgd": lambda: gt.sgd(0.1, 0.9, weight_decay=0.1),
    "adagrad": lambda: gt.adagrad(0.1, 0.1, 0.1, initial_accumulator_value=0.5),
    "rmsprop": lambda: gt.rmsprop(weight_decay=0.1, momentum=0.9),
    "rmsprop centered": lambda: gt.rmsprop(centered=True, maximize=True),
    "adam": lambda: gt.adam(weight_decay=0.1),
    "amsgrad": lambda: gt.adam(amsgrad=True, maximize=True),
    "adamw": lambda: gt.adamw(gt.step_lr(0.1, 2)),
    "nadam": lambda: gt.nadam(weight_decay=0.1),
    "radam": lambda: gt.radam(weight_decay=0.1, decoupled_weight_decay=True),
    "adamax": lambda: gt.adamax(),
    "adadelta": lambda: gt.adadelta(weight_decay=0.1),
    "rprop": lambda: gt.rprop(maximize=True),
    "asgd": lambda: gt.asgd(0.1, 0.1, t0=1),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
LIFTED = {name: x for name, x in vars(transforms).items() if name.startswith("scale_by_")}


@pytest.fixture(autouse=True)
def _x64() -> Any:
    with jax.enable_x64(True):
        yield


def numbers(seed: int, dtype: str = "complex128") -> Any:
    """A complex and a real leaf, one that is absent, and one of no axes."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), dtype)

    return {"z": draw(3, 2), "real": draw(4).real, "none": None, "deep": [draw()]}


def split(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, tree)


def run(tx: Any, params: Any, *, jit: bool = True) -> tuple[Any, Any]:
    """The parameters after each step, and the last state."""
    update = jax.jit(tx.update) if jit else tx.update
    like, path, state = params, [], tx.init(params)
    for t in range(STEPS):
        made = numbers(t + 1)
        grads = made if jax.tree.structure(made) == jax.tree.structure(like) else split(made)
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
        updates, state = update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
        path.append(params)
    return path, state


def assert_close(got: Any, expected: Any, rtol: float = 1e-14) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, 1e-16), got, expected)


@every_optimizer
def test_a_complex_leaf_moves_as_its_parts(name: str) -> None:
    tx = OPTIMIZERS[name]()
    got, _ = run(tx, numbers(0))
    expected, _ = run(tx, split(numbers(0)))
    assert {x.dtype for x in jax.tree.leaves(got)} == {np.dtype(complex), np.dtype(float)}
    assert_close(split(got), expected)


@every_optimizer
def test_its_state_holds_those_of_its_parts(name: str) -> None:
    """Of every array: the real part's as its real part, the imaginary part's beside it."""
    tx = OPTIMIZERS[name]()
    _, got = run(tx, numbers(0))
    _, expected = run(tx, split(numbers(0)))
    assert_close(split(got), expected)
    shapes = jax.eval_shape(tx.init, numbers(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )


@every_optimizer
def test_compiled_or_not_and_in_single_precision(name: str) -> None:
    tx = OPTIMIZERS[name]()
    expected, _ = run(tx, numbers(0))
    assert_close(run(tx, numbers(0), jit=False)[0], expected)
    single = numbers(0, "complex64")
    got, state = run(tx, single)
    assert jax.tree.map(lambda x: x.dtype, got[-1]) == jax.tree.map(lambda x: x.dtype, single)
    wide = {x.dtype for x in jax.tree.leaves(state) if x.ndim} & {np.dtype("c16"), np.dtype("f8")}
    assert not wide
    assert_close(got[-1], expected[-1], 2e-4)


@every_optimizer
def test_under_a_mask_in_a_group_and_mapped(name: str) -> None:
    tx, params = OPTIMIZERS[name](), numbers(0)
    plain, _ = run(tx, params)
    groups = gradtx.partition({"z": tx, ".*": gradtx.freeze()})
    got, _ = run(groups, params)
    assert_close(got[-1]["z"], plain[-1]["z"])
    assert_close(got[-1]["deep"], params["deep"])
    masked, _ = run(gradtx.masked(tx, "z"), params)
    assert_close(masked[-1]["z"], plain[-1]["z"])

    def one_step(params: Any) -> Any:
        grads = numbers(1)
        updates, _ = tx.update(grads, tx.init(params), params)
        return gradtx.apply_updates(params, updates)

    both = jax.tree.map(lambda *x: jnp.stack(x), params, numbers(9))
    mapped = jax.vmap(one_step)(both)
    assert_close(jax.tree.map(lambda x: x[0], mapped), one_step(params))
    assert_close(jax.tree.map(lambda x: x[1], mapped), one_step(numbers(9)))


@pytest.mark.parametrize("name", LIFTED)
def test_real_leaves_run_the_rule_itself(name: str) -> None:
    """The same program, the same state, at the same key paths."""
    lifted = LIFTED[name]
    arguments = (0.1,) if name == "scale_by_rprop" else ()
    module = lifted.function.__wrapped__.__module__
    tx, plain = lifted(*arguments), getattr(__import__(module, fromlist="_"), name)(*arguments)
    params = {"w": jnp.ones((3, 2), "float32"), "b": jnp.ones(2), "none": None}
    state = tx.init(params)
    assert (
        jax.tree_util.tree_flatten_with_path(state)[0][0][0]
        == (jax.tree_util.tree_flatten_with_path(plain.init(params))[0][0][0])
    )
    assert jax.tree.structure(state) == jax.tree.structure(plain.init(params))
    ours, theirs = (str(jax.make_jaxpr(t.update)(params, state, params)) for t in (tx, plain))
    assert ours == theirs


@pytest.mark.parametrize("name", LIFTED)
def test_a_lifted_rule_is_a_value_of_its_own(name: str) -> None:
    tx = LIFTED[name](0.1) if name == "scale_by_rprop" else LIFTED[name]()
    assert repr(tx).startswith(f"torch.{name}(")
    assert eval(repr(tx), dict(vars(gradtx))) == tx
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert hash(pickle.loads(pickle.dumps(tx))) == hash(tx)
    assert "two real ones" in LIFTED[name].__doc__


def test_the_derivative_goes_through() -> None:
    def moved(lr: Any) -> Any:
        tx, z = gt.adam(lr), {"z": jnp.asarray([1 + 2j])}
        updates, _ = tx.update({"z": jnp.asarray([3 - 4j])}, tx.init(z), z)
        return jnp.sum(updates["z"].real + 2 * updates["z"].imag)

    # The first step of Adam is the sign of each part: -lr (1 - 1j).
    assert abs(jax.grad(moved)(0.1) - 1.0) < 1e-7
