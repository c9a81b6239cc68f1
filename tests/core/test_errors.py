"""Every error says what was wrong, where, and what to do: the texts themselves."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}, "scale": jnp.ones(())}
BOTH = "Both must be trees like the params that init was given, with None for an absent leaf"


def test_a_misspelt_argument_is_named_before_one_that_is_missing() -> None:
    with pytest.raises(TypeError, match=r"^scale: got an unexpected keyword argument 'step_siz'"):
        gradtx.scale(step_siz=1.0)


def test_a_state_of_other_shapes_is_asked_for() -> None:
    tx = gradtx.trace(0.9)
    with pytest.raises(ValueError, match=r"^trace: at w: .*was the state made by init on"):
        tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(3)}))


def error(call: Callable[[], Any]) -> str:
    """The kind and the text of the error that a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return f"{type(caught.value).__name__}: {caught.value}"


def update(tx: Any, updates: Any, params: Any = PARAMS, state: Any = None) -> Any:
    """One update with a state made for PARAMS."""
    return tx.update(updates, tx.init(PARAMS) if state is None else state, params)


def grads(**changes: Any) -> Any:
    """Updates that fit PARAMS, but for the changes to the dense layer."""
    dense = PARAMS["dense"] | changes
    return PARAMS | {"dense": {k: v for k, v in dense.items() if v is not ...}}


# -- structure -----------------------------------------------------------------------------------


def test_updates_of_another_structure_than_the_params() -> None:
    tx = gradtx.scale(1.0)
    assert error(lambda: update(tx, grads(bias=...))) == (
        "ValueError: scale: params and the updates differ in structure: "
        "dense/bias is in params only. " + BOTH
    )
    assert error(lambda: update(tx, grads(extra=jnp.ones(1)))) == (
        "ValueError: scale: params and the updates differ in structure: "
        "dense/extra is in the updates only. " + BOTH
    )
    renamed = error(lambda: update(tx, grads(bias=..., offset=jnp.ones(2))))
    assert "dense/offset is in the updates only; dense/bias is in params only" in renamed


def test_one_array_for_a_tree_of_params() -> None:
    text = error(lambda: update(gradtx.scale(1.0), jnp.ones(2)))
    assert "scale: " in text
    assert "Array(" not in text  # the params themselves do not belong into a message


def test_updates_of_other_containers_than_the_params() -> None:
    tx, pair = gradtx.scale(1.0), (jnp.ones(1), jnp.ones(2))
    assert error(lambda: tx.update(pair, tx.init(pair), list(pair))) == (
        "ValueError: scale: params and the updates differ in structure: "
        "the containers are of different types. " + BOTH
    )


def test_updates_of_another_structure_than_the_state() -> None:
    assert error(lambda: update(gradtx.adam(0.1), grads(bias=...), None)) == (
        "ValueError: scale_by_adam: the state's mu and the updates differ in structure: "
        "dense/bias is in the state's mu only. " + BOTH
    )


def test_none_marks_an_absent_leaf_and_may_not_come_and_go() -> None:
    tx = gradtx.adam(0.1)
    absent = grads(bias=None)
    updates, state = tx.update(absent, tx.init(absent), PARAMS)
    assert updates["dense"]["bias"] is None
    assert state[0].mu["dense"]["bias"] is None
    text = error(lambda: tx.update(PARAMS, state, PARAMS))
    assert text.startswith("ValueError: scale_by_adam: ")
    assert "dense/bias" in text


# -- shapes --------------------------------------------------------------------------------------


def test_an_update_of_another_shape_than_its_param() -> None:
    assert error(lambda: update(gradtx.scale(1.0), grads(kernel=jnp.ones((2, 3))))) == (
        "ValueError: scale: at dense/kernel: updates float32[2,3] do not fit the parameter "
        "float32[3,2]; they must have the same shape"
    )
    assert error(lambda: update(gradtx.scale(1.0), jnp.ones(2), jnp.ones(()))) == (
        "ValueError: scale: at the root: updates float32[2] do not fit the parameter float32[]; "
        "they must have the same shape"
    )


