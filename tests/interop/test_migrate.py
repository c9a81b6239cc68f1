"""A run whose optimizer is changed in the middle: against one that was not, and against Optax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import migrate

from .running import assert_equal, begun, grads, params, run

CONSTANT = gradtx.constant_schedule(1e-2)
ADAMW = gradtx.adamw(1e-2, weight_decay=0.1)
SCHEDULED = gradtx.adamw(CONSTANT, weight_decay=0.1)
GROUPS = {"bias": ADAMW, ".*": ADAMW}
MASKED = [gradtx.masked(gradtx.trace(d), p) for d, p in ((0.9, "bias"), (0.8, "kernel|head"))]
INT8 = gradtx.store(ADAMW, "int8", min_size=1)

# Pairs that do the same, however differently they keep it.
NEUTRAL = {
    "a number that becomes a schedule": (ADAMW, SCHEDULED),
    "a second schedule": (SCHEDULED, SCHEDULED.replace(weight_decay=gradtx.constant_schedule(0.1))),
    "of momentum": (
        gradtx.adam(CONSTANT, b1=0.9),
        gradtx.adam(CONSTANT, b1=gradtx.constant_schedule(0.9)),
    ),
    "a trace beside a count": (
        gradtx.sgd(CONSTANT, momentum=0.9),
        gradtx.sgd(CONSTANT, momentum=gradtx.constant_schedule(0.9)),
    ),
    "accumulation": (ADAMW, gradtx.accumulate(ADAMW, 1)),
    "accumulation as Optax": (ADAMW, gradtx.multi_steps(ADAMW, 1)),
    "a guard": (SCHEDULED, gradtx.finite_guard(SCHEDULED)),
    "guard in guard": (gradtx.apply_if_finite(ADAMW, 3), gradtx.finite_guard(SCHEDULED)),
    "groups": (SCHEDULED, gradtx.partition(dict.fromkeys(GROUPS, SCHEDULED))),
    "other groups": (gradtx.partition(GROUPS), gradtx.partition({"head": ADAMW, ".*": ADAMW})),
    "a mask": (ADAMW, gradtx.masked(ADAMW, True)),
    "a link before": (ADAMW, gradtx.chain(gradtx.clip(1e9), ADAMW)),
    "a link with moments before": (
        gradtx.sgd(1e-2, momentum=0.9),
        gradtx.chain(gradtx.trace(0.0), gradtx.trace(0.9), gradtx.scale(-1e-2)),
    ),
    "links moved": (
        gradtx.chain(MASKED[0], MASKED[1], gradtx.scale(-1e-2)),
        gradtx.chain(gradtx.clip(1e9), MASKED[1], MASKED[0], gradtx.scale(-1e-2)),
    ),
    "names": (ADAMW, gradtx.named_chain(("decay", ADAMW), ("clip", gradtx.clip(1e9)))),
    "wrappers of wrappers": (
        gradtx.chain(gradtx.accumulate(ADAMW, 1), gradtx.clip(1e9)),
        gradtx.finite_guard(gradtx.partition({"head": SCHEDULED, ".*": gradtx.chain(ADAMW)})),
    ),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_change_of_form_changes_nothing(name: str) -> None:
    """In either direction, with and without the transformation that made the state."""
    for old, new in (NEUTRAL[name], NEUTRAL[name][::-1]):
        tree, state = begun(old)
        expected, _ = run(old, state, tree, range(3, 6))
        moved, report = migrate(state, to=new, params=tree, from_=old)
        got, last = run(new, moved, tree, range(3, 6))
        assert_equal(got, expected)
        fresh = new.init(tree)
        assert_equal(jax.tree.map(jnp.zeros_like, last), jax.tree.map(jnp.zeros_like, fresh))
        assert not any(x.note == "there was no count" for x in report.fresh)
        if "moments" not in name:  # two of a kind
            assert_equal(migrate(state, to=new, params=tree)[0], moved)


def test_what_is_stored_goes_on_with_the_same_codes() -> None:
    """And with the same random bits, which depend on the step and on the path inside store."""
    stored = gradtx.store(gradtx.scale_by_momentum(0.9), "bfloat16", min_size=1)
    tx, tree = gradtx.finite_guard(stored), {"w": params()["head"]}
    tree, state = begun(stored, 2, tree)
    moved, _ = migrate(state, to=tx, params=tree)
    assert_equal(moved.inner_state, state)
    expected, last = run(stored, state, tree, range(2, 4))
    got, moved = run(tx, moved, tree, range(2, 4))
    assert_equal(got, expected, 1e-6)  # the guard compiles what is inside as one
    assert_equal(migrate(moved, to=stored, params=tree)[0], last, 1e-2)


def test_master_weights_start_at_the_params_and_moments_go_on() -> None:
    tree = params() | {"head": params(jnp.bfloat16)["head"]}
    tree, state = begun(ADAMW, tree=tree)
    expected, _ = run(ADAMW, state, tree, range(3, 5))
    tx = gradtx.master_weights(ADAMW)
    moved, _ = migrate(state, to=tx, params=tree)
    assert_equal(moved.inner_state, state)
    assert_equal(moved.master["head"], tree["head"].astype(np.float32))
    got, moved = run(tx, moved, tree, range(3, 5))
    assert_equal(got["dense"], expected["dense"])
    back, report = migrate(moved, to=ADAMW, params=got)
    assert_equal(back, moved.inner_state)
    assert {(x.place, x.leaf) for x in report.dropped} == {(".master", "head")}


def test_numbers_in_the_state() -> None:
    tree, state = begun(ADAMW)
    tx = gradtx.inject_hyperparams(gradtx.adamw)(CONSTANT, weight_decay=0.1)
    moved, _ = migrate(state, to=tx, params=tree)
    assert moved.count == moved.hyperparams_states["learning_rate"].count == 3
    expected, _ = run(ADAMW, state, tree, range(3, 5))
    got, moved = run(tx, moved, tree, range(3, 5))
    assert_equal(got, expected, 1e-6)
    back, _ = migrate(moved, to=SCHEDULED, params=tree, from_=tx)
    assert back[0].count == back[2].count == 5


# -- against Optax, in float64 ---------------------------------------------------------------------


def assert_goes_on_like_optax(
    start: Any,
    old: Any,
    new: Any,
    theirs: Any,
    surgery: Any,
    after: Any = lambda tree: tree,
    **how: Any,
) -> None:
    """From a run of `start` (gradtx) or `old` (Optax), `new` goes on as `theirs` does from the
    state that `surgery` makes of Optax's."""
    tree, optaxs = begun(old, tree=params(np.float64))
    mine, state = begun(start, tree=params(np.float64))
    assert_equal(mine, tree, 1e-12)
    tree = after(tree)
    expected, _ = run(theirs, surgery(optaxs), tree, range(3, 7))
    for before in (state, optaxs):
        moved, _ = migrate(before, to=new, params=tree, **how)
        assert_equal(run(new, moved, tree, range(3, 7))[0], expected, 1e-12)


