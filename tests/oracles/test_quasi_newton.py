"""L-BFGS against the product formula for its matrix; searches against the Wolfe conditions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .replay import assert_close

# -- L-BFGS: the matrix itself, in NumPy -----------------------------------------------------------


def inverse_hessian(pairs: list[tuple[np.ndarray, np.ndarray]], gamma: float) -> np.ndarray:
    """Nocedal & Wright, equation 7.16 and following: H <- V' H V + rho s s', V = I - rho y s'."""
    size = len(pairs[0][0])
    matrix = gamma * np.eye(size)
    for s, y in pairs:
        rho = 1 / (s @ y)
        v = np.eye(size) - rho * np.outer(y, s)
        matrix = v.T @ matrix @ v + rho * np.outer(s, s)
    return matrix


def direction(path: list[np.ndarray], grads: list[np.ndarray], memory: int, scaled: bool) -> Any:
    """What the last gradient becomes."""
    pairs = [(path[i + 1] - path[i], grads[i + 1] - grads[i]) for i in range(len(path) - 1)][
        -memory:
    ]
    if not pairs:
        return grads[-1] * (min(1.0, 1 / np.linalg.norm(grads[-1])) if scaled else 1.0)
    s, y = pairs[-1]
    return inverse_hessian(pairs, (s @ y) / (y @ y) if scaled else 1.0) @ grads[-1]


@pytest.mark.parametrize(("memory", "scaled"), [(1, True), (3, True), (3, False), (20, True)])
def test_lbfgs_is_its_matrix(memory: int, scaled: bool) -> None:
    rng = np.random.default_rng(3)
    root = rng.standard_normal((6, 6))
    hessian = root @ root.T + np.eye(6)
    tx = gradtx.scale_by_lbfgs(memory, scaled)

    def split(x: np.ndarray) -> Any:
        return {"a": jnp.asarray(x[:2]), "b": jnp.asarray(x[2:].reshape(2, 2))}

    path, grads = [], []
    state, update = tx.init(split(np.zeros(6))), jax.jit(tx.update)
    for _ in range(12):
        path.append(rng.standard_normal(6))
        grads.append(hessian @ path[-1])
        got, state = update(split(grads[-1]), state, split(path[-1]))
        flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(got)])
        assert_close(flat, direction(path, grads, memory, scaled), 1e-9)


def test_lbfgs_solves_a_quadratic_like_conjugate_gradients() -> None:
    """With exact steps along its directions, after as many steps as there are dimensions."""
    rng = np.random.default_rng(4)
    root = rng.standard_normal((5, 5))
    hessian, x = root @ root.T + np.eye(5), rng.standard_normal(5)
    tx = gradtx.scale_by_lbfgs(10)
    state, update = tx.init(jnp.asarray(x)), jax.jit(tx.update)
    for _ in range(6):
        grad = hessian @ x
        u, state = update(jnp.asarray(grad), state, jnp.asarray(x))
        u = np.asarray(u)
        x = x - (grad @ u) / max(u @ hessian @ u, 1e-300) * u
    assert np.linalg.norm(x) < 1e-8


def test_lbfgs_stays_where_the_gradient_is_zero() -> None:
    tx, params = gradtx.scale_by_lbfgs(2), {"x": jnp.ones(3, jnp.float32)}
    state, zero = tx.init(params), {"x": jnp.zeros(3, jnp.float32)}
    for _ in range(3):
        u, state = tx.update(zero, state, params)
        assert np.all(u["x"] == 0)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


# -- searches --------------------------------------------------------------------------------------


def rosenbrock(p: Any) -> Any:
    x = p["x"]
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def zakharov(p: Any) -> Any:
    s = jnp.sum(0.5 * jnp.arange(1, p["x"].size + 1) * p["x"])
    return jnp.sum(p["x"] ** 2) + s**2 + s**4


def log_barrier(p: Any) -> Any:
    """Not a number outside of the box (-1, 1)."""
    return jnp.sum(p["x"] ** 2 - 0.1 * jnp.log(1 - p["x"] ** 2) - 0.9 * p["x"])


FUNCTIONS = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0, 0.7, -0.3], [1.0, 1.0, 1.0, 1.0]),
    "zakharov": (zakharov, [1.0, -0.5, 2.0], [0.0, 0.0, 0.0]),
    "log barrier": (log_barrier, [0.9, -0.95], None),
}
functions = pytest.mark.parametrize("name", FUNCTIONS)


def start(name: str) -> Any:
    return {"x": jnp.asarray(FUNCTIONS[name][1])}


def stepper(tx: Any, function: Any) -> Any:
    from_state = gradtx.value_and_grad_from_state(function)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grad = from_state(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=function)
        return gradtx.apply_updates(params, updates), state, value, grad, updates

    return step


