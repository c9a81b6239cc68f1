"""Signs and adaptive moments against their papers, in NumPy float64: 1e-12 over 50 steps.

Each formula is a generator as in `formulas.py`: gradients of one array in, updates out.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.transforms.radam import averaged_steps

from . import formulas
from .replay import STEPS, assert_close, replay

Array = Any
Updates = Iterator[np.ndarray]
Arrays = Iterable[np.ndarray]


# -- signs ---------------------------------------------------------------------------------------


def sign(grads: Arrays) -> Updates:
    for g in grads:
        yield np.where(g > 0, 1.0, np.where(g < 0, -1.0, 0.0))


def lion(grads: Arrays, b1: float, b2: float, shape: Callable[[Array], Array]) -> Updates:
    """Chen et al. 2023, program 1: interpolate by b1, take the sign, then track by b2."""
    m: Array = 0.0
    for g in grads:
        yield shape(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g


# -- beside Adam ---------------------------------------------------------------------------------


def adabelief(
    grads: Arrays, b1: float, b2: float, eps: float, eps_root: float, nesterov: bool = False
) -> Updates:
    """Zhuang et al. 2020, algorithm 2: s is a mean of (g - m)^2, each with epsilon added."""
    m: Array = 0.0
    s: Array = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            m_hat = m / (1 - b1**t)
        yield m_hat / (np.sqrt(s / (1 - b2**t)) + eps)


def acprop(grads: Arrays, b1: float, b2: float, eps: float, eps_root: float) -> Updates:
    """Zhuang et al. 2021: the gradient over the deviation known before it, or over its own size
    where nothing but zeros has been seen."""
    m: Array = 0.0
    s: Array = 0.0
    for t, g in enumerate(grads):
        known = np.sqrt(s / (1 - b2**t)) if t else np.ones(g.shape)
        unseen = (t > 0) & (np.max(np.abs(grads[:t]), axis=0, initial=0) == 0)
        yield g / (np.where(unseen, np.maximum(known, np.abs(g)), known) + eps)
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m = b1 * m + (1 - b1) * g


def adamax(grads: Arrays, b1: float, b2: float, eps: float) -> Updates:
    """Kingma & Ba 2015, algorithm 2, with epsilon inside the maximum."""
    m: Array = 0.0
    u: Array = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        yield m / (1 - b1**t) / u


def adadelta(grads: Arrays, rho: float, eps: float) -> Updates:
    """Zeiler 2012, algorithm 1."""
    of_g: Array = 0.0
    of_x: Array = 0.0
    for g in grads:
        of_g = rho * of_g + (1 - rho) * g**2
        x = np.sqrt(of_x + eps) / np.sqrt(of_g + eps) * g
        of_x = rho * of_x + (1 - rho) * x**2
        yield x


def yogi(
    grads: Arrays, b1: float, b2: float, eps: float, eps_root: float, initial: float
) -> Updates:
    """Zaheer et al. 2018: v moves towards g^2 by a step of (1 - b2) g^2."""
    m: Array = initial
    v: Array = initial
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        yield m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def steps_in_mean(b2: float, t: int) -> Fraction:
    """Liu et al. 2020, equation 5, in exact arithmetic."""
    b = Fraction(b2)
    return 2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t)


def radam(
    grads: Arrays,
    b1: float,
    b2: float,
    eps: float,
    eps_root: float,
    threshold: float,
    nesterov: bool = False,
) -> Updates:
    """Liu et al. 2020, algorithm 2."""
    m: Array = 0.0
    v: Array = 0.0
    end = 2 / (1 - Fraction(b2)) - 1
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            m_hat = m / (1 - b1**t)
        rho = steps_in_mean(b2, t)
        if rho >= threshold and rho > 4:
            r = math.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))
            yield r * m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        else:
            yield m_hat


def novograd(
    grads: Arrays, params: Arrays, b1: float, b2: float, eps: float, eps_root: float, decay: float
) -> Updates:
    """Ginsburg et al. 2019, algorithm 1: one second moment for the whole array."""
    m: Array = 0.0
    v = None
    for g, p in zip(grads, params, strict=True):
        square = math.fsum(float(x) ** 2 for x in np.ravel(g))
        v = square if v is None else b2 * v + (1 - b2) * square
        m = b1 * m + g / (math.sqrt(v + eps_root) + eps) + decay * p
        yield m


def adan(
    grads: Arrays, beta1: float, beta2: float, beta3: float, eps: float, eps_root: float
) -> Updates:
    """Xie et al. 2022, algorithm 1, in the paper's betas, with the authors' bias corrections."""
    m: Array = 0.0
    v: Array = 0.0
    n: Array = 0.0
    last = None
    for k, g in enumerate(grads, start=1):
        difference = 0.0 if last is None else g - last
        m = (1 - beta1) * m + beta1 * g
        v = (1 - beta2) * v + beta2 * difference
        n = (1 - beta3) * n + beta3 * (g + (1 - beta2) * difference) ** 2
        m_hat, v_hat = m / (1 - (1 - beta1) ** k), v / (1 - (1 - beta2) ** k)
        n_hat = n / (1 - (1 - beta3) ** k)
        yield (m_hat + (1 - beta2) * v_hat) / (np.sqrt(n_hat + eps_root) + eps)
        last = g


def rprop(
    grads: Arrays, rate: float, minus: float, plus: float, smallest: float, largest: float
) -> Updates:
    """Riedmiller & Braun 1993 as PyTorch has it: after a turn no step, and a fresh start."""
    size: Array = rate
    last: Array = 0.0
    for g in grads:
        turn = np.sign(g * last)
        size = size * np.where(turn > 0, plus, np.where(turn < 0, minus, 1.0))
        size = np.minimum(np.maximum(size, smallest), largest)
        last = np.where(turn < 0, 0.0, g)
        yield np.sign(last) * size


def optimistic(grads: Arrays, alpha: float, beta: float) -> Updates:
    """Mokhtari et al. 2019: alpha g + beta (g - the g before)."""
    last = None
    for g in grads:
        yield alpha * g + beta * (g - (g if last is None else last))
        last = g


def ademamix(
    grads: Arrays, b1: float, b2: float, b3: float, alpha: float, eps: float, eps_root: float
) -> Updates:
    """Pagliardini et al. 2024, algorithm 1, without its schedulers."""
    m1: Array = 0.0
    m2: Array = 0.0
    v: Array = 0.0
    for t, g in enumerate(grads, start=1):
        m1 = b1 * m1 + (1 - b1) * g
        m2 = b3 * m2 + (1 - b3) * g
        v = b2 * v + (1 - b2) * g**2
        yield (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def simplified_ademamix(
    grads: Arrays, b1: float, b2: float, alpha: float, eps: float, eps_root: float
) -> Updates:
    """Morwani et al. 2025: m <- b1 m + g, and m + alpha g in the numerator."""
    m: Array = 0.0
    v: Array = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + g
        v = b2 * v + (1 - b2) * g**2
        yield (m + alpha * g) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def adopt(
    grads: Arrays, b1: float, b2: float, eps: float, nesterov: bool = False, clip: bool = True
) -> Updates:
    """Taniguchi et al. 2024, algorithm 2: v_0 = g_0^2 without a step, then c_t = t^(1/4). Where
    nothing but zeros has been seen, the first gradient counts as its own deviation."""
    m: Array = 0.0
    v: Array = 0.0
    for t, g in enumerate(grads):
        v = np.where(np.asarray(v) == 0, g**2, v) if t else g**2
        if t == 0:
            yield 0 * g
            continue
        z = g / np.maximum(np.sqrt(v), eps)
        if clip:
            z = np.minimum(np.maximum(z, -(t**0.25)), t**0.25)
        m = b1 * m + (1 - b1) * z
        yield b1 * m + (1 - b1) * z if nesterov else m
        v = b2 * v + (1 - b2) * g**2


# -- the comparison ------------------------------------------------------------------------------


class Case(NamedTuple):
    """A transformation, and the updates that it must make of gradients and parameters."""

    tx: Any
    oracle: Callable[[Any, Any], Updates]


def refined(c: Array) -> Array:
    return np.where(np.abs(c) < 1, c, np.sign(c))


RATE, DECAY = 0.3, 0.2
L = gradtx

CASES: dict[str, Case] = {
    "scale_by_sign": Case(L.scale_by_sign(), lambda g, p: sign(g)),
    "lion hard": Case(L.scale_by_lion(), lambda g, p: lion(g, 0.9, 0.99, np.sign)),
    "lion smooth": Case(
        L.scale_by_lion(0.8, 0.7, mode="smooth", smooth_beta=3.0),
        lambda g, p: lion(g, 0.8, 0.7, lambda c: np.tanh(3.0 * c)),
    ),
    "lion refined": Case(
        L.scale_by_lion(0.8, 0.7, mode="refined"), lambda g, p: lion(g, 0.8, 0.7, refined)
    ),
    "sign_sgd": Case(L.sign_sgd(RATE), lambda g, p: formulas.descend(sign(g), RATE)),
    "signum": Case(
        L.signum(RATE, 0.7), lambda g, p: formulas.descend(sign(formulas.mean(g, 0.7, False)), RATE)
    ),
    "lion": Case(
        L.lion(RATE, weight_decay=DECAY),
        lambda g, p: decayed(lion(g, 0.9, 0.99, np.sign), p),
    ),
    "adabelief": Case(
        L.adabelief(RATE, 0.8, 0.9, 1e-6, 1e-5),
        lambda g, p: formulas.descend(adabelief(g, 0.8, 0.9, 1e-6, 1e-5), RATE),
    ),
    "adabelief nesterov": Case(
        L.scale_by_belief(nesterov=True),
        lambda g, p: adabelief(g, 0.9, 0.999, 1e-16, 1e-16, nesterov=True),
    ),
    "acprop": Case(
        L.acprop(RATE, weight_decay=DECAY),
        lambda g, p: decayed(acprop(g, 0.9, 0.999, 1e-16, 1e-16), p),
    ),
    "scale_by_acprop": Case(
        L.scale_by_acprop(0.8, 0.7, 1e-3, 1e-5), lambda g, p: acprop(g, 0.8, 0.7, 1e-3, 1e-5)
    ),
    "adamax": Case(
        L.adamax(RATE), lambda g, p: formulas.descend(adamax(g, 0.9, 0.999, 1e-8), RATE)
    ),
    "adamaxw": Case(
        L.adamaxw(RATE, 0.8, 0.7, 1e-3, DECAY), lambda g, p: decayed(adamax(g, 0.8, 0.7, 1e-3), p)
    ),
    "adadelta": Case(
        L.adadelta(RATE, 0.8, 1e-4, DECAY),
        lambda g, p: formulas.descend(
            adadelta(formulas.decay_weights(g, p, DECAY), 0.8, 1e-4), RATE
        ),
    ),
    "adadelta without a rate": Case(
        L.adadelta(), lambda g, p: formulas.descend(adadelta(g, 0.9, 1e-6), 1.0)
    ),
    "yogi": Case(
        L.yogi(RATE), lambda g, p: formulas.descend(yogi(g, 0.9, 0.999, 1e-3, 0, 1e-6), RATE)
    ),
    "scale_by_yogi": Case(
        L.scale_by_yogi(0.8, 0.7, 1e-4, 1e-5, 0.5),
        lambda g, p: yogi(g, 0.8, 0.7, 1e-4, 1e-5, 0.5),
    ),
    "radam": Case(
        L.radam(RATE), lambda g, p: formulas.descend(radam(g, 0.9, 0.999, 1e-8, 0, 5.0), RATE)
    ),
    "radam nesterov": Case(
        L.scale_by_radam(0.8, 0.9, 1e-4, 1e-5, 7.0, nesterov=True),
        lambda g, p: radam(g, 0.8, 0.9, 1e-4, 1e-5, 7.0, nesterov=True),
    ),
    "radam below 4": Case(
        L.scale_by_radam(threshold=3.0), lambda g, p: radam(g, 0.9, 0.999, 1e-8, 0, 3.0)
    ),
    "radam that never trusts": Case(
        L.scale_by_radam(0.9, 0.5, threshold=0.0), lambda g, p: radam(g, 0.9, 0.5, 1e-8, 0, 0.0)
    ),
    "novograd": Case(
        L.novograd(RATE),
        lambda g, p: formulas.descend(novograd(g, p, 0.9, 0.25, 1e-6, 0, 0), RATE),
    ),
    "scale_by_novograd": Case(
        L.scale_by_novograd(0.8, 0.7, 1e-3, 1e-2, DECAY),
        lambda g, p: novograd(g, p, 0.8, 0.7, 1e-3, 1e-2, DECAY),
    ),
    "adan": Case(
        L.adan(RATE, weight_decay=DECAY),
        lambda g, p: decayed(adan(g, 0.02, 0.08, 0.01, 1e-8, 1e-8), p),
    ),
    "scale_by_adan": Case(
        L.scale_by_adan(0.5, 0.75, 0.875, 1e-3), lambda g, p: adan(g, 0.5, 0.25, 0.125, 1e-3, 0)
    ),
    "rprop": Case(
        L.rprop(RATE), lambda g, p: formulas.descend(rprop(g, RATE, 0.5, 1.2, 1e-6, 50), 1.0)
    ),
    "rprop bounded": Case(
        L.scale_by_rprop(RATE, 0.25, 2.0, 0.2, 0.7),
        lambda g, p: rprop(g, RATE, 0.25, 2.0, 0.2, 0.7),
    ),
    "rprop from outside its bounds": Case(
        L.scale_by_rprop(RATE, 0.5, 1.2, 1.0, 2.0), lambda g, p: rprop(g, RATE, 0.5, 1.2, 1.0, 2.0)
    ),
    "optimistic_gradient_descent": Case(
        L.optimistic_gradient_descent(RATE, 0.5, 2.0),
        lambda g, p: formulas.descend(optimistic(g, 0.5, 2.0), RATE),
    ),
    "optimistic_adam": Case(
        L.optimistic_adam(RATE, 0.1),
        lambda g, p: formulas.descend(
            optimistic(formulas.nadam(g, 0.9, 0.999, 1e-8), RATE, 0.1), 1.0
        ),
    ),
    "optimistic_adam without optimism": Case(
        L.optimistic_adam(RATE, nesterov=False),
        lambda g, p: formulas.descend(
            optimistic(formulas.adam(g, 0.9, 0.999, 1e-8), RATE, RATE), 1.0
        ),
    ),
    "optimistic_adam_v2": Case(
        L.optimistic_adam_v2(RATE, alpha=0.5, beta=2.0, nesterov=False),
        lambda g, p: formulas.descend(
            optimistic(formulas.adam(g, 0.9, 0.999, 1e-8), 0.5, 2.0), RATE
        ),
    ),
    "ademamix": Case(
        L.ademamix(RATE, weight_decay=DECAY),
        lambda g, p: decayed(ademamix(g, 0.9, 0.999, 0.9999, 5.0, 1e-8, 0), p),
    ),
    "scale_by_ademamix": Case(
        L.scale_by_ademamix(0.8, 0.7, 0.95, eps=1e-3, eps_root=1e-5),
        lambda g, p: ademamix(g, 0.8, 0.7, 0.95, 6.0, 1e-3, 1e-5),
    ),
    "simplified_ademamix": Case(
        L.simplified_ademamix(RATE, weight_decay=DECAY),
        lambda g, p: decayed(simplified_ademamix(g, 0.99, 0.95, 0.0, 1e-8, 0), p),
    ),
    "scale_by_simplified_ademamix": Case(
        L.scale_by_simplified_ademamix(0.8, 0.7, 3.0, 1e-3, 1e-5),
        lambda g, p: simplified_ademamix(g, 0.8, 0.7, 3.0, 1e-3, 1e-5),
    ),
    "adopt": Case(L.adopt(RATE), lambda g, p: formulas.descend(adopt(g, 0.9, 0.9999, 1e-6), RATE)),
    "adopt nesterov": Case(
        L.scale_by_adopt(0.8, 0.7, 1e-3, nesterov=True),
        lambda g, p: adopt(g, 0.8, 0.7, 1e-3, nesterov=True),
    ),
    "adopt without clipping": Case(
        L.scale_by_adopt(0.8, 0.7, 1e-3, use_clipping=False),
        lambda g, p: adopt(g, 0.8, 0.7, 1e-3, clip=False),
    ),
}


def decayed(updates: Updates, params: Arrays) -> Updates:
    """Downhill by RATE, with decoupled decay."""
    return formulas.descend(formulas.decay_weights(updates, params, DECAY), RATE)


def runs(size: float, idle: float) -> tuple[Any, Any]:
    """Normal gradients and parameters for every step, some elements and some steps zero."""
    rng = np.random.default_rng(int(1000 * size))
    shapes = {"w": (2, 3), "b": (4,), "deep": {"s": (), "empty": (0,)}}

    def leaf(shape: tuple[int, ...]) -> np.ndarray:
        busy = (rng.random((STEPS, *shape)) >= idle) & (np.arange(STEPS) != 7).reshape(
            -1, *[1] * len(shape)
        )
        return size * rng.standard_normal((STEPS, *shape)) * busy

    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    grads = jax.tree.map(leaf, shapes, is_leaf=is_shape)
    params = jax.tree.map(
        lambda s: np.asarray(rng.standard_normal((STEPS, *s))), shapes, is_leaf=is_shape
    )
    return grads, params


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("name", CASES)
def test_follows_its_formula(name: str, size: float) -> None:
    case, (grads, params) = CASES[name], runs(size, 0.0 if size == 1 else 0.2)
    got = jax.tree.leaves(replay(case.tx, grads, params))
    paths = jax.tree_util.tree_leaves_with_path(grads)
    for u, (path, g), p in zip(got, paths, jax.tree.leaves(params), strict=True):
        expected = np.stack(list(case.oracle(g, p)))
        assert_close(u, expected, what=f"{name}{jax.tree_util.keystr(path)}")


# -- where Optax differs -------------------------------------------------------------------------


def updates_of(tx: Any, grads: Any) -> np.ndarray:
    state, made = tx.init(grads[0]), []
    for g in grads:
        u, state = tx.update(g, state, grads[0])
        made.append(u)
    return np.stack(made)


def test_rprop_acts_on_the_gradient_of_its_own_step() -> None:
    """Optax's first update is zero, and each of its updates is the one before it here."""
    grads = jnp.asarray([[1.0, -2.0], [0.5, -1.0], [2.0, -0.5]])
    mine = updates_of(gradtx.rprop(0.1), grads)
    theirs = updates_of(optax.rprop(0.1), grads)
    assert_close(mine, -np.sign(grads) * 0.1 * 1.2 ** np.arange(3)[:, None])
    assert_close(theirs[1:], mine[:-1])
    assert not np.any(theirs[0])