@pytest.mark.usefixtures("x64")
def test_a_number_that_becomes_a_schedule() -> None:
    lib = {x: x.cosine_decay_schedule(1e-2, 8) for x in (gradtx, optax)}
    assert_goes_on_like_optax(
        gradtx.adamw(1e-2),
        optax.adamw(1e-2),
        gradtx.adamw(lib[gradtx]),
        optax.adamw(lib[optax]),
        lambda s: (s[0], s[1], optax.ScaleByScheduleState(jnp.asarray(3, np.int32))),
    )


@pytest.mark.usefixtures("x64")
def test_from_adamw_to_momentum() -> None:
    """The moments of one are not those of the other; the schedule goes on."""
    lib = {x: x.cosine_decay_schedule(1e-2, 8) for x in (gradtx, optax)}
    theirs = optax.sgd(lib[optax], momentum=0.9)
    assert_goes_on_like_optax(
        gradtx.adamw(1e-2),
        optax.adamw(1e-2),
        gradtx.sgd(lib[gradtx], momentum=0.9),
        theirs,
        lambda s: (
            optax.TraceState(optax.tree.zeros_like(s[0].mu)),
            optax.ScaleByScheduleState(s[0].count),
        ),
    )


@pytest.mark.usefixtures("x64")
def test_from_adam_to_lion() -> None:
    """Lion's mean is of the gradient, as Adam's."""
    assert_goes_on_like_optax(
        gradtx.adam(1e-2),
        optax.adam(1e-2),
        gradtx.lion(1e-3),
        optax.lion(1e-3),
        lambda s: (optax.ScaleByLionState(s[0].count, s[0].mu), *optax.lion(1e-3).init({})[1:]),
    )