def test_an_update_without_its_param() -> None:
    assert error(lambda: update(gradtx.scale(1.0), PARAMS, grads(bias=None))) == (
        "ValueError: scale: at dense/bias: updates float32[2] do not fit the parameter None; "
        "they must have the same shape"
    )


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((3,), "sub got incompatible shapes for broadcasting: (2,), (3,). "
               "(updates float32[3], state: float32[2], float32[2]); "
               "was the state made by init on params of these shapes?"),
        ((1,), "updates of shape (1,) became (2,); "
               "was the state made by init on params of these shapes?"),
        ((), "updates of shape () became (2,); "
             "was the state made by init on params of these shapes?"),
    ],
)  # fmt: skip
def test_an_update_of_another_shape_than_its_state(shape: Any, problem: str) -> None:
    # The last two would broadcast without a word.
    text = error(lambda: update(gradtx.adam(0.1), grads(bias=jnp.ones(shape)), None))
    assert text == f"ValueError: scale_by_adam: at dense/bias: {problem}"


def test_a_chain_names_the_part_whose_state_does_not_fit() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9), gradtx.scale(-0.1))
    assert error(lambda: update(tx, grads(kernel=jnp.ones((3, 1))), None)) == (
        "ValueError: trace: at dense/kernel: updates of shape (3, 1) became (3, 2); "
        "was the state made by init on params of these shapes?"
    )


# -- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tx", [gradtx.scale_by_adam(), gradtx.scale_by_rms(), gradtx.ema(0.9)])
def test_an_integer_param_is_refused_by_path(tx: Any) -> None:
    params = {"table": {"ids": jnp.arange(3)}}
    name = tx.definition.name
    assert error(lambda: tx.init(params)) == (
        f"TypeError: {name}: at table/ids: int32[3] has no gradient to transform. "
        "Leave it out (None in its place), or mask it with masked(...)"
    )


def test_an_integer_update_is_refused_by_path() -> None:
    assert error(lambda: update(gradtx.scale(1.0), grads(bias=jnp.zeros(2, bool)))) == (
        "TypeError: scale: at dense/bias: bool[2] has no gradient to transform. "
        "Leave it out (None in its place), or mask it with masked(...)"
    )
    assert error(lambda: update(gradtx.scale(1.0), PARAMS, grads(bias=jnp.zeros(2, int)))) == (
        "TypeError: scale: params: at dense/bias: int32[2] has no gradient to transform. "
        "Leave it out (None in its place), or mask it with masked(...)"
    )


def test_the_advice_on_integer_leaves_works() -> None:
    params = {"w": jnp.ones(2), "ids": jnp.arange(3)}
    absent = {"w": jnp.ones(2), "ids": None}
    tx = gradtx.adam(0.1)
    updates, _ = tx.update(absent, tx.init(absent), params)
    new = gradtx.apply_updates(params, updates)
    assert new["ids"] is params["ids"]


@pytest.mark.parametrize(
    ("leaf", "shown"),
    [("text", "'text' (str)"), (3, "3 (int)"), (True, "True (bool)"), ({1}, "a set")],
)
def test_what_is_no_array_is_refused_by_path(leaf: Any, shown: str) -> None:
    tree = {"a": [leaf]}
    problem = f"at a/0: expected an array, got {shown}"
    assert error(lambda: gradtx.adam(0.1).init(tree)) == f"TypeError: scale_by_adam: {problem}"
    assert error(lambda: update(gradtx.clip(1.0), tree, None)) == f"TypeError: clip: {problem}"