C1, C2 = 1e-4, 0.9


@functools.cache
def searched(name: str, c2: float) -> list[Any]:
    """Thirty steps of L-BFGS: (params, value, grad, updates, state) of each."""
    search = gradtx.scale_by_zoom_linesearch(
        30, curv_rtol=c2, initial_guess_strategy="one", approx_dec_rtol=None
    )
    tx, params, made = gradtx.lbfgs(linesearch=search), start(name), []
    step, state = stepper(tx, FUNCTIONS[name][0]), tx.init(params)
    for _ in range(30):
        before = params
        params, state, value, grad, updates = step(params, state)
        made.append((before, value, grad, updates, state[-1]))
    assert step._cache_size() == 1  # traced once
    return made


@pytest.mark.parametrize("c2", [0.9, 0.1])
@functions
def test_the_strong_wolfe_conditions_hold(name: str, c2: float) -> None:
    function = FUNCTIONS[name][0]
    checked = 0
    for params, value, grad, updates, state in searched(name, c2):
        g, u = np.asarray(grad["x"]), np.asarray(updates["x"])
        if np.linalg.norm(g) < 1e-5:
            break  # differences of values are rounding
        new_value, new_grad = jax.value_and_grad(function)(gradtx.apply_updates(params, updates))
        assert new_value <= value + C1 * (g @ u)
        assert abs(np.asarray(new_grad["x"]) @ u) <= c2 * abs(g @ u) * (1 + 1e-12)
        assert state.info.decrease_error == 0
        assert state.info.curvature_error == 0
        np.testing.assert_allclose(state.value, new_value, rtol=1e-12)
        np.testing.assert_allclose(state.grad["x"], new_grad["x"], rtol=1e-9, atol=1e-12)
        checked += 1
    assert checked >= 3


@functions
def test_lbfgs_finds_the_minimum_that_scipy_finds(name: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    function = FUNCTIONS[name][0]
    reached = min(float(value) for _, value, *_ in searched(name, C2))
    theirs = optimize.minimize(
        lambda x: float(function({"x": jnp.asarray(x)})),
        np.asarray(FUNCTIONS[name][1]),
        jac=lambda x: np.asarray(jax.grad(function)({"x": jnp.asarray(x)})["x"]),
        method="L-BFGS-B",
        bounds=[(-0.999999, 0.999999)] * 2 if name == "log barrier" else None,
        options={"maxiter": 500},
    )
    assert reached <= theirs.fun + 1e-6 or name == "rosenbrock"  # which has two minima
    grads = [np.linalg.norm(grad["x"]) for _, _, grad, *_ in searched(name, C2)]
    assert min(grads) < 1e-4 * grads[0]


@functions
def test_backtracking_decreases_enough_and_no_more_often_than_needed(name: str) -> None:
    function, c1, factor = FUNCTIONS[name][0], 0.1, 0.5
    search = gradtx.scale_by_backtracking_linesearch(40, c1, factor, 1.5, store_grad=True)
    tx = gradtx.chain(gradtx.sgd(1.0), search)
    params = start(name)
    state, step = tx.init(params), stepper(tx, function)
    rate = 1.0
    for _ in range(10):
        before = params
        params, state, value, grad, updates = step(params, state)
        # The same search in plain Python.
        rate, slope = min(1.5 * rate, 1.0), -float(jnp.sum(grad["x"] ** 2))
        assert_close(value, function(before), 1e-12)

        def falls(eta: float, before: Any = before, value: Any = value, grad: Any = grad) -> bool:
            moved = function({"x": before["x"] - eta * grad["x"]})
            return bool(moved <= value + c1 * eta * slope)  # noqa: B023

        tries = 1
        while not falls(rate):
            rate, tries = rate * factor, tries + 1
        assert_close(state[-1].learning_rate, rate, 1e-12)
        assert state[-1].info.num_linesearch_steps == tries
        assert_close(updates["x"], -rate * grad["x"], 1e-12)
    assert step._cache_size() == 1


@pytest.mark.parametrize(
    "search",
    [
        gradtx.scale_by_zoom_linesearch(3),
        gradtx.scale_by_backtracking_linesearch(3),
    ],
    ids=["zoom", "backtracking"],
)
def test_a_search_that_found_nothing_stays_and_begins_anew(search: Any) -> None:
    """Optax goes on from a rate of 0, and so stays for ever."""
    tx, params = gradtx.chain(gradtx.sgd(1.0), search), {"x": jnp.ones(2)}
    state = tx.init(params)
    grad = {"x": jnp.ones(2)}

    @jax.jit
    def step(state: Any, factor: Any) -> Any:
        value_fn = lambda p: factor * 0.5 * jnp.sum(p["x"] ** 2)  # noqa: E731
        return tx.update(grad, state, params, value=1.0, grad=grad, value_fn=value_fn)

    updates, state = step(state, jnp.nan)
    assert np.all(updates["x"] == 0)
    assert state[-1].learning_rate == 0
    assert state[-1].value == 1
    updates, state = step(state, 1.0)
    assert np.all(updates["x"] < -0.1)


def test_value_and_grad_need_not_be_given() -> None:
    tx, params = gradtx.lbfgs(), start("rosenbrock")
    state = tx.init(params)
    value, grad = jax.value_and_grad(rosenbrock)(params)
    given, _ = tx.update(grad, state, params, value=value, grad=grad, value_fn=rosenbrock)
    alone, _ = tx.update(grad, state, params, value_fn=rosenbrock)
    assert_close(alone["x"], given["x"], 1e-12)


def test_other_arguments_of_the_objective_come_from_the_extra_arguments() -> None:
    def loss(params: Any, x: Any, y: Any = 0.0) -> Any:
        return jnp.sum((x @ params - y) ** 2)

    params, x = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([3.0, 2.0, 1.0])
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(15))
    value, grad = jax.value_and_grad(loss)(params, x, 2.0)
    updates, state = tx.update(
        grad, tx.init(params), params, value=value, grad=grad, value_fn=loss, x=x, y=2.0
    )
    assert loss(params + updates, x, 2.0) < 1e-6
    assert_close(state[-1].value, loss(params + updates, x, 2.0), 1e-9)
    with pytest.raises(TypeError, match="x"):
        tx.update(grad, tx.init(params), params, value=value, grad=grad, value_fn=loss)


