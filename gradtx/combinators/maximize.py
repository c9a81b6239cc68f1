"""The same optimizer, uphill."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.definition import Definition, makes
from gradtx.core.mask import Negated
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.problem import NegatedState
from gradtx.core.recipe import Recipe
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import Link, TransformationLike
from gradtx.core.value import Value

__all__ = ["maximize"]


class Negation(LeafTransformation):
    """The gradient of the negative of the objective."""

    passes_examples = True


@makes(Negation)
def negate() -> Any:
    """u = -g"""
    return lambda grad: -grad


class Maximize(Recipe):
    """The links of the inner transformation, each of which sees the negative of the objective."""

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
def maximize(inner: TransformationLike) -> Any:
    """The same optimizer, uphill: it minimizes the negative of the objective.

    update takes the objective's own gradient and, for what needs them, its own `value`, `grad`,
    `value_fn`, `obj_fn` and `grad_fn`; inner sees all of them negated. What inner keeps about
    values in its state, such as the best one so far, or names as a bound, such as `lower_bound`,
    is about the negative; `value_and_grad_from_state` gives the objective's own. What looks at
    values must be inside: beside it in a chain it would see the objective itself. The state is the
    pair (an empty one, that of inner); maximize(maximize(tx)) is tx.

    Raises: TypeError for what is no transformation.
    """
    return chain(negate(), inner)