def test_rprop_sees_the_turn_of_tiny_gradients() -> None:
    """The product of two such gradients is zero."""
    grads = jnp.asarray([1e-200, 1e-200, -1e-200, -1e-200])
    updates = updates_of(gradtx.scale_by_rprop(0.1), grads)
    assert_close(updates, np.asarray([0.1, 0.12, 0.0, -0.06]))


def test_states_of_rprop_and_adan_have_optax_key_paths() -> None:
    params = {"w": jnp.ones((2, 3))}
    for name in ("rprop", "scale_by_rprop", "adan", "scale_by_adan"):
        given = (0.1,) if name != "scale_by_adan" else ()
        states = [getattr(lib, name)(*given).init(params) for lib in (gradtx, optax)]
        mine, theirs = (
            [(jax.tree_util.keystr(path), x.shape, x.dtype) for path, x in leaves]
            for leaves in map(jax.tree_util.tree_leaves_with_path, states)
        )
        assert mine == theirs


def test_adadelta_goes_downhill_without_a_rate() -> None:
    grads = jnp.ones((1, 3))
    assert np.all(updates_of(gradtx.adadelta(), grads) < 0)
    assert np.all(updates_of(optax.adadelta(), grads) > 0)


# -- details -------------------------------------------------------------------------------------


