"""What an author writes: what a rule may ask for, what it returns, what it is refused."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import Count, Rule, Updates
from gradtx.core.counts import increment

PARAMS = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
GRADS = {"w": jnp.array([10.0, 20.0]), "b": jnp.array(30.0)}


def run(tx: Any, steps: int = 1, params: Any = PARAMS, **extra: Any) -> list[Any]:
    """The updates of some steps on constant gradients; the last element is the state."""
    state, seen = tx.init(PARAMS), []
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, params, **extra)
        seen.append(updates)
    return [*seen, state]


# -- names ---------------------------------------------------------------------------------------


def test_update_may_ask_for_each_input_in_any_order() -> None:
    @gradtx.per_leaf
    def everything() -> Any:
        def update(step: Any, param: Any, precomputed: Any, state: Any, grad: Any) -> Any:
            return grad + param + precomputed + state + step.count, state + 1000

        return Rule(gradtx.zeros_like, update, lambda updates: updates["b"] * 100)

    first, second, state = run(everything(), 2)
    np.testing.assert_array_equal(first["w"], GRADS["w"] + PARAMS["w"] + 3000 + 1)
    np.testing.assert_array_equal(second["b"], 30 + 3 + 3000 + 1000 + 2)
    assert state.count == 2


def test_a_whole_tree_may_be_asked_for_in_any_order() -> None:
    @gradtx.per_tree
    def everything(factor: gradtx.Real = 2.0) -> Any:
        def update(step: Any, state: Any, params: Any, updates: Any, *, value: Any) -> Any:
            total = updates["b"] + params["b"] + state.total + value
            u = jax.tree.map(lambda x: factor * step.count * jnp.full_like(x, total), updates)
            return u, Total(total)

        return Rule(lambda params: Total(params["b"] * 0), update)

    class Total(NamedTuple):
        total: Any

    first, second, state = run(everything(), 2, value=1000)
    assert first["w"].tolist() == [2 * 1033.0] * 2
    assert second["b"] == 2 * 2 * (1033 + 1033)
    assert (state.count, state.inner_state.total) == (2, 2066)


@pytest.mark.parametrize(
    ("decorator", "rule", "message"),
    [
        (gradtx.per_leaf, lambda: lambda gradient: gradient,
         "bad: update asks for 'gradient'; it may ask for grad, state, param, step, precomputed, "
         "leaf, "
         "and for extra arguments as keyword-only names"),
        (gradtx.per_leaf, lambda: lambda updates: updates,
         "bad: update asks for 'updates'; it may ask for grad, state, param, step, precomputed, "
         "leaf, "
         "and for extra arguments as keyword-only names"),
        (gradtx.per_leaf, lambda: lambda *args: args[0],
         "bad: update asks for '*args'; it may ask for grad, state, param, step, precomputed, "
         "leaf, "
         "and for extra arguments as keyword-only names"),
        (gradtx.per_leaf, lambda: Rule(lambda grad: grad, lambda grad, state: (grad, state)),
         "bad: init asks for 'grad'; it may ask for param, step, leaf, "
         "and for extra arguments as keyword-only names"),
        (gradtx.per_leaf, lambda: Rule(None, lambda grad, precomputed: grad, lambda grads: grads),
         "bad: precompute asks for 'grads'; it may ask for updates, params, step, "
         "and for extra arguments as keyword-only names"),
        (gradtx.per_tree, lambda: lambda grad: grad,
         "bad: update asks for 'grad'; it may ask for updates, needed, unwidened, state, params, "
         "step, and for extra arguments as keyword-only names"),
        (gradtx.per_leaf, lambda: 3,
         "bad must return a Rule(init, update) or an update function, got int"),
        (gradtx.per_leaf, lambda: None,
         "bad must return a Rule(init, update) or an update function, got NoneType"),
    ],
)  # fmt: skip
def test_a_wrong_name_fails_at_decoration(decorator: Any, rule: Any, message: str) -> None:
    def bad() -> Any:
        return rule()

    with pytest.raises(TypeError) as caught:
        decorator(bad)
    assert str(caught.value) == message


def test_names_are_checked_with_numbers_that_have_no_default() -> None:
    def bad(rate: gradtx.Decay, *, flag: bool = False) -> Any:
        assert 0 <= rate < 1
        return lambda gradient: gradient

    with pytest.raises(TypeError, match="bad: update asks for 'gradient'"):
        gradtx.per_leaf(bad)


def test_names_are_checked_at_construction_where_an_example_is_not_known() -> None:
    @gradtx.per_leaf
    def late(kind: str) -> Any:
        return lambda gradient: gradient

    with pytest.raises(TypeError, match="late: update asks for 'gradient'"):
        late("x")


# -- states --------------------------------------------------------------------------------------


def test_a_bare_update_function_keeps_no_state() -> None:
    @gradtx.per_leaf
    def double() -> Any:
        return lambda grad: 2 * grad

    updates, state = run(double())
    assert updates["b"] == 60
    assert state == gradtx.EmptyState()
    assert jax.tree.leaves(state) == []


def test_a_bare_array_may_be_the_state_of_a_leaf() -> None:
    @gradtx.per_leaf
    def summed() -> Any:
        def update(grad: Any, state: Any) -> Any:
            return state + grad, state + grad

        return Rule(gradtx.zeros_like, update)

    _, second, state = run(summed(), 2)
    assert second["w"].tolist() == [20, 40]
    assert isinstance(state, gradtx.LeafState)
    assert state.state["b"] == 60


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda a, b: (a, b), lambda s: s),
        (lambda a, b: [a, b], lambda s: s),
        (lambda a, b: {"a": a, "b": b}, lambda s: (s["a"], s["b"])),
    ],
    ids=["tuple", "list", "dict"],
)
def test_any_small_tree_may_be_the_state_of_a_leaf(pack: Any, unpack: Any) -> None:
    @gradtx.per_leaf
    def two() -> Any:
        def update(grad: Any, state: Any) -> Any:
            a, b = unpack(state)
            return a + b + grad, pack(a + grad, b - grad)

        return Rule(lambda param: pack(jnp.zeros_like(param), jnp.ones_like(param)), update)

    first, second, state = run(two(), 2)
    assert first["b"] == 31
    assert second["b"] == 31
    assert [float(x) for x in unpack(state.state["b"])] == [60, -59]


class Mean(NamedTuple):
    mean: Updates


class CountedMean(NamedTuple):
    count: Count
    mean: Updates


def mean_rule(state_class: type) -> Any:
    """A rule that needs the step and keeps a running mean."""

    def mean() -> Any:
        def make(mean: Any, step: Any) -> Any:
            return state_class(*([step.count] if state_class is CountedMean else []), mean)

        def init(param: Any, step: Any) -> Any:
            return make(jnp.zeros_like(param), step)

        def update(grad: Any, state: Any, step: Any) -> Any:
            new = state.mean + (grad * step.count - state.mean) / step.count
            return new, make(new, step)

        return Rule(init, update)

    return gradtx.per_leaf(mean)()


def test_a_count_in_the_state_is_kept_once_a_tree() -> None:
    tx = mean_rule(CountedMean)
    assert tx.init(PARAMS) == CountedMean(0, {"w": pytest.approx([0, 0]), "b": 0})
    *_, state = run(tx, 3)
    assert state.count == 3
    assert state.count.dtype == jnp.int32
    assert state.count.shape == ()
    assert state.mean["b"] == 60  # the mean of 30, 60, 90


def test_a_count_goes_up_in_the_state_of_a_rule_that_does_not_ask_for_the_step() -> None:
    def mean() -> Any:
        def update(grad: Any, state: CountedMean) -> Any:
            return grad, state._replace(mean=grad)

        return Rule(lambda param: CountedMean(None, gradtx.zeros_like(param)), update)

    def tree_mean() -> Any:
        def update(updates: Any, state: CountedMean) -> Any:
            return updates, state._replace(mean=updates)

        return Rule(lambda params: CountedMean(None, params), update)

    for tx in (gradtx.per_leaf(mean)(), gradtx.per_tree(tree_mean)(), gradtx.scale_by_lion()):
        assert tx.init(PARAMS).count == 0
        *_, state = run(tx, 3)
        assert state.count == 3


def test_a_count_is_put_beside_a_state_that_has_none() -> None:
    *_, state = run(mean_rule(Mean), 3)
    assert isinstance(state, gradtx.ScheduledState)
    assert state.count == 3
    assert state.inner_state.mean["b"] == 60


def test_a_rule_that_needs_only_the_step_keeps_only_the_step() -> None:
    @gradtx.per_leaf
    def by_step() -> Any:
        return lambda grad, step: step.count * grad

    *updates, state = run(by_step(), 3)
    assert [float(u["b"]) for u in updates] == [30, 60, 90]
    assert isinstance(state, gradtx.ScaleByScheduleState)
    assert state.count == 3


def test_a_schedule_adds_a_count_and_sees_the_number_of_updates_before() -> None:
    @gradtx.per_leaf
    def power(exponent: gradtx.Real) -> Any:
        return Rule(gradtx.zeros_like, lambda grad, state: (exponent + 0 * grad, state))

    plain = power(2.0).init(PARAMS)
    assert isinstance(plain, gradtx.LeafState)
    *updates, state = run(power(lambda step: 10 * step), 3)
    assert [float(u["b"]) for u in updates] == [0, 10, 20]
    assert isinstance(state, gradtx.ScheduledState)
    assert state.count == 3


def test_init_sees_the_numbers_and_the_param_in_float32() -> None:
    seen = []

    @gradtx.per_leaf
    def from_params(factor: gradtx.Real = 2.0) -> Any:
        def init(param: Any, step: Any) -> Any:
            seen.append((param.dtype, step.count))
            return factor * param

        return Rule(init, lambda grad, state: (grad, state))

    state = from_params(3.0).init({"w": jnp.ones(2, jnp.bfloat16)})
    assert state.state["w"].tolist() == [3, 3]
    assert state.state["w"].dtype == jnp.float32
    assert seen[-1] == (jnp.float32, 0)
    scheduled = from_params(gradtx.linear_schedule(5.0, 0.0, 10))
    assert scheduled.init(PARAMS).inner_state.state["b"] == 15


def test_the_count_stays_at_the_largest_integer() -> None:
    top = np.iinfo(np.int32).max
    assert increment(jnp.int32(top - 1)) == top
    assert increment(jnp.int32(top)) == top
    tx = gradtx.scale_by_adam()
    state = tx.init(PARAMS)._replace(count=jnp.int32(top))
    updates, state = tx.update(GRADS, state)
    assert state.count == top
    assert np.isfinite(updates["w"]).all()


def test_debias_divides_by_what_a_running_mean_has_gathered() -> None:
    step = gradtx.Step(jnp.int32(3))
    for decay in (0.0, 0.5, 0.9, 0.9999999):
        exact = 1 / (1 - decay**3)
        for given in (decay, jnp.float32(decay)):
            got = step.debias(jnp.float32(1.0), given)
            want = exact if given is decay else 1 / (1 - float(given) ** 3)
            np.testing.assert_allclose(got, want, rtol=5e-7)
    assert step.next.count == 4
    slope = jax.grad(lambda d: step.debias(jnp.float32(1.0), d))(0.0)
    assert np.isfinite(slope)


@pytest.mark.parametrize("nothing", [None, (), {}])
def test_a_rule_without_state_takes_any_empty_one_and_returns_it(nothing: Any) -> None:
    decay = gradtx.stateless(lambda updates, params: updates)
    for tx in (gradtx.clip(1.0), gradtx.clip_by_global_norm(1.0), decay):
        updates, state = tx.update(GRADS, nothing, PARAMS)
        assert state == nothing
        assert updates["b"].shape == PARAMS["b"].shape
    with pytest.raises(
        ValueError, match=r"trace: the state is None, not the TraceState\(trace\) of trace"
    ):
        gradtx.trace(0.9).update(GRADS, None)


# -- precompute ----------------------------------------------------------------------------------


def test_precompute_runs_once_a_tree_on_the_selected_leaves() -> None:
    seen = []

    @gradtx.per_leaf
    def share(power: gradtx.Real = 1.0) -> Any:
        def precompute(updates: Any, params: Any) -> Any:
            seen.append((jax.tree.structure(updates), jax.tree.structure(params)))
            return {"total": sum(jnp.sum(u) for u in jax.tree.leaves(updates)) ** power}

        return Rule(None, lambda grad, precomputed: grad / precomputed["total"], precompute)

    updates, _ = run(share())
    assert updates["b"] == 0.5
    assert updates["w"].sum() == 0.5
    assert len(seen) == 1
    (masked, _) = run(gradtx.masked(share(), {"w": True, "b": False}))
    np.testing.assert_allclose(masked["w"], [1 / 3, 2 / 3], rtol=1e-6)
    assert masked["b"] == 30
    hidden = jax.tree.structure({"w": 0, "b": gradtx.MaskedNode()})
    assert seen[-1] == (hidden, hidden)


def test_precompute_sees_the_updates_that_the_links_before_it_made() -> None:
    tx = gradtx.chain(gradtx.scale(2.0), gradtx.clip_by_global_norm(1.0), gradtx.scale(3.0))
    updates, _ = run(tx)
    np.testing.assert_allclose(gradtx.global_norm(updates), 3.0, rtol=1e-6)


# -- params and extra arguments ------------------------------------------------------------------


def test_params_that_are_asked_for_are_needed() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(gradtx.add_decayed_weights(0.5), params=None)
    assert str(caught.value) == (
        "add_decayed_weights(weight_decay=0.5, mask=None, cautious=False) needs the parameters: "
        "call update(grads, state, params)"
    )


def test_params_may_be_optional() -> None:
    @gradtx.per_leaf
    def pulled() -> Any:
        return lambda grad, param=None: grad if param is None else grad + param

    assert run(pulled())[0]["b"] == 33
    assert run(pulled(), params=None)[0]["b"] == 30


@pytest.fixture
def by_loss() -> Any:
    @gradtx.per_leaf
    def scale_by_loss(factor: gradtx.Real = 1.0) -> Any:
        def update(grad: Any, *, loss: Any, temperature: Any = 1.0) -> Any:
            return factor * grad * loss / temperature

        return update

    return scale_by_loss


def test_an_extra_argument_is_given_by_name(by_loss: Any) -> None:
    tx = gradtx.chain(by_loss(2.0), gradtx.trace(0.9), gradtx.scale(-1.0))
    assert run(tx, loss=3.0)[0]["b"] == -180
    assert run(tx, loss=jnp.float32(3.0), temperature=2.0)[0]["b"] == -90
    assert run(tx, loss=3.0, unheard_of="anything")[0]["b"] == -180
    jitted = jax.jit(lambda loss: run(tx, loss=loss)[0]["b"])
    assert jitted(3.0) == -180


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: gradtx.chain(gradtx.clip(1.0), tx)])
def test_an_extra_argument_that_is_missing_is_named(by_loss: Any, wrap: Any) -> None:
    with pytest.raises(TypeError) as caught:
        run(wrap(by_loss()), temperature=1.0)
    assert str(caught.value) == (
        "scale_by_loss(factor=1.0) needs loss: call update(grads, state, params, loss=...)"
    )


def test_all_extra_arguments_may_be_asked_for() -> None:
    @gradtx.per_leaf
    def total() -> Any:
        return lambda grad, **extra: grad + sum(extra.values())

    assert run(total())[0]["b"] == 30
    assert run(total(), a=1.0, b=jnp.float32(2.0))[0]["b"] == 33


def test_extra_arguments_may_be_named_like_inputs_of_the_other_kind() -> None:
    @gradtx.per_tree
    def search() -> Any:
        def update(updates: Any, *, value: Any, grad: Any) -> Any:
            return jax.tree.map(lambda u, g: u + g + value, updates, grad)

        return update

    assert run(search(), value=1.0, grad=GRADS)[0]["b"] == 61


def test_several_missing_arguments_are_named() -> None:
    @gradtx.per_tree
    def search() -> Any:
        def update(updates: Any, *, value: Any, grad: Any) -> Any:
            return updates

        return update

    with pytest.raises(TypeError) as caught:
        run(search())
    assert str(caught.value) == (
        "search() needs grad, value: call update(grads, state, params, grad=..., value=...)"
    )


# -- what a rule gets wrong ----------------------------------------------------------------------


def broken(rule: Any) -> Any:
    @gradtx.per_leaf
    def broken() -> Any:
        return rule

    return broken()


def test_an_error_in_a_rule_names_the_leaf() -> None:
    def update(grad: Any) -> Any:
        if grad.ndim == 1:
            raise ValueError("no vectors here")
        return grad

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(broken(update))
    assert str(caught.value) == ("broken: at w: no vectors here (updates float32[2], state: none)")


def test_a_rule_must_keep_the_shape_of_the_updates() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(broken(lambda grad: jnp.sum(grad)))
    assert str(caught.value) == (
        "broken: at w: updates of shape (2,) became ()"
        "; was the state made by init on params of these shapes?"
    )


def test_a_rule_must_keep_the_shape_of_its_state() -> None:
    rule = Rule(gradtx.zeros_like, lambda grad, state: (grad, jnp.sum(state)))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(broken(rule))
    assert str(caught.value) == (
        "broken: at w: updates float32[2] do not fit the state float32[2]"
        "; was the state made by init on params of these shapes?"
    )


def test_a_tree_rule_must_keep_the_shape_of_its_state() -> None:
    @gradtx.per_tree
    def broken(how: str = "shape") -> Any:
        def update(updates: Any, state: Any) -> Any:
            return updates, Mean(jnp.zeros(2)) if how == "shape" else Mean({"new": state.mean})

        return Rule(lambda params: Mean(jnp.zeros(3)), update)

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(broken())
    assert str(caught.value) == "broken: the state.mean changed its shape from (3,) to (2,)"
    with pytest.raises(ValueError, match="broken: the new state has another structure than the o"):
        run(broken("structure"))


def test_a_tree_rule_must_keep_the_tree() -> None:
    @gradtx.per_tree
    def broken(how: str = "shape") -> Any:
        if how == "shape":
            return lambda updates: updates | {"w": updates["b"]}
        return lambda updates: {"w": updates["w"]}

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run(broken())
    assert str(caught.value) == "broken: at w: updates float32[2] became float32[]"
    with pytest.raises(ValueError, match="broken: what it returned and the updates differ in stru"):
        run(broken("structure"))


def test_a_rule_with_a_state_must_return_two_things() -> None:
    with pytest.raises(Exception, match="broken"):
        run(broken(Rule(gradtx.zeros_like, lambda grad, state: grad)))


def test_a_rule_without_a_state_must_return_one_thing() -> None:
    with pytest.raises(Exception, match="broken"):
        run(broken(lambda grad: (grad, grad)))


# -- functions of any signature ------------------------------------------------------------------


@gradtx.per_leaf
def with_options(rate: gradtx.NonNegative = 0.1, **options: Any) -> Any:
    return lambda grad: -rate * grad * options.get("times", 1)


@gradtx.per_tree
def with_options_of_trees(rate: gradtx.NonNegative = 0.1, **options: Any) -> Any:
    return lambda updates: jax.tree.map(lambda g: -rate * g * options.get("times", 1), updates)


@gradtx.per_leaf
def by_position(rate: gradtx.NonNegative, /) -> Any:
    return lambda grad: -rate * grad


@pytest.mark.parametrize(
    "tx", [with_options(0.2, times=3), with_options_of_trees(0.2, times=3), by_position(0.6)]
)
def test_no_argument_is_lost(tx: Any) -> None:
    updates, _ = tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}))
    np.testing.assert_allclose(updates["w"], [-0.6, -0.6], rtol=1e-6)


def test_an_option_is_what_it_was_at_every_step() -> None:
    @gradtx.per_tree
    def growing(factors: Any) -> Any:
        factors.append(2 * factors[-1])
        return lambda updates: jax.tree.map(lambda u: u * factors[-1], updates)

    tx, params = growing([3]), {"w": jnp.ones(2)}
    for _ in range(3):
        updates, _ = tx.update(params, tx.init(params))
        assert updates["w"][0] == 6


@pytest.mark.parametrize("rate", [0.1, lambda step: 0.1])
def test_a_rule_may_keep_an_empty_state(rate: Any) -> None:
    @gradtx.per_leaf
    def downhill(rate: gradtx.NonNegative) -> Any:
        def init(param: Any) -> gradtx.EmptyState:
            return gradtx.EmptyState()

        return Rule(init, lambda grad, state: (-rate * grad, state))

    tx, params = downhill(rate), {"w": jnp.ones(2)}
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state)
    np.testing.assert_allclose(updates["w"], [-0.1, -0.1], rtol=1e-6)


class CountedState(NamedTuple):
    """A count and a moment."""

    count: gradtx.Count
    moment: Any


HANDED: dict[str, Any] = {
    "a select": lambda new, old: jax.tree.map(lambda a, b: jnp.where(a > 0, a, b), new, old),
    "jit": lambda new, old: jax.jit(lambda s: s)(new),
    "checkpoint": lambda new, old: jax.checkpoint(lambda s: s)(new),
}


@pytest.mark.parametrize("how", HANDED)
@pytest.mark.parametrize("decorator", [gradtx.per_leaf, gradtx.per_tree])
def test_a_count_may_be_handed_through(decorator: Any, how: str) -> None:
    def update(updates: Any, state: Any) -> Any:
        return updates, HANDED[how](state._replace(moment=updates), state)

    def of_leaf(grad: Any, state: Any) -> Any:
        return update(grad, state)

    def of_leaf_init(param: Any) -> CountedState:
        return CountedState(None, param)

    def of_tree_init(params: Any, step: Any) -> CountedState:
        return CountedState(step.count, jax.tree.map(jnp.copy, params))

    @decorator
    def kept() -> Any:
        leaf = decorator is gradtx.per_leaf
        return Rule(of_leaf_init, of_leaf) if leaf else Rule(of_tree_init, update)

    tx, params = kept(), {"w": jnp.ones(2)}
    state = tx.init(params)
    for i in (1, 2):
        _, state = jax.jit(tx.update)(params, state)
        assert state.count == i
    _, state = tx.update(params, state)
    assert state.count == 3


def test_extra_arguments_that_a_rule_does_not_ask_for_are_not_looked_at() -> None:
    @gradtx.per_tree
    def plain() -> Any:
        return lambda updates: updates

    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = gradtx.masked(plain(), "a")
    updates, _ = tx.update(params, tx.init(params), params, grad=jnp.ones(7))
    np.testing.assert_array_equal(updates["a"], params["a"])
    up = gradtx.maximize(plain())
    updates, _ = up.update(params, up.init(params), params, value="abc")
    np.testing.assert_array_equal(updates["a"], -params["a"])


@pytest.mark.parametrize("kept", [lambda p: {"m": p}, lambda p: [p], lambda p: p["w"]])
def test_a_rule_of_trees_may_keep_any_tree(kept: Any) -> None:
    @gradtx.per_tree
    def summed() -> Any:
        def update(updates: Any, state: Any, step: Any) -> Any:
            return updates, jax.tree.map(lambda x: x + step.count, state)

        return Rule(lambda params: kept(params), update)

    params, tx = {"w": jnp.zeros(2)}, summed()
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state)
    assert jax.tree.leaves(state.inner_state)[0][0] == 3


def test_a_second_count_may_be_of_another_width() -> None:
    tx, params = gradtx.scale_by_ademamix(), jnp.ones(3)
    _, state = tx.update(params, tx.init(params), params)
    for one in (np.array(1, np.int64), 1):  # as checkpoints give them back
        _, new = tx.update(params, state._replace(count=jnp.int32(1), count_m2=one), params)
        assert new.count_m2 == new.count == 2


def test_a_state_class_may_have_annotations_for_type_checkers_only() -> None:
    class Kept(NamedTuple):
        count: gradtx.Count
        mean: "OnlyForTypeCheckers"  # type: ignore[name-defined]  # noqa: F821

    @gradtx.per_leaf
    def kept() -> Any:
        def init(param: Any) -> Kept:
            return Kept(None, param)

        return Rule(init, lambda grad, state, step: (grad * step.count, state))

    params = {"w": jnp.ones(2)}
    tx = kept()
    updates, state = tx.update(params, tx.init(params))
    assert state.count == updates["w"][0] == 1


def test_a_wrong_count_is_found_in_its_link() -> None:
    params = {"w": jnp.ones(2)}
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale_by_adam())
    first, adam = tx.init(params)
    for count in (None, jnp.float32(1)):
        with pytest.raises(ValueError, match=r"chain: the state at \[1\] is ScaleByAdamState"):
            tx.update(params, (first, adam._replace(count=count)))
