"""The same optimizer, uphill."""

from __future__ import annotations

import functools
from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.definition import Definition
from gradtx.core.mask import Negated
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.problem import NegatedState
from gradtx.core.recipe import Recipe
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation, Link, as_transformation

__all__ = ["maximize"]


class Negation(LeafTransformation):
    """The gradient of the negative of the objective."""

    passes_examples = True


@functools.partial(Definition, value_class=Negation)
def negate() -> Any:
    """u = -g"""
    return lambda grad: -grad


class Maximize(Recipe):
    """The links of the inner transformation, each of which sees the negative of the objective."""

    @functools.cached_property
    def _links(self) -> tuple[Link, ...]:
        negation, *inside = self.body._links
        return (negation, *(link._replace(masks=(*link.masks, Negated())) for link in inside))

    def _init(self, params: Params) -> OptState:
        _, inner = super()._init(params)
        return NegatedState(), inner


def _maximize(inner: GradientTransformation) -> Any:
    """The same optimizer, uphill."""
    return chain(negate(), inner)


_maximize.__name__ = "maximize"
_MAXIMIZE = Definition(_maximize, Maximize, stored_as="_MAXIMIZE")


def maximize(inner: Any) -> GradientTransformation:
    """The same optimizer, uphill: it minimizes the negative of the objective.

    update takes the objective's own gradient and, for what needs them, its own `value`, `grad`,
    `value_fn`, `obj_fn` and `grad_fn`; inner sees all of them negated. What inner keeps about
    values in its state, such as the best one so far, or names as a bound, such as `lower_bound`,
    is about the negative; `value_and_grad_from_state` gives the objective's own. What looks at
    values must be inside: beside it in a chain it would see the objective itself. The state is the
    pair (an empty one, that of inner); maximize(maximize(tx)) is tx.

    Raises: TypeError for what is no transformation.
    """
    inner = as_transformation(inner, "maximize: inner")
    return inner.inner if isinstance(inner, Maximize) else _MAXIMIZE(inner)