def test_shapes_in_place_of_parameters() -> None:
    shapes = jax.eval_shape(lambda: {"w": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.ones(2)})
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    for tx in (gradtx.adamw(0.1), gradtx.lbfgs(), gradtx.novograd(0.1), gradtx.sm3(0.1)):
        chex.assert_trees_all_equal(tx.init(shapes), tx.init(params), strict=True)
    # State that begins with the parameters has nothing to begin with.
    assert error(lambda: gradtx.dog(1.0).init(shapes)) == (
        "TypeError: scale_by_dog: its init computes with the values of the parameters and was "
        "given only their shapes. For the shapes of the state call jax.eval_shape(tx.init, params)"
    )
    assert error(lambda: gradtx.madgrad(0.1).init(shapes)) == (
        "TypeError: scale_by_madgrad: at b (float32[2]): its init computes with the values of the "
        "parameters and was given only their shapes. For the shapes of the state call "
        "jax.eval_shape(tx.init, params)"
    )
    assert jax.eval_shape(gradtx.madgrad(0.1).init, shapes)[1].s["w"].shape == (3, 2)
    assert error(lambda: update(gradtx.adam(0.1), shapes)) == (
        "TypeError: adam: at b: expected an array, got float32[2]"
    )


# -- states --------------------------------------------------------------------------------------


INSTEAD = (
    "Pass the state that its own init made, or bring over another one with "
    "gradtx.migrate(state, to=tx, params=params, from_=old_tx)"
)


def test_the_state_of_another_chain() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9))
    assert error(lambda: update(tx, PARAMS, None, gradtx.chain(gradtx.clip(1.0)).init(PARAMS))) == (
        "StateError: chain: the state is a tuple of 1, not the tuple of 2 that chain(clip, trace) "
        "keeps. " + INSTEAD
    )
    assert error(lambda: update(tx, PARAMS, None, {"a": 1})) == (
        "StateError: chain: the state is a dict of a, not the tuple of 2 that chain(clip, trace) "
        "keeps. " + INSTEAD
    )


def test_the_state_of_another_named_chain() -> None:
    tx = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("rate", gradtx.scale(-1.0)))
    assert error(lambda: update(tx, PARAMS, None, {"clip": gradtx.EmptyState()})) == (
        "StateError: named_chain: the state is a dict of clip, not the dict of clip, rate of "
        "named_chain. " + INSTEAD
    )


def test_the_state_of_no_masked_transformation() -> None:
    tx = gradtx.masked(gradtx.trace(0.9), "kernel")
    assert error(lambda: update(tx, PARAMS, None, gradtx.EmptyState())) == (
        "StateError: masked: the state is EmptyState(), not the MaskedState(inner_state) of "
        "masked. " + INSTEAD
    )


def test_a_state_without_the_count_that_a_schedule_needs() -> None:
    plain, scheduled = gradtx.trace(0.9), gradtx.trace(gradtx.constant_schedule(0.9))
    assert error(lambda: update(scheduled, PARAMS, None, plain.init(PARAMS))) == (
        "StateError: trace: the state is TraceState(trace), not the ScheduledState(count, "
        "inner_state) of trace: a schedule in place of a number adds a step count to the state. "
        + INSTEAD
    )
    assert error(lambda: update(plain, PARAMS, None, 0)) == (
        "StateError: trace: the state is an int, not the TraceState(trace) of trace. " + INSTEAD
    )


@pytest.mark.parametrize(
    ("tx", "other"),
    [
        (gradtx.scale_by_adam(), gradtx.trace(0.9)),
        (gradtx.trace(0.9), gradtx.scale_by_adam()),
        (gradtx.scale_by_amsgrad(), gradtx.scale_by_adam()),
    ],
)
def test_the_state_of_another_rule(tx: Any, other: Any) -> None:
    name, state = tx.definition.name, other.init(PARAMS)
    text = error(lambda: update(tx, PARAMS, None, state))
    assert text.startswith(f"StateError: {name}: the state is {type(state).__name__}(")
    assert f", not the {type(tx.init(PARAMS)).__name__}(" in text


