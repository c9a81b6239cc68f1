"""Learning-rate-free, schedule-free and wrapped optimizers against their papers, in NumPy float64.

The formulas work on one long vector; the library gets the same numbers as a tree of two leaves.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .replay import assert_close

N, STEPS = 10, 30
RNG = np.random.default_rng(0)
START, CURVATURE = RNG.standard_normal(N), RNG.uniform(0.2, 1.5, N)
NOISE = 0.3 * RNG.standard_normal((STEPS, N))

Vector = Any
Gradient = Callable[[int, Vector], Vector]
Path = Iterator[Vector]


def gradient(t: int, x: Vector) -> Vector:
    return CURVATURE * x + NOISE[t]


def loss(x: Vector) -> Any:
    return 1.0 + 0.5 * (CURVATURE * x * x).sum()


def to_tree(x: Vector) -> Any:
    return {"a": x[:6].reshape(2, 3), "b": x[6:]}


def to_vector(tree: Any) -> Any:
    return jnp.concatenate([tree["a"].reshape(-1), tree["b"]])


def train(tx: Any, extra: Callable[[Any], dict[str, Any]] = lambda x: {}, rate: float = 1.0) -> Any:
    """The params after every step, and the last state."""

    @jax.jit
    def run() -> Any:
        def step(carry: Any, noise: Any) -> Any:
            params, state = carry
            x = to_vector(params)
            grads = to_tree(jnp.asarray(CURVATURE) * x + noise)
            updates, state = tx.update(grads, state, params, **extra(x))
            params = jax.tree.map(lambda p, u: p + rate * u, params, updates)
            return (params, state), to_vector(params)

        params = to_tree(jnp.asarray(START))
        (_, state), path = jax.lax.scan(step, (params, tx.init(params)), jnp.asarray(NOISE))
        return path, state

    return run()


def with_value(x: Any) -> dict[str, Any]:
    return {"value": loss(x)}


# -- the papers ----------------------------------------------------------------------------------


def cocob(alpha: float = 100.0, eps: float = 1e-8) -> Path:
    """Orabona & Tommasi 2017, algorithm 2: w = w1 + beta (L + Reward), g is the negative slope."""
    w, w1 = START.copy(), START
    largest, total, reward, theta = np.full(N, eps), np.zeros(N), np.zeros(N), np.zeros(N)
    for t in range(STEPS):
        g = -gradient(t, w)
        largest = np.maximum(largest, np.abs(g))
        total = total + np.abs(g)
        reward = np.maximum(reward + (w - w1) * g, 0)
        theta = theta + g
        w = w1 + theta / (largest * np.maximum(total + largest, alpha * largest)) * (
            largest + reward
        )
        yield w


def madgrad(rate: float, momentum: float, decay: float, eps: float) -> Path:
    """Defazio & Jelassi 2021, algorithm 1, with the authors' eps added to the rate."""
    x, s, nu = START.copy(), np.zeros(N), np.zeros(N)
    for k in range(STEPS):
        g = gradient(k, x) + decay * x
        weight = (rate + eps) * np.sqrt(k + 1)
        s, nu = s + weight * g, nu + weight * g * g
        z = START - s / (np.cbrt(nu) + eps)
        x = momentum * x + (1 - momentum) * z
        yield x


def dog(first: float, eps: float, first_rate: float | None = None) -> Path:
    """Ivgi et al. 2023: eta = max distance / sqrt(sum of squared norms)."""
    x, furthest, total = START.copy(), first, 0.0
    for t in range(STEPS):
        g = gradient(t, x)
        furthest = max(furthest, np.linalg.norm(x - START))
        total += g @ g
        eta = furthest / np.sqrt(total + eps)
        x = x - (first_rate if first_rate is not None and t == 0 else eta) * g
        yield x


