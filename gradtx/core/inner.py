"""The transformation inside a wrapper, bound to one step: the only way a rule runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from gradtx.core.apply import Applied
from gradtx.core.holding import now_and_then, usually
from gradtx.core.place import Place
from gradtx.core.problem import Change, Extra, seen_as, unsearchable
from gradtx.core.run import step, update
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation


@dataclass(frozen=True)
class Inner:
    """A transformation bound to one step: `u, inner_state = inner(updates, state.inner_state)`.

    It passes on the params, in their stored dtypes, and the caller's extra arguments. The updates
    stay in float32 or wider, so that nothing is rounded between the transformation and the wrapper.
    In a rule's init, where there is no step yet, `inner.init()` makes the inner state.
    """

    transformation: GradientTransformation
    params: Params | None = None
    extra: Extra | None = None
    applies: bool = False

    def __call__(self, updates: Updates, state: OptState) -> tuple[Updates, OptState]:
        """The updates, in float32 or wider, and the new state."""
        tx, extra = self.transformation, dict(self.extra or {})
        return update(tx, updates, state, self.params, extra, rounded=False)

    # A wrapper that hands on its inner updates unchanged says so by calling these. Then
    # `gradtx.step` adds the updates to the params where they are computed.

    def emit(self, updates: Updates, state: OptState) -> tuple[Updates | Applied, OptState]:
        """Like a call, for a wrapper that returns these updates unchanged."""
        if not self.applies:
            return self(updates, state)
        tx, extra = self.transformation, dict(self.extra or {})
        params, state = step(tx, updates, state, self.params, extra)
        return Applied(params), state

    def emit_if(
        self, due: jax.Array, updates: Updates, zeros: Callable[[], Updates], state: OptState
    ) -> tuple[Updates | Applied, OptState]:
        """`emit` where `due`, a boolean scalar, holds; otherwise zeros() and the state as it is."""
        if not self.applies:
            return usually(due, partial(self, updates), lambda _: zeros(), state)

        # The step returns nothing but what it holds, so that skipping it does not touch the params.
        def turn(held: tuple[Params, OptState]) -> tuple[tuple[()], tuple[Params, OptState]]:
            params, state = held
            applied, state = self.at(params).emit(updates, state)
            return (), (applied.params, state)

        _, (params, state) = now_and_then(due, turn, lambda _: (), (self.params, state))
        return Applied(params), state

    def init(self) -> OptState:
        """The state before the first update."""
        return self.transformation.init(self.params)

    @property
    def place(self) -> Place:
        """Where in a chain the transformation must stand."""
        return self.transformation.place

    def at(self, params: Params | None) -> Inner:
        """The same, bound to other params."""
        return replace(self, params=params)

    def seeing(
        self,
        *,
        value: Change | None = None,
        grad: Change | None = None,
        params: Change | None = None,
        searched: Change | None = None,
    ) -> Inner:
        """The same, with the extra arguments about the objective translated for the transformation:
        see `seen_as`."""
        changes = {"value": value, "grad": grad, "params": params, "searched": searched}
        return replace(self, extra=seen_as(self.extra or {}, **changes))

    def given(self, **extra: Any) -> Inner:
        """The same, with these extra arguments in place of the caller's."""
        return replace(self, extra={**(self.extra or {}), **extra})

    def without_search(self, who: str) -> Inner:
        """The same, but a line search inside is an error that names `who`: the step it would try
        is not the step that the parameters take."""
        return replace(self, extra=unsearchable(self.extra or {}, who))
