"""Wrappers of a user's own: rules around another transformation, bound to the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.state import Count


class HalvedState(NamedTuple):
    """The inner state."""

    inner_state: Any


@gradtx.per_tree
def halved(inner: gradtx.GradientTransformation) -> Any:
    """u = inner(g) / 2"""

    def init(inner: gradtx.Inner) -> HalvedState:
        return HalvedState(inner.init())

    def update(updates: Any, state: HalvedState, inner: gradtx.Inner) -> Any:
        u, inner_state = inner(updates, state.inner_state)
        return jax.tree.map(lambda x: x / 2, u), HalvedState(inner_state)

    return gradtx.Rule(init, update)


def test_nothing_is_rounded_between_a_wrapper_and_what_is_inside() -> None:
    """1.001 is not a number of bfloat16: rounded there, the update would be 512 or 516."""
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = gradtx.chain(halved(gradtx.scale(1.001)), gradtx.scale(1024.0))
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["w"].dtype == jnp.bfloat16
    expected = np.float32(1.001 / 2 * 1024).astype(jnp.bfloat16)
    np.testing.assert_array_equal(updates["w"], np.full(3, expected))
    wide, _ = halved(gradtx.scale(1.001)).update(params, HalvedState(gradtx.EmptyState()))
    assert wide["w"].dtype == jnp.bfloat16  # it leaves rounded all the same


def test_the_inner_transformation_sees_the_params_and_the_extra_arguments() -> None:
    params, grads = {"w": jnp.full(3, 2.0)}, {"w": jnp.ones(3)}
    tx = halved(gradtx.chain(gradtx.polyak_sgd(), gradtx.add_decayed_weights(0.5)))
    updates, _ = tx.update(grads, tx.init(params), params, value=jnp.float32(0.6))
    # Polyak's step is value / |g|^2, downhill, and decay is 0.5 * 2.
    np.testing.assert_allclose(updates["w"], np.full(3, (-0.6 / 3 + 1) / 2), rtol=1e-6)
    with pytest.raises(ValueError, match=r"add_decayed_weights.* needs the parameters"):
        tx.update(grads, tx.init(params), value=jnp.float32(0.6))
    with pytest.raises(TypeError, match="needs value: call update"):
        tx.update(grads, tx.init(params), params)


def test_what_comes_last_is_refused_inside_unless_the_wrapper_hands_on() -> None:
    rounding = gradtx.chain(gradtx.sgd(0.1), gradtx.stochastic_rounding())
    with pytest.raises(ValueError, match=r"halved: chain.* rounds the parameter, which must come"):
        halved(rounding)

    @gradtx.per_tree
    def handed(inner: gradtx.GradientTransformation) -> Any:
        def update(updates: Any, state: HalvedState, inner: gradtx.Inner) -> Any:
            u, inner_state = inner(updates, state.inner_state)
            return u, HalvedState(inner_state)

        return gradtx.Rule(lambda inner: HalvedState(inner.init()), update, place=inner.place)

    params = {"w": jnp.ones(3, jnp.bfloat16)}
    updates, _ = handed(rounding).update(params, handed(rounding).init(params), params)
    assert updates["w"].dtype == jnp.float32
    tx = gradtx.chain(handed(rounding), gradtx.scale(2.0))
    state = tx.init(params)
    with pytest.raises(ValueError, match="comes after handed"):
        tx.update(params, state, params)


def test_the_inner_transformation_may_be_of_other_params_and_another_objective() -> None:
    """Newton's step for a square, found by a line search on half of the params' scale."""

    @gradtx.per_tree
    def doubled(inner: gradtx.GradientTransformation) -> Any:
        """Minimizes f by q with params = 2 q."""

        def half(x: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf / 2, x)

        def double(x: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf * 2, x)

        def init(inner: gradtx.Inner) -> HalvedState:
            return HalvedState(inner.at(half(inner.params)).init())

        def update(updates: Any, state: HalvedState, inner: gradtx.Inner) -> Any:
            of_q = inner.at(half(inner.params)).seeing(grad=double, params=double)
            u, inner_state = of_q(double(updates), state.inner_state)
            return double(u), HalvedState(inner_state)

        return gradtx.Rule(init, update)

    def loss(p: Any) -> Any:
        return jnp.sum((p["w"] - 3.0) ** 2)

    params = {"w": jnp.zeros(2)}
    tx = doubled(gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20)))
    state = tx.init(params)
    for _ in range(3):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        params = gradtx.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], [3, 3], atol=1e-4)

    @gradtx.per_tree
    def unsearched(inner: gradtx.GradientTransformation) -> Any:
        def update(updates: Any, state: HalvedState, inner: gradtx.Inner) -> Any:
            u, inner_state = inner.without_search("unsearched")(updates, state.inner_state)
            return u, HalvedState(inner_state)

        return gradtx.Rule(lambda inner: HalvedState(inner.init()), update)

    tx = unsearched(gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20)))
    with pytest.raises(TypeError, match="unsearched cannot hold a line search"):
        tx.update(grads, tx.init(params), params, value=value, grad=grads, value_fn=loss)


def test_what_is_inside_may_be_left_out_or_several() -> None:
    @gradtx.per_tree
    def summed(
        first: gradtx.GradientTransformation | None = None,
        others: tuple[gradtx.GradientTransformation, ...] = (),
    ) -> Any:
        def init(first: Any, others: Any) -> HalvedState:
            return HalvedState((first and first.init(), tuple(tx.init() for tx in others)))

        def update(updates: Any, state: HalvedState, first: Any, others: Any) -> Any:
            mine, theirs = state.inner_state
            made = [tx(updates, own) for tx, own in zip(others, theirs, strict=True)]
            if first is not None:
                u, mine = first(updates, mine)
                updates = jax.tree.map(jnp.add, updates, u)
            for u, _ in made:
                updates = jax.tree.map(jnp.add, updates, u)
            return updates, HalvedState((mine, tuple(own for _, own in made)))

        return gradtx.Rule(init, update)

    params = {"w": jnp.ones(2)}
    for tx, expected in (
        (summed(), 1),
        (summed(gradtx.scale(2.0)), 3),
        (summed(None, (gradtx.scale(2.0), gradtx.scale_by_adam())), 4),
    ):
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], [expected] * 2, rtol=1e-5)


# -- counts ----------------------------------------------------------------------------------------


class CountedState(NamedTuple):
    """A count and a mean."""

    count: Count
    mean: Any


def counted(own: Any, first: Any = None) -> Any:
    """A rule that returns `own(state)` as its count."""

    @gradtx.per_leaf
    def mean(decay: gradtx.Decay = 0.5) -> Any:
        def init(param: Any) -> CountedState:
            return CountedState(first, gradtx.zeros_like(param))

        def update(grad: Any, state: CountedState, step: Any) -> Any:
            new = decay * state.mean + (1 - decay) * grad
            return new, CountedState(own(state, step), new)

        return gradtx.Rule(init, update)

    return mean()


@pytest.mark.parametrize("own", [lambda s, t: None, lambda s, t: s.count, lambda s, t: t.count])
def test_counts_are_kept_for_the_rule(own: Any) -> None:
    params, tx = {"w": jnp.ones(3)}, counted(own)
    state = tx.init(params)
    assert state.count == 0
    for i in (1, 2):
        _, state = tx.update(params, state)
        assert state.count == i


def test_a_count_that_an_author_writes_is_refused() -> None:
    params, tx = {"w": jnp.ones(3)}, counted(lambda s, t: 77)
    with pytest.raises(TypeError, match="mean: the state's count is annotated Count, and counts"):
        tx.update(params, tx.init(params))
    with pytest.raises(TypeError, match="mean: the state's count is annotated Count"):
        counted(lambda s, t: None, first=99).init(params)

    @gradtx.per_tree
    def tree_mean(more: gradtx.Real) -> Any:
        def update(updates: Any, step: Any) -> Any:
            return updates, CountedState(step.count + more, updates)

        return gradtx.Rule(lambda params: CountedState(None, params), update)

    for more in (0, 5):  # it is not looked at
        tx = tree_mean(more)
        for update in (tx.update, jax.jit(tx.update)):
            with pytest.raises(TypeError, match="tree_mean: the state's count is annotated Count"):
                update(params, tx.init(params))


@pytest.mark.parametrize("decorator", [gradtx.per_leaf, gradtx.per_tree])
def test_a_rule_sees_no_count_in_its_state(decorator: Any) -> None:
    seen = []

    def update(of: Any, state: CountedState, step: Any) -> Any:
        seen.append((state.count, step.count))
        return of, state._replace(mean=of)

    def of_leaf() -> Any:
        return gradtx.Rule(
            lambda param: CountedState(None, param),
            lambda grad, state, step: update(grad, state, step),
        )

    def of_tree() -> Any:
        return gradtx.Rule(
            lambda params: CountedState(None, params),
            lambda updates, state, step: update(updates, state, step),
        )

    params = {"w": jnp.ones(3)}
    tx = decorator(of_leaf if decorator is gradtx.per_leaf else of_tree)()
    _, state = tx.update(params, tx.init(params))
    assert state.count == 1
    assert [count for count, _ in seen] == [None]


@pytest.mark.parametrize("inner", [gradtx.scale_by_adam(), gradtx.adamw(0.1), gradtx.trace(0.9)])
def test_the_state_of_a_wrapper_may_be_that_of_what_it_wraps(inner: Any) -> None:
    @gradtx.per_tree
    def doubled(inner: gradtx.GradientTransformation) -> Any:
        def update(updates: Any, state: Any, params: Any, inner: Any) -> Any:
            updates, state = inner(updates, state)
            return jax.tree.map(lambda u: 2 * u, updates), state

        return gradtx.Rule(lambda inner: inner.init(), update)

    params, tx = {"w": jnp.array([1.0, -2.0])}, doubled(inner)
    state, plain = tx.init(params), inner.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        expected, plain = inner.update(params, plain, params)
        np.testing.assert_allclose(updates["w"], 2 * expected["w"], rtol=1e-6)
    for got, kept in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, kept, rtol=1e-6)


def test_a_wrapper_that_returns_the_state_of_what_it_wraps_is_told_its_own() -> None:
    class Wrapped(NamedTuple):
        inner_state: Any

    @gradtx.per_tree
    def wrapped(inner: gradtx.GradientTransformation) -> Any:
        return gradtx.Rule(
            lambda inner: Wrapped(inner.init()),
            lambda updates, state, inner: inner(updates, state.inner_state),
        )

    tx, params = wrapped(gradtx.trace(0.9)), {"w": jnp.ones(3)}
    problem = r"wrapped: update must return the state as Wrapped\(inner_state\), it returned Trace"
    with pytest.raises(TypeError, match=problem):
        tx.update(params, tx.init(params))


# -- what rules were written with before -----------------------------------------------------------


def test_old_names_work_for_one_more_release() -> None:
    params = {"w": jnp.full(3, 2.0, jnp.bfloat16)}
    with pytest.warns(DeprecationWarning, match="in place of gather= write precompute"):

        @gradtx.per_leaf
        def shared() -> Any:
            def update(grad: Any, gathered: Any, stored_dtype: Any) -> Any:
                return grad * gathered if stored_dtype == jnp.bfloat16 else grad

            return gradtx.Rule(None, update, gather=lambda updates: len(updates))

    with pytest.warns(DeprecationWarning, match="ask for precomputed"):
        tx = shared()
    with pytest.warns(DeprecationWarning, match="in place of gather= write precompute"):
        updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(updates["w"], params["w"])
    with pytest.warns(DeprecationWarning, match=r"in place of unrounded= write place=Place\.LAST"):
        assert gradtx.Rule(None, lambda grad: grad, unrounded=True).place is gradtx.Place.LAST
    with pytest.raises(TypeError, match="Rule has no argument 'wide'"):
        gradtx.Rule(None, lambda grad: grad, wide=True)

    @gradtx.per_tree
    def around(inner: gradtx.GradientTransformation) -> Any:
        def update(updates: Any, state: HalvedState, stored_params: Any, **extra: Any) -> Any:
            u, new = inner.update(updates, state.inner_state, stored_params, **extra)
            return u, HalvedState(new)

        return gradtx.Rule(lambda stored_params: HalvedState(inner.init(stored_params)), update)

    with pytest.warns(DeprecationWarning, match="ask for the argument that is a transformation"):
        tx = around(gradtx.add_decayed_weights(1.0))
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], 2 * params["w"])
