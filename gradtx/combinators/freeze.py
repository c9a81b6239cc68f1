"""Leaves that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradtx.combinators.masked import masked
from gradtx.combinators.partition import Partition, partition
from gradtx.core.decorators import recipe
from gradtx.core.definition import makes
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.leaves import Leaves
from gradtx.core.mask import Mask
from gradtx.core.run import Stage
from gradtx.core.state import EmptyState, OptState, Params
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Frozen, show, thaw

__all__ = ["freeze", "selective_transform"]


class Freeze(GradientTransformation):
    """Takes its leaves off the line of links: those behind it see no gradient there."""

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """Nothing."""
        return False

    def _can_ignore(self) -> bool:
        return True

    def _init(self, params: Params) -> OptState:
        return EmptyState()

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (state,), (selected,) = stage.states, stage.selections
        return flat.freeze(selected), [state]


@makes(Freeze)
def freeze_all() -> Any:
    """u = 0, and whatever follows leaves it so."""


@recipe
def freeze(mask: Any = True) -> Any:
    """u = 0 where the mask holds, wherever in a chain it stands; u = g elsewhere.

    Behind it a frozen leaf is absent: weight decay or noise that follows does not move it, a norm
    that follows does not count it. What stands before it sees the leaf's gradient still. A NaN in
    the gradient of a leaf that is frozen first does not make `finite_guard`, `apply_if_finite`,
    `accumulate`, `MultiSteps` or `dynamic_loss_scale` around it skip a step.

    It keeps no state. What others in the chain keep for a frozen leaf stays as it is; `partition`
    and `selective_transform` do not keep it in the first place.

    mask: as of `masked`.
    """
    return masked(freeze_all(), mask)


def selective_transform(optimizer: Any, *, freeze_mask: Any) -> Partition:
    """The optimizer where the mask does not hold, u = 0 where it does, without state for it.

    freeze_mask: as of `masked`.
    """
    try:
        hash(freeze_mask)
    except TypeError:
        freeze_mask = Frozen(freeze_mask)
    groups = {"train": optimizer, "freeze": freeze_all()}
    return partition(groups, _ByMask(freeze_mask))


@dataclass(frozen=True)
class _ByMask:
    """The labels "freeze", where a mask holds, and "train"."""

    mask: Any

    def __call__(self, params: Params) -> Any:
        leaves = Leaves.of(params)
        frozen = Mask(self.mask).select(leaves, "selective_transform: freeze_mask")
        return leaves.tree("freeze" if f else "train" for f in frozen)

    def __repr__(self) -> str:
        return f"freeze_mask={show(thaw(self.mask))}"
