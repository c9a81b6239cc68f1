"""The problem that a transformation sees: that of the caller, also from inside of a wrapper."""

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

Params = dict[str, Any]
START: Params = {"a": jnp.asarray([3.0, -1.0]), "b": jnp.asarray([[2.0, 0.5, -2.0]])}
B = {"a": False, "b": True}


def loss(p: Params) -> Any:
    """Both leaves pull at each other; the minimum is not at 0."""
    return (
        jnp.sum((p["a"] - 1) ** 2)
        + jnp.sum(jnp.asarray([0.5, 3, 1]) * (p["b"] - p["a"][0]) ** 2)
        + jnp.sum(p["b"] ** 4) / 10
    )


def height(p: Params) -> Any:
    return -loss(p)


def backtracking() -> Any:
    return gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(20))


def zoom() -> Any:
    return gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20))


SEARCHES = {"zoom": zoom, "backtracking": backtracking, "lbfgs": gradtx.lbfgs}
SEEING = {
    **SEARCHES,
    "momo": lambda: gradtx.momo(1.0, lower_bound=0.0),
    "momo_adam": lambda: gradtx.momo_adam(0.1),
    "polyak": gradtx.polyak_sgd,
    "plateau": lambda: gradtx.chain(gradtx.sgd(0.2), gradtx.reduce_on_plateau(0.5, patience=1)),
    "sophia": lambda: gradtx.sophia(0.3, b2=0.5, gamma=10.0, update_interval=1),
    "sam": lambda: gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), opaque_mode=True),
}


def run(tx: Any, f: Callable[[Any], Any], params: Any, steps: int = 5, **others: Any) -> Any:
    """Params and state after some compiled steps; others: of update, in place of its own."""

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grad = jax.value_and_grad(f)(params)
        known = {
            "value": value,
            "grad": grad,
            "value_fn": f,
            "obj_fn": f,
            "grad_fn": lambda p, i: jax.grad(f)(p),
        }
        updates, state = tx.update(grad, state, params, **known | others)
        return gradtx.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def assert_same(x: Any, y: Any, tolerance: float = 1e-5) -> None:
    xs, ys = jax.tree.leaves(x), jax.tree.leaves(y)
    assert len(xs) == len(ys) > 0
    for a, b in zip(xs, ys, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)


# -- maximize --------------------------------------------------------------------------------------

AROUND: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "in a guard": (lambda tx: gradtx.finite_guard(gradtx.maximize(tx)), lambda tx: tx),
    "around a guard": (lambda tx: gradtx.maximize(gradtx.finite_guard(tx)), lambda tx: tx),
    "in a chain": (
        lambda tx: gradtx.chain(gradtx.maximize(tx), gradtx.scale(0.5)),
        lambda tx: gradtx.chain(tx, gradtx.scale(0.5)),
    ),
    "three times": (
        lambda tx: gradtx.maximize(
            gradtx.chain(gradtx.maximize(gradtx.chain(gradtx.maximize(tx))))
        ),
        lambda tx: tx,
    ),
    "around a mask": (
        lambda tx: gradtx.maximize(
            gradtx.selective_transform(tx, freeze_mask={"a": True, "b": False})
        ),
        lambda tx: gradtx.selective_transform(tx, freeze_mask={"a": True, "b": False}),
    ),
    "in a mask": (
        lambda tx: gradtx.selective_transform(
            gradtx.maximize(tx), freeze_mask={"a": True, "b": False}
        ),
        lambda tx: gradtx.selective_transform(tx, freeze_mask={"a": True, "b": False}),
    ),
}


@pytest.mark.parametrize("name", SEEING)
def test_uphill_is_downhill_on_the_negative(name: str) -> None:
    up, _ = run(gradtx.maximize(SEEING[name]()), height, START)
    down, _ = run(SEEING[name](), loss, START)
    assert_same(up, down)
    assert not np.allclose(up["b"], START["b"], atol=1e-3)


@pytest.mark.parametrize("where", AROUND)
def test_uphill_around_and_inside_of_others(where: str) -> None:
    uphill, downhill = AROUND[where]
    tx = zoom()
    assert_same(run(uphill(tx), height, START, 3)[0], run(downhill(tx), loss, START, 3)[0])