def test_complex_descent_is_real_descent() -> None:
    """Given the direction of ascent, the conjugate of JAX's gradient."""
    matrix = jnp.asarray([[1, -2], [3, 4], [-4 + 2j, 5 - 3j], [-2 - 2j, 6]])

    def of_complex(z: Any) -> Any:
        return jnp.sum(jnp.abs(matrix @ z) ** 2) + jnp.sum(jnp.abs(z - 1j) ** 4)

    def of_real(x: Any) -> Any:
        return of_complex(x[0] + 1j * x[1])

    z = jnp.asarray([1 - 1j, 0.5 + 1j])
    x = jnp.stack([z.real, z.imag])
    for search in (
        gradtx.scale_by_backtracking_linesearch(20),
        gradtx.scale_by_zoom_linesearch(20, initial_guess_strategy="one"),
    ):
        tx = gradtx.lbfgs(linesearch=search)
        ends = []
        for function, params in ((of_complex, z), (of_real, x)):

            @jax.jit
            def step(params: Any, state: Any, function: Any = function, tx: Any = tx) -> Any:
                value, grad = jax.value_and_grad(function)(params)
                grad = jnp.conj(grad)
                updates, state = tx.update(
                    grad, state, params, value=value, grad=grad, value_fn=function
                )
                return gradtx.apply_updates(params, updates), state

            state = tx.init(params)
            for _ in range(8):
                params, state = step(params, state)
            ends.append(params)
        assert_close(jnp.stack([ends[0].real, ends[0].imag]), ends[1], 1e-8)


def test_the_value_left_behind_is_that_of_the_rounded_params() -> None:
    """bfloat16 params are looked at as they will be, so that the value is theirs."""
    with jax.enable_x64(False):
        tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(10))
        params = {"x": jnp.asarray([-1.2, 1.0, 0.7], jnp.bfloat16)}
        loss = lambda p: rosenbrock({"x": p["x"].astype(jnp.float32)})  # noqa: E731
        state, step = tx.init(params), stepper(tx, loss)
        for _ in range(3):
            params, state, *_ = step(params, state)
            assert state[-1].value == loss(params)
            assert params["x"].dtype == jnp.bfloat16
        assert state[-1].grad["x"].dtype == jnp.float32
        assert step._cache_size() == 1


def test_a_fresh_state_can_be_donated() -> None:
    params = start("rosenbrock")
    tx = gradtx.lbfgs()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(state: Any, params: Any) -> Any:
        value, grad = jax.value_and_grad(rosenbrock)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=rosenbrock)
        return state, gradtx.apply_updates(params, updates)

    state, params = step(tx.init(params), params)
    step(state, params)
    assert step._cache_size() == 1