@pytest.mark.parametrize("b2", [0.0, 0.3, 0.5, 0.6, 0.9, 0.99, 0.999, 0.9999])
def test_the_length_of_radams_mean_keeps_its_digits(b2: float) -> None:
    """In float32 too, where the paper's formula subtracts numbers near 2 / (1 - b2)."""
    end = 2 / (1 - Fraction(b2)) - 1
    for t in (1, 2, 3, 4, 5, 6, 7, 10, 30, 100, 999, 1001, 3000):
        rho = float(steps_in_mean(b2, t)) if b2 else 1.0
        assert_close(averaged_steps(b2, jnp.int32(t)), np.asarray([rho, float(end)]), 1e-14)
        with jax.enable_x64(False):
            narrow = averaged_steps(b2, jnp.int32(t))
            assert {x.dtype for x in narrow} == {np.dtype(np.float32)}
        assert_close(narrow, np.asarray([rho, float(end)]), 5e-7)


def test_radam_is_differentiable_where_it_is_rectified() -> None:
    """Also with respect to b2, and at coordinates whose gradient is zero."""
    grads = jnp.asarray(runs(1.0, 0.2)[0]["b"])

    def loss(tx: Any, grads: Any) -> Any:
        return jnp.sum(replay(tx, grads, grads) ** 2)

    slopes = jax.grad(loss, argnums=(0, 1))(gradtx.scale_by_radam(b2=0.9), grads)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))
    step = 1e-6
    up, down = (loss(gradtx.scale_by_radam(b2=0.9 + s), grads) for s in (step, -step))
    assert_close(slopes[0].b2, (up - down) / (2 * step), 1e-5)