@pytest.mark.usefixtures("x64")
def test_from_adam_to_amsgrad() -> None:
    assert_goes_on_like_optax(
        gradtx.adam(1e-2),
        optax.adam(1e-2),
        gradtx.amsgrad(1e-2),
        optax.amsgrad(1e-2),
        lambda s: (
            optax.ScaleByAmsgradState(*s[0], optax.tree.zeros_like(s[0].nu)),
            optax.EmptyState(),
        ),
    )


@pytest.mark.usefixtures("x64")
def test_accumulation_around_an_optimizer() -> None:
    theirs = optax.MultiSteps(optax.adam(1e-2), 2, accumulator_dtype=np.float64)
    assert_goes_on_like_optax(
        gradtx.adam(1e-2),
        optax.adam(1e-2),
        gradtx.accumulate(gradtx.adam(1e-2), 2),
        theirs,
        lambda s: theirs.init(params(np.float64))._replace(inner_opt_state=s),
    )


@pytest.mark.usefixtures("x64")
def test_uphill_is_another_mean() -> None:
    """Inside maximize the moments are of the negative gradient."""
    uphill = gradtx.maximize(gradtx.adam(CONSTANT))
    tree, state = begun(gradtx.adam(CONSTANT), tree=params(np.float64))
    moved, _ = migrate(state, to=uphill, params=tree)
    assert not any(map(np.any, jax.tree.leaves(moved[1][0])))
    assert moved[1][1].count == 3
    tree, state = begun(uphill, tree=params(np.float64))
    assert_equal(migrate(state, to=gradtx.chain(uphill), params=tree)[0][0], state)


@pytest.mark.usefixtures("x64")
def test_leaves_that_come_and_go() -> None:
    def changed(tree: Any) -> Any:
        return {"dense": {"kernel": tree["dense"]["kernel"]}, "new": jnp.ones(3)}

    def surgery(s: Any) -> Any:
        mu, nu = ({**changed(x), "new": jnp.zeros(3)} for x in (s[0].mu, s[0].nu))
        return (optax.ScaleByAdamState(s[0].count, mu, nu), s[1])

    adam = gradtx.adam(1e-2), optax.adam(1e-2)
    assert_goes_on_like_optax(*adam, *adam, surgery, changed)


@pytest.mark.usefixtures("x64")
def test_leaves_with_new_names() -> None:
    def changed(tree: Any) -> Any:
        return {"layers": [tree["dense"]], "top": tree["head"]}

    def surgery(s: Any) -> Any:
        return (optax.ScaleByAdamState(s[0].count, changed(s[0].mu), changed(s[0].nu)), s[1])

    adam = gradtx.adam(1e-2), optax.adam(1e-2)
    names = {"dense": "layers/0", "(h)ead": r"top"}
    assert_goes_on_like_optax(*adam, *adam, surgery, changed, rename=names)


# -- formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "step"), [("bfloat16", 2**-7), ("bfloat16+8", 2**-15)])
def test_into_a_format_and_out_of_it(name: Any, step: float) -> None:
    tree, state = begun(ADAMW)
    tx = gradtx.store(ADAMW, name, min_size=1)
    moved, report = migrate(state, to=tx, params=tree)
    assert moved.count == 3
    assert {x.note for x in report.kept if x.leaf} == {f"float32 to {name}"}
    assert_equal(jax.tree.map(jnp.zeros_like, moved), jax.tree.map(jnp.zeros_like, tx.init(tree)))
    back, _ = migrate(moved, to=ADAMW, params=tree)
    for got, expected in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(got, expected, rtol=step)
    # Decoding is exact, so that there and back once more ends at the same numbers.
    assert_equal(migrate(migrate(back, to=tx, params=tree)[0], to=ADAMW, params=tree)[0], back)