def dowg(first: float, eps: float) -> Path:
    """Khaled et al. 2023, algorithm 1: eta = r^2 / sqrt(sum of r^2 |g|^2)."""
    x, r2, v = START.copy(), first, 0.0
    for t in range(STEPS):
        g = gradient(t, x)
        r2 = max(r2, float((x - START) @ (x - START)))
        v += r2 * (g @ g)
        x = x - r2 / (np.sqrt(v) + eps) * g
        yield x


def layerwise_dog(reps: float, eps: float) -> Path:
    """Ivgi et al. 2023, each leaf by itself."""
    x = START.copy()
    leaves = [slice(0, 6), slice(6, N)]
    furthest = [reps * (1 + np.linalg.norm(START[s])) for s in leaves]
    total = [0.0, 0.0]
    for t in range(STEPS):
        g, new = gradient(t, x), x.copy()
        for i, s in enumerate(leaves):
            furthest[i] = max(furthest[i], np.linalg.norm(x[s] - START[s]))
            total[i] += g[s] @ g[s]
            new[s] = x[s] - furthest[i] / np.sqrt(total[i] + eps) * g[s]
        x = new
        yield x


def dadapt_adam(b1: float, b2: float, eps: float, d: float, decay: float, rate: Any) -> Path:
    """Defazio & Mishchenko 2023, algorithm 5, with Adam's bias correction."""
    x, m, v, s, r = START.copy(), np.zeros(N), np.zeros(N), np.zeros(N), 0.0
    q = np.sqrt(b2)
    for k in range(STEPS):
        g = gradient(k, x)
        lr = d * rate(k) * np.sqrt(1 - b2 ** (k + 1)) / (1 - b1 ** (k + 1))
        r = q * r + (1 - q) * lr * (g @ (s / (np.sqrt(v) + eps)))
        m, v = b1 * m + (1 - b1) * lr * g, b2 * v + (1 - b2) * g * g
        s = q * s + (1 - q) * lr * g
        if np.abs(s).sum() > 0:
            d = max(d, r / ((1 - q) * np.abs(s).sum()))
        x = x - decay * lr * x - m / (np.sqrt(v) + eps)
        yield x


def prodigy(
    b1: float, b2: float, b3: float, eps: float, d0: float, coef: float, decay: float, rate: Any,
    safe: bool = False,
) -> Path:  # fmt: skip
    """Mishchenko & Defazio 2023, algorithm 4, with Adam's bias correction."""
    x, m, v, s, r, d = START.copy(), np.zeros(N), np.zeros(N), np.zeros(N), 0.0, d0
    for k in range(STEPS):
        g = gradient(k, x)
        lr = d * rate(k) * np.sqrt(1 - b2 ** (k + 1)) / (1 - b1 ** (k + 1))
        m, v = b1 * m + (1 - b1) * d * g, b2 * v + (1 - b2) * (d * g) ** 2
        r = b3 * r + d / d0 * lr * (g @ (START - x))
        s = b3 * s + d / d0 * (d if safe else lr) * g
        if np.abs(s).sum() > 0:
            d = max(d, coef * r / np.abs(s).sum())
        x = x - decay * lr * x - lr * m / (np.sqrt(v) + d * eps)
        yield x


def polyak(most: float, lower: float, scaling: float) -> Path:
    """Loizou et al. 2021: s min((f - f*) / |g|^2, most)."""
    x = START.copy()
    for t in range(STEPS):
        g = gradient(t, x)
        x = x - scaling * min((loss(x) - lower) / (g @ g), most) * g
        yield x