ADAM = "ScaleByAdamState(count, mu, nu)"
LION = "the ScaleByLionState(count, mu) of scale_by_lion"


@pytest.mark.parametrize(
    ("tx", "other", "problem"),
    [
        (gradtx.lion(0.1), gradtx.adamw(0.1), f"at [0] is {ADAM}, not {LION}"),
        (
            gradtx.named_chain(("clip", gradtx.clip(1.0)), ("lion", gradtx.lion(0.1))),
            gradtx.named_chain(("clip", gradtx.clip(1.0)), ("lion", gradtx.adamw(0.1))),
            f"at ['lion'][0] is {ADAM}, not {LION}",
        ),
        (
            gradtx.partition({"kernel": gradtx.lion(0.1), ".*": gradtx.sgd(0.1)}),
            gradtx.partition({"kernel": gradtx.adamw(0.1), ".*": gradtx.sgd(0.1)}),
            f"at .inner_states['kernel'].inner_state[0] is {ADAM}, not {LION}",
        ),
        (
            # Inside of a conditional, and of another transformation inside of that.
            gradtx.chain(gradtx.accumulate(gradtx.masked(gradtx.lion(0.1), "kernel"), 2)),
            gradtx.chain(gradtx.accumulate(gradtx.masked(gradtx.adamw(0.1), "kernel"), 2)),
            f"at [0].inner_opt_state.inner_state[0] is {ADAM}, not {LION}",
        ),
        (
            gradtx.inject_hyperparams(gradtx.lion)(0.1),
            gradtx.inject_hyperparams(gradtx.adamw)(0.1),
            f"at .inner_state[0] is {ADAM}, not {LION}",
        ),
        (
            gradtx.store(gradtx.adam(0.1), "int8", min_size=1),
            gradtx.adam(0.1),
            "is a tuple of 2, not the StoreState(count, inner_state) of store",
        ),
        (
            gradtx.accumulate(gradtx.adam(0.1), 2),
            gradtx.chain(gradtx.adam(0.1)),
            "is a tuple of 1, not the AccumulateState(mini_step, gradient_step, inner_opt_state, "
            "acc_grads, accepted, skipped) of accumulate",
        ),
    ],
)
def test_a_wrong_state_inside_is_named_with_its_path(tx: Any, other: Any, problem: str) -> None:
    assert error(lambda: update(tx, PARAMS, state=other.init(PARAMS))) == (
        f"StateError: {tx.definition.name}: the state {problem}. " + INSTEAD
    )


def test_a_state_of_plain_containers() -> None:
    """As readers of checkpoints make it that are not told the classes."""
    tx = gradtx.adam(0.1)
    adam, rate = tx.init(PARAMS)
    hint = " (restored without its classes? Restore a checkpoint into the state of init)"
    for state, shown in (
        ((adam._asdict(), rate), "at [0] is a dict of count, mu, nu"),
        ({"0": adam._asdict(), "1": {}}, "is a dict of 0, 1"),
    ):
        text = error(lambda state=state: update(tx, PARAMS, state=state))
        assert text.startswith(f"StateError: adam: the state {shown}, not the ")
        assert hint in text
    text = error(lambda: update(tx, PARAMS, state=(tuple(adam), rate)))
    assert "at [0] is a tuple of 3, not the ScaleByAdamState(count, mu, nu) of " in text


def test_fields_that_are_missing_are_seen() -> None:
    class ScaleByAdamState(NamedTuple):
        mu: Any
        nu: Any

    state = (ScaleByAdamState(PARAMS, PARAMS), gradtx.EmptyState())
    text = error(lambda: update(gradtx.adam(0.1), PARAMS, state=state))
    assert f"at [0] is ScaleByAdamState(mu, nu), not the {ADAM} of scale_by_adam" in text


class OfSum(NamedTuple):
    total: Any


