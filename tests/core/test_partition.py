"""Groups of leaves: who gets what, what is refused, and that groups share one body a leaf."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import MaskedNode

PARAMS = {
    "encoder": [{"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}],
    "head": {"kernel": jnp.ones((3, 1)), "bias": jnp.ones(1)},
    "scale": jnp.ones(()),
}
BY_PATTERN = {
    "encoder/0/bias": "bias|scale",
    "encoder/0/kernel": "encoder",
    "head/bias": "bias|scale",
    "head/kernel": ".*",
    "scale": "bias|scale",
}


def three() -> Any:
    return gradtx.partition(
        {"bias|scale": gradtx.sgd(0.1), "encoder": gradtx.freeze(), ".*": gradtx.adamw(1e-3)}
    )


def test_the_first_pattern_that_matches_is_the_leafs() -> None:
    assignment = three().assignment(PARAMS)
    assert assignment == BY_PATTERN
    assert "encoder/0/kernel  'encoder'" in str(assignment).splitlines()
    updates, _ = three().update(PARAMS, three().init(PARAMS), PARAMS)
    assert np.all(updates["encoder"][0]["kernel"] == 0)
    np.testing.assert_allclose(updates["head"]["bias"], -0.1)
    np.testing.assert_allclose(updates["head"]["kernel"], -1.0001e-3, rtol=1e-4)


def test_the_order_of_the_patterns_is_kept() -> None:
    tx = gradtx.partition({"z": gradtx.scale(1.0), "a": gradtx.scale(2.0), ".": gradtx.scale(3.0)})
    held = jax.jit(lambda tx: jax.tree.map(lambda x: x + 0, tx))(tx)
    for same in (pickle.loads(pickle.dumps(tx)), held, jax.tree.map(lambda x: x, tx)):
        assert list(same.transforms) == ["z", "a", "."]
        assert same.assignment({"az": 1.0, "a": 1.0, "b": 1.0}) == {"a": "a", "az": "z", "b": "."}


def test_other_leaves_and_frozen_groups_allocate_nothing() -> None:
    state = three().init(PARAMS)
    arrays = [x for x in jax.tree.leaves(state) if x.ndim]
    assert [x.shape for x in arrays] == [(3, 1), (3, 1)]
    assert state.inner_states[".*"].inner_state[0].mu["scale"] == MaskedNode()
    assert not jax.tree.leaves(state.inner_states["encoder"])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["bias"], r"no pattern matches encoder/0/kernel, head/kernel, scale\. .*'bias'; .*freeze"),
        (
            ["bais", "."],
            "the pattern 'bais' gets no leaf .no match.; the paths are: enc",
        ),
        ([".", "bias"], "the pattern 'bias' gets no leaf .all it matches is taken by earlier"),
    ],
)
def test_patterns_that_do_not_cover_or_do_nothing(patterns: list[str], message: str) -> None:
    tx = gradtx.partition({pattern: gradtx.sgd(0.1) for pattern in patterns})
    with pytest.raises(ValueError, match=message):
        tx.init(PARAMS)
    with pytest.raises(ValueError, match=message):
        tx.assignment(PARAMS)


def test_a_last_pattern_may_be_left_with_nothing() -> None:
    tx = gradtx.partition({"kernel|bias|scale": gradtx.sgd(0.1), ".*": gradtx.adam(0.1)})
    assert set(tx.assignment(PARAMS).values()) == {"kernel|bias|scale"}
    tx.init(PARAMS)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: gradtx.partition({"(": gradtx.sgd(0.1)}),
            ValueError,
            "'\\(' is not a valid regular expr",
        ),
        (
            lambda: gradtx.partition({1: gradtx.sgd(0.1)}),
            TypeError,
            "path patterns, got 1",
        ),
        (
            lambda: gradtx.partition({"a": gradtx.sgd}, "a"),
            TypeError,
            r"transforms\['a'\] must be a grad",
        ),
        (lambda: gradtx.partition(gradtx.sgd(0.1)), TypeError, "transforms must be a dict"),
        (
            lambda: gradtx.partition({"a": gradtx.sgd(0.1)}, {"head": "a"}).init(PARAMS),
            ValueError,
            "param_labels does not fit the parameters.*encoder/0/bias",
        ),
        (
            lambda: gradtx.partition(
                {"a": gradtx.sgd(0.1)}, {"head": "a", "scale": None, "encoder": "b"}
            ).init(PARAMS),
            ValueError,
            r"for encoder/0/bias \(label 'b'\), .*, scale\. Labels given: 'a'",
        ),
        (
            lambda: gradtx.partition({1: gradtx.adam(0.1), 2: gradtx.adam(1)}, 1).replace(b1=0.5),
            TypeError,
            "2 groups have an argument 'b1'",
        ),
        (lambda: three().replace(b7=0.5), TypeError, "no group has an argument 'b7'.*'encoder'"),
        (
            lambda: three().update(PARAMS, gradtx.adam(0.1).init(PARAMS), PARAMS),
            ValueError,
            "Pass the state that its own init made",
        ),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_number_is_replaced_in_the_one_group_that_has_it() -> None:
    tx = three().replace(weight_decay=0.5)
    assert tx.transforms[".*"] == gradtx.adamw(1e-3, weight_decay=0.5)
    assert tx.replace(weight_decay=1e-4) == three()
    frozen = tx.replace(transforms={**tx.transforms, ".*": gradtx.freeze()})
    assert not jax.tree.leaves(frozen.init(PARAMS))


def test_groups_of_rules_run_as_one_body_a_leaf() -> None:
    """One call a leaf, and no leaf runs the rules of another group."""

    def calls(tx: Any) -> list[Any]:
        eqns = jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS).eqns
        return [
            e
            for e in eqns
            if e.primitive.name in ("jit", "pjit") and e.params["name"] == "_update_leaf"
        ]

    tx = gradtx.partition(
        {"bias|scale": gradtx.sgd(0.1, 0.9), ".*": gradtx.adam(1e-3), "^$": gradtx.freeze()},
        lambda p: jax.tree.map(lambda x: ".*" if x.ndim > 1 else "bias|scale", p),
    )
    assert len(calls(tx)) == 5
    groups = gradtx.partition({"bias|scale": gradtx.sgd(0.1, 0.9), ".*": gradtx.adam(1e-3)})
    with_decay = gradtx.chain(groups, gradtx.add_decayed_weights(0.1))
    assert len(calls(with_decay)) == 5


def test_a_group_sees_its_own_norm_and_its_own_extra_arguments() -> None:
    seen: list[Any] = []

    def init(params: Any) -> Any:
        return gradtx.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, *, tags: Any, rate: Any) -> Any:
        seen.append((tags, rate))
        return updates, state

    spy = gradtx.GradientTransformation(init, update)
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    tags = {"a": "tag of a", "b": "tag of b"}
    for covers, shown in ((True, {"a": "tag of a", "b": MaskedNode()}), (False, tags)):
        groups = {"a": gradtx.chain(gradtx.clip_by_global_norm(1.0), spy), "b": gradtx.identity()}
        tx = gradtx.partition(groups, {"a": "a", "b": "b"}, mask_compatible_extra_args=covers)
        updates, _ = tx.update(params, tx.init(params), params, tags=tags, rate=2.0)
        np.testing.assert_allclose(updates["a"], np.full(3, 3**-0.5), rtol=1e-6)
        assert seen.pop() == (shown, 2.0)
        masked = gradtx.masked(spy, {"a": True, "b": False}, mask_compatible_extra_args=covers)
        masked.update(params, masked.init(params), params, tags=tags, rate=2.0)
        assert seen.pop() == (shown, 2.0)


def test_a_mask_inside_a_mask_sees_what_the_outer_one_leaves() -> None:
    """As its init does: there the other leaves need no label and match no pattern."""
    tx = gradtx.masked(gradtx.partition({"kernel": gradtx.adam(0.1)}), "kernel")
    state = tx.init(PARAMS)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1, rtol=1e-6)
    assert np.all(updates["head"]["bias"] == 1)


def test_states_are_looked_at_by_optax() -> None:
    tx = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.sgd(0.1)}, {"w": "a", "b": "b"})
    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    state = tx.init(params)
    doubled = optax.tree_utils.tree_map_params(tx, lambda x: x + 2, state)
    assert np.all(doubled.inner_states["a"].inner_state[0].mu["w"] == 2)
    assert doubled.inner_states["a"].inner_state[0].count == 0


def test_a_transformation_of_optax_is_taken_as_a_group() -> None:
    tx = gradtx.partition({"kernel": optax.sgd(0.5), ".*": gradtx.sgd(0.1)})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert np.all(updates["head"]["kernel"] == -0.5)


def test_selective_transform_and_freeze_print() -> None:
    tx = gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask="head")
    assert "freeze_mask='head'" in repr(tx)
    assert tx.assignment(PARAMS)["head/bias"] == "freeze"
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert repr(gradtx.freeze("a")) == "freeze(mask='a')"


def test_groups_that_differ_in_factors_share_one_trace() -> None:
    traces = []

    @gradtx.per_leaf
    def noted() -> Any:
        def update(grad: Any) -> Any:
            traces.append(grad.shape)
            return grad

        return update

    params = {f"w{i:02}": jnp.full(3, 1.5) for i in range(12)}
    tx = gradtx.partition(
        {key: gradtx.chain(noted(), gradtx.sgd(0.1 / (i + 1))) for i, key in enumerate(params)}
    )
    state = tx.init(params)
    traces.clear()
    jax.jit(tx.update).lower(params, state, params)
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_group_steps_as_its_transformation_alone(dtype: str) -> None:
    groups = {
        "^a": gradtx.adamw(1e-3, weight_decay=0.1),
        "^b": gradtx.adamw(3e-3, weight_decay=0.01),
        "^c": gradtx.adamw(gradtx.linear_schedule(1e-3, 0.0, 9), weight_decay=0.03),
    }
    random = np.random.default_rng(0)
    params = {key: jnp.asarray(random.standard_normal(7), dtype) for key in "abc"}
    grads = {key: jnp.asarray(random.standard_normal(7), dtype) for key in "abc"}
    together = gradtx.partition(groups)
    updates, _ = jax.jit(together.update)(grads, together.init(params), params)
    for key in "abc":
        alone, (grad, param) = groups[f"^{key}"], (grads[key], params[key])
        expected, _ = jax.jit(alone.update)(grad, alone.init(param), param)
        np.testing.assert_array_equal(np.float32(updates[key]), np.float32(expected))
