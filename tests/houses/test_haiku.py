"""Haiku: its dicts of dicts, with slashes in their keys."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import OWN, X, Y, assert_near, assert_same, by_hand, every_twin

hk = pytest.importorskip("haiku")

NET = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 2])(x)))


def loss(params: Any) -> Any:
    return jnp.mean((NET.apply(params, X) - Y) ** 2)


def fresh() -> Any:
    return NET.init(jax.random.key(0), X)


@every_twin
def test_trains_as_with_optax(twin: Any) -> None:
    got, expected = (by_hand(twin(lib), loss, fresh()) for lib in (gradtx, optax))
    assert_near(got, expected)


@pytest.mark.parametrize("name", sorted(OWN.keys() - {"int8"}))  # its dither depends on the path
def test_trains_as_on_a_plain_tree(name: str) -> None:
    nested = {
        module.replace("~/", ""): {name: fresh()[module][name] for name in fresh()[module]}
        for module in fresh()
    }
    back = {module.replace("~/", ""): module for module in fresh()}

    def plain_loss(params: Any) -> Any:
        return loss({back[module]: own for module, own in params.items()})

    got, expected = by_hand(OWN[name], loss, fresh()), by_hand(OWN[name], plain_loss, nested)
    assert_near(got, expected, 1e-6)


def test_modules_partitioned_by_its_own_function() -> None:
    one, rest = hk.data_structures.partition(lambda m, n, p: n == "b", fresh())
    tx = gradtx.adamw(0.05)

    def merged(rest: Any) -> Any:
        return loss(hk.data_structures.merge(one, rest))

    trained = by_hand(tx, merged, rest)
    frozen = by_hand(gradtx.chain(tx, gradtx.freeze("/b$")), loss, fresh())
    assert_same(hk.data_structures.merge(one, trained), frozen)