class OfMean(NamedTuple):
    total: Any


@gradtx.per_leaf
def summed() -> Any:
    """A rule that does not say by an annotation which state it makes."""
    return gradtx.Rule(
        lambda param: OfSum(param), lambda grad, state: (grad, OfSum(state.total + grad))
    )


def test_a_rule_that_does_not_say_its_class() -> None:
    state = summed().init(PARAMS)
    _, new = update(summed(), PARAMS, state=state)
    assert type(new) is OfSum
    text = error(lambda: update(summed(), PARAMS, state=OfMean(*state)))
    assert "summed: at dense/bias: update was given the state OfMean(total) and made OfSum(" in text
    for other in (None, (), gradtx.EmptyState()):
        text = error(lambda other=other: summed().update(PARAMS, other, PARAMS))
        assert text.startswith("StateError: summed: the state is ") or "no state" in text


@pytest.mark.parametrize("empty", [None, (), {}, [], gradtx.EmptyState(), gradtx.EmptyState])
def test_what_keeps_nothing_takes_any_empty_state_and_gives_it_back(empty: Any) -> None:
    norm = np.sqrt(7.0)  # of a kernel of 6 ones, and of one more
    for tx in (gradtx.clip_by_global_norm(1.0), gradtx.chain(gradtx.clip_by_global_norm(1.0))):
        given = empty if tx.parts == () else (empty,)
        updates, state = tx.update(PARAMS, given, PARAMS)
        assert state is given or state == given
        np.testing.assert_allclose(updates["scale"], 1 / norm, rtol=1e-6)


def test_a_state_with_a_count_given_to_the_same_rule_without_a_schedule() -> None:
    plain, scheduled = gradtx.trace(0.9), gradtx.trace(gradtx.constant_schedule(0.9))
    updates, state = update(plain, PARAMS, None, scheduled.init(PARAMS))
    assert isinstance(state, gradtx.ScheduledState)
    assert updates["scale"] == 1


# -- masks ---------------------------------------------------------------------------------------


def test_a_mask_that_does_not_fit() -> None:
    tx = gradtx.masked(gradtx.trace(0.9), {"dense": {"kernel": True}, "scale": False})
    text = (
        "the mask does not fit the tree it masks: its structure is "
        "PyTreeDef({'dense': {'kernel': *}, 'scale': *}), the leaves are at dense/bias, "
        "dense/kernel, scale. A mask is a tree of booleans shaped like the params "
        "(or a prefix of it), a function that makes one, or a path pattern"
    )
    assert error(lambda: tx.init(PARAMS)) == f"ValueError: masked: {text}"
    fits = gradtx.masked(gradtx.trace(0.9), "kernel").init(PARAMS)
    assert error(lambda: update(tx, PARAMS, state=fits)) == f"ValueError: masked: mask: {text}"


@pytest.mark.parametrize(
    ("flag", "shown"), [("yes", "'yes' (str)"), (1, "1 (int)"), (0.5, "0.5 (float)")]
)
def test_a_mask_of_other_things_than_booleans(flag: Any, shown: str) -> None:
    tx = gradtx.masked(gradtx.trace(0.9), lambda params: jax.tree.map(lambda _: flag, params))
    assert error(lambda: tx.init(PARAMS)) == (
        f"TypeError: masked: a mask holds booleans, got {shown}"
    )


def test_a_traced_mask() -> None:
    def init(flag: Any) -> Any:
        return gradtx.masked(gradtx.trace(0.9), lambda params: flag).init(PARAMS)

    text = error(lambda: jax.jit(init)(True))
    assert text.startswith("TypeError: masked: the mask must be known when the program is traced,")
    assert init(jnp.bool_(True)) is not None
    assert init(np.bool_(True)) is not None


