"""Leaves that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradtx.combinators.masked import masked
from gradtx.combinators.partition import Partition, partition
from gradtx.combinators.stateless import set_to_zero
from gradtx.core.leaves import Leaves
from gradtx.core.mask import Mask
from gradtx.core.state import Params
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Frozen, show, thaw


def freeze(mask: Any = True) -> GradientTransformation:
    """u = 0 where the mask holds, u = g elsewhere; it keeps no state.

    mask: as of `masked`. Last in a chain it keeps a transformation before it, such as weight
    decay, from moving those leaves; that one's state stays. `partition` and `selective_transform`
    save the state too.
    """
    return masked(set_to_zero(), mask)


def selective_transform(optimizer: Any, *, freeze_mask: Any) -> Partition:
    """The optimizer where the mask does not hold, u = 0 where it does, without state for it.

    freeze_mask: as of `masked`.
    """
    try:
        hash(freeze_mask)
    except TypeError:
        freeze_mask = Frozen(freeze_mask)
    groups = {"train": optimizer, "freeze": set_to_zero()}
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