def test_blocks_are_within_their_scale() -> None:
    """The code's steps are at most 1/16 of the magnitude above 1/64 of the block's largest."""
    tree = {"w": jnp.linspace(-1.0, 1.0, 600)}
    tx = gradtx.scale_by_adam()
    tree, state = begun(tx, tree=tree)
    moved, _ = migrate(state, to=gradtx.store(tx, "int8"), params=tree)
    assert moved.inner_state.mu["w"].shape == (600,)  # smaller than min_size: as it was
    small = gradtx.store(tx, "int8", min_size=1)
    moved, _ = migrate(state, to=small, params=tree)
    back, _ = migrate(moved, to=tx, params=tree)
    for got, expected in ((back.mu["w"], state.mu["w"]), (back.nu["w"], state.nu["w"])):
        assert np.max(np.abs(got - expected)) < 0.07 * np.max(np.abs(expected))
    again, report = migrate(moved, to=gradtx.store(tx, "int4", min_size=1), params=tree)
    assert again.inner_state.mu["w"].codes.shape == (300,)
    assert {x.note for x in report.kept if x.leaf} == {"int8 to int4"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_moment_in_another_dtype(dtype: str) -> None:
    tree, state = begun(gradtx.adam(1e-2))
    moved, report = migrate(state, to=gradtx.adam(1e-2, mu_dtype=dtype), params=tree)
    assert_equal(moved[0].mu, jax.tree.map(lambda x: x.astype(dtype), state[0].mu))
    assert ("float32 to bfloat16" in str(report)) == (dtype == "bfloat16")


# -- what starts afresh ----------------------------------------------------------------------------


def test_reset_of_a_group_is_a_run_of_its_own() -> None:
    tx = gradtx.partition({"head": SCHEDULED, ".*": SCHEDULED})
    tree, state = begun(tx)
    moved, report = migrate(state, to=tx, params=tree, reset="head")
    got, _ = run(tx, moved, tree, range(3, 6))
    expected, _ = run(tx, state, tree, range(3, 6))
    afresh, _ = run(SCHEDULED, SCHEDULED.init(tree), tree, range(3, 6))
    assert_equal(got, {"dense": expected["dense"], "head": afresh["head"]})
    assert {x.note for x in report.fresh} == {"reset"}
    assert all("'head'" in x.place for x in report.fresh)


def test_reset_of_some_leaves_leaves_the_counts() -> None:
    tree, state = begun(SCHEDULED)
    mask = {"dense": False, "head": True}
    for reset in ("head", gradtx.matching("^head$"), mask, lambda tree: mask):
        moved, _ = migrate(state, to=SCHEDULED, params=tree, reset=reset)
        assert moved[0].count == moved[2].count == 3
        assert not np.any(moved[0].mu["head"])
        assert_equal(moved[0].mu["dense"], state[0].mu["dense"])


def test_reset_of_all_is_a_first_state() -> None:
    for tx in (SCHEDULED, gradtx.finite_guard(gradtx.accumulate(ADAMW, 2)), gradtx.dog()):
        tree, state = begun(tx)
        moved, report = migrate(state, to=tx, params=tree, reset=".*")
        assert_equal(moved, tx.init(tree))
        assert report.kept == ()


def test_a_new_group_counts_from_the_start_and_its_schedule_goes_on() -> None:
    tree, state = begun(SCHEDULED)
    tree = tree | {"new": jnp.ones(2)}
    tx = gradtx.partition({"new": SCHEDULED, ".*": SCHEDULED})
    moved, _ = migrate(state, to=tx, params=tree)
    inside = {k: x.inner_state for k, x in moved.inner_states.items()}
    assert [inside["new"][0].count, inside[".*"][0].count] == [0, 3]
    assert [inside["new"][2].count, inside[".*"][2].count] == [3, 3]


def test_a_run_without_a_count_says_so() -> None:
    tree, state = begun(gradtx.sgd(0.1))
    moved, report = migrate(state, to=gradtx.sgd(CONSTANT), params=tree)
    assert moved[1].count == 0
    assert [x.note for x in report.fresh] == ["there was no count"]


# -- counts ----------------------------------------------------------------------------------------


def test_the_count_inside_accumulation_is_that_of_its_steps() -> None:
    tree, state = begun(gradtx.accumulate(ADAMW, 2), 6)
    old = gradtx.chain(gradtx.scale_by_schedule(CONSTANT), gradtx.accumulate(ADAMW, 2))
    assert migrate(state, to=SCHEDULED, params=tree)[0][2].count == 3
    tree, state = begun(old, 6)
    tx = gradtx.chain(gradtx.scale_by_schedule(CONSTANT), gradtx.accumulate(SCHEDULED, 2))
    moved, _ = migrate(state, to=tx, params=tree)
    assert moved[0].count == 6
    assert moved[1].inner_opt_state[2].count == 3


def test_a_schedule_that_began_before_the_moments_goes_on() -> None:
    tree, state = begun(gradtx.sgd(CONSTANT, momentum=0.9))
    state, _ = migrate(state, to=SCHEDULED, params=tree)
    tree, state = run(SCHEDULED, state, tree, range(3, 5))
    assert (state[0].count, state[2].count) == (2, 5)
    tx = gradtx.chain(gradtx.scale_by_schedule(CONSTANT), gradtx.partition({"": SCHEDULED}))
    moved, _ = migrate(state, to=tx, params=tree)
    inside = moved[1].inner_states[""].inner_state
    assert (moved[0].count, inside[0].count, inside[2].count) == (5, 2, 5)


def test_a_count_from_one() -> None:
    tx = gradtx.schedule_free_adamw(1e-2)
    tree, state = begun(tx)
    state = state._replace(base_optimizer_state=())
    assert state.step_count == 4
    assert migrate(state, to=gradtx.sgd(CONSTANT), params=tree)[0][1].count == 3


# -- trees -----------------------------------------------------------------------------------------


def test_absent_leaves_one_array_and_none() -> None:
    for tree in ({"a": jnp.ones(2), "b": None}, jnp.ones(2), jnp.float32(1.0), {}):
        tree, state = begun(ADAMW, tree=tree)
        moved, _ = migrate(state, to=gradtx.accumulate(SCHEDULED, 1), params=tree)
        assert_equal(moved.inner_opt_state[:2], state[:2])


def test_named_tuples_of_parameters() -> None:
    class Layer(NamedTuple):
        kernel: Any
        count: Any  # type: ignore[assignment]

    tree = {"a": Layer(jnp.ones(2), jnp.ones(3))}
    tree, state = begun(ADAMW, tree=tree)
    moved, report = migrate(state, to=gradtx.chain(gradtx.trace(0.9), ADAMW), params=tree)
    assert_equal(moved[1], state)
    assert {x.leaf for x in report.fresh} == {"a/kernel", "a/count"}


def test_a_leaf_of_another_shape_starts_afresh() -> None:
    tree, state = begun(ADAMW)
    tree = tree | {"head": jnp.ones(9)}
    moved, report = migrate(state, to=ADAMW, params=tree)
    assert_equal(moved[0].mu, state[0].mu | {"head": jnp.zeros(9)})
    assert {x.note for x in report.fresh} == {"was float32[4], is float32[9]"}
    assert {x.leaf for x in report.dropped} == {"head"}


# -- under jit, on a mesh --------------------------------------------------------------------------


def test_in_a_jitted_function_that_takes_the_buffers() -> None:
    tx = gradtx.partition({"head": SCHEDULED, ".*": SCHEDULED})
    tree, state = begun(ADAMW)
    expected, report = migrate(jax.tree.map(jnp.copy, state), to=tx, params=tree)
    moving = jax.jit(lambda s, p: migrate(s, to=tx, params=p), donate_argnums=0)
    before = state[0].mu["head"]
    got, compiled = moving(state, tree)
    assert before.is_deleted()
    assert_equal(got, expected)
    assert (compiled, str(compiled), hash(compiled)) == (report, str(report), hash(report))
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(got)]
    assert len({*pointers}) == len(pointers)

    @jax.jit
    def step(state: Any) -> Any:
        return tx.update(grads(0, tree), state, tree)[1]

    step(step(got))
    step(tx.init(tree))
    assert step._cache_size() == 1


