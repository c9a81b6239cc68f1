"""What each format keeps of an array: size, error, mean, signs and zeros."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.precision.formats import FORMATS, name_of
from gradtx.precision.narrow import key_of, uniform

every_format = pytest.mark.parametrize("name", FORMATS)
RANDOM = [name for name, form in FORMATS.items() if form.bits]

# Bytes an element; the gap between neighbours at an eighth of the block's largest magnitude and
# above, as a part of the smaller one; with and without a sign.
EXPECTED = {
    "bfloat16": (2, 2.0**-7, 2.0**-7),
    "bfloat16+8": (3, 2.0**-14, 2.0**-14),
    "float8": (1 + 4 / 256, 2.0**-3, 2.0**-3),
    "int8": (1 + 4 / 256, 7 / 64, 7 / 128),
    "int4": (0.5 + 4 / 128, 7 / 4, 7 / 8),
}


def heavy_tailed(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))
    return jnp.asarray(x, jnp.float32)


def dither(name: str, shape: tuple[int, ...], step: int = 0) -> Any:
    bits = FORMATS[name].bits
    return uniform(key_of(1, step), shape, bits) if bits else None


@functools.partial(jax.jit, static_argnums=0)
def kept(name: str, x: Any, noise: Any = None) -> Any:
    """What comes back."""
    form = FORMATS[name]
    return form.decode(form.encode(x, noise))


def blocks(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(-1, 256)


@every_format
def test_size(name: str) -> None:
    x = heavy_tailed((64, 1024))
    stored = jax.eval_shape(FORMATS[name].encode, x, dither(name, x.shape))
    assert (
        sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(stored))
        == EXPECTED[name][0] * x.size
    )
    assert name_of(stored) == name


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
@every_format
def test_error_of_an_element(name: str, unsigned: bool, random: bool) -> None:
    x = heavy_tailed((64, 1024))
    x = x * x if unsigned else x
    got, expected = blocks(kept(name, x, dither(name, x.shape) if random else None)), blocks(x)
    largest = np.max(np.abs(expected), axis=1, keepdims=True)
    error = np.abs(got / expected - 1)[np.abs(expected) > largest / 8].max()
    assert error <= EXPECTED[name][2 if unsigned else 1] * (1.01 if random else 0.51)
    assert np.all((np.sign(got) == np.sign(expected)) | (got == 0))


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_random_rounding_is_right_on_average(name: str, unsigned: bool) -> None:
    """400 draws of 512 elements: each mean within five standard errors, and their sum."""
    x = heavy_tailed((2, 256))
    x = x * x if unsigned else x
    form = FORMATS[name]

    @jax.jit
    @jax.vmap
    def draw(step: Any) -> Any:
        return form.decode(form.encode(x, uniform(key_of(1, step), x.shape, form.bits)))

    draws = np.asarray(draw(jnp.arange(400)), np.float64)
    error = draws.mean(0) - np.asarray(x)
    spread = draws.std(0) / np.sqrt(400)
    # What is below the smallest code of a block without zero is that code: it is raised.
    floor = np.abs(np.asarray(x)) < 1e-3 * np.max(np.abs(x), axis=1, keepdims=True) * unsigned
    # Where a neighbour is rare the draws may not know it: a hundredth of a gap.
    gap = EXPECTED[name][2 if unsigned else 1] * np.maximum(np.abs(x), np.max(np.abs(x)) / 8)
    assert np.all((np.abs(error) <= 5 * spread + gap / 100) | floor)
    assert abs(np.sum(error[~floor])) < 5 * np.sqrt(np.sum(spread[~floor] ** 2))


@every_format
def test_what_was_decoded_is_encoded_exactly(name: str) -> None:
    """So that a moment that stands still is not worn off, by any dither."""
    for x in (heavy_tailed((4, 512)), heavy_tailed((4, 512)) ** 2):
        once = kept(name, x)
        for step in range(3):
            again = kept(name, once, dither(name, x.shape, step))
            np.testing.assert_allclose(again, once, rtol=3e-3 if name == "float8" else 1e-6)


@every_format
def test_zeros(name: str) -> None:
    """All zeros are kept. Beside other numbers a zero without sign becomes small, not zero."""
    form = FORMATS[name]
    assert not np.any(form.decode(form.encode(jnp.zeros((3, 256)), dither(name, (3, 256)))))
    x = jnp.zeros((1, 128)).at[0, 0].set(3.0)
    got = np.asarray(form.decode(form.encode(x, dither(name, x.shape))))[0]
    np.testing.assert_allclose(got[0], 3, rtol=2e-7)
    if name in ("int8", "int4", "float8"):
        assert np.all(got[1:] > 0)
        assert np.all(got[1:] < 3e-3)
    signed = x.at[0, 1].set(-3.0)
    got = np.asarray(form.decode(form.encode(signed, dither(name, x.shape))))[0]
    np.testing.assert_allclose(got, np.asarray(signed)[0], rtol=2e-7)


@every_format
def test_every_shape(name: str) -> None:
    shapes = [(1,), (7,), (300,), (5, 129), (3, 5, 7), (2, 3, 256), (0,)]
    arrays, noise = [[f(s) for s in shapes] for f in (heavy_tailed, lambda s: dither(name, s))]

    all_kept = jax.jit(lambda *both: [kept(name, *x) for x in zip(*both, strict=True)])
    tolerance = {"int4": 0.5, "float8": 0.1, "int8": 0.02}.get(name, 0.01)
    for x, got in zip(arrays, all_kept(arrays, noise), strict=True):
        assert got.shape == x.shape
        assert got.dtype == np.float32
        atol = tolerance * float(np.max(np.abs(x), initial=0))
        np.testing.assert_allclose(got, x, atol=atol, err_msg=str(x.shape))


@every_format
def test_compiled_as_written(name: str) -> None:
    form, x = FORMATS[name], heavy_tailed((8, 256))
    noise = dither(name, x.shape)
    eager = jax.tree.leaves(form.encode(x, noise))
    compiled = jax.tree.leaves(jax.jit(form.encode)(x, noise))
    for a, b in zip(eager, compiled, strict=True):
        same = np.asarray(a) == np.asarray(b)
        assert np.mean(same) > 0.999  # another rounding of the quotient may cross a dither


@every_format
@pytest.mark.parametrize("shape", [(256,), (5000,), (64, 2048)], ids=str)
def test_what_is_not_finite_is_not_lost(name: str, shape: tuple[int, ...]) -> None:
    noise = dither(name, shape)
    for sign in (1, -1):
        x = np.ones(shape, np.float32) * np.where(np.arange(shape[-1]) % 2, sign, 1)
        for bad in (np.nan, np.inf, -np.inf):
            for position in (0, 100, 255):
                spoilt = x.copy()
                spoilt[..., position] = bad
                assert not np.isfinite(np.asarray(kept(name, spoilt, noise))[..., position]).any()