@pytest.mark.parametrize("name", ["radam", "acprop", "adopt", "rprop"])
def test_zero_gradients_for_many_steps_are_finite(name: str) -> None:
    """Beyond the steps that the laws try, past the one where RAdam begins to divide."""
    zeros = {d: jnp.zeros((12, 3), d) for d in ("float16", "bfloat16", "float32")}
    ones = jax.tree.map(jnp.ones_like, zeros)
    for path, u in jax.tree_util.tree_leaves_with_path(replay(CASES[name].tx, zeros, ones)):
        assert np.all(np.isfinite(u.astype(jnp.float32))), path


FIRST = np.asarray([2.0, -0.5, 1e-3])
# A step of the gradient's sign; of it ADOPT's mean takes a tenth.
AFTER_NOTHING = {"scale_by_acprop": 1.0, "scale_by_adopt": 0.1}


@pytest.mark.parametrize("idle", [1, 50])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("name", AFTER_NOTHING)
def test_the_first_gradient_after_nothing_is_divided_by_itself(
    name: str, absent: bool, idle: int
) -> None:
    """By what was known before it, which is next to nothing, it would become a step of 1e6."""
    tx = getattr(gradtx, name)()
    params = {"x": jnp.zeros(3), "beside": jnp.ones(())}
    state = tx.init(params)
    for _ in range(idle):
        gradient = {"x": None if absent else jnp.zeros(3), "beside": jnp.ones(())}
        _, state = jax.jit(tx.update)(gradient, state, params)
    updates, state = jax.jit(tx.update)({**params, "x": jnp.asarray(FIRST)}, state, params)
    assert_close(updates["x"], AFTER_NOTHING[name] * np.sign(FIRST), 1e-12)
    updates, _ = tx.update({**params, "x": jnp.asarray(FIRST)}, state, params)
    assert np.all(np.abs(updates["x"]) < 10)