def test_an_array_that_stays_as_it_is_is_not_copied() -> None:
    tree, state = begun(ADAMW)
    moved, _ = migrate(state, to=gradtx.finite_guard(SCHEDULED), params=tree)
    assert moved.inner_state[0].mu["head"] is state[0].mu["head"]
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(moved)]
    assert len({*pointers}) == len(pointers)


def test_shardings_are_kept() -> None:
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices")
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:8]), ("rows",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    tree = jax.device_put({"w": jnp.ones((16, 4)), "b": jnp.ones(8)}, spread)
    state = ADAMW.init(tree)
    tx = gradtx.store(
        gradtx.accumulate(SCHEDULED, 2), {"^nu": "int8", "mu|acc": "bfloat16"}, min_size=9
    )
    # What is on no device, on one only, on another mesh or divided otherwise goes where the params
    # are.
    other = jax.sharding.Mesh(mesh.devices.reshape(2, 4), ("data", "model"))
    places = (
        jax.devices()[1],
        jax.sharding.NamedSharding(other, jax.sharding.PartitionSpec()),
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    elsewhere = [jax.device_put(state, place) for place in places]
    for before in (state, jax.tree.map(np.asarray, state), *elsewhere):
        moved, _ = migrate(before, to=tx, params=tree)
        for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(tx.init(tree)), strict=True):
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
            assert x.sharding.mesh == mesh
    moved, _ = jax.jit(migrate, static_argnames="to")(state, to=SCHEDULED, params=tree)
    for x in jax.tree.leaves((moved[0].mu, moved[0].nu)):
        assert x.sharding.is_equivalent_to(spread, x.ndim)


def test_over_a_batch_of_runs() -> None:
    trees = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params())
    states = jax.vmap(ADAMW.init)(trees)
    moved, _ = jax.vmap(lambda s, p: migrate(s, to=SCHEDULED, params=p))(states, trees)
    assert_equal(moved[:2], states[:2])


