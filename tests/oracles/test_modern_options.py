"""What the authors' trajectories do not reach: options, masks, patterns, errors."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

RNG = np.random.default_rng(3)
PARAMS = {"w": RNG.standard_normal((4, 6)), "b": RNG.standard_normal(6)}
GRADS = [{name: RNG.standard_normal(x.shape) for name, x in PARAMS.items()} for _ in range(3)]


def run(tx: Any, grads: Any = GRADS, params: Any = PARAMS) -> Any:
    """The updates of the last of some steps, at params that stay."""
    params = jax.tree.map(jnp.asarray, params)
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = update(jax.tree.map(jnp.asarray, g), state, params)
    return jax.tree.map(np.asarray, updates)


def same(got: Any, wanted: Any, rtol: float = 1e-12) -> None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol, rtol)


# -- cautious decay ------------------------------------------------------------------------------

CAUTIOUS = [
    name
    for name in gradtx.optimizers.__all__
    if "cautious_weight_decay" in inspect.signature(getattr(gradtx, name)).parameters
]
# Where decay is shortened together with the step, the two do not add up; sophia needs more inputs.
ADDS_UP = sorted({*CAUTIOUS} - {"lamb", "stable_adamw", "sophia"})


@pytest.mark.parametrize("name", ADDS_UP)
def test_cautious_decay_is_decay_where_the_step_agrees(name: str, x64: None) -> None:
    function = getattr(gradtx, name)
    taken = inspect.signature(function).parameters
    decay = "weight_decay_rate" if name == "adafactor" else "weight_decay"
    options = {"rank": 2} if name == "galore" else {}
    extra = {k: 0.1 for k in taken if k in ("weight_decay_1d", "adam_weight_decay")}
    without, plain, cautious = (
        run(function(learning_rate=0.1, **{decay: rate}, **options, **more))
        for rate, more in (
            (0.0, dict.fromkeys(extra, 0.0)),
            (0.3, dict.fromkeys(extra, 0.3)),
            (0.3, {**dict.fromkeys(extra, 0.3), "cautious_weight_decay": True}),
        )
    )
    decays = {"w"} if "adam_weight_decay" in extra else {"w", "b"}
    for leaf in decays:
        agree = without[leaf] * PARAMS[leaf] <= 0  # the updates have turned downhill
        assert 0 < agree.sum() < agree.size
        same(cautious[leaf], np.where(agree, plain[leaf], without[leaf]))


def test_cautious_decay_of_complex_numbers() -> None:
    """An angle of at most 90 degrees agrees."""
    params = jnp.array([1.0 + 0j, 1.0 + 0j, 1.0 + 0j])
    grads = jnp.array([1.0 + 5j, 0.0 + 5j, -1.0 + 5j])
    updates, _ = gradtx.add_decayed_weights(0.5, cautious=True).update(grads, (), params)
    np.testing.assert_allclose(updates - grads, [0.5, 0.5, 0.0])


# -- StableAdamW under a mask --------------------------------------------------------------------


def test_a_mask_switches_the_decay_of_stable_adamw_off(x64: None) -> None:
    masked = run(gradtx.stable_adamw(0.1, weight_decay=0.3, mask="w"))
    same(masked["w"], run(gradtx.stable_adamw(0.1, weight_decay=0.3))["w"])
    same(masked["b"], run(gradtx.stable_adamw(0.1, weight_decay=0.0))["b"])


# -- Adam-mini's blocks --------------------------------------------------------------------------


def adam_mini(grads: list[np.ndarray], block_mean: Any, b1: float, b2: float) -> np.ndarray:
    """Zhang et al. 2024, algorithm 1, without the rate."""
    m = v = np.zeros(())
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * block_mean(g**2)
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
    return u


def _groups(axis: int, n: int) -> Any:
    def mean(square: np.ndarray) -> np.ndarray:
        parts = np.split(square, n, axis)
        return np.concatenate([np.full_like(part, part.mean()) for part in parts], axis)

    return mean


@pytest.mark.parametrize(
    ("block", "mean"),
    [
        ("rows", _groups(0, 4)),
        ("columns", _groups(1, 6)),
        (2, _groups(0, 2)),
        (("columns", 3), _groups(1, 3)),
        ("whole", _groups(0, 1)),
        ("elements", lambda square: square),
    ],
)
def test_blocks_of_adam_mini(block: Any, mean: Any, x64: None) -> None:
    tx = gradtx.adam_mini(1.0, 0.8, 0.9, blocks={"w": block})
    wanted = adam_mini([g["w"] for g in GRADS], mean, 0.8, 0.9)
    same(run(tx)["w"], -wanted)
    assert gradtx.tree.size(tx.init(PARAMS)) < 3 * gradtx.tree.size(PARAMS)


def test_the_first_pattern_decides_whatever_its_letters() -> None:
    groups = gradtx.adam_mini(blocks={"w": "columns", ".": "whole"}).init(PARAMS)[0].inner_states
    assert groups["columns"].inner_state.nu["w"].shape == (1, 6)
    state = gradtx.store(gradtx.adam(1.0), {"nu/w": "bfloat16", "": "int8"}, min_size=1)
    assert state.init(PARAMS).inner_state[0].nu["w"].dtype == jnp.bfloat16


# -- Muon's pieces -------------------------------------------------------------------------------

FUSED = {"qkv": RNG.standard_normal((4, 9)), "out": RNG.standard_normal((4, 4))}
WIDTHS = (5, 2, 2)


def _apart(tree: Any) -> Any:
    q, k, v = np.split(tree["qkv"], np.cumsum(WIDTHS)[:-1], 1)
    return {"q": q, "k": k, "v": v, "out": tree["out"]}


@pytest.mark.parametrize("name", ["muon", "normuon"])
@pytest.mark.parametrize("options", [{}, {"scale": "spectral"}, {"consistent_rms": 0.2}], ids=str)
@pytest.mark.parametrize("given", [{"qkv": WIDTHS}, {"qkv": list(WIDTHS), "out": None}], ids=str)
def test_fused_matrices_are_stepped_as_if_apart(
    name: str, options: Any, given: Any, x64: None
) -> None:
    grads = [{k: RNG.standard_normal(x.shape) for k, x in FUSED.items()} for _ in range(2)]
    function = getattr(gradtx, name)
    fused = run(function(0.1, weight_decay=0.1, split_outputs=given, **options), grads, FUSED)
    apart = run(
        function(0.1, weight_decay=0.1, **options), [_apart(g) for g in grads], _apart(FUSED)
    )
    same(_apart(fused), apart, 1e-10)


def test_adaptive_pieces(x64: None) -> None:
    grads = [{k: RNG.standard_normal(x.shape) for k, x in FUSED.items()} for _ in range(2)]
    make = lambda **more: gradtx.muon(0.1, adaptive=True, **more)  # noqa: E731
    fused = run(make(split_outputs={"qkv": WIDTHS}), grads, FUSED)
    same(_apart(fused), run(make(), [_apart(g) for g in grads], _apart(FUSED)), 1e-10)


def test_polar_express_is_nearer_to_orthogonal() -> None:
    matrix = jnp.asarray(RNG.standard_normal((8, 16)), jnp.float32)

    def spread(preset: str) -> float:
        updates, _ = (tx := gradtx.scale_by_muon(preset)).update(matrix, tx.init(matrix))
        values = np.linalg.svd(updates, compute_uv=False)
        return float(values.max() - values.min())

    assert spread("polar_express") < 0.7 * spread("standard")


# -- Scion's norms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "options", "wanted"),
    [
        ("row_norm", {}, lambda g: g / (2 * np.linalg.norm(g, axis=0))),
        ("row_norm", {"normalized": False}, lambda g: g / np.linalg.norm(g, axis=0)),
        ("col_norm", {}, lambda g: g / np.linalg.norm(g, axis=1, keepdims=True) * 6**0.5),
        ("sign", {}, lambda g: np.sign(g) / 4),
        ("bias_rms", {}, lambda g: g / np.sqrt(np.mean(g**2))),
    ],
)
def test_norms_of_scion(norm: Any, options: Any, wanted: Any, x64: None) -> None:
    g = GRADS[0]["w"]
    made = run(gradtx.scale_by_lmo(norm, norm_kwargs=options), [g], g)
    same(made, wanted(g), 1e-7)  # the 1e-8 beside the norms


# -- hyperball -----------------------------------------------------------------------------------


def test_a_step_on_the_sphere_turns_and_keeps_the_norm(x64: None) -> None:
    moved = run(gradtx.hyperball(gradtx.identity(), 0.1), GRADS[:1])["w"] + PARAMS["w"]
    p, g = PARAMS["w"], GRADS[0]["w"]
    to = p - 0.1 * np.linalg.norm(p) * g / np.linalg.norm(g)
    same(moved, to * np.linalg.norm(p) / np.linalg.norm(to))


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: gradtx.adam_mini(blocks={"w": 0}), r"adam_mini: blocks\['w'\] must be .* got 0"),
        (lambda: gradtx.adam_mini(blocks={"w": "row"}), r"must be 'rows', .* got 'row'"),
        (
            lambda: gradtx.adam_mini(blocks={"w(": 1}),
            r"adam_mini: 'w\(' is not a valid regular expression",
        ),
        (
            lambda: gradtx.adam_mini(blocks={"q": 2}),
            "blocks: the pattern 'q' gets no leaf .*: b, w",
        ),
        (lambda: gradtx.adam_mini(blocks={"w": 3}), r"at w: 3 groups of rows do not .*\(4, 6\)"),
        (lambda: gradtx.muon(0.1, split_outputs=(3, 2)), r"at w: .*\(3, 2\).* 6 columns .* got 5"),
        (
            lambda: gradtx.muon(0.1, split_outputs=(6, 0)),
            r"at w: split_outputs \(6, 0\) must be po",
        ),
        (lambda: gradtx.muon(0.1, split_outputs={"q": (6,)}), "the pattern 'q' gets no leaf"),
        (
            lambda: gradtx.scion(norm_kwargs={"max": True}),
            "norm_kwargs of 'auto' are none; got 'max'",
        ),
        (lambda: gradtx.scion(norm="spectral"), "at b: norm='spectral' is of matrices"),
        (lambda: gradtx.stable_adamw(0.1, mask="q"), "stable_adamw: mask: the pattern 'q' matches"),
    ],
)
def test_errors_name_what_and_where(make: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        run(make())
