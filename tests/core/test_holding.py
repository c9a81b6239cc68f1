"""Steps that are taken now and then: both forms have the same values and derivatives."""

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradtx
from gradtx.core import holding

W = np.array([0.3, -0.7, 1.1])


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["conditional", "on GPU"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the forms is run, whatever this platform would choose."""
    chosen = {"conditional": "default", "on GPU": "cuda"}[request.param]
    of_a_platform = SimpleNamespace(
        cond=lax.cond,
        while_loop=lax.while_loop,
        platform_dependent=lambda *operands, **forms: forms[chosen](*operands),
    )
    monkeypatch.setattr(holding, "lax", of_a_platform)
    return str(request.param)


# -- the function itself -------------------------------------------------------------------------


def loss(k: Any, w: Any, due: Any) -> Any:
    """sum(sin(w) k * w (1 + k)) where it is due, otherwise 0; k is in a closure."""

    def run(state: Any) -> Any:
        w, n = state
        return k * jnp.sin(w), (w + k * w, n + 1)

    output, (w, n) = holding.now_and_then(due, run, lambda state: 0 * state[0], (w, jnp.int32(0)))
    return jnp.sum(output * w) + 0 * n


def expected(k: float) -> tuple[float, float, float]:
    """The loss where it is due, and its first and second derivative by k."""
    s = float(np.sum(np.sin(W) * W))
    return s * k * (1 + k), s * (1 + 2 * k), 2 * s


@pytest.mark.parametrize("due", [True, False])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["", "jit", "remat"])
def test_values_and_derivatives(x64: None, form: str, due: bool, wrap: Any) -> None:
    f: Callable[..., Any] = wrap(partial(loss, w=jnp.asarray(W), due=jnp.asarray(due)))
    got = (f(2.0), jax.grad(f)(2.0), jax.grad(jax.grad(f))(2.0))
    np.testing.assert_allclose(got, np.array(expected(2.0)) * due, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(f)(2.0), expected(2.0)[1] * due, rtol=1e-12)
    np.testing.assert_allclose(jax.linearize(f, 2.0)[1](1.0), expected(2.0)[1] * due, rtol=1e-12)


def test_under_vmap_some_are_due(x64: None, form: str) -> None:
    rates, due = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([True, False, True])
    got = jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, 0))(rates, jnp.asarray(W), due)
    wanted = [np.array(expected(float(k))[:2]) * bool(d) for k, d in zip(rates, due, strict=True)]
    np.testing.assert_allclose(np.stack(got, axis=1), wanted, rtol=1e-12)


def test_in_a_scan(x64: None, form: str) -> None:
    """w <- w + k w on every third of seven steps: w (1 + k)^3."""

    def run(k: Any) -> Any:
        def body(w: Any, i: Any) -> Any:
            turn = lambda w: (None, w + k * w)  # noqa: E731
            return holding.now_and_then(i % 3 == 0, turn, lambda w: None, w)[1], None

        return jnp.sum(lax.scan(body, jnp.asarray(W), jnp.arange(7))[0])

    for derivative in (jax.grad(run), jax.jacfwd(run), jax.jit(jax.grad(run))):
        np.testing.assert_allclose(derivative(0.5), 3 * 1.5**2 * W.sum(), rtol=1e-12)


def test_effects_happen_only_when_it_is_due(form: str) -> None:
    calls = []

    def run(w: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return None, w + 1

    step = jax.jit(lambda due, w: holding.now_and_then(due, run, lambda w: None, w)[1])
    assert [float(step(due, 1.0)) for due in (True, False, True)] == [2.0, 1.0, 2.0]
    jax.effects_barrier()
    assert len(calls) == 2


# -- what is made of it --------------------------------------------------------------------------

PARAMS = {"a": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": np.array([0.5, -2.0])}
RNG = np.random.default_rng(5)
GRADS = [jax.tree.map(lambda x: RNG.normal(size=x.shape), PARAMS) for _ in range(6)]


def train(tx: Any, grads: list[Any], **extra: Any) -> Any:
    """The sum of the squares of the parameters after steps in a scan."""

    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = tx.update(g, state, params, **extra)
        return (gradtx.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)
    params = jax.tree.map(jnp.asarray, PARAMS)
    params = lax.scan(body, (params, tx.init(params)), stacked)[0][0]
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


def means(grads: list[Any], k: int) -> list[Any]:
    return [
        jax.tree.map(lambda *x: np.mean(x, axis=0), *grads[i : i + k])
        for i in range(0, len(grads) - k + 1, k)
    ]


NAN = jax.tree.map(lambda x: x * np.nan, PARAMS)
WRAPPERS: dict[str, tuple[Callable[[Any], Any], list[Any], list[Any]]] = {
    # The wrapper, the gradients that it gets, and those of the inner transformation's own run.
    "accumulate": (lambda tx: gradtx.accumulate(tx, 3), GRADS, means(GRADS, 3)),
    "accumulate with a NaN": (
        lambda tx: gradtx.accumulate(tx, 3),
        [GRADS[0], NAN, *GRADS[1:5]],
        [*means(GRADS[:2], 2), *means(GRADS[2:5], 3)],
    ),
    "accumulate in accumulate": (
        lambda tx: gradtx.accumulate(gradtx.accumulate(tx, 3), 2),
        GRADS,
        means(means(GRADS, 2), 3),
    ),
    "MultiSteps": (
        lambda tx: gradtx.MultiSteps(tx, 2, accumulator_dtype=np.float64),
        GRADS,
        means(GRADS, 2),
    ),
    "apply_if_finite": (
        lambda tx: gradtx.apply_if_finite(tx, 9),
        [GRADS[0], NAN, GRADS[1]],
        GRADS[:2],
    ),
    "finite_guard": (gradtx.finite_guard, [GRADS[0], NAN, GRADS[1]], GRADS[:2]),
    "dynamic_loss_scale": (
        lambda tx: gradtx.dynamic_loss_scale(tx, 1.0, 99, backoff_factor=1.0),
        [GRADS[0], NAN, GRADS[1]],
        GRADS[:2],
    ),
    "conditionally_mask": (
        lambda tx: gradtx.conditionally_mask(tx, lambda step: step % 2 == 0),
        GRADS[:5],
        GRADS[:5:2],
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_hypergradients_in_both_forms(x64: None, form: str, name: str) -> None:
    """Values, and derivatives in both modes, are those of the inner transformation."""
    wrap, grads, own = WRAPPERS[name]

    def held(rate: Any) -> Any:
        return train(wrap(gradtx.adamw(rate, weight_decay=0.1)), grads)

    def plain(rate: Any) -> Any:
        return train(gradtx.adamw(rate, weight_decay=0.1), own)

    rates = jnp.asarray([0.01, 0.1])
    wanted = jax.jit(jax.vmap(jax.value_and_grad(plain)))(rates)
    got = jax.jit(jax.vmap(jax.value_and_grad(held)))(rates)
    np.testing.assert_allclose(np.stack(got), np.stack(wanted), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(held))(rates[0]), wanted[1][0], rtol=1e-9)


def test_conditionally_transform_hands_on_what_it_got(x64: None) -> None:
    def run(rate: Any) -> Any:
        tx = gradtx.conditionally_transform(gradtx.scale(-rate), lambda step: step % 2 == 0)
        return train(gradtx.chain(tx, gradtx.scale(0.1)), GRADS[:2])

    a, b = (jax.tree.map(np.asarray, g) for g in GRADS[:2])
    at = {k: PARAMS[k] + 0.1 * (b[k] - 0.5 * a[k]) for k in PARAMS}
    np.testing.assert_allclose(run(0.5), sum(np.sum(x**2) for x in at.values()), rtol=1e-12)
    slope = sum(np.sum(2 * at[k] * -0.1 * a[k]) for k in PARAMS)
    np.testing.assert_allclose(jax.grad(run)(0.5), slope, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(run)(0.5), slope, rtol=1e-12)


def sophia() -> Any:
    return gradtx.chain(gradtx.scale_by_sophia(update_interval=3), gradtx.scale(-0.1))


def galore() -> Any:
    return gradtx.chain(gradtx.scale_by_galore(rank=2, update_proj_gap=3), gradtx.scale(-0.1))


@pytest.mark.parametrize("make", [sophia, galore], ids=["sophia", "galore"])
def test_now_and_then_parts_are_the_same_in_a_loop(
    x64: None, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective(p: Any) -> Any:
        return sum(jnp.sum(x**4) for x in jax.tree.leaves(p))

    extra = {"obj_fn": objective} if make is sophia else {}
    wanted = train(make(), GRADS, **extra)
    with monkeypatch.context() as patch:
        in_a_loop = SimpleNamespace(
            cond=lax.cond,
            while_loop=lax.while_loop,
            platform_dependent=lambda *operands, cuda, **_: cuda(*operands),
        )
        patch.setattr(holding, "lax", in_a_loop)
        np.testing.assert_allclose(train(make(), GRADS, **extra), wanted, rtol=1e-12)


# -- the programs --------------------------------------------------------------------------------


def text(tx: Any, platform: str) -> str:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    params = jax.ShapeDtypeStruct((64, 64), np.float32)
    traced = jax.jit(step).trace(params, jax.eval_shape(tx.init, params), params)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda", "rocm"])
def test_it_is_a_loop_on_gpu_only(platform: str) -> None:
    loops = int(platform in ("cuda", "rocm"))
    for tx in (gradtx.accumulate(gradtx.adamw(1e-3), 8), gradtx.MultiSteps(gradtx.adamw(1e-3), 8)):
        assert text(tx, platform).count("stablehlo.while") == loops


@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
def test_what_is_nearly_always_due_is_a_conditional_on_cpu_only(platform: str) -> None:
    for tx in (
        gradtx.apply_if_finite(gradtx.adamw(1e-3), 3),
        gradtx.finite_guard(gradtx.adamw(1e-3)),
        gradtx.dynamic_loss_scale(gradtx.adamw(1e-3)),
        gradtx.sam(gradtx.adamw(1e-3), gradtx.sgd(0.1)),
    ):
        # Choices of the platform are cases too, as many on each.
        cases = [text(tx, p).count("stablehlo.case") for p in ("cpu", platform)]
        assert cases[0] - cases[1] == 1
