"""GPJax: `fit` refuses what is no instance of Optax's class."""

from typing import Any

import equinox
import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

from .guests import TWINS, assert_near

gpx = pytest.importorskip("gpjax")


@pytest.mark.usefixtures("x64")
def test_fits_as_with_optax() -> None:
    x = jnp.linspace(0, 1, 20).reshape(-1, 1)
    data = gpx.Dataset(X=x, y=jnp.sin(6 * x))

    def fitted(tx: Any) -> Any:
        prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Constant(), kernel=gpx.kernels.RBF())
        return gpx.fit(
            model=prior * gpx.likelihoods.Gaussian(),
            objective=lambda p, d: -gpx.objectives.conjugate_mll(p, d),
            train_data=data,
            optim=tx,
            num_iters=5,
            key=jax.random.key(0),
            verbose=False,
        )

    (got, ours), (expected, theirs) = (fitted(TWINS["scheduled"](lib)) for lib in (gradtx, optax))
    assert_near(ours, theirs, 1e-9)
    only = (equinox.filter(tree, equinox.is_inexact_array) for tree in (got, expected))
    assert_near(*only, 1e-9)
    with pytest.raises(TypeError, match=r"optax\.GradientTransformation"):
        fitted(gradtx.linear_schedule(0.1, 0.0, 3))
