"""Run an optimizer uphill."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from gradtx.combinators.chain import chain
from gradtx.core.definition import Definition, makes
from gradtx.core.mask import Negated
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.problem import NegatedState
from gradtx.core.recipe import Recipe
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation, Link, TransformationLike
from gradtx.core.value import Value

__all__ = ["maximize"]


class Negation(LeafTransformation):
    """Makes the gradient that of the negative of the objective."""

    passes_examples = True


@makes(Negation)
def negate() -> Callable[[jax.Array], jax.Array]:
    """u = -g"""
    return lambda grad: -grad


class Maximize(Recipe):
    """The links of the inner transformation, which see the negative of the objective."""

    @classmethod
    def _make(cls, definition: Definition[Any, Any], arguments: Mapping[str, Any]) -> Value:
        inner: Value = arguments["inner"]
        twice = isinstance(inner, Maximize)
        return inner.arguments["inner"] if twice else super()._make(definition, arguments)

    @functools.cached_property
    def _links(self) -> tuple[Link, ...]:
        negation, *inside = self.body._links
        return (negation, *(link._replace(masks=(*link.masks, Negated())) for link in inside))

    def _init(self, params: Params) -> OptState:
        _, inner = super()._init(params)
        return NegatedState(), inner


@makes(Maximize)
def maximize(inner: TransformationLike) -> GradientTransformation:
    """Run an optimizer uphill: it minimizes the negative of the objective.

        u = inner(-g)

    update takes the gradient of the objective itself and, where they are needed, its `value`,
    `grad`, `value_fn`, `obj_fn` and `grad_fn`; inner sees all of them negated. Values that inner
    keeps in its state, such as the best so far, and bounds that it is given, such as
    `lower_bound`, are those of the negative; `value_and_grad_from_state` returns the objective's
    own. A transformation that looks at values must be inside: beside maximize in a chain it would
    see the objective itself. maximize(maximize(tx)) is tx.

    Args:
        inner: the optimizer that is to go uphill, gradtx's or Optax's.

    State: a pair: an empty state and that of `inner`.

    Raises: TypeError if inner is not a transformation.

    Example:
        >>> params = jnp.array([1.0])
        >>> tx = gradtx.maximize(gradtx.sgd(0.5))
        >>> grads = jax.grad(lambda x: jnp.sum(6 * x - x**2))(params)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> updates
        Array([2.], dtype=float32)
    """
    return chain(negate(), inner)