def test_acprop_divides_tiny_gradients_as_its_formula_does() -> None:
    """Of gradients all so small that nu is little but eps_root, and of larger ones after those."""
    rng = np.random.default_rng(0)
    for small in (1e-10, 1e-8, 1e-7):
        grads = small * rng.uniform(0.5, 1.5, (8, 50)) * rng.choice([-1, 1], (8, 50))
        grads[4:] *= 3
        got = updates_of(gradtx.scale_by_acprop(), jnp.asarray(grads))
        assert_close(got, updates_of(optax.contrib.scale_by_acprop(), jnp.asarray(grads)))


def test_adopt_does_not_move_on_its_first_step() -> None:
    """Even where the quotient by eps overflows, which Optax multiplies by zero."""
    huge = jnp.full((2, 3), 1e35, jnp.float32)
    tx = gradtx.scale_by_adopt(use_clipping=False)
    assert np.array_equal(updates_of(tx, huge)[0], np.zeros(3))


def test_adopts_bound_is_a_number_or_a_function_of_the_step() -> None:
    grads = jnp.asarray(runs(1.0, 0.0)[0]["b"])
    numbers = updates_of(gradtx.scale_by_adopt(clip_value_fn=0.5), grads)
    functions = updates_of(gradtx.scale_by_adopt(clip_value_fn=lambda t: 0.5), grads)
    assert_close(functions, numbers)
    assert np.max(np.abs(numbers)) <= 0.5