def test_a_failed_search_can_be_reported(capfd: pytest.CaptureFixture[str]) -> None:
    params = jnp.ones(2)
    for search in (
        gradtx.scale_by_zoom_linesearch(3, verbose=True),
        gradtx.scale_by_backtracking_linesearch(3, verbose=True),
    ):
        uphill = jnp.ones(2)
        search.update(uphill, search.init(params), params, value_fn=lambda p: jnp.sum(p**2))
        jax.effects_barrier()
        assert "no rate meets the criteria" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradtx.scale_by_lbfgs(0), "memory_size must be a whole number >= 1, got 0"),
        (
            lambda: gradtx.scale_by_zoom_linesearch(0),
            "max_linesearch_steps must be a whole",
        ),
        (
            lambda: gradtx.scale_by_backtracking_linesearch(2.5),
            "max_backtracking_steps must be a whole number >= 1, got 2.5",
        ),
        (
            lambda: gradtx.scale_by_backtracking_linesearch(5, decrease_factor=1.0),
            r"decrease_factor must be in \(0, 1\), got 1.0",
        ),
        (
            lambda: gradtx.scale_by_zoom_linesearch(5, initial_guess_strategy="two"),
            "initial_guess_strategy must be one of 'keep', 'one', got 'two'",
        ),
        (
            lambda: gradtx.value_and_grad_from_state(rosenbrock)(
                start("rosenbrock"), state=gradtx.sgd(0.1).init(start("rosenbrock"))
            ),
            "must hold one state of a line search, it holds 0: pass the state of an optimizer",
        ),
        (
            lambda: gradtx.value_and_grad_from_state(rosenbrock)(
                start("rosenbrock"),
                state=gradtx.scale_by_backtracking_linesearch(5).init(start("rosenbrock")),
            ),
            "give it store_grad=True",
        ),
        (
            lambda: gradtx.scale_by_zoom_linesearch(5).update(
                jnp.ones(2),
                gradtx.scale_by_zoom_linesearch(5).init(jnp.ones(2)),
                jnp.ones(2),
                value=1.0,
                grad=jnp.ones(2),
                value_fn=lambda p: p,
            ),
            "scalar|one number",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("lowest", [0.055, 0.06, 0.07, 0.08, 0.09])
@pytest.mark.parametrize("curvature", [0.3, 7.0, 1e3])
def test_the_third_point_on_a_parabola_is_its_lowest(lowest: float, curvature: float) -> None:
    """1 is too far, and so is the middle; the cubic through the three values is the parabola,
    whose lowest point it must not lose to rounding. Optax divides rounding by rounding there."""
    optax = pytest.importorskip("optax")

    def value_fn(p: Any) -> Any:
        return 3 + curvature / 2 * (p - lowest) ** 2

    def search(lib: Any) -> Any:
        tx = lib.scale_by_zoom_linesearch(20, initial_guess_strategy="one")
        params, updates = jnp.zeros(()), jnp.ones(())
        value, grad = jax.value_and_grad(value_fn)(params)
        state = tx.init(params)
        return tx.update(updates, state, params, value=value, grad=grad, value_fn=value_fn)[1]

    ours, theirs = search(gradtx), search(optax)
    assert ours.info.num_linesearch_steps == 3
    assert_close(ours.learning_rate, lowest, 1e-10)
    assert theirs.info.num_linesearch_steps >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "least"), [("float32", 5e-3), ("float64", 1e-4)])
def test_logistic_regression_takes_no_more_evaluations_than_optax(dtype: str, least: float) -> None:
    """Of digits, to the same norm of the gradient, below which rounding leads either way; and it is
    traced once, where Optax is twice."""
    optax = pytest.importorskip("optax")
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    x, y = jnp.asarray(x / 16, dtype), jax.nn.one_hot(y, 10, dtype=dtype)

    def loss(p: Any) -> Any:
        logits = jax.nn.log_softmax(x @ p["w"] + p["b"])
        return -jnp.mean(jnp.sum(logits * y, axis=1)) + 5e-3 * jnp.sum(p["w"] ** 2)

    def evaluations(lib: Any) -> tuple[int, int]:
        tx, value_and_grad = lib.lbfgs(), lib.value_and_grad_from_state(loss)

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            value, grad = value_and_grad(params, state=state)
            given = {"value": value, "grad": grad, "value_fn": loss}
            updates, state = tx.update(grad, state, params, **given)
            return lib.apply_updates(params, updates), state

        params = {"w": jnp.zeros((64, 10), dtype), "b": jnp.zeros(10, dtype)}
        state, count = tx.init(params), 1
        for _ in range(200):
            params, state = step(params, state)
            count += int(state[-1].info.num_linesearch_steps)
            if gradtx.tree.norm(state[-1].grad) < least:
                return count, step._cache_size()
        raise AssertionError("it does not converge")

    ours, traces = evaluations(gradtx)
    theirs, _ = evaluations(optax)
    assert traces == 1
    assert ours <= theirs