def test_a_pattern_that_matches_nothing() -> None:
    for mask in ("kernle", gradtx.matching("kernle"), ~gradtx.matching("kernle")):
        assert error(lambda mask=mask: gradtx.masked(gradtx.trace(0.9), mask).init(PARAMS)) == (
            "ValueError: masked: the pattern 'kernle' matches no leaf; "
            "the paths are: dense/bias, dense/kernel, scale"
        )
    many = {f"w{i}": jnp.ones(1) for i in range(10)}
    text = error(lambda: gradtx.masked(gradtx.trace(0.9), "x").init(many))
    assert text.endswith("the paths are: w0, w1, w2, w3, w4, w5, w6, w7, ...")


def test_a_pattern_that_is_no_regular_expression() -> None:
    assert error(lambda: gradtx.matching("(")).startswith(
        "ValueError: matching: '(' is not a valid regular expression: "
    )
    assert error(lambda: gradtx.adamw(1e-3, mask="bias(")).startswith(
        "ValueError: adamw: mask must be a regular expression, got 'bias(': missing )"
    )


def test_a_transformation_is_no_mask() -> None:
    assert error(lambda: gradtx.freeze(gradtx.scale(1.0))) == (
        "TypeError: freeze: mask must be a tree of booleans, a function that makes one or a path "
        "pattern, got scale(step_size=1.0)"
    )


# -- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        (0.1, "0.1 (float)"),
        (None, "None (NoneType)"),
        ((gradtx.clip(1.0),), "(clip(max_delta=1.0)) (tuple)"),
        (gradtx.adam, "adam (Definition); a schedule goes through scale_by_schedule(...), "
                      "a definition must be called first"),
        (gradtx.constant_schedule(0.1),
         "constant_schedule(value=0.1) (Schedule); a schedule goes through "
         "scale_by_schedule(...), a definition must be called first"),
    ],
)  # fmt: skip
def test_what_is_no_transformation(link: Any, shown: str) -> None:
    must = "must be a gradient transformation, got"
    shown = shown.replace("(clip(max_delta=1.0))", "(clip(max_delta=1.0),)")
    for call, where in (
        (lambda: gradtx.chain(gradtx.clip(1.0), link), "chain: argument 2"),
        (lambda: gradtx.named_chain(("rate", link)), "named_chain: rate"),
        (lambda: gradtx.masked(link, True), "masked: inner"),
    ):
        assert error(call) == f"TypeError: {where} {must} {shown}"


def test_named_chain_takes_pairs() -> None:
    assert error(lambda: gradtx.named_chain(gradtx.clip(1.0))) == (
        "TypeError: named_chain: argument 1 must be a pair (name, transformation), "
        "got clip(max_delta=1.0)"
    )
    assert error(lambda: gradtx.named_chain(("a", gradtx.clip(1.0)), ("a", gradtx.clip(2.0)))) == (
        "ValueError: named_chain: the name 'a' is given twice"
    )


# -- hyperparameters that are arrays -------------------------------------------------------------


def test_an_array_of_rates_needs_vmap() -> None:
    tx = gradtx.sgd(jnp.array([0.1, 0.2]))
    assert error(lambda: update(tx, PARAMS)) == (
        "ValueError: scale_by_learning_rate: learning_rate must be a scalar when it is used, "
        "got an array of shape (2,): map over the transformation with jax.vmap"
    )
    updates, _ = jax.vmap(lambda tx: update(tx, PARAMS))(tx)
    np.testing.assert_allclose(updates["scale"], [-0.1, -0.2])


def test_an_array_in_a_schedule_needs_vmap() -> None:
    schedule = gradtx.linear_schedule(jnp.array([0.1, 0.2]), 0.0, 10)
    assert error(lambda: schedule(3)) == (
        "ValueError: linear_schedule: init_value must be a scalar when it is used, "
        "got an array of shape (2,): map over the transformation with jax.vmap"
    )


# -- apply_updates -------------------------------------------------------------------------------