def test_novograd_has_one_second_moment_for_each_array() -> None:
    state = gradtx.scale_by_novograd().init({"w": jnp.ones((2, 3)), "b": jnp.ones(4)})
    assert {x.shape for x in state.nu.values()} == {()}


def test_novograd_needs_params_for_its_decay_only() -> None:
    grads = {"w": jnp.ones(3)}
    gradtx.novograd(0.1).update(grads, gradtx.novograd(0.1).init(grads))
    tx = gradtx.novograd(0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"scale_by_novograd.*needs the parameters"):
        tx.update(grads, tx.init(grads))


def test_the_mean_of_complex_signs() -> None:
    """A direction: of size 1, or 0 where there is none."""
    grads = jnp.asarray([3 + 4j, 0j, -2j])
    u, _ = gradtx.scale_by_sign().update(grads, gradtx.scale_by_sign().init(grads))
    assert_close(u.real, [0.6, 0.0, 0.0])
    assert_close(u.imag, [0.8, 0.0, -1.0])


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(
        ValueError, match="scale_by_lion: mode must be one of 'hard', 'smooth', 'refined'"
    ):
        gradtx.scale_by_lion(mode="soft")
    with pytest.raises(ValueError, match=r"rprop: eta_plus must be finite and >= 1, got 0.9"):
        gradtx.rprop(0.1, eta_plus=0.9)
    with pytest.raises(ValueError, match=r"ademamix: b3 must be in \[0, 1\), got 1.0"):
        gradtx.ademamix(0.1, b3=1.0)
    with pytest.raises(ValueError, match=r"adopt: clip_value_fn must be finite and >= 0, got -1"):
        gradtx.adopt(0.1, clip_value_fn=-1)
    grads = {"w": jnp.ones(3, jnp.complex64)}
    for tx in (gradtx.scale_by_rprop(0.1), gradtx.scale_by_lion(mode="smooth")):
        with pytest.raises(ValueError, match=r"at w.*complex"):
            tx.update(grads, tx.init({"w": jnp.ones(3)}))
