"""How parameters are rounded and how state is stored."""

from gradtx.precision.formats import Blocks, PackedBlocks, SplitFloat
from gradtx.precision.rounding import (
    KahanState,
    MasterWeightsState,
    kahan,
    master_weights,
    stochastic_rounding,
)
from gradtx.precision.store import StoreState, store

__all__ = [
    "Blocks",
    "KahanState",
    "MasterWeightsState",
    "PackedBlocks",
    "SplitFloat",
    "StoreState",
    "kahan",
    "master_weights",
    "stochastic_rounding",
    "store",
]