def test_apply_updates_names_the_leaf() -> None:
    assert error(lambda: gradtx.apply_updates(PARAMS, grads(bias=jnp.ones(3)))) == (
        "ValueError: apply_updates: at dense/bias: the update float32[3] does not fit "
        "the parameter float32[2]"
    )
    assert error(lambda: gradtx.apply_updates(grads(bias=None), PARAMS)) == (
        "ValueError: apply_updates: at dense/bias: the update float32[2] does not fit "
        "the parameter None"
    )
    assert error(lambda: gradtx.apply_updates(PARAMS, grads(bias=...))) == (
        "ValueError: apply_updates: params and the updates differ in structure: "
        "dense/bias is in params only. " + BOTH
    )


@pytest.mark.parametrize(
    ("updates", "said"),
    [
        ({"dense": 1}, "at dense: the update 1 (int) does not fit the parameter a dict"),
        ({"dense": 1.0}, "at dense: the update 1.0 (float) does not fit the parameter a dict"),
        ({"dense": "x"}, "at dense: the update 'x' (str) does not fit the parameter a dict"),
        ({"dense": jnp.ones(())}, "at dense: the update float32[] does not fit"),
        ({"dense": {"w": "x", "b": None}}, "at dense/w: the update 'x' (str) does not fit"),
        ({"dense": {"w": object(), "b": None}}, "float32[2]; updates are a tree like params"),
        ({"dense": {"w": np.ones(3), "b": None}}, "does not fit the parameter float32[2]"),
        (1.0, "at the root: the update 1.0 (float) does not fit the parameter a dict"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_updates_of_another_structure_are_refused_by_path(
    updates: Any, said: str, jit: bool
) -> None:
    params = {"dense": {"w": jnp.ones(2), "b": jnp.ones(())}}
    apply = jax.jit(lambda p: gradtx.apply_updates(p, updates)) if jit else None
    with pytest.raises(ValueError, match="apply_updates") as raised:
        apply(params) if apply else gradtx.apply_updates(params, updates)
    assert said in str(raised.value)


def test_updates_may_be_plain_numbers() -> None:
    assert gradtx.apply_updates({"x": 1.0, "n": 2}, {"x": 0.5, "n": 1}) == {"x": 1.5, "n": 3}


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"dense": 1.0}, "at dense: new_tensors has 1.0 (float), old_tensors a dict; both must"),
        ({"dense": {"w": "x", "b": None}}, "at dense/w: new_tensors has 'x' (str), old_tensors"),
        ({"dense": {"w": jnp.ones(2)}}, "dense/b is in old_tensors only"),
        ({"dense": {"w": jnp.ones(2), "b": 1.0, "c": 1.0}}, "dense/c is in new_tensors only"),
    ],
)
def test_averages_of_trees_of_another_structure_are_refused_by_path(new: Any, said: str) -> None:
    old = {"dense": {"w": jnp.ones(2), "b": jnp.ones(())}}
    for name, arguments in (("incremental_update", (0.5,)), ("periodic_update", (0, 2))):
        with pytest.raises(ValueError, match=f"^{name}: ") as raised:
            getattr(gradtx, name)(new, old, *arguments)
        assert said in str(raised.value)