def test_a_group_goes_uphill_and_the_other_downhill() -> None:
    def saddle(p: Params) -> Any:
        return jnp.sum((p["a"] - 1) ** 2) - jnp.sum((p["b"] - 2) ** 2)

    tx = gradtx.partition({"a": gradtx.lbfgs(), "b": gradtx.maximize(gradtx.lbfgs())})
    params, _ = run(tx, saddle, START)
    assert_same(params, {"a": jnp.ones(2), "b": jnp.full((1, 3), 2.0)}, 1e-5)


def test_the_rate_falls_where_the_value_has_stopped_rising() -> None:
    tx = gradtx.maximize(gradtx.reduce_on_plateau(0.5, patience=2))
    grad = state = None
    for values, scale in (([1, 2, 3, 4, 5, 6], 1.0), ([5, 4], 0.5)):
        for value in values:
            grad = jnp.ones(2)
            state = tx.init(grad) if state is None else state
            update, state = tx.update(grad, state, value=float(value))
        assert update.tolist() == [-scale, -scale]


def test_what_a_search_left_is_turned_back() -> None:
    for make in (gradtx.maximize, lambda tx: gradtx.finite_guard(gradtx.maximize(tx))):
        tx = make(gradtx.lbfgs())
        params, state = run(tx, height, START, 2)
        found = gradtx.value_and_grad_from_state(height)
        assert_same(found(params, state=state), jax.value_and_grad(height)(params), 1e-5)
        start = found(START, state=tx.init(START))
        assert_same(start, jax.value_and_grad(height)(START), 1e-6)


def test_maximize_is_a_value() -> None:
    tx = gradtx.maximize(gradtx.adam(0.1))
    assert str(tx) == f"maximize(inner={gradtx.adam(0.1)})"
    assert tx == gradtx.maximize(gradtx.adam(0.1)) == pickle.loads(pickle.dumps(tx))
    assert hash(tx) == hash(gradtx.maximize(gradtx.adam(0.1)))
    assert tx != gradtx.adam(0.1)
    assert tx.replace(inner=gradtx.sgd(1.0)) == gradtx.maximize(gradtx.sgd(1.0))
    assert gradtx.maximize(tx) is tx.inner
    with pytest.raises(TypeError, match="maximize: inner must be a gradient transformation"):
        gradtx.maximize(0.1)


def test_its_state_lies_where_it_lay() -> None:
    inner = gradtx.adam(0.1)
    old = gradtx.chain(gradtx.scale(-1), inner).init(START)
    new = gradtx.maximize(inner).init(START)
    paths = [
        [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(s)]
        for s in (old, new)
    ]
    assert paths[0] == paths[1]
    updates, after = gradtx.maximize(inner).update(START, old)  # from an older checkpoint
    assert_same(updates, gradtx.maximize(inner).update(START, new)[0])
    assert jax.tree.structure(after) == jax.tree.structure(old)


def test_rates_are_mapped_and_traced_once() -> None:
    traces = []

    @jax.jit
    def step(tx: Any, params: Any) -> Any:
        traces.append(1)
        return tx.update(params, tx.init(params), params, value=-3.0)[0]

    def make(rate: Any) -> Any:
        return gradtx.maximize(gradtx.momo(rate))

    each = [step(make(rate), START) for rate in (0.1, 0.2, 0.3)]
    assert len(traces) == 1
    together = jax.vmap(lambda rate: step(make(rate), START))(jnp.asarray([0.1, 0.2, 0.3]))
    assert_same(together, jax.tree.map(lambda *x: jnp.stack(x), *each), 1e-6)


def test_gradients_of_single_examples_uphill() -> None:
    grads = jnp.asarray([[3.0, 4.0], [0.3, 0.4], [-6.0, 8.0]])  # norms 5, 0.5 and 10
    mean = (grads[0] / 5 + grads[1] + grads[2] / 10) / 3
    tx = gradtx.maximize(gradtx.dpsgd(0.1, 1.0, 0.0, 0))
    params = jnp.zeros(2)
    assert_same(tx.update(grads, tx.init(params), params)[0], 0.1 * mean, 1e-6)


