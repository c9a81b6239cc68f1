"""Beartype and jaxtyping: annotations with Optax's classes, checked when a function is called."""

from typing import Any

import jax.numpy as jnp
import optax
import pytest

import gradtx

beartype = pytest.importorskip("beartype")


@beartype.beartype
def fit(
    tx: optax.GradientTransformation, inner: optax.GradientTransformationExtraArgs | None = None
) -> optax.GradientTransformation:
    return optax.chain(tx, tx if inner is None else inner)


@pytest.mark.parametrize("tx", [gradtx.adamw(0.1), gradtx.clip(1.0), gradtx.chain(gradtx.sgd(0.1))])
def test_annotated_functions_take_ours(tx: Any) -> None:
    made = fit(tx, inner=tx)
    params = jnp.ones(3)
    assert made.update(params, made.init(params), params)[0].shape == (3,)


def test_and_refuse_what_is_none() -> None:
    with pytest.raises(beartype.roar.BeartypeCallHintParamViolation):
        fit(gradtx.linear_schedule(0.1, 0.0, 3))

    @beartype.beartype
    def takes_tuples(x: tuple[Any, ...]) -> None:
        pass

    with pytest.raises(beartype.roar.BeartypeCallHintParamViolation):
        takes_tuples(gradtx.sgd(0.1))


def test_jaxtyped_functions_take_ours() -> None:
    jaxtyping = pytest.importorskip("jaxtyping")

    vector = jaxtyping.Float[jaxtyping.Array, " n"]

    @jaxtyping.jaxtyped(typechecker=beartype.beartype)
    def step(tx: optax.GradientTransformation, x: vector) -> Any:
        return tx.update(x, tx.init(x), x)[0]

    assert step(gradtx.sgd(0.5), jnp.ones(3)).tolist() == [-0.5] * 3
