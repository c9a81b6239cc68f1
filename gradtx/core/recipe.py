"""The class of recipes: named compositions."""

from __future__ import annotations

from functools import cached_property

from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation, Link


class Recipe(GradientTransformation):
    """A named composition, with hyperparameters of its own and no maths."""

    def _check(self) -> None:
        if not isinstance(self.body, GradientTransformation):
            raise TypeError(
                f"{self.definition.name} must return a gradient transformation such as "
                f"chain(...), got {type(self.body).__name__}"
            )

    @cached_property
    def body(self) -> GradientTransformation:
        """The transformation that the recipe stands for."""
        body: GradientTransformation = self.definition.call(self.arguments)
        return body

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The parts of the body."""
        return self.body.parts

    @cached_property
    def _links(self) -> tuple[Link, ...]:
        links = self.body._links
        if len(links) == 1:
            return (links[0]._replace(owner=self),)
        return tuple(
            link._replace(owner=self) if link.written.definition.is_private else link
            for link in links
        )

    @cached_property
    def _composite(self) -> GradientTransformation:
        return self.body._composite

    def _init(self, params: Params) -> OptState:
        return self.body._init(params)