@pytest.mark.parametrize("rounding", ["stochastic_rounding", "kahan", "master_weights"])
def test_rounding_uphill(rounding: str) -> None:
    sgd = gradtx.sgd(1e-3)
    make = getattr(gradtx, rounding)
    tx = make(sgd) if rounding == "master_weights" else gradtx.chain(sgd, make())
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    uphill, uphill_state = gradtx.maximize(tx), gradtx.maximize(tx).init(params)
    update, _ = uphill.update(params, uphill_state, params)
    negative = jax.tree.map(jnp.negative, params)
    assert_same(update, tx.update(negative, tx.init(params), params)[0])


def test_injected_numbers_uphill() -> None:
    tx = gradtx.inject_hyperparams(lambda lr: gradtx.maximize(gradtx.momo(lr)))(lr=0.5)
    assert_same(run(tx, height, START)[0], run(gradtx.momo(0.5), loss, START)[0], 1e-6)
    tx = gradtx.inject_hyperparams(gradtx.maximize)(zoom())
    assert_same(run(tx, height, START)[0], run(zoom(), loss, START)[0])


# -- a search on some of the leaves ----------------------------------------------------------------


def frozen(tx: Any) -> Any:
    return gradtx.partition({"b": tx, "a": gradtx.freeze()})


GROUPS: dict[str, Callable[[Any], Any]] = {
    "masked": lambda tx: gradtx.chain(gradtx.masked(tx, "b"), gradtx.freeze("a")),
    "masks extra": lambda tx: gradtx.chain(
        gradtx.masked(tx, B, mask_compatible_extra_args=True), gradtx.freeze("a")
    ),
    "nested": lambda tx: gradtx.chain(
        gradtx.masked(gradtx.masked(tx, {"a": False, "b": True}), True), gradtx.freeze("a")
    ),
    "partition": frozen,
    "extra partition": lambda tx: gradtx.partition(
        {"b": tx, "a": gradtx.freeze()}, mask_compatible_extra_args=True
    ),
    "selective": lambda tx: gradtx.selective_transform(tx, freeze_mask="a"),
    "in a guard": lambda tx: gradtx.finite_guard(frozen(tx)),
    "around a guard": lambda tx: frozen(gradtx.finite_guard(tx)),
    "around two": lambda tx: frozen(gradtx.flatten(gradtx.split_real_and_imaginary(tx))),
}


def of_group(b: Any) -> Any:
    return loss({"a": START["a"], "b": b["b"]})


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, "zoom") for group in GROUPS]
    + [("partition", name) for name in ("backtracking", "lbfgs", "sophia")],
)
def test_a_search_along_a_group_is_that_of_its_own_problem(group: str, name: str) -> None:
    params, _ = run(GROUPS[group](SEEING[name]()), loss, START, 3)
    alone, _ = run(SEEING[name](), of_group, {"b": START["b"]}, 3)
    assert_same(params, {"a": START["a"], "b": alone["b"]}, 2e-5)


def test_value_and_grad_of_the_group_need_not_be_given() -> None:
    params, _ = run(frozen(zoom()), loss, START, 3, value=None, grad=None)
    alone, _ = run(zoom(), of_group, {"b": START["b"]}, 3)
    assert_same(params["b"], alone["b"], 2e-5)


@pytest.mark.parametrize("name", ["backtracking", "lbfgs"])
def test_leaves_without_a_gradient_are_seen_by_the_objective(name: str) -> None:
    tx = SEEING[name]()
    only_b = lambda g: {"a": None, "b": g["b"]}  # noqa: E731
    params, state = START, tx.init(only_b(START))
    for _ in range(2):
        value, grad = jax.value_and_grad(loss)(params)
        for given in (grad, only_b(grad)):
            updates, new = tx.update(
                only_b(grad), state, params, value=value, grad=given, value_fn=loss
            )
        params, state = gradtx.apply_updates(params, updates), new
    alone, _ = run(tx, of_group, {"b": START["b"]}, 2)
    assert_same(params, {"a": START["a"], "b": alone["b"]}, 2e-5)


