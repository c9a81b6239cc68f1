"""NumPyro: `SVI` takes a transformation as it is, and passes the value of its loss on."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import OWN, TWINS, assert_near, assert_same, polyak

numpyro = pytest.importorskip("numpyro")
infer = pytest.importorskip("numpyro.infer")
guides = pytest.importorskip("numpyro.infer.autoguide")

DATA = 3 + jax.random.normal(jax.random.key(0), (50,))


def model(data: Any) -> None:
    mean = numpyro.sample("mean", numpyro.distributions.Normal(0, 10))
    numpyro.sample("data", numpyro.distributions.Normal(mean, 1), obs=data)


def svi(tx: Any) -> Any:
    return infer.SVI(model, guides.AutoNormal(model), tx, infer.Trace_ELBO())


def inferred(tx: Any) -> Any:
    return svi(tx).run(jax.random.key(1), 6, DATA, progress_bar=False)


CASES = {**TWINS, "polyak": polyak}


@pytest.mark.parametrize("name", ["scheduled", "clipped", "polyak"])
def test_infers_as_with_optax(name: str) -> None:
    got, expected = (inferred(CASES[name](lib)) for lib in (gradtx, optax))
    assert_near((got.params, got.losses), (expected.params, expected.losses))


def test_the_value_passes_through_optax() -> None:
    inside = optax.chain(optax.identity(), polyak(gradtx))
    assert_same(inferred(inside).params, inferred(polyak(gradtx)).params)


def test_what_optax_to_numpyro_makes_of_one() -> None:
    optim = numpyro.optim.optax_to_numpyro(gradtx.sgd(0.1))
    state = optim.init({"x": jnp.float32(1.0)})
    (value, _), state = optim.eval_and_update(lambda p: (p["x"] ** 2, None), state)
    assert float(value) == 1.0
    assert_near(optim.get_params(state)["x"], jnp.float32(0.8))


def test_goes_on_in_mid_run() -> None:
    run, tx = svi(OWN["accumulated"]), OWN["accumulated"]
    half = run.run(jax.random.key(1), 3, DATA, progress_bar=False)
    again = run.run(None, 3, DATA, progress_bar=False, init_state=half.state)
    assert_same(again.params, inferred(tx).params)
