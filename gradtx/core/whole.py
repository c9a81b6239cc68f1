"""Composites that see the whole tree, and whose state is not one that a rule keeps."""

from __future__ import annotations

from typing import Any

from gradtx.core.run import update
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, Link
from gradtx.core.work import Work


class Whole(GradientTransformation):
    """A transformation of whole trees: updates in float32 or wider, params in their own dtypes, as
    an inner transformation needs them. A subclass says `_step` and `_init`."""

    @property
    def unrounded(self) -> bool:
        """As the parts say."""
        return any(part.unrounded for part in self.parts)

    def _step(
        self, updates: Updates, state: OptState, params: Params | None, extra: dict[str, Any]
    ) -> tuple[Updates, OptState]:
        """One update of the whole tree."""
        raise TypeError(f"{type(self).__name__} does not say how it steps")

    def _run(self, state: OptState, work: Work, link: Link, extra: dict[str, Any]) -> OptState:
        selected = work.selected(link.masks)
        updates, params = work.tree(selected), work.stored_params_tree(selected)
        new, state = self._step(updates, state, params, work.visible(extra, link.masks))
        work.put(new, selected, self.definition.name, self.per_example)
        return state


class Wrapper(Whole):
    """A transformation around another one, whose state is its own too."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation inside."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation inside."""
        return (self.inner,)

    def _init(self, params: Params) -> OptState:
        return self.inner._init(params)

    def _inside(
        self, updates: Updates, state: OptState, params: Params | None, extra: dict[str, Any]
    ) -> tuple[Updates, OptState]:
        return update(self.inner, updates, state, params, extra, rounded=False)