def test_frozen_leaves_before_a_search() -> None:
    tx = gradtx.chain(gradtx.freeze("a"), gradtx.lbfgs())
    params, _ = run(tx, loss, START, 12)
    alone, _ = run(gradtx.lbfgs(), of_group, {"b": START["b"]}, 12)
    assert_same(params, {"a": START["a"], "b": alone["b"]}, 1e-3)


def test_two_groups_search_each_with_the_other_where_it_was() -> None:
    tx = gradtx.partition({"a": zoom(), "b": backtracking()})
    params, _ = run(tx, loss, START, 1)
    a, _ = run(zoom(), lambda p: loss({"a": p["a"], "b": START["b"]}), {"a": START["a"]}, 1)
    b, _ = run(backtracking(), of_group, {"b": START["b"]}, 1)
    assert_same(params, {"a": a["a"], "b": b["b"]}, 1e-6)


def test_other_arguments_of_the_objective_reach_it_from_a_group() -> None:
    def shifted(p: Params, by: Any) -> Any:
        return loss(p) + by * jnp.sum(p["b"])

    params, state = run(
        frozen(zoom()), lambda p: shifted(p, 2.0), START, 1, value_fn=shifted, by=2.0
    )
    search = state.inner_states["b"].inner_state[1]
    assert_same(search.value, shifted(params, 2.0), 1e-5)


def test_what_a_search_of_a_group_left_is_not_the_gradient() -> None:
    for tx in (frozen(gradtx.lbfgs()), gradtx.flatten(gradtx.lbfgs())):
        params, state = run(tx, loss, START, 1)
        with pytest.raises(ValueError, match="what it left is not the gradient of params"):
            gradtx.value_and_grad_from_state(loss)(params, state=state)


def test_derivatives_pass_a_search_of_a_group() -> None:
    def after(scale: Any) -> Any:
        params = jax.tree.map(lambda x: scale * x, START)
        tx, value_and_grad = frozen(zoom()), jax.value_and_grad(loss)
        state = tx.init(params)
        for _ in range(2):
            value, grad = value_and_grad(params)
            updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
            params = gradtx.apply_updates(params, updates)
        return loss(params)

    assert np.isfinite(jax.grad(after)(1.0))


# -- other wrappers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zoom", "momo", "sophia"])
def test_one_vector_is_the_same_problem(name: str) -> None:
    tx = SEEING[name]()
    params, _ = run(gradtx.flatten(tx), loss, START)

    def of_vector(v: Any) -> Any:
        return loss({"a": v[:2], "b": v[2:].reshape(1, 3)})

    vector, _ = run(tx, of_vector, jnp.asarray([3.0, -1.0, 2.0, 0.5, -2.0]))
    assert_same(jnp.concatenate([params["a"], params["b"][0]]), vector, 1e-5)


def test_complex_arrays_in_two_parts_are_the_same_problem() -> None:
    def of_complex(z: Any) -> Any:
        return jnp.sum(jnp.abs(z - (1 + 2j)) ** 2) + jnp.sum(jnp.real(z) ** 4)

    def of_parts(x: Any) -> Any:
        return of_complex(jax.lax.complex(x[0], x[1]))

    tx = gradtx.split_real_and_imaginary(backtracking())
    z, x = jnp.asarray([2 - 1j, 0.5j]), jnp.asarray([[2.0, 0.0], [-1.0, 0.5]])
    state = tx.init(z)
    for _ in range(3):
        value, grad = jax.value_and_grad(of_complex)(z)
        ascent = jnp.conj(grad)
        u, state = tx.update(ascent, state, z, value=value, grad=ascent, value_fn=of_complex)
        z = z + u
    alone, _ = run(backtracking(), of_parts, x, 3)
    assert_same(jnp.stack([z.real, z.imag]), alone, 1e-5)