# -- what is refused -------------------------------------------------------------------------------

TWO = gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5), gradtx.scale(-0.1))


def refused(state: Any, to: Any, tree: Any = None, **how: Any) -> str:
    with pytest.raises(ValueError, match=r"^migrate: ") as caught:
        migrate(state, to=to, params=params() if tree is None else tree, **how)
    return str(caught.value)


def test_one_of_two() -> None:
    state = TWO.init(params())
    assert refused(state, gradtx.chain(gradtx.trace(0.5))) == (
        "migrate: [0].trace['dense']['bias'] could continue [0].trace['dense']['bias'] or "
        "[1].trace['dense']['bias'] of the old state. Say what made the state (from_=), give the "
        "links names (named_chain), change one thing at a time, or migrate only the part of the "
        "state that is meant"
    )
    refused(state, gradtx.trace(0.7), from_=TWO)
    three = gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.7), gradtx.trace(0.8))
    refused(state, three, from_=TWO)
    tree, state = begun(TWO)
    moved, _ = migrate(state, to=gradtx.trace(0.5), params=tree, from_=TWO)
    assert_equal(moved, state[1])


def test_two_that_change_places() -> None:
    a, b, other = gradtx.trace(0.9), gradtx.trace(0.5), gradtx.clip(1.0)
    tree, state = begun(gradtx.chain(a, b))
    how: Any = {"params": tree, "from_": gradtx.chain(a, b)}
    assert_equal(migrate(state, to=gradtx.chain(b, other, a), **how)[0][::2], state[::-1])
    moved, _ = migrate(state, to=gradtx.chain(b, other, gradtx.trace(0.8)), **how)
    assert_equal(moved[::2], state[::-1])  # the other was left, whatever its number is now
    named = gradtx.named_chain(("a", a), ("b", b))
    tree, state = begun(named)
    moved, _ = migrate(state, to=gradtx.named_chain(("b", a), ("a", b)), params=tree, from_=named)
    assert_equal(moved, state)  # names come first


def test_guards_of_two_groups_are_not_one() -> None:
    guarded = gradtx.finite_guard(ADAMW)
    state = gradtx.partition({"head": guarded, ".*": guarded}).init(params())
    assert "the root (FiniteGuardState of" in refused(state, guarded)


def test_counts_that_differ() -> None:
    tx = gradtx.partition({"head": ADAMW, ".*": ADAMW})
    tree, state = begun(tx)
    state, _ = migrate(state, to=tx, params=tree, reset="head")
    said = refused(state, ADAMW, tree)
    assert said.startswith("migrate: [0].count would take over values that differ: ")
    assert ".inner_states['head'].inner_state[0].count 0" in said
    moved, _ = migrate(state, to=ADAMW, params=tree, reset="head")
    assert moved[0].count == 3


