"""Names for the types of arguments, for annotations in a user's own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from gradtx.core.mask import MaskLike
from gradtx.core.schedule import Schedule
from gradtx.core.state import OptState, Params, Updates

ScalarOrSchedule = float | jax.Array | Schedule | Callable[[Any], Any]
MaskOrFn = MaskLike | None


class TransformInitFn(Protocol):
    """The first half of a transformation."""

    def __call__(self, params: Params) -> OptState:
        """The state before the first update."""


class TransformUpdateFn(Protocol):
    """The second half of a transformation that takes no extra arguments."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]:
        """The transformed updates and the next state."""


class TransformUpdateExtraArgsFn(Protocol):
    """The second half of a transformation."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        """The transformed updates and the next state."""


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule that keeps a state of its own, for `inject_hyperparams`."""

    def init(self) -> Any:
        """Its first state."""

    def update(self, state: Any, **extra_args: Any) -> Any:
        """Its state after a step."""

    def __call__(self, state: Any, **extra_args: Any) -> Any:
        """The number at a state."""