OF_THE_TREE = {
    "dog": gradtx.dog(),
    "dowg": gradtx.dowg(),
    "schedule_free": gradtx.schedule_free_sgd(0.1),
    "prodigy": gradtx.prodigy(),
    "lbfgs": gradtx.scale_by_lbfgs(),
}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("name", OF_THE_TREE)
def test_a_state_of_other_shapes_is_named_where_it_would_broadcast_too(
    name: str, rows: int
) -> None:
    params = {"k": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    state = OF_THE_TREE[name].init({"k": jnp.ones((rows, 3)), "b": jnp.zeros(3)})
    message = rf"at k: updates float32\[4,3\] do not fit the state's \w+, float32\[{rows},3\]"
    with pytest.raises(ValueError, match=message):
        OF_THE_TREE[name].update(params, state, params)


def test_a_count_that_is_no_integer_is_refused() -> None:
    tx = gradtx.adam(0.1)
    state = tx.init({"k": jnp.ones(2)})
    wrong = (state[0]._replace(count=0.0), *state[1:])
    with pytest.raises(ValueError, match=r"ScaleByAdamState\(count, mu, nu\) with a count"):
        tx.update({"k": jnp.ones(2)}, wrong)


@pytest.mark.parametrize("state", [None, {}, (), gradtx.adam(0.1).init(jnp.ones(2))], ids=str)
def test_lookahead_says_what_its_state_is(state: Any) -> None:
    params = gradtx.LookaheadParams.init_synced(jnp.ones(2))
    with pytest.raises(ValueError, match=r"lookahead: the state is .*, not the LookaheadState"):
        gradtx.lookahead(gradtx.adam(0.1), 3, 0.5).update(jnp.ones(2), state, params)


@pytest.mark.parametrize("seed", [1.5, True, -1, 2**32, "x", None])
def test_a_seed_is_a_word(seed: Any) -> None:
    makers: Any = (
        gradtx.stochastic_rounding,
        lambda seed: gradtx.store(gradtx.adam(0.1), "int8", seed=seed),
    )
    for make in makers:
        with pytest.raises(ValueError, match="seed must be a whole number"):
            make(seed)


def test_a_join_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one schedule"):
        gradtx.join_schedules((), ())


@pytest.mark.parametrize("function", [gradtx.incremental_update, gradtx.periodic_update])
def test_an_average_of_other_shapes_is_refused(function: Any) -> None:
    rest = (0.5,) if function is gradtx.incremental_update else (2, 2)
    with pytest.raises(ValueError, match=r"at a: .*float32\[2,3\].*float32\[3\]"):
        function({"a": jnp.ones((2, 3))}, {"a": jnp.ones(3)}, *rest)
    absent = {"a": None, "b": jnp.ones(2)}
    assert function(absent, {"a": jnp.ones(3), "b": jnp.ones(2)}, *rest)["a"] is None


@pytest.mark.parametrize(
    ("tx", "name"),
    [
        (gradtx.adamw(1e-3, independent_decay=True), "adamw"),
        (gradtx.chain(gradtx.clip(1.0), gradtx.lion(1e-3, independent_decay=True)), "lion"),
        (gradtx.hyperball(gradtx.identity(), 1e-3), "hyperball"),
        (gradtx.adamw(1e-3), "add_decayed_weights"),
    ],
    ids=["adamw", "lion", "hyperball", "decay"],
)
def test_what_needs_the_parameters_is_named_as_the_user_wrote_it(tx: Any, name: str) -> None:
    grads = jnp.ones(2)
    with pytest.raises(ValueError, match=rf"^{name}\(.*\) needs the parameters"):
        tx.update(grads, tx.init(grads))


@pytest.mark.parametrize(
    ("tx", "other", "field"),
    [
        (gradtx.soap(max_precond_dim=3), gradtx.soap(), "factors"),
        (gradtx.shampoo(max_preconditioner_dim=2), gradtx.shampoo(), "factors"),
        (gradtx.shampoo(grafting=None), gradtx.shampoo(), "nu"),
        (gradtx.kron(memory_save_mode="all_diag"), gradtx.kron(), "preconditioners"),
        (gradtx.kron(method="procrustes"), gradtx.kron(), "bounds"),
    ],
    ids=["soap", "blocks", "grafting", "kron", "method"],
)
def test_factors_that_other_arguments_have_made_are_named(tx: Any, other: Any, field: str) -> None:
    params = {"absent": None, "w": jnp.ones((4, 4))}
    with pytest.raises(ValueError, match=rf"at w: the shapes of the state's {field} are .*, not "):
        tx.update(params, other.init(params), params)