def test_rules_that_keep_arrays_without_a_name() -> None:
    def rule(name: str) -> Any:
        def init(param: jax.Array) -> jax.Array:
            return jnp.zeros_like(param)

        def update(grad: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
            return grad + state, grad

        def definition(scale: gradtx.Real = 1.0) -> gradtx.Rule:
            return gradtx.Rule(init, update)

        definition.__name__ = definition.__qualname__ = name
        return gradtx.per_leaf(definition)()

    one, other = rule("one"), rule("other")
    tree, state = begun(gradtx.chain(one, gradtx.scale(-0.1)))
    assert "does not say which rule made it" in refused(state, gradtx.chain(one))
    moved, _ = migrate(state, to=one, params=tree, from_=gradtx.chain(one, gradtx.scale(-0.1)))
    assert_equal(moved, state[0])
    moved, _ = migrate(state, to=other, params=tree, from_=gradtx.chain(one, gradtx.scale(-0.1)))
    assert not any(map(np.any, jax.tree.leaves(moved)))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rename": {"body": "trunk"}}, "rename: 'body' matches no path of the old state"),
        ({"rename": {"(": "x"}}, "rename: '(' is not a valid regular expression"),
        ({"reset": "tail"}, "reset: the pattern 'tail' matches no leaf; the paths are: dense/bias"),
        ({"from_": gradtx.lion(0.1)}, "from_ did not make the state, which at [0] is ScaleByAdam"),
        ({"from_": gradtx.adam(0.1)}, "which is a tuple of 3, not the tuple of 2 that chain"),
    ],
)
def test_what_does_not_fit(how: Any, said: str) -> None:
    assert said in refused(ADAMW.init(params()), ADAMW, **how)


def test_reset_of_what_has_no_state() -> None:
    tx = gradtx.selective_transform(ADAMW, freeze_mask="head")
    said = refused(tx.init(params()), tx, reset="head")
    assert (
        said == "migrate: reset: the state holds nothing of head; it is of dense/bias, dense/kernel"
    )


def test_transformations_only() -> None:
    with pytest.raises(TypeError, match="migrate: to must be a gradient transformation, got 3"):
        migrate((), to=3, params=params())


# -- the report ------------------------------------------------------------------------------------


REPORT = """\
         state                     leaves        from
kept     [1].count                               [2].count
kept     [1].inner_state[0].mu     encoder/bias  [0].mu     was dense/bias
kept     [1].inner_state[0].mu     head          [0].mu     float32 to bfloat16
kept     [1].inner_state[0].nu     encoder/bias  [0].nu     was dense/bias
kept     [1].inner_state[0].nu     head          [0].nu     float32 to bfloat16
kept     [1].inner_state[0].count                [0].count
fresh    [0].trace                 3 leaves                 new
fresh    [1].inner_state[0].mu     new                      was float32[3,2], is bfloat16[5]
fresh    [1].inner_state[0].nu     new                      was float32[3,2], is bfloat16[5]
dropped  [0].mu                    dense/kernel             was float32[3,2], is bfloat16[5]
dropped  [0].nu                    dense/kernel             was float32[3,2], is bfloat16[5]"""


def test_the_report() -> None:
    tree, state = begun(SCHEDULED)
    tree = {"encoder": {"bias": tree["dense"]["bias"]}, "head": tree["head"], "new": jnp.ones(5)}
    tx = gradtx.chain(gradtx.trace(0.9), gradtx.store(gradtx.adamw(0.1), "bfloat16", min_size=3))
    names = {"dense/kernel": "new", "dense": "encoder"}
    _, report = migrate(state, to=tx, params=tree, rename=names)
    assert str(report) == REPORT
    head = next(x for x in report.kept if x.leaf == "head")
    assert (head.place, head.source) == ("[1].inner_state[0].mu", "[0].mu")
    assert head.note == "float32 to bfloat16"


def test_a_leaf_that_starts_afresh_under_soap_runs_adam_until_the_bases_are_due() -> None:
    tx = gradtx.soap(1.0, 0.9, 0.99, weight_decay=0.0, precondition_frequency=10)
    tree = {"old": jnp.ones((2, 2)), "new": jnp.array([[0.5, -2.0], [3.0, 0.1]])}
    state = tx.init(tree)
    for _ in range(4):
        _, state = tx.update(tree, state, tree)
    state, _ = migrate(state, to=tx, params=tree, reset="new")
    updates, _ = tx.update(tree, state, tree)
    # The first gradient of it, with the bias of the four updates that SOAP has counted.
    size = (1 - 0.9) / (1 - 0.9**4) / np.sqrt((1 - 0.99) / (1 - 0.99**4))
    np.testing.assert_allclose(updates["new"], -size * np.sign(tree["new"]), 1e-4)
