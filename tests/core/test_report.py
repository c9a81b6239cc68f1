"""`report`, and where `hyperparams` finds its numbers, against what NumPy and the parts say."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.hlo import tally

RATE = gradtx.linear_schedule(0.1, 0.0, 10)
RNG = np.random.default_rng(0)
SHAPES = {"attn": {"w": (6, 4), "b": (4,)}, "mlp": {"w": (4, 5)}}
PARAMS, GRADS, UPDATES = (
    jax.tree.map(
        lambda shape, by=by: jnp.asarray(by * RNG.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    for by in (1.0, 3.0, 0.01)
)


def norm(tree: Any) -> float:
    """In float64."""
    return float(np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(tree))))


def made(tx: Any, grads: Any = GRADS, **options: Any) -> dict[str, float]:
    report = jax.jit(lambda g, u, s, p: gradtx.report(tx, g, u, s, p, **options))
    found = report(grads, UPDATES, tx.init(PARAMS), PARAMS)
    assert all(x.shape == () and x.dtype == np.float32 for x in found.values())
    return {name: float(x) for name, x in found.items()}


def clipped(tx: Any, grads: Any = GRADS) -> dict[str, float]:
    found = made(tx, grads)
    return {n.removeprefix("clipped/"): x for n, x in found.items() if n.startswith("clipped/")}


# -- report ----------------------------------------------------------------------------------------


def test_norms_and_ratios_are_of_all_and_of_groups() -> None:
    found = made(gradtx.sgd(RATE), groups={"attention": "^attn", "kernels": "w$"})
    rest = {"attention": "attn", "kernels": "mlp"}  # the first pattern decides
    for suffix, key in {"": None, **{f"/{name}": key for name, key in rest.items()}}.items():
        trees = {"grads": GRADS, "updates": UPDATES, "params": PARAMS}
        norms = {n: norm(t if key is None else t[key]) for n, t in trees.items()}
        for name, expected in norms.items():
            assert found[f"norm/{name}{suffix}"] == pytest.approx(expected, rel=1e-6)
        ratio = norms["updates"] / norms["params"]
        assert found[f"ratio{suffix}"] == pytest.approx(ratio, rel=1e-6)
    assert found["rate/sgd"] == pytest.approx(0.1)
    assert not [name for name in found if name.startswith(("clipped", "skipped"))]


def test_a_sequence_of_patterns_names_groups_and_leaves_others_to_the_total() -> None:
    found = made(gradtx.sgd(0.1), groups=["attn/.*w"])
    assert found["norm/grads/attn/.*w"] == pytest.approx(norm(GRADS["attn"]["w"]), rel=1e-6)
    assert found["norm/grads"] == pytest.approx(norm(GRADS), rel=1e-6)


def test_numbers_that_are_not_finite_are_counted() -> None:
    bad = {**GRADS, "mlp": {"w": GRADS["mlp"]["w"].at[0, :2].set(jnp.nan).at[1, 1].set(jnp.inf)}}
    found = made(gradtx.sgd(0.1), bad, groups=["attn"])
    assert found["nonfinite/grads"] == 3
    assert found["nonfinite/updates"] == 0
    assert np.isnan(found["norm/grads"])
    assert found["norm/grads/attn"] == pytest.approx(norm(GRADS["attn"]), rel=1e-6)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_norm_clips_all_or_nothing(factor: float) -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(factor * norm(GRADS)), gradtx.adam(0.1))
    assert clipped(tx) == {"clip_by_global_norm": float(factor < 1)}


def smaller(tx: Any, grads: Any = GRADS) -> float:
    """The share of numbers that a clip makes smaller, from what it returns."""
    u, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    pairs = zip(jax.tree.leaves(u), jax.tree.leaves(grads), strict=True)
    flags = [np.abs(x) < np.abs(g) * (1 - 1e-6) for x, g in pairs]
    return float(np.mean(np.concatenate([f.ravel() for f in flags])))


@pytest.mark.parametrize(
    "clip",
    [
        gradtx.clip(2.5),
        gradtx.clip_by_block_rms(3.0),
        gradtx.adaptive_grad_clip(3.0),
        gradtx.adaptive_grad_clip(2.0, axis=-1),
        gradtx.clip_by_global_norm(lambda t: 3.0 + t),
    ],
    ids=str,
)
def test_the_share_is_what_the_clip_makes_smaller(clip: Any) -> None:
    expected = smaller(clip)
    assert 0 < expected <= 1
    (share,) = clipped(gradtx.finite_guard(gradtx.chain(clip, gradtx.adam(0.1)))).values()
    assert share == pytest.approx(expected, rel=1e-6)


def test_each_group_has_its_clip_and_a_mask_hides_leaves() -> None:
    clip, block = gradtx.clip(2.5), gradtx.clip_by_global_norm(0.1)
    tx = gradtx.partition(
        {
            "attn": gradtx.chain(gradtx.masked(clip, "w"), gradtx.sgd(0.1)),
            "mlp": gradtx.chain(block, gradtx.sgd(0.1)),
        }
    )
    expected = float(np.mean(np.abs(GRADS["attn"]["w"]) > 2.5))
    found = clipped(tx)
    assert found == {"clip": pytest.approx(expected), "clip_by_global_norm": 1.0}


def test_a_frozen_leaf_does_not_count() -> None:
    limit = 0.5 * (norm(GRADS) + norm(GRADS["attn"]))
    clip = gradtx.chain(gradtx.clip_by_global_norm(limit), gradtx.sgd(0.1))
    assert clipped(clip) == {"clip_by_global_norm": 1.0}
    assert clipped(gradtx.chain(gradtx.freeze("mlp"), clip)) == {"clip_by_global_norm": 0.0}


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.chain(gradtx.scale_by_adam(), gradtx.clip(1.0)),
        gradtx.accumulate(gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)), 2),
        gradtx.flatten(gradtx.masked(gradtx.clip(1.0), True)),
        gradtx.adafactor(0.1),
    ],
    ids=["behind", "of a mean", "flat", "inside a recipe"],
)
def test_a_clip_that_does_not_see_the_gradients_is_not_told(tx: Any) -> None:
    assert clipped(tx) == {}


def test_of_clips_in_a_row_the_first_is_told() -> None:
    tx = gradtx.chain(gradtx.monitor({}), gradtx.clip(2.5), gradtx.clip(1.0), gradtx.sgd(0.1))
    assert clipped(tx) == {"clip[0]": pytest.approx(smaller(gradtx.clip(2.5)))}


def test_a_clip_that_a_recipe_makes_is_told_under_its_name() -> None:
    @gradtx.recipe
    def mine(learning_rate: gradtx.NonNegative) -> Any:
        return gradtx.chain(gradtx.clip(2.5), gradtx.sgd(learning_rate))

    assert clipped(mine(0.1)) == {"mine.clip": pytest.approx(smaller(gradtx.clip(2.5)))}


def test_skipped_steps_are_counted_by_each_wrapper() -> None:
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
    tx = gradtx.finite_guard(gradtx.chain(gradtx.clip(1.0), gradtx.sgd(RATE)))
    tx = gradtx.named_chain(("guard", tx), ("if", gradtx.apply_if_finite(gradtx.scale(1.0), 5)))
    state = tx.init(PARAMS)
    for grads in (bad, GRADS, bad):
        updates, state = tx.update(grads, state, PARAMS)
    found = gradtx.report(tx, GRADS, updates, state, PARAMS)
    assert found["skipped/finite_guard"] == 2
    assert found["skipped/apply_if_finite"] == 0
    assert found["rate/sgd"] == pytest.approx(0.09)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_leaves_are_measured_in_float32(dtype: Any) -> None:
    big = {"w": jnp.full((300, 300), 200.0, dtype), "none": None}
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1))
    found = gradtx.report(tx, big, big, tx.init(big), big)
    assert found["norm/grads"] == pytest.approx(60000)
    assert found["clipped/clip"] == 1


def test_absent_leaves_empty_trees_and_leaves_without_a_gradient() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))
    for tree in ({}, {"a": None}, {"a": jnp.zeros((0, 2)), "b": jnp.zeros(())}):
        found = gradtx.report(tx, tree, tree, tx.init(tree), tree)
        assert all(found[n] == 0 for n in found if n != "rate/sgd")
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    grads = {"a": jnp.ones(2), "b": None}
    found = gradtx.report(tx, grads, grads, tx.init(params), params)
    assert found["norm/params"] == pytest.approx(2**0.5)


def test_under_vmap_and_in_a_scan() -> None:
    tx = gradtx.chain(gradtx.clip(2.5), gradtx.sgd(jnp.array([0.1, 0.2])))
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, tx)

    def measure(tx: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            u, new = tx.update(GRADS, state, PARAMS)
            return new, gradtx.report(tx, GRADS, u, state, PARAMS)

        return jax.lax.scan(step, tx.init(PARAMS), None, 3)[1]

    found = jax.vmap(measure, in_axes=(axes,))(tx)
    np.testing.assert_allclose(found["rate/sgd"], [[0.1] * 3, [0.2] * 3], rtol=1e-6)
    np.testing.assert_allclose(found["norm/updates"][1], 2 * found["norm/updates"][0], rtol=1e-6)
    assert np.all(found["clipped/clip"] == np.float32(smaller(gradtx.clip(2.5))))


def test_a_pair_of_lookahead_is_measured_at_its_fast_half() -> None:
    tx = gradtx.lookahead(gradtx.chain(gradtx.clip(1.0), gradtx.sgd(RATE)), 2, 0.5)
    pair = gradtx.LookaheadParams.init_synced(PARAMS)
    state = tx.init(pair)
    updates, _ = tx.update(GRADS, state, pair)
    found = gradtx.report(tx, GRADS, updates, state, pair)
    assert found["norm/params"] == pytest.approx(norm(PARAMS), rel=1e-6)
    assert found["norm/updates"] == pytest.approx(norm(updates.fast), rel=1e-6)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            ["attn", "nothing"],
            r"the group 'nothing', 'nothing', gets no leaf; the paths are: attn/b",
        ),
        (["("], "is not a valid regular expression"),
    ],
)
def test_bad_groups_are_refused(groups: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(gradtx.sgd(0.1), groups=groups)
    with pytest.raises(TypeError, match=r"groups must be a dict or a sequence, got 'attn'"):
        made(gradtx.sgd(0.1), groups="attn")


def test_trees_that_do_not_fit_are_refused_by_path() -> None:
    tx = gradtx.sgd(0.1)
    with pytest.raises(ValueError, match=r"report: updates and the gradients differ.*mlp/w"):
        gradtx.report(tx, GRADS, {"attn": UPDATES["attn"]}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "clip",
    [gradtx.clip(1.0), gradtx.clip_by_global_norm(1.0), gradtx.adaptive_grad_clip(0.1)],
    ids=str,
)
def test_it_reads_each_array_once(clip: Any) -> None:
    """The bytes that the program for this machine reads and writes, of all arrays together."""
    tx = gradtx.chain(clip, gradtx.adamw(RATE))
    tree = {"a": jax.ShapeDtypeStruct((512, 256), np.float32), "b": jnp.zeros((2**16,))}
    state = jax.eval_shape(tx.init, tree)
    report = jax.jit(lambda g, u, s, p: gradtx.report(tx, g, u, s, p, groups=["a", "b"]))
    moved = tally(report.lower(tree, tree, state, tree).compile().as_text() or "").bytes
    assert moved / (4 * (512 * 256 + 2**16)) == pytest.approx(3, abs=0.05)


# -- hyperparams -----------------------------------------------------------------------------------


def after(tx: Any, steps: int, params: Any = PARAMS, **extra: Any) -> dict[str, float]:
    """The numbers after some steps, as a jitted function tells them."""
    state = tx.init(params)
    for _ in range(steps):
        _, state = tx.update(GRADS, state, params, **extra)
    told = jax.jit(lambda state: gradtx.hyperparams(tx, state))(state)
    return {name: round(float(x), 6) for name, x in told.items()}


@pytest.mark.parametrize(
    ("tx", "name", "expected"),
    [
        (gradtx.chain(gradtx.clip(1.0), gradtx.sgd(RATE)), "sgd.learning_rate", 0.07),
        (gradtx.accumulate(gradtx.sgd(RATE), 2), "sgd.learning_rate", 0.09),
        (gradtx.accumulate(gradtx.sgd(0.1), 2), "accumulate.every", 2),
        (gradtx.accumulate(gradtx.sgd(0.1), lambda t: 2 + t), "accumulate.every", 3),
        (gradtx.multi_steps(gradtx.sgd(RATE), 3), "sgd.learning_rate", 0.09),
        (gradtx.store(gradtx.adamw(RATE), "int8"), "adamw.learning_rate", 0.07),
        (gradtx.masked(gradtx.sgd(RATE), "attn"), "sgd.learning_rate", 0.07),
        (gradtx.flatten(gradtx.sgd(RATE)), "sgd.learning_rate", 0.07),
        (gradtx.maximize(gradtx.sgd(RATE)), "sgd.learning_rate", 0.07),
        (gradtx.mechanize(gradtx.sgd(RATE)), "sgd.learning_rate", 0.07),
        (gradtx.schedule_free(gradtx.sgd(RATE), RATE), "schedule_free.learning_rate", 0.07),
        (gradtx.schedule_free_adamw(RATE), "schedule_free_adamw.learning_rate", 0.07),
        (gradtx.sam(gradtx.sgd(RATE), gradtx.sgd(RATE)), "optimizer.sgd.learning_rate", 0.09),
        (
            gradtx.conditionally_transform(gradtx.sgd(RATE), lambda t: t > 0),
            "sgd.learning_rate",
            0.08,
        ),
        (gradtx.inject_hyperparams(gradtx.sgd)(RATE), "sgd.learning_rate", 0.07),
        (gradtx.dynamic_loss_scale(gradtx.sgd(0.1)), "dynamic_loss_scale.scale", 2.0**15),
        (gradtx.scale_by_schedule(-RATE), "scale_by_schedule.step_size_fn", -0.07),
        (gradtx.adamw(0.1, weight_decay=0.0), "adamw.weight_decay", 0),
        (gradtx.torch.adamw(betas=(0.9, RATE)), "torch.adamw.betas[1]", 0.07),
    ],
    ids=lambda x: str(x)[:60],
)
def test_a_number_is_told_at_its_own_count(tx: Any, name: str, expected: float) -> None:
    assert after(tx, 3)[name] == pytest.approx(expected)


def test_numbers_that_were_set_in_the_state_are_told() -> None:
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.1)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.5)
    assert gradtx.hyperparams(tx, state)["sgd.learning_rate"] == 0.5


def test_numbers_that_a_rule_adapts_are_told() -> None:
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.reduce_on_plateau(factor=0.5, patience=1))
    assert after(tx, 3, value=1.0)["reduce_on_plateau.scale"] == 0.25


def test_names_are_as_short_as_they_are_clear() -> None:
    twice = gradtx.chain(gradtx.clip(1.0), gradtx.clip(2.0), gradtx.sgd(RATE))
    groups = gradtx.partition({"attn": twice, "mlp": gradtx.sgd(0.3)})
    named = gradtx.named_chain(("first", gradtx.scale(2.0)), ("last", gradtx.scale(3.0)))
    assert after(gradtx.chain(groups, named), 1) == {
        "clip[0].max_delta": 1.0,
        "clip[1].max_delta": 2.0,
        "attn.sgd.learning_rate": 0.09,
        "mlp.sgd.learning_rate": 0.3,
        "first.scale.step_size": 2.0,
        "last.scale.step_size": 3.0,
    }


def test_what_is_given_to_a_recipe_is_told_beside_its_own_numbers() -> None:
    @gradtx.recipe
    def mine(inner: gradtx.GradientTransformation, rate: gradtx.NonNegative) -> Any:
        hidden, waning = gradtx.clip(1.0), cast(Any, rate)
        return gradtx.chain(hidden, inner, gradtx.scale_by_schedule(lambda t: -2 * waning(t)))

    assert after(mine(gradtx.scale(RATE), RATE), 3) == {"mine.rate": 0.07, "scale.step_size": 0.07}


def test_a_wrapper_of_the_users_own_is_walked_into() -> None:
    @gradtx.per_tree
    def halved(inner: gradtx.GradientTransformation) -> Any:
        def init(inner: gradtx.Inner) -> gradtx.LeafState:
            return gradtx.LeafState({"kept": [inner.init()]})

        def update(updates: Any, state: Any, inner: gradtx.Inner) -> Any:
            u, new = inner(updates, state.state["kept"][0])
            return gradtx.tree.scale(0.5, u), gradtx.LeafState({"kept": [new]})

        return gradtx.Rule(init, update)

    assert after(halved(gradtx.sgd(RATE)), 3) == {"sgd.learning_rate": 0.07}


def test_of_optax_nothing_can_be_read() -> None:
    optax = pytest.importorskip("optax")
    assert after(gradtx.chain(optax.adam(0.1), gradtx.scale(0.5)), 1) == {"scale.step_size": 0.5}
    tx = optax.adam(0.1)
    with pytest.raises(TypeError, match=r"hyperparams: .* is a pair of functions"):
        gradtx.hyperparams(tx, tx.init(PARAMS))
    injected = gradtx.inject_hyperparams(optax.adam)(learning_rate=RATE)
    assert after(injected, 3)["inject_hyperparams.learning_rate"] == pytest.approx(0.07)


def test_another_state_is_refused() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(RATE))
    with pytest.raises(ValueError, match=r"hyperparams: chain: the state at \[1\]"):
        gradtx.hyperparams(tx, gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)).init(PARAMS))


def test_of_flax_nnx() -> None:
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gradtx.adamw(RATE), wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 2))) ** 2))(model)
    optimizer.update(model, grads)

    @nnx.jit
    def told(optimizer: Any) -> Any:
        return gradtx.hyperparams(optimizer.tx, optimizer.opt_state)

    assert told(optimizer)["adamw.learning_rate"] == pytest.approx(0.09)
    eager = gradtx.hyperparams(optimizer.tx, optimizer.opt_state)
    assert eager["adamw.learning_rate"] == pytest.approx(0.09)


# -- monitor ---------------------------------------------------------------------------------------


def test_a_measure_may_ask_for_the_params() -> None:
    def ratio(updates: Any, params: Any) -> Any:
        return gradtx.global_norm(updates) / gradtx.global_norm(params)

    smooth = gradtx.measure_with_ema(ratio, 0.5)
    tx = gradtx.monitor({"ratio": ratio, "smooth": smooth, "norm": lambda params: norm(params)})
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    expected = norm(GRADS) / norm(PARAMS)
    for name in ("ratio", "smooth"):
        assert state.measurements[name] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="ratio asks for params: call update"):
        tx.update(GRADS, state)