def momo(rate: Any, beta: float, lower: float, decay: float, adapt: bool) -> Path:
    """Schaipp et al. 2023, algorithm 1; weight decay as the proximal step of (1 + rate decay)."""
    x, first = START.copy(), lower
    for k in range(STEPS):
        g, f = gradient(k, x), loss(x)
        if k == 0:
            d, bar, gamma = g, f, g @ x
        d = beta * d + (1 - beta) * g
        bar, gamma = beta * bar + (1 - beta) * f, beta * gamma + (1 - beta) * (g @ x)
        r = 1 + rate(k) * decay
        if adapt and r * (bar - gamma) + d @ x < r * lower:
            lower = max((r * (bar - gamma) + d @ x) / (2 * r), first)
        tau = min(rate(k), max(r * (bar - lower - gamma) + d @ x, 0) / (d @ d))
        if adapt:
            lower = max(bar + d @ x - gamma - tau * (d @ d) / 2, first)
        x = (x - tau * d) / r
        yield x


def momo_adam(
    rate: float, b1: float, b2: float, eps: float, lower: float, decay: float, adapt: bool
) -> Path:
    """Schaipp et al. 2023, algorithm 2 (with the proximal step of weight decay)."""
    x, first = START.copy(), lower
    d, v, bar, gamma = np.zeros(N), np.zeros(N), 0.0, 0.0
    r = 1 + rate * decay
    for k in range(STEPS):
        g = gradient(k, x)
        d, v = b1 * d + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        bar, gamma = b1 * bar + (1 - b1) * loss(x), b1 * gamma + (1 - b1) * (g @ x)
        scaled = d / (eps + np.sqrt(v / (1 - b2 ** (k + 1))))
        part = 1 - b1 ** (k + 1)
        if adapt and r * (bar - gamma) + d @ x < r * part * lower:
            lower = max((r * (bar - gamma) + d @ x) / (2 * r * part), first)
        gap = max(r * (bar - part * lower - gamma) + d @ x, 0)
        tau = min(rate / part, gap / (d @ scaled))
        if adapt:
            lower = max((bar + d @ x - gamma - tau * (d @ scaled) / 2) / part, first)
        x = (x - tau * scaled) / r
        yield x


def schedule_free(rate: Any, beta: float, power: float, decay: float = 0.0) -> Path:
    """Defazio et al. 2024, equations 2 to 4, weights gamma^power: y, which the model holds."""
    z, x, y, total, most = START.copy(), START.copy(), START.copy(), 0.0, 0.0
    for k in range(STEPS):
        z = z - rate(k) * (gradient(k, y) + decay * y)
        most = max(most, rate(k))
        total += most**power
        c = most**power / total if total > 0 else 0.0
        x = (1 - c) * x + c * z
        y = (1 - beta) * z + beta * x
        yield np.concatenate([y, x])


def mechanic(rate: float, decay: float, eps: float, s_init: float, n: int) -> Path:
    """Cutkosky et al. 2023, algorithm 1, around SGD."""
    x, delta = START.copy(), np.zeros(N)
    betas = 1 - 0.1 ** np.arange(1, n + 1)
    r, m, v, s = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, s_init)
    for t in range(STEPS):
        g = gradient(t, x)
        delta = (x - START) / (s.sum() + eps)
        reg = g + decay * s.sum() * np.linalg.norm(g) / (np.linalg.norm(x) + eps) * x
        h = -(reg @ delta)
        r = betas * r + np.clip(h, -m, m) * s
        m = np.maximum(betas * m, abs(h) + eps)
        v = betas**2 * v + h * h
        s = (s_init / n * m + np.maximum(r, 0)) / (np.sqrt(v) + eps)
        delta = delta - rate * g
        x = START + s.sum() * delta
        yield x


def sam(rate: float, rho: float, period: int) -> Path:
    """Foret et al. 2021, equation 2 and algorithm 1, each gradient a step of its own."""
    x = origin = START.copy()
    for t in range(STEPS):
        g = gradient(t, x)
        if t % period < period - 1:
            x = x + rho * g / np.linalg.norm(g)
        else:
            x = origin = origin - rate * g
        yield x


