"""Keep leaves as they are."""

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
from gradtx.core.origin import Held, is_nothing, show_class, wrong
from gradtx.core.run import Stage
from gradtx.core.state import EmptyState, OptState, Params
from gradtx.core.transformation import GradientTransformation, TransformationLike
from gradtx.core.value import Frozen, show, thaw

__all__ = ["freeze", "selective_transform"]


class Freeze(GradientTransformation):
    """Takes its leaves off the line of links: the links after it see no gradient there."""

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """It takes no extra argument."""
        return False

    def _can_ignore(self) -> bool:
        return True

    def _init(self, params: Params) -> OptState:
        return EmptyState()

    def _split(self, state: OptState, path: str) -> list[Held]:
        if not is_nothing(state):
            raise wrong(state, f"the {show_class(EmptyState)} of freeze", path)
        return super()._split(state, path)

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (state,), (selected,) = stage.states, stage.selections
        return flat.freeze(selected), [state]


@makes(Freeze)
def freeze_all() -> None:
    """u = 0, whatever follows"""


@recipe
def freeze(mask: Any = True) -> GradientTransformation:
    """u = 0 where the mask holds, wherever in a chain it stands; u = g elsewhere.

    To the transformations after it a frozen leaf is absent: weight decay or noise does not move
    it, a norm does not count it. Those before it still see the leaf's gradient. If freeze comes
    first, a NaN in the gradient of a frozen leaf does not make `finite_guard`, `apply_if_finite`,
    `accumulate`, `MultiSteps` or `dynamic_loss_scale` around it skip a step.

    It keeps no state. The state that the rest of the chain keeps for a frozen leaf stays as it is;
    `partition` and `selective_transform` keep none in the first place.

    mask: as in `masked`.
    """
    return masked(freeze_all(), mask)


def selective_transform(optimizer: TransformationLike, *, freeze_mask: Any) -> Partition:
    """u = 0, without state, where the mask holds; the optimizer elsewhere.

    freeze_mask: as `mask` in `masked`.
    """
    try:
        hash(freeze_mask)
    except TypeError:
        freeze_mask = Frozen(freeze_mask)
    groups = {"train": optimizer, "freeze": freeze_all()}
    return partition(groups, _ByMask(freeze_mask))


@dataclass(frozen=True)
class _ByMask:
    """Labels leaves "freeze" where the mask holds, and "train" elsewhere."""

    mask: Any

    def __call__(self, params: Params) -> Params:
        leaves = Leaves.of(params)
        frozen = Mask(self.mask).select(leaves, "selective_transform: freeze_mask")
        return leaves.tree("freeze" if f else "train" for f in frozen)

    def __repr__(self) -> str:
        return f"freeze_mask={show(thaw(self.mask))}"
