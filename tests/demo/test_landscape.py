"""The paths, and what the pictures claim about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.demo.denominators import distance, with_denominators
from gradtx.demo.descent import RATES, WALKERS, descend, descents, second_moment, walkers
from gradtx.demo.functions import FUNCTIONS, HESSIAN
from gradtx.demo.optimizers import Family
from gradtx.demo.paths import landscape_picture


def walker(name):
    return next(walker for walker in WALKERS if walker.name == name)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_minimum_is_one_and_lies_in_the_picture(function):
    at = jnp.asarray(function.minimum)
    assert float(function.value(at)) == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(jax.grad(function.value)(at), 0, atol=1e-4)
    for point in (function.start, function.minimum):
        for coordinate, (low, high) in zip(point, function.view, strict=True):
            assert low < coordinate < high


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_path_leads_from_the_start_downhill(function):
    for path in descents(function, function.steps):
        assert path.points.shape == (function.steps + 1, 2)
        np.testing.assert_array_equal(path.points[0], np.float32(function.start))
        first, last = (float(function.value(jnp.asarray(path.points[i]))) for i in (0, -1))
        assert last < 0.7 * first, path.walker.name


def test_momentum_cancels_what_sgd_oscillates_across_the_ravine():
    ravine = FUNCTIONS["ravine"]
    assert ravine.rates["SGD"] == ravine.rates["momentum"]
    sgd, momentum = (descend(ravine, walker(name), 60) for name in ("SGD", "momentum"))
    crossings = [int((np.diff(np.sign(p.points[:, 1])) != 0).sum()) for p in (sgd, momentum)]
    assert crossings[0] >= 55  # nearly every step
    late = slice(20, 40)
    assert np.abs(momentum.points[late, 1]).max() < 0.1 * np.abs(sgd.points[late, 1]).max()
    assert abs(momentum.points[20, 0]) < 0.1 * abs(sgd.points[20, 0])


def test_the_second_moment_is_found_by_its_name():
    params = jnp.ones(2)
    for tx in (gradtx.adam(0.1), gradtx.chain(gradtx.clip(1.0), gradtx.rmsprop(0.1))):
        _, state = tx.update(jnp.array([0.5, 1.0]), tx.init(params), params)
        nu = second_moment(state)
        assert nu[1] / nu[0] == pytest.approx(4)
    assert second_moment(gradtx.sgd(0.1).init(params)) is None


def test_the_distance_counts_proportions_only():
    diagonal = np.array([1.0, 3.0])
    assert distance(7 * diagonal, diagonal) == pytest.approx(0)
    assert distance(np.ones((5, 2)), diagonal).shape == (5,)
    assert distance(np.ones(2), diagonal) == pytest.approx(np.sqrt(0.5) / np.sqrt(2.5))


def test_denominators_begin_as_the_gradient_and_adams_stay_nearer_the_hessian():
    quadratic = FUNCTIONS["quadratic"]
    roots = dict(with_denominators(descents(quadratic, 60)))
    assert set(roots) == {"RMSProp", "Adam"}
    gradient = np.abs(HESSIAN @ np.array(quadratic.start))
    for each in roots.values():
        assert each[0, 1] / each[0, 0] == pytest.approx(gradient[1] / gradient[0], rel=1e-4)
    rms, adam = (distance(roots[name][-1], np.diag(HESSIAN)) for name in ("RMSProp", "Adam"))
    assert adam < distance(np.ones(2), np.diag(HESSIAN)) < rms


def test_walkers_are_found_by_name_with_a_rate_or_written():
    adam, adagrad, written, lion = walkers(["adam", "AdaGrad:0.5", "adagrad(1.0)", "lion"])
    assert (adam.name, adam.rate) == ("Adam", None)
    assert (adagrad.name, adagrad.family, adagrad.rate) == ("AdaGrad", Family.SQUARE, 0.5)
    assert (written.family, written.rate) == (Family.SQUARE, "written")
    assert (lion.family, lion.rate) == (Family.OTHER, None)


def test_without_a_rate_the_best_of_some_is_taken():
    ravine = FUNCTIONS["ravine"]
    (lion,) = walkers(["lion"])
    path = descend(ravine, lion, 60)
    ends = {
        rate: float(
            ravine.value(jnp.asarray(descend(ravine, lion._replace(rate=rate), 60).points[-1]))
        )
        for rate in RATES
    }
    assert path.rate == min(ends, key=ends.get)


def test_paths_that_coincide_are_drawn_in_different_ways(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("gradtx.demo.paths.save", lambda figure, out: figures.append(figure))
    ravine = FUNCTIONS["ravine"]
    texts = ["sgd", "sgd(0.065)", "chain(sgd(0.065))", "torch.sgd(0.065)"]
    paths = descents(ravine, 20, walkers(texts))
    for path in paths[1:]:
        np.testing.assert_allclose(path.points, paths[0].points, rtol=1e-5)
    landscape_picture([ravine], {"ravine": paths}, tmp_path / "l.png")
    (axes,) = figures[0].axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 21]
    assert len(lines) == 4
    for looks in ("get_linestyle", "get_marker", "get_color", "get_linewidth"):
        seen = [str(getattr(line, looks)()) for line in lines]
        assert looks == "get_linestyle" or len(set(seen)) == 4
    assert len({str(line._dash_pattern) for line in lines}) == 4