def sophia(
    rate: float, b1: float, b2: float, gamma: float, eps: float, bound: float, every: int
) -> Path:
    """Liu et al. 2023, algorithm 3, with the exact diagonal, used from the step after it."""
    x, m, h = START.copy(), np.zeros(N), np.zeros(N)
    for t in range(STEPS):
        m = b1 * m + (1 - b1) * gradient(t, x)
        u = np.clip(m / (1 - b1 ** (t + 1)) / np.maximum(gamma * h, eps), -bound, bound)
        if t % every == 0:
            h = b2 * h + (1 - b2) * CURVATURE
        x = x - rate * u
        yield x


# -- the library ---------------------------------------------------------------------------------


def falling(t: Any) -> Any:
    return 0.5 / (1 + t)


def rising(t: Any) -> Any:
    return 0.3 * min(1.0, (t + 1) / 5)


@gradtx.per_tree
def exact_diagonal() -> Any:
    """u = the curvature"""
    return lambda updates: to_tree(jnp.asarray(CURVATURE))


FIRST = 1e-3 * (1 + np.linalg.norm(START))
SGD = gradtx.sgd(0.5)
CLIMB = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1))

CASES: dict[str, tuple[Any, Path, Any]] = {
    "cocob": (gradtx.cocob(), cocob(), None),
    "cocob eager": (gradtx.cocob(alpha=2.0, eps=0.1), cocob(2.0, 0.1), None),
    "madgrad": (gradtx.madgrad(0.1), madgrad(0.1, 0.9, 0.0, 1e-6), None),
    "madgrad decay": (gradtx.madgrad(0.3, 0.5, 0.1, 1e-3), madgrad(0.3, 0.5, 0.1, 1e-3), None),
    "dog": (gradtx.dog(init_step=("heuristic", 1e-3)), dog(FIRST, 1e-8), None),
    "dog distance": (gradtx.dog(1.0, ("distance", 0.1), 1e-3), dog(0.1, 1e-3), None),
    "dog rate": (gradtx.dog(1.0, ("learning_rate", 0.1)), dog(0.0, 1e-8, 0.1), None),
    "dowg": (gradtx.dowg(), dowg(1e-4, 1e-4), None),
    "dowg distance": (gradtx.dowg(1.0, 0.1, 1e-3), dowg(0.1, 1e-3), None),
    "layer-wise dog": (
        gradtx.scale_by_distance_over_gradients(1e-2, 1e-4, "float64", -1.0),
        layerwise_dog(1e-2, 1e-4),
        None,
    ),
    "dadapt_adamw": (
        gradtx.dadapt_adamw(falling, (0.8, 0.95), 1e-4, 0.05, 0.1),
        dadapt_adam(0.8, 0.95, 1e-4, 0.05, 0.1, falling),
        None,
    ),
    "dadapt_adamw that warms up from 0": (
        gradtx.dadapt_adamw(lambda t: 0.1 * t, estim_lr0=0.05),
        dadapt_adam(0.9, 0.999, 1e-8, 0.05, 0.0, lambda t: 0.1 * t),
        None,
    ),
    "prodigy": (
        gradtx.prodigy(falling, (0.8, 0.95), 0.9, 1e-4, 0.05, 0.5, 0.1),
        prodigy(0.8, 0.95, 0.9, 1e-4, 0.05, 0.5, 0.1, falling),
        None,
    ),
    "prodigy that warms up from 0": (
        gradtx.prodigy(lambda t: 0.05 * t, estim_lr0=0.01, safeguard_warmup=True),
        prodigy(0.9, 0.999, 0.999**0.5, 1e-8, 0.01, 1.0, 0.0, lambda t: 0.05 * t, True),
        None,
    ),
    "polyak_sgd": (gradtx.polyak_sgd(0.5, 1.0, 0.2), polyak(0.5, 0.2, 1.0), with_value),
    "polyak_sgd scaled": (gradtx.polyak_sgd(9.0, 0.3), polyak(9.0, 0.0, 0.3), with_value),
    "momo": (gradtx.momo(0.6), momo(lambda k: 0.6, 0.9, 0.0, 0.0, False), with_value),
    "momo decay": (
        gradtx.momo(falling, 0.5, 0.7, 0.1),
        momo(falling, 0.5, 0.7, 0.1, False),
        with_value,
    ),
    "momo adapting": (
        gradtx.momo(0.9, 0.7, 0.1, 0.1, True),
        momo(lambda k: 0.9, 0.7, 0.1, 0.1, True),
        with_value,
    ),
    "momo_adam": (
        gradtx.momo_adam(0.3, weight_decay=0.1),
        momo_adam(0.3, 0.9, 0.999, 1e-8, 0.0, 0.1, False),
        with_value,
    ),
    "momo_adam adapting": (
        gradtx.momo_adam(0.9, 0.7, 0.95, 1e-3, 0.1, 0.1, True),
        momo_adam(0.9, 0.7, 0.95, 1e-3, 0.1, 0.1, True),
        with_value,
    ),
    "mechanize": (
        gradtx.mechanize(SGD, s_init=1e-3),
        mechanic(0.5, 1e-2, 1e-8, 1e-3, 6),
        None,
    ),
    "mechanize three": (
        gradtx.mechanize(SGD, 0.1, 1e-4, 0.1, 3),
        mechanic(0.5, 0.1, 1e-4, 0.1, 3),
        None,
    ),
    "sam": (gradtx.sam(SGD, CLIMB), sam(0.5, 0.1, 2), None),
    "sam of four": (gradtx.sam(SGD, CLIMB, 4), sam(0.5, 0.1, 4), None),
    "sam of one is its optimizer": (gradtx.sam(SGD, CLIMB, 1), sam(0.5, 0.1, 1), None),
    "sophia": (
        gradtx.chain(
            gradtx.scale_by_sophia(
                0.8, 0.6, 1e-3, 0.5, 0.7, 3, hessian_diagonal_fn=exact_diagonal()
            ),
            gradtx.scale(-0.1),
        ),
        sophia(0.1, 0.8, 0.6, 0.5, 1e-3, 0.7, 3),
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_follows_the_paper(name: str) -> None:
    tx, expected, extra = CASES[name]
    path, _ = train(tx, extra) if extra else train(tx)
    assert_close(path, np.stack(list(expected)), 1e-11 if "dadapt" in name else 1e-12, name)


SCHEDULE_FREE = {
    "sgd": (gradtx.schedule_free_sgd(0.5), schedule_free(lambda k: 0.5, 0.9, 2.0)),
    "a schedule": (
        gradtx.schedule_free(gradtx.sgd(falling), falling, 0.8, 1.5),
        schedule_free(falling, 0.8, 1.5),
    ),
    "a schedule from 0": (
        gradtx.schedule_free(gradtx.sgd(lambda t: 0.1 * t), lambda t: 0.1 * t, 0.8),
        schedule_free(lambda t: 0.1 * t, 0.8, 2.0),
    ),
    "warmup": (
        gradtx.schedule_free_sgd(0.3, 5, weight_decay=0.1),
        schedule_free(rising, 0.9, 2.0, 0.1),
    ),
}


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_follows_the_paper(name: str) -> None:
    """Where the gradient is taken, and the average."""
    tx, expected = SCHEDULE_FREE[name]
    ends = np.stack(list(expected))
    path, state = train(tx)
    assert_close(path, ends[:, :N], what=name)
    average = gradtx.schedule_free_eval_params(state, to_tree(path[-1]))
    assert_close(to_vector(average), ends[-1, N:], what=name)
    in_a_chain = gradtx.schedule_free_eval_params((state, ()), to_tree(path[-1]))
    assert_close(to_vector(in_a_chain), ends[-1, N:], what=name)


def test_schedule_free_adamw_warms_up_from_its_first_step() -> None:
    """|u| of Adam's first step is the rate: a third of it with a warmup of three."""
    params = {"x": jnp.ones(3)}
    for steps, part in ((None, 1.0), (3, 1 / 3)):
        tx = gradtx.schedule_free_adamw(0.3, steps, eps=0.0)
        u, state = tx.update({"x": jnp.asarray([1.0, -2.0, 3.0])}, tx.init(params), params)
        assert_close(u["x"], 0.3 * part * np.asarray([-1.0, 1.0, -1.0]))
        assert int(state.step_count) == 2


# -- plateaus ------------------------------------------------------------------------------------


def scales(tx: Any, values: Any) -> list[float]:
    state, made = tx.init(jnp.zeros(())), []
    update = jax.jit(tx.update)
    for value in values:
        u, state = update(jnp.ones(()), state, value=jnp.float64(value))
        made.append(float(u))
    return made


def plateaus(values: Any, factor: float, patience: int, rtol: float, cooldown: int) -> list[float]:
    best, bad, rest, scale, made = np.inf, 0, 0, 1.0, []
    for value in values:
        better = best == np.inf or value < best - rtol * abs(best)
        best = value if better else best
        bad = 0 if better else bad + 1
        if rest:
            rest, bad = rest - 1, 0
        elif bad == patience:
            scale, bad, rest = scale * factor, 0, cooldown
        made.append(scale)
    return made


@pytest.mark.parametrize("shift", [0.0, -10.0, -0.5])
def test_plateaus_of_metrics_of_any_sign(shift: float) -> None:
    values = np.round(np.exp(-np.arange(60) / 10) + 0.05 * RNG.standard_normal(60), 2) + shift
    tx = gradtx.reduce_on_plateau(0.5, 3, 0.01, cooldown=2)
    expected = plateaus(values, 0.5, 3, 0.01, 2)
    assert expected[-1] < 1
    assert_close(np.asarray(scales(tx, values)), np.asarray(expected))


def test_a_constant_negative_metric_is_a_plateau() -> None:
    assert scales(gradtx.reduce_on_plateau(patience=3), [-1.0] * 5) == [1.0, 1.0, 1.0, 0.1, 0.1]


def test_a_plateau_ends_at_min_scale_and_needs_whole_means() -> None:
    tx = gradtx.reduce_on_plateau(0.5, 1, accumulation_size=2, min_scale=0.3)
    assert scales(tx, [3, 1, 1, 3, 2, 2, 0, 4]) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3]


def test_patience_of_zero_is_one_of_one() -> None:
    tx = gradtx.reduce_on_plateau(0.5, 0)
    assert scales(tx, [3, 2, 2, 1]) == [1.0, 1.0, 0.5, 0.5]


# -- zeros ---------------------------------------------------------------------------------------

FROM_ZERO = {
    "dadapt_adamw": gradtx.dadapt_adamw(),
    "prodigy": gradtx.prodigy(),
    "sam": gradtx.sam(SGD, CLIMB),
    "momo": gradtx.momo(),
    "momo_adam": gradtx.momo_adam(),
    "polyak_sgd": gradtx.polyak_sgd(),
    "dog without eps": gradtx.dog(eps=0.0),
    "dowg without eps": gradtx.dowg(1.0, 1e-3, eps=0.0),
    "madgrad without eps": gradtx.madgrad(0.1, eps=0.0),
    "mechanize": gradtx.mechanize(SGD),
}


@pytest.mark.parametrize("name", FROM_ZERO)
def test_a_zero_first_gradient_changes_nothing_and_spoils_nothing(name: str) -> None:
    tx, params = FROM_ZERO[name], to_tree(jnp.asarray(START))
    state = tx.init(params)
    for gradient in (jax.tree.map(jnp.zeros_like, params),) * 2 + (params,) * 2:
        updates, state = tx.update(gradient, state, params, value=1.0)
        finite = [np.all(np.isfinite(x)) for x in jax.tree.leaves((updates, state))]
        assert all(finite)
        if gradient is not params:
            assert not any(np.any(x) for x in jax.tree.leaves(updates))
    assert any(np.any(x) for x in jax.tree.leaves(updates))


# -- Hutchinson ----------------------------------------------------------------------------------


def test_hutchinson_is_the_diagonal_on_average() -> None:
    matrix = RNG.standard_normal((4, 4))
    matrix = matrix + matrix.T
    tx = gradtx.hutchinson_estimator_diag_hessian(3)
    x = jnp.ones(4)

    def step(state: Any, _: Any) -> Any:
        u, state = tx.update(x, state, x, obj_fn=lambda p: p @ jnp.asarray(matrix) @ p / 2)
        return state, u

    made = np.asarray(jax.lax.scan(step, tx.init(x), length=4000)[1])
    assert np.max(np.abs(made.mean(0) - np.diag(matrix))) < 0.15
    assert np.std(made[:, 0]) > 0.1  # a single one is not


def test_hutchinson_takes_keys_of_either_kind_and_ints() -> None:
    x = jnp.ones(5)
    make = gradtx.hutchinson_estimator_diag_hessian
    loss_of_sum = lambda p: jnp.sum(p) ** 2  # noqa: E731
    made = [
        tx.update(x, tx.init(x), x, obj_fn=loss_of_sum)[0]
        for tx in (make(7), make(jax.random.PRNGKey(7)), make(jax.random.key(7)), make(8))
    ]
    assert_close(made[1], made[0])
    assert_close(made[2], made[0])
    assert np.any(made[3] != made[0])


# -- errors --------------------------------------------------------------------------------------


def refuse(message: str, make: Callable[[], Any], error: type[Exception] = ValueError) -> Any:
    return pytest.param(make, message, error, id=message)


X = jnp.ones(2)


@pytest.mark.parametrize(
    ("make", "message", "error"),
    [
        refuse("scale_by_dog: init_step must be", lambda: gradtx.dog(init_step=("far", 1.0))),
        refuse("scale_by_dog: init_step must be", lambda: gradtx.dog(init_step=("distance", -1.0))),
        refuse("variant must be one of 'sps', 'sps.'", lambda: gradtx.polyak_sgd(variant="sps-")),
        refuse("sync_period must be a whole", lambda: gradtx.sam(SGD, CLIMB, 0)),
        refuse("num_betas must be a whole number >= 1", lambda: gradtx.mechanize(SGD, num_betas=0)),
        refuse("update_interval must be a whole", lambda: gradtx.sophia(0.1, update_interval=0)),
        refuse(
            "random_seed must be a whole number or a random key",
            lambda: gradtx.hutchinson_estimator_diag_hessian("x"),
            TypeError,
        ),
        refuse(
            "it holds 0: pass the state of an optimizer made with schedule_free",
            lambda: gradtx.schedule_free_eval_params(gradtx.sgd(0.1).init(X), X),
        ),
        refuse(
            r"momo: .*value=\.\.\.|momo.*needs value",
            lambda: gradtx.momo().update(X, gradtx.momo().init(X), X),
            TypeError,
        ),
        refuse(
            "value must be one real number",
            lambda: gradtx.momo().update(X, gradtx.momo().init(X), X, value=X),
        ),
        refuse(
            "needs obj_fn",
            lambda: gradtx.sophia(0.1).update(X, gradtx.sophia(0.1).init(X), X),
            TypeError,
        ),
    ],
)
def test_bad_arguments_are_named(
    make: Callable[[], Any], message: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_optax_optimizers_can_be_wrapped() -> None:
    optax = pytest.importorskip("optax")
    for wrap in (
        lambda inner: gradtx.schedule_free(inner, 0.5),
        gradtx.mechanize,
        lambda inner: gradtx.sam(inner, CLIMB),
    ):
        assert_close(train(wrap(optax.sgd(0.5)))[0], train(wrap(SGD))[0])
