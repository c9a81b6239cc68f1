"""Every update rule against its formula in NumPy: 1e-12 over 50 steps in float64."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradtx

from . import formulas
from .replay import STEPS, assert_close, replay

# Trees whose leaves are the shapes to try. Few, because every new tree compiles again.
TREES = (
    (),
    {"w": (2, 3), "b": (3,), "deep": [(2, 1, 3), (), (0,)]},
)

decays = st.floats(0.0, 0.99)
slow_decays = st.floats(0.5, 0.999)
epsilons = st.sampled_from([1e-12, 1e-8, 1e-3, 1.0])
rates = st.floats(1e-6, 10.0)
positives = st.floats(0.01, 10.0)
switches = st.booleans()


class Run(NamedTuple):
    """Gradients and parameters for every step: trees of arrays with a leading axis of steps."""

    grads: Any
    params: Any
    size: float  # of a typical gradient


@st.composite
def runs(draw: Any, smallest: float = -8, largest: float = 4) -> Run:
    """Normal gradients of any size, some elements and some whole steps zero."""
    tree = draw(st.sampled_from(TREES))
    size = 10.0 ** draw(st.floats(smallest, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    idle = draw(st.sampled_from([0.0, 0.0, 0.2]))

    def leaf(shape: tuple[int, ...]) -> np.ndarray:
        busy = rng.random((STEPS, *shape)) >= idle
        return size * rng.standard_normal((STEPS, *shape)) * busy

    def is_shape(x: Any) -> bool:
        return isinstance(x, tuple)

    grads = jax.tree.map(leaf, tree, is_leaf=is_shape)
    params = jax.tree.map(lambda s: rng.standard_normal((STEPS, *s)), tree, is_leaf=is_shape)
    return Run(grads, params, size)


class Rule(NamedTuple):
    """A transformation, the formula it must follow, and the hyperparameters to draw."""

    build: Callable[..., Any]
    oracle: Callable[..., Iterator[np.ndarray]]  # (grads, params, **hyperparameters)
    draws: dict[str, st.SearchStrategy[Any]]
    runs: st.SearchStrategy[Run] = runs()


def rms_rule(name: str, *, centered: bool) -> Rule:
    """A centered, corrected variance is g^2 - g^2 on the first step: keep eps well above that."""

    def oracle(grads: Any, params: Any, debias: bool, eps: float, **kwargs: Any) -> Any:
        return formulas.rmsprop(grads, debias=debias, eps=eps, centered=centered, **kwargs)

    return Rule(
        lambda decay, eps, initial, eps_in_sqrt, debias: getattr(gradtx, name)(
            decay, eps, initial, eps_in_sqrt, debias
        ),
        oracle,
        {
            "decay": slow_decays if not centered else st.floats(0.8, 0.99),
            "eps": epsilons if not centered else st.sampled_from([1e-3, 1.0]),
            "initial": st.sampled_from([0.0, 0.1, 1.0]),
            "eps_in_sqrt": switches if not centered else st.just(True),
            "debias": switches,
        },
        runs() if not centered else runs(-6, 0),
    )


RULES: dict[str, Rule] = {
    "scale": Rule(
        lambda factor: gradtx.scale(factor),
        lambda g, p, factor: formulas.scale(g, factor),
        {"factor": st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-6)},
    ),
    "scale_by_learning_rate": Rule(
        lambda rate: gradtx.scale_by_learning_rate(rate),
        lambda g, p, rate: formulas.descend(g, rate),
        {"rate": rates},
    ),
    "scale_by_learning_rate, kept sign": Rule(
        lambda rate: gradtx.scale_by_learning_rate(rate, flip_sign=False),
        lambda g, p, rate: formulas.scale(g, rate),
        {"rate": rates},
    ),
    "trace": Rule(
        lambda decay: gradtx.trace(decay),
        lambda g, p, decay: formulas.polyak(g, decay),
        {"decay": decays},
    ),
    "trace, Nesterov": Rule(
        lambda decay: gradtx.trace(decay, nesterov=True),
        lambda g, p, decay: formulas.nesterov(g, decay),
        {"decay": decays},
    ),
    "scale_by_momentum": Rule(
        lambda decay: gradtx.scale_by_momentum(decay),
        lambda g, p, decay: formulas.polyak(g, decay),
        {"decay": decays},
    ),
    "scale_by_momentum, Nesterov": Rule(
        lambda decay: gradtx.scale_by_momentum(decay, nesterov=True),
        lambda g, p, decay: formulas.nesterov(g, decay),
        {"decay": decays},
    ),
    "scale_by_momentum, dampened": Rule(
        lambda decay, dampening: gradtx.scale_by_momentum(decay, dampening=dampening),
        lambda g, p, decay, dampening: formulas.dampened(g, decay, dampening),
        {"decay": decays, "dampening": st.floats(0.0, 1.0)},
    ),
    "ema": Rule(
        lambda decay, debias: gradtx.ema(decay, debias),
        lambda g, p, decay, debias: formulas.mean(g, decay, debias),
        {"decay": decays, "debias": switches},
    ),
    "scale_by_rss": Rule(
        lambda initial, eps, eps_in_sqrt: gradtx.scale_by_rss(
            initial, eps, eps_in_sqrt=eps_in_sqrt
        ),
        lambda g, p, **kwargs: formulas.adagrad(g, **kwargs),
        {"initial": st.sampled_from([0.0, 0.1, 3.0]), "eps": epsilons, "eps_in_sqrt": switches},
    ),
    "scale_by_rms": rms_rule("scale_by_rms", centered=False),
    "scale_by_stddev": rms_rule("scale_by_stddev", centered=True),
    "scale_by_stddev, eps outside": Rule(
        lambda decay, eps, initial: gradtx.scale_by_stddev(decay, eps, initial, False),
        lambda g, p, decay, eps, initial: formulas.rmsprop(
            g, decay, eps, initial, eps_in_sqrt=False, centered=True
        ),
        {"decay": st.floats(0.8, 0.99), "eps": epsilons, "initial": st.sampled_from([0.0, 0.1])},
    ),
    "scale_by_adam": Rule(
        lambda debias, **kwargs: gradtx.scale_by_adam(**kwargs, bias_correction=debias),
        lambda g, p, **kwargs: formulas.adam(g, **kwargs),
        {
            "b1": decays,
            "b2": slow_decays,
            "eps": epsilons,
            "eps_root": st.sampled_from([0.0, 1e-8]),
            "debias": switches,
        },
    ),
    "scale_by_adam, Nesterov": Rule(
        lambda debias, **kwargs: gradtx.scale_by_adam(
            **kwargs, nesterov=True, bias_correction=debias
        ),
        lambda g, p, **kwargs: formulas.nadam(g, **kwargs),
        {
            "b1": decays,
            "b2": slow_decays,
            "eps": epsilons,
            "eps_root": st.sampled_from([0.0, 1e-8]),
            "debias": switches,
        },
    ),
    "scale_by_amsgrad": Rule(
        lambda debias_mean, debias_square, **kwargs: gradtx.scale_by_amsgrad(
            **kwargs, bias_correction_mu=debias_mean, bias_correction_nu=debias_square
        ),
        lambda g, p, **kwargs: formulas.amsgrad(g, **kwargs),
        {
            "b1": decays,
            "b2": slow_decays,
            "eps": epsilons,
            "eps_root": st.sampled_from([0.0, 1e-8]),
            "debias_mean": switches,
            "debias_square": switches,
            "max_of": st.sampled_from(["corrected", "raw"]),
        },
    ),
    "add_decayed_weights": Rule(
        lambda rate: gradtx.add_decayed_weights(rate),
        lambda g, p, rate: formulas.decay_weights(g, p, rate),
        {"rate": st.floats(0.0, 10.0)},
    ),
    "L2 before Adam": Rule(
        lambda rate: gradtx.chain(gradtx.add_decayed_weights(rate), gradtx.scale_by_adam()),
        lambda g, p, rate: formulas.adam(formulas.decay_weights(g, p, rate), 0.9, 0.999, 1e-8),
        {"rate": st.floats(0.0, 0.1)},
    ),
    "clip": Rule(
        lambda limit: gradtx.clip(limit),
        lambda g, p, limit: formulas.clip_values(g, limit),
        {"limit": positives},
        runs(-2, 2),
    ),
    "sgd": Rule(
        lambda rate: gradtx.sgd(rate),
        lambda g, p, rate: formulas.descend(g, rate),
        {"rate": rates},
    ),
    "sgd with momentum": Rule(
        lambda rate, decay: gradtx.sgd(rate, momentum=decay),
        lambda g, p, rate, decay: formulas.descend(formulas.polyak(g, decay), rate),
        {"rate": rates, "decay": decays},
    ),
    "sgd with Nesterov momentum": Rule(
        lambda rate, decay: gradtx.sgd(rate, momentum=decay, nesterov=True),
        lambda g, p, rate, decay: formulas.descend(formulas.nesterov(g, decay), rate),
        {"rate": rates, "decay": decays},
    ),
    "sgd with a schedule": Rule(
        lambda rate: gradtx.sgd(gradtx.exponential_decay(rate, 10, 0.5), momentum=0.9),
        lambda g, p, rate: formulas.descend(
            formulas.polyak(g, 0.9), lambda step: rate * 0.5 ** (step / 10)
        ),
        {"rate": rates},
    ),
    "adagrad": Rule(
        lambda rate, initial, eps: gradtx.adagrad(rate, initial, eps),
        lambda g, p, rate, initial, eps: formulas.descend(formulas.adagrad(g, initial, eps), rate),
        {"rate": rates, "initial": st.floats(0.0, 1.0), "eps": epsilons},
    ),
    "rmsprop": Rule(
        lambda rate, decay, eps: gradtx.rmsprop(rate, decay, eps),
        lambda g, p, rate, decay, eps: formulas.descend(formulas.rmsprop(g, decay, eps), rate),
        {"rate": rates, "decay": slow_decays, "eps": epsilons},
    ),
    "rmsprop, centered": Rule(
        lambda rate, decay, eps: gradtx.rmsprop(rate, decay, eps, centered=True),
        lambda g, p, rate, decay, eps: formulas.descend(
            formulas.rmsprop(g, decay, eps, centered=True), rate
        ),
        {"rate": rates, "decay": st.floats(0.8, 0.99), "eps": epsilons},
    ),
    "rmsprop with momentum": Rule(
        # The rate is inside the buffer: an older update keeps the rate of its own step.
        lambda rate, momentum: gradtx.rmsprop(
            gradtx.exponential_decay(rate, 10, 0.5), momentum=momentum
        ),
        lambda g, p, rate, momentum: formulas.polyak(
            formulas.descend(
                formulas.rmsprop(g, 0.9, 1e-8), lambda step: rate * 0.5 ** (step / 10)
            ),
            momentum,
        ),
        {"rate": rates, "momentum": decays},
    ),
    "adam": Rule(
        lambda rate, b1, b2, eps: gradtx.adam(rate, b1, b2, eps),
        lambda g, p, rate, b1, b2, eps: formulas.descend(formulas.adam(g, b1, b2, eps), rate),
        {"rate": rates, "b1": decays, "b2": slow_decays, "eps": epsilons},
    ),
    "nadam": Rule(
        lambda rate, b1, b2, eps: gradtx.nadam(rate, b1, b2, eps),
        lambda g, p, rate, b1, b2, eps: formulas.descend(formulas.nadam(g, b1, b2, eps), rate),
        {"rate": rates, "b1": decays, "b2": slow_decays, "eps": epsilons},
    ),
    "amsgrad": Rule(
        lambda rate, b1, b2, eps: gradtx.amsgrad(rate, b1, b2, eps),
        lambda g, p, rate, b1, b2, eps: formulas.descend(formulas.amsgrad(g, b1, b2, eps), rate),
        {"rate": rates, "b1": decays, "b2": slow_decays, "eps": epsilons},
    ),
    "adamw": Rule(
        lambda rate, decay: gradtx.adamw(rate, weight_decay=decay),
        lambda g, p, rate, decay: formulas.descend(
            formulas.decay_weights(formulas.adam(g, 0.9, 0.999, 1e-8), p, decay), rate
        ),
        {"rate": rates, "decay": st.floats(0.0, 1.0)},
    ),
    "nadamw": Rule(
        lambda rate, decay: gradtx.nadamw(rate, weight_decay=decay),
        lambda g, p, rate, decay: formulas.descend(
            formulas.decay_weights(formulas.nadam(g, 0.9, 0.999, 1e-8), p, decay), rate
        ),
        {"rate": rates, "decay": st.floats(0.0, 1.0)},
    ),
}


@pytest.mark.parametrize("name", RULES)
@given(data=st.data())
def test_rule_follows_its_formula(name: str, data: st.DataObject) -> None:
    rule = RULES[name]
    hyper = data.draw(st.fixed_dictionaries(rule.draws), label="hyperparameters")
    run = data.draw(rule.runs, label="run")
    got = replay(rule.build(**hyper), run.grads, run.params)
    for path, grads in jax.tree_util.tree_flatten_with_path(run.grads)[0]:
        params = pick(run.params, path)
        expected = np.stack(list(rule.oracle(grads, params, **hyper)))
        assert_close(pick(got, path), expected, what=f"{name}{jax.tree_util.keystr(path)}")


def pick(tree: Any, path: Any) -> Any:
    return dict(jax.tree_util.tree_flatten_with_path(tree)[0])[path]


@given(run=runs(-4, 4), limit=st.floats(1e-3, 1e3))
def test_clipping_by_global_norm(run: Run, limit: float) -> None:
    got = replay(gradtx.clip_by_global_norm(limit), run.grads, run.params)
    leaves = jax.tree.leaves(run.grads)
    trees = [[leaf[t] for leaf in leaves] for t in range(STEPS)]
    expected = list(formulas.clip_global_norm(trees, limit))
    for i, leaf in enumerate(jax.tree.leaves(got)):
        assert_close(leaf, np.stack([tree[i] for tree in expected]), what=f"leaf {i}")


@given(run=runs(-4, 4))
def test_global_norm(run: Run) -> None:
    first = jax.tree.map(lambda g: g[0], run.grads)
    expected = formulas.global_norm(jax.tree.leaves(first))
    assert_close(gradtx.global_norm(first), expected)


def test_clipping_then_adamw_is_their_composition() -> None:
    """The whole training recipe, on a tree: the norm couples the leaves."""
    rng = np.random.default_rng(0)
    grads = {"w": rng.standard_normal((STEPS, 4, 2)), "b": 3 * rng.standard_normal((STEPS, 2))}
    params = {"w": rng.standard_normal((STEPS, 4, 2)), "b": rng.standard_normal((STEPS, 2))}
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(1.0), gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 40))
    )
    got = replay(tx, grads, params)
    trees = [[grads["b"][t], grads["w"][t]] for t in range(STEPS)]
    clipped = list(formulas.clip_global_norm(trees, 1.0))
    for i, key in enumerate(("b", "w")):
        adam = formulas.adam((tree[i] for tree in clipped), 0.9, 0.999, 1e-8)
        expected = formulas.descend(
            formulas.decay_weights(adam, params[key], 1e-4),
            lambda step: 0.05 * (1 + np.cos(np.pi * min(step, 40) / 40)),
        )
        assert_close(got[key], np.stack(list(expected)), what=key)
