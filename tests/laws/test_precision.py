"""Every way to save bits over every public optimizer whose state has moments.

The optimizers are those of the laws' registry; leaves are large enough for coding to happen. Four,
one for each kind of use that is made of moments, are tried more often.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.precision.formats import FORMATS
from gradtx.precision.store import _moments, store
from gradtx.precision.stored import Storing, decode_state, encode_state

from .registry import EXAMPLES, Example

SHAPES = {"w": (32, 256), "b": (4096,), "s": (4096,)}
BYTES = {"bfloat16": 2, "bfloat16+8": 3, "float8": 1 + 4 / 256, "int8": 1 + 4 / 256}
BYTES["int4"] = 0.5 + 4 / 128
OFTEN = ("adamw-default", "torch.sgd-nesterov_uphill", "lion-default", "adafactor-default")
SEEDS = 8
WARM = 5


def tree(seed: int, scale: float = 1.0, offset: float = 0.0) -> Any:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(offset + scale * rng.standard_normal(shape), jnp.float32)
        for name, shape in SHAPES.items()
    }


PARAMS = tree(0, 0.2, 1.0)


def moments(example: Example) -> tuple[str, ...]:
    """What `store` would encode, as field/leaf."""
    state = jax.eval_shape(example.make().init, PARAMS)
    return tuple(x.label for x in _moments(state, PARAMS) if not x.by_name)


OPTIMIZERS = [
    e for e in EXAMPLES if any(e.name == other.name and other.rates for other in EXAMPLES)
]


def over(where: Any = lambda example: True) -> pytest.MarkDecorator:
    chosen = [
        pytest.param(e, marks=pytest.mark.one_in(4 if str(e) in OFTEN else 64), id=str(e))
        for e in OPTIMIZERS
        if where(e)
    ]
    return pytest.mark.parametrize("example", chosen)


with_moments = over(lambda e: not e.per_example)


def update_of(example: Example) -> Any:
    """One compiled step of the float32 optimizer, and one of several states at once."""
    return _update_of(OPTIMIZERS.index(example))


@functools.cache
def _update_of(i: int) -> Any:
    example = OPTIMIZERS[i]
    tx = example.make()

    def update(grads: Any, state: Any, params: Any) -> Any:
        return tx.update(grads, state, params, **example.extra)

    return jax.jit(update), jax.jit(jax.vmap(update, in_axes=(None, 0, None)))


def warmed(example: Example) -> tuple[Any, Any]:
    """A state of the float32 run after a few steps, and its parameters."""
    update, _ = update_of(example)
    params, state = PARAMS, example.make().init(PARAMS)
    for t in range(WARM):
        updates, state = update(tree(10 + t), state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


# -- store: the error of one step ------------------------------------------------------------------


def gap(name: str, x: np.ndarray) -> np.ndarray:
    """The distance between the numbers that the format has around each element.

    From what the formats say of themselves, not from their code: bfloat16 has 8 binary digits, with
    a byte more 16. float8 e4m3 has 4 and no more than 2^-9, where the block's largest is 448. Of
    the dynamic code with n bits, range d goes from 8^(d-n) to 8^(d-n+1) of the block's largest, in
    2^d steps; with a sign in half as many, and in one step below d = 2.
    """
    size = np.abs(x)
    binade = np.exp2(np.floor(np.log2(np.maximum(size, 1e-37))))
    if name == "bfloat16":
        return binade * 2.0**-7
    if name == "bfloat16+8":
        return binade * 2.0**-15
    blocks = x.reshape(-1, 128 if name == "int4" else 256)
    top = np.max(np.abs(blocks), axis=1, keepdims=True)
    part = np.abs(blocks) / np.where(top == 0, 1, top)
    signed = np.min(blocks, axis=1, keepdims=True) < 0
    if name == "float8":
        steps = np.exp2(np.floor(np.log2(np.maximum(part * 448, 2.0**-6))) - 3) / 448
    else:
        n = 4 if name == "int4" else 8
        lowest = np.where(signed, 2, 0)
        d = np.floor(np.log2(np.maximum(part, 8.0**-n)) / 3 + n).clip(lowest, n - 1)
        steps = 7 * 8.0 ** (d - n) / np.exp2(d) * np.where(signed, 2, 1)
        steps = np.where(signed & (part < 8.0 ** (2 - n)), 8.0 ** (2 - n), steps)
    return (steps * top).reshape(x.shape)


def disturbed(name: str, x: Any, rng: np.random.Generator) -> np.ndarray:
    """Draws of x + gap * uniform(-1, 1), of the sign of x where no element is negative.

    An element that is rounded up or down at random is off by at most a gap, with a variance of at
    most gap^2 / 4; these are off by at most a gap with a variance of gap^2 / 3.
    """
    values = np.asarray(x, np.float64)
    noise = rng.uniform(-1, 1, (SEEDS, *values.shape))
    made = values + gap(name, values) * noise
    if np.min(values) >= 0:
        made = np.abs(made)
    return made.astype(np.float32)


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


class Errors(NamedTuple):
    """Of one leaf, as parts of the root mean square of the exact update."""

    rms: float
    mean: float
    along: float  # the mean of what lies along the update: how much longer it has become
    spread: float  # root mean square of what `along` is the mean of
    number: float  # of elements that make up the root mean square: a few, where signs have changed


def errors(updates: Any, exact: Any) -> list[Errors]:
    rows = []
    for name in SHAPES:
        got, expected = np.asarray(updates[name], np.float64), np.asarray(exact[name], np.float64)
        unit = np.sqrt(np.mean(expected**2)) or 1.0
        off = (got - expected) / unit
        squares = off**2
        number = np.sum(squares) ** 2 / (np.sum(squares**2) or 1.0)
        along = off * expected / unit
        means = (np.sqrt(np.mean(squares)), np.mean(off), np.mean(along))
        rows.append(Errors(*means, np.sqrt(np.mean(along**2)), max(number, 1.0)))
    return rows


@pytest.mark.parametrize("name", FORMATS)
@with_moments
def test_one_step_from_the_float32_state(example: Example, name: str) -> None:
    """No farther from the float32 step than a disturbance of the state by the format's gaps takes
    it, whatever the formula, be it as steep as a sign; and right on average."""
    if not moments(example):
        pytest.skip("no moments")
    params, state = warmed(example)
    one, many = update_of(example)
    grads = tree(99)
    exact, _ = one(grads, state, params)
    labels = {x.where for x in _moments(state, params) if not x.by_name}
    chosen = dict.fromkeys(labels, FORMATS[name])
    decoded = stacked(
        [decode_state(encode_state(state, Storing(chosen, 0, t))) for t in range(SEEDS)]
    )
    rng = np.random.default_rng(1)
    model = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            jnp.asarray(disturbed(name, x, rng))
            if jax.tree_util.keystr(path) in labels
            else jnp.broadcast_to(x, (SEEDS, *x.shape))
        ),
        state,
    )
    got, like = (errors(many(grads, s, params)[0], exact) for s in (decoded, model))
    for mine, bound in zip(got, like, strict=True):
        # Half the variance, where gaps are small: 0.71; a bend of the formula may take the rest.
        # Numbers of the whole tree have but one error a draw.
        slack = 2.0 if example.couples else 1.1 + 5 / np.sqrt(min(mine.number, bound.number))
        # Sums in another order, in the program of many: a few roundings of float32.
        assert mine.rms <= slack * bound.rms + 1e-5, (got, like)
        # Five standard errors; and what a bend makes of any noise, right on average as it may be.
        chance = 5 / np.sqrt(SEEDS * (1 if example.couples else 4096))
        assert abs(mine.mean) <= 2 * abs(bound.mean) + chance * bound.rms + 1e-5, (got, like)
        assert abs(mine.along) <= 2 * abs(bound.along) + chance * bound.spread + 1e-5, (got, like)


# -- store: as it is used --------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0, pytest.param(2, marks=pytest.mark.one_in(64))])
@with_moments
def test_a_stored_run(example: Example, turn: int) -> None:
    """All formats in one state: bytes as promised, one trace, constant dtypes, finite updates."""
    labels = moments(example)
    if not labels:
        with pytest.raises(ValueError, match="there is nothing to store"):
            store(example.make(), "int8").init(PARAMS)
        return
    names = list(FORMATS)
    formats = {f"^{x}$": names[(i + turn) % len(names)] for i, x in enumerate(labels)}
    tx, traces = store(example.make(), formats), []

    def step(params: Any, state: Any, grads: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(grads, state, params, **example.extra)
        return gradtx.apply_updates(params, updates), state, updates

    compiled = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    plain = jax.eval_shape(example.make().init, PARAMS)
    saved = sum(
        (4 - BYTES[formats[f"^{x.label}$"]]) * x.x.size
        for x in _moments(plain, PARAMS)
        if not x.by_name
    )
    count = 4  # of store itself
    assert bytes_of(state) == bytes_of(plain) - saved + count
    avals = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for t in range(3):
        params, state, updates = compiled(params, state, tree(10 + t))
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(updates))
    assert len(traces) == 1
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == avals


def bytes_of(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


# -- parameters in bfloat16 ------------------------------------------------------------------------


def in_float32(params: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), params)


def unit(x: np.ndarray) -> np.ndarray:
    """The gap between bfloat16 numbers."""
    return np.exp2(np.floor(np.log2(np.maximum(np.abs(x), 1e-30))) - 7)


class Rounded:
    """A run with bfloat16 parameters, each step of which is repeated in float32 from its state."""

    def __init__(self, example: Example, tx: Any, inner_state: Any, at: Any):
        self.example, self.tx, self.inner_state, self.at = example, tx, inner_state, at
        self.traces = 0

    def steps(self) -> Any:
        """Of each step and leaf: its name, both states, the target, where it landed, `reach`."""

        def step(params: Any, state: Any, grads: Any) -> Any:
            self.traces += 1
            updates, state = self.tx.update(grads, state, params, **self.example.extra)
            return gradtx.apply_updates(params, updates), state, updates

        compiled, exact = jax.jit(step), update_of(self.example)[0]
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
        state = self.tx.init(params)
        avals = jax.tree.map(lambda x: (x.shape, x.dtype), state)
        inner = jax.tree.map(lambda x: (x.shape, x.dtype), self.inner_state(state))
        plain = jax.eval_shape(self.example.make().init, in_float32(params))
        assert inner == jax.tree.map(lambda x: (x.shape, x.dtype), plain)
        for t in range(3):
            at = self.at(state, params)
            u, _ = exact(tree(10 + t), self.inner_state(state), at)
            target = jax.tree.map(lambda p, u: np.asarray(p, np.float64) + u, at, u)
            landed, new, updates = compiled(params, state, tree(10 + t))
            assert {x.dtype for x in jax.tree.leaves(updates)} == {np.dtype(np.float32)}
            assert {x.dtype for x in jax.tree.leaves(landed)} == {np.dtype(jnp.bfloat16)}
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(updates))
            assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == avals
            for name in SHAPES:
                r = np.asarray(landed[name], np.float64)
                # What the sum of parameter and update cannot reach, where r is far smaller.
                reach = 2.0**-24 * np.abs(np.asarray(params[name], np.float64))
                yield name, state, new, target[name], r, reach
            params, state = landed, new
        assert self.traces == 1


@with_moments
def test_stochastic_rounding(example: Example) -> None:
    """On one of the two neighbours of the float32 result, and right on average."""
    tx = gradtx.chain(example.make(), gradtx.stochastic_rounding(1))
    run = Rounded(example, tx, lambda state: state[0], lambda state, params: in_float32(params))
    for _, _, _, target, r, reach in run.steps():
        off = (r - target) / unit(target)
        # A target a rounding of float32 above or below a power of two has another unit.
        assert np.all(np.abs(off) <= 1.001 + reach / unit(target))
        near = reach < 1e-3 * unit(target)
        assert abs(np.mean(off[near])) <= 5 * 0.5 / np.sqrt(np.sum(near))


@with_moments
def test_kahan(example: Example) -> None:
    """What rounding keeps back is in the compensation, to its eight digits."""
    tx = gradtx.chain(example.make(), gradtx.kahan())
    run = Rounded(example, tx, lambda state: state[0], lambda state, params: in_float32(params))

    def kept(state: Any, name: str) -> np.ndarray:
        return np.asarray(state[1].inner_state.compensation[name], np.float64)

    for name, old, new, target, r, reach in run.steps():
        wanted = target + kept(old, name)
        assert np.all(np.abs(r - wanted) <= 0.501 * unit(wanted) + reach)
        lost = np.abs(r + kept(new, name) - wanted)
        # Half a unit is kept to 2^-9 of itself; the sum in float32 is off by 2^-17 of a unit.
        assert np.all(lost <= (0.5 * 2.0**-9 + 2.0**-16) * unit(wanted) + 2 * reach)


@with_moments
def test_master_weights(example: Example) -> None:
    """The master is the float32 run, the parameters are its rounding."""
    tx = gradtx.master_weights(example.make())
    run = Rounded(example, tx, lambda state: state.inner_state, lambda state, params: state.master)
    for name, _, new, target, r, reach in run.steps():
        master = np.asarray(new.master[name])
        np.testing.assert_allclose(master, target, rtol=1e-5, atol=1e-6)
        assert np.all(np.abs(r - master.astype(jnp.bfloat16).astype(np.float64)) <= reach)