@pytest.mark.parametrize("name", ["lbfgs", "momo"])
def test_a_scaled_loss_is_the_same_problem(name: str) -> None:
    tx = gradtx.dynamic_loss_scale(SEEING[name]())
    params, state = START, tx.init(START)
    for _ in range(2):
        value, grad = jax.value_and_grad(loss)(params)
        scaled = jax.tree.map(lambda g, scale=state.scale: scale * g, grad)
        u, state = tx.update(scaled, state, params, value=value, grad=scaled, value_fn=loss)
        params = gradtx.apply_updates(params, u)
    alone, own = run(SEEING[name](), loss, START, 2)
    assert_same((params, state.inner_state), (alone, own), 1e-4)


def test_sam_searches_at_the_end_of_its_climb() -> None:
    tx = gradtx.sam(zoom(), gradtx.sgd(0.01))
    params, state = run(tx, loss, START, 1)
    climbed = jax.tree.map(lambda p, c: p - c, params, START)
    value, grad = jax.value_and_grad(loss)(params)
    u, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
    new = gradtx.apply_updates(params, u)
    assert_same(state.opt_state[1].value, loss(jax.tree.map(jnp.add, new, climbed)), 1e-5)
    assert state.opt_state[1].value < value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tx: gradtx.schedule_free(tx, 1.0), "schedule_free: base_optimizer"),
        (gradtx.mechanize, "mechanize: base_optimizer"),
        (lambda tx: gradtx.sam(gradtx.sgd(0.1), tx), "sam: adv_optimizer"),
        (
            lambda tx: gradtx.sam(tx, gradtx.sgd(0.1), opaque_mode=True),
            "sam: with opaque_mode, an optimizer of it",
        ),
    ],
)
def test_no_search_where_the_step_is_another(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"{message} cannot hold a line search"):
        run(make(backtracking()), loss, START, 1)
    run(make(gradtx.sgd(0.1)), loss, START, 1)  # nobody calls value_fn


def test_lookahead_searches_with_the_fast_params() -> None:
    tx = gradtx.lookahead(gradtx.lbfgs(), 3, 0.5)
    params = gradtx.LookaheadParams.init_synced(START)
    state = tx.init(params)
    for _ in range(2):
        value, grad = jax.value_and_grad(loss)(params.fast)
        u, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = gradtx.apply_updates(params, u)
    assert_same(params.fast, run(gradtx.lbfgs(), loss, START, 2)[0], 1e-5)


# -- arguments that nobody knows -------------------------------------------------------------------


def of_batch(p: Params, batch: Any = 0.0) -> Any:
    return loss(p) + batch


@gradtx.per_leaf
def noted() -> Any:
    """u = note * g"""
    return lambda grad, *, note=1.0: note * grad


@pytest.mark.parametrize("wrap", [GROUPS["around a guard"], gradtx.maximize, gradtx.flatten])
def test_a_misspelt_argument_of_a_search(wrap: Any) -> None:
    tx = wrap(gradtx.lbfgs())
    state, grad = tx.init(START), jax.grad(of_batch)(START)
    for given, near in (("bacth", "batch"), ("valeu", "value")):
        with pytest.raises(TypeError, match=rf"argument '{given}'.*of_batch\(.*mean '{near}'"):
            tx.update(grad, state, START, value_fn=of_batch, **{given: 1.0})
    jax.eval_shape(lambda s: tx.update(grad, s, START, value_fn=of_batch, batch=1.0), state)


def test_an_argument_of_another_link_or_without_a_search() -> None:
    grad = jax.grad(loss)(START)
    for tx in (
        gradtx.chain(gradtx.lbfgs(), noted()),
        gradtx.chain(gradtx.finite_guard(gradtx.lbfgs()), gradtx.masked(noted(), "a")),
    ):
        u, _ = tx.update(grad, tx.init(START), START, value_fn=loss, note=0.0)
        assert not u["a"].any()
    adam = gradtx.adam(0.1)
    adam.update(grad, adam.init(START), START, value_fn=loss, anything=1)
    optax = pytest.importorskip("optax")
    tx = gradtx.chain(gradtx.lbfgs(), optax.with_extra_args_support(optax.scale(1.0)))
    tx.update(grad, tx.init(START), START, value_fn=lambda p, **rest: loss(p), anything=1)
