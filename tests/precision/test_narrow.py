"""Rounding to narrow dtypes against casts of NumPy, and its mean over random draws."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gradtx.precision.narrow import dither_bits, key_of, round_to, uniform

DTYPES = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
RNG = np.random.default_rng(0)


def numbers(dtype: str) -> np.ndarray:
    """Of all sizes that the dtype has, subnormal ones included, and a few special."""
    limits = ml_dtypes.finfo(dtype)
    low, high = max(limits.minexp - limits.nmant, -85), min(limits.maxexp - 4, 100)
    x = RNG.choice([-1, 1], 20_000) * np.exp2(RNG.uniform(low, high, 20_000))
    return np.asarray([*x, 0.0, -0.0, 1.0, -1.0, 1 + 2.0**-9, np.pi], np.float32)


@every_dtype
def test_to_nearest_is_a_cast(dtype: str) -> None:
    x = numbers(dtype)
    expected = x.astype(dtype).astype(np.float32)
    got = np.asarray(jax.jit(lambda x: round_to(x, dtype))(x))
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


@every_dtype
def test_large_numbers_stay_finite_and_special_ones_special(dtype: str) -> None:
    top = float(ml_dtypes.finfo(dtype).max)
    above = min(1.01 * top, float(np.finfo(np.float32).max))
    x = np.asarray([top, -top, above, np.inf, -np.inf, np.nan], np.float32)
    got = np.asarray(round_to(jnp.asarray(x), dtype))
    np.testing.assert_array_equal(got, [top, -top, top, np.inf, -np.inf, np.nan])


@every_dtype
def test_dithered_lands_on_a_neighbour_and_is_right_on_average(dtype: str) -> None:
    draws = 200_000
    dither = uniform(key_of(0), (draws,), dither_bits(dtype))
    for x in [1.001, -1.3, 0.7001, 3e-2, 1.9999]:
        x32 = np.float32(x)
        got = np.asarray(round_to(jnp.full(draws, x32), dtype, dither))
        values = np.unique(got)
        assert len(values) <= 2
        assert set(values) == set(values.astype(dtype).astype(np.float32))
        gap = np.ptp(values) or 1.0
        assert values.min() <= x32 <= values.max() or len(values) == 1
        # Four standard errors of a mean of draws that differ by the gap.
        assert abs(got.mean(dtype=np.float64) - x32) < 4 * 0.5 * gap / np.sqrt(draws)


def test_exact_numbers_are_not_moved_by_any_dither() -> None:
    x = numbers("bfloat16").astype(ml_dtypes.bfloat16).astype(np.float32)
    for dither in (0.0, 0.5, 1 - 2.0**-16):
        moved = round_to(jnp.asarray(x), jnp.bfloat16, jnp.full(x.shape, dither, jnp.float32))
        np.testing.assert_array_equal(np.asarray(moved), x)


def test_uniform_is_uniform_and_uncorrelated() -> None:
    n = 1 << 17
    draws = [np.asarray(uniform(key_of(7, *parts), (n,), 16)) for parts in [(0, 1), (0, 2), (1, 1)]]
    for x in draws:
        assert x.min() >= 0
        assert x.max() < 1
        counts = np.bincount((x * 64).astype(int), minlength=64)
        chi2 = np.sum((counts - n / 64) ** 2 / (n / 64))
        assert chi2 < 110  # 63 degrees of freedom: one in 4,000
        for lag in (1, 2, 64, 1024):
            assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 4 / np.sqrt(n)
    for i, j in [(0, 1), (0, 2), (1, 2)]:  # two leaves, two steps, both
        assert abs(np.corrcoef(draws[i], draws[j])[0, 1]) < 4 / np.sqrt(n)


def test_uniform_does_not_depend_on_the_shape() -> None:
    flat = uniform(key_of(3), (24,), 16)
    np.testing.assert_array_equal(uniform(key_of(3), (2, 3, 4), 16).reshape(-1), flat)
