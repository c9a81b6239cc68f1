"""Gradients that are None at first: PyTorch counts each parameter's own steps, a group those of its
own, which `conditionally_transform` holds back. Against Adam in NumPy, and PyTorch where it is.
"""

import doctest
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import torch as gt

LATE, STEPS = 3, 9
OPTIMIZERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.5},
    "Adam": {"lr": 0.1, "weight_decay": 0.1},
    "AdamW": {"lr": 0.1, "amsgrad": True},
    "NAdam": {"lr": 0.1},
    "RAdam": {"lr": 0.1},
    "Adamax": {"lr": 0.1},
    "Adadelta": {"lr": 0.1},
    "Rprop": {"lr": 0.1},
    "ASGD": {"lr": 0.1, "lambd": 0.1, "t0": 1},
    "Adafactor": {"lr": 0.1},
}
Grads = list[dict[str, Any]]


def gradients(present: Callable[[int], bool]) -> Grads:
    rng = np.random.default_rng(0)
    drawn = [{"head": rng.normal(size=4), "body": rng.normal(size=4)} for _ in range(STEPS)]
    return [g if present(t) else {**g, "head": None} for t, g in enumerate(drawn)]


from_the_fourth = gradients(lambda t: t >= LATE)
now_and_then = gradients(lambda t: t % 3 == 1)


def waiting(tx: Any) -> Any:
    return gradtx.conditionally_transform(tx, lambda step: step >= LATE)


def told(tx: Any) -> Any:
    def given(step: Any, *, head: Any) -> Any:
        return head

    return gradtx.conditionally_transform(tx, given, forward_extra_args=True)


def trajectory(tx: Any, grads: Grads, *, jit: bool = True, tell: bool = False) -> Any:
    with jax.enable_x64(True):
        params: Any = {"head": jnp.ones(4), "body": jnp.ones(4)}
        state, path = tx.init(params), []
        update = jax.jit(tx.update) if jit else tx.update
        for g in grads:
            extra = {"head": g["head"] is not None} if tell else {}
            updates, state = update(jax.tree.map(jnp.asarray, g), state, params, **extra)
            params = gradtx.apply_updates(params, updates)
            path.append(params)
        return jax.tree.map(lambda *x: np.stack(x), *path)


def pytorch(name: str, grads: Grads) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        params = {k: torch.ones(4, requires_grad=True) for k in ("head", "body")}
        optimizer = getattr(torch.optim, name)(params.values(), **OPTIMIZERS[name])
        path = []
        for g in grads:
            for k, p in params.items():
                p.grad = None if g[k] is None else torch.tensor(g[k])
            optimizer.step()
            path.append({k: p.detach().numpy().copy() for k, p in params.items()})
    finally:
        torch.set_default_dtype(before)
    return jax.tree.map(lambda *x: np.stack(x), *path)


def adam_in_numpy(grads: list[np.ndarray | None]) -> np.ndarray:
    """From the paper, of one parameter that counts its own steps."""
    x, mu, nu, t, path = np.ones(4), np.zeros(4), np.zeros(4), 0, []
    for g in grads:
        if g is not None:
            t += 1
            mu, nu = 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g**2
            x = x - 0.1 * mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8)
        path.append(x)
    return np.stack(path)


def assert_close(got: Any, expected: Any) -> None:
    for k in expected:
        np.testing.assert_allclose(got[k], expected[k], 1e-12, 1e-14, err_msg=k)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("grads", "wrap"), [(from_the_fourth, waiting), (from_the_fourth, told), (now_and_then, told)]
)
def test_a_group_that_waits_is_adam_from_its_own_first_step(
    grads: Grads, wrap: Any, jit: bool
) -> None:
    tx = gradtx.partition({"head": wrap(gt.adam(0.1)), ".*": gt.adam(0.1)})
    expected = {k: adam_in_numpy([g[k] for g in grads]) for k in ("head", "body")}
    assert_close(trajectory(tx, grads, jit=jit, tell=wrap is told), expected)


def test_without_it_the_count_is_one_for_all() -> None:
    """As the documentation says: what is parted above is needed."""
    got = trajectory(gt.adam(0.1), from_the_fourth)
    own = adam_in_numpy([g["head"] for g in from_the_fourth])
    assert np.max(np.abs(got["head"] - own)) > 0.01


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_beside_pytorch(name: str) -> None:
    tx = getattr(gt, name.lower())(**OPTIMIZERS[name])
    for grads, wrap in ((from_the_fourth, waiting), (now_and_then, told)):
        groups = gradtx.partition({"head": wrap(tx), ".*": tx})
        got, expected = trajectory(groups, grads, tell=wrap is told), pytorch(name, grads)
        for k in expected:
            np.testing.assert_allclose(got[k], expected[k], 1e-12, 1e-14)


def test_the_examples_in_the_documentation_run() -> None:
    assert doctest.testmod(gt).failed == 0
    assert doctest.testmod(gt).attempted >= 6
