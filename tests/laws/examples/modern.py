"""Optimizers of recent papers."""

import gradtx

from .example import E, Example

EXAMPLES: tuple[Example, ...] = (
    # -- LaProp ----------------------------------------------------------------------------------
    E("scale_by_laprop", "default", gradtx.scale_by_laprop, idle=("eps",), unmoved=("b1", "b2")),
    E("scale_by_laprop", "amsgrad", lambda: gradtx.scale_by_laprop(eps=1e-3, amsgrad=True)),
    E("laprop", "default", lambda: gradtx.laprop(0.1), needs_params=True, rates=(0.1, 0.03)),
    # -- StableAdamW -----------------------------------------------------------------------------
    E(
        "scale_by_stable_adam",
        "default",
        gradtx.scale_by_stable_adam,
        needs_params=True,
    ),
    E(
        "stable_adamw",
        "default",
        lambda: gradtx.stable_adamw(0.1),
        needs_params=True,
        rates=(0.1, 0.03),
    ),
    E(
        "stable_adamw",
        "masked",
        lambda: gradtx.stable_adamw(0.1, weight_decay=0.1, mask="^w", cautious_weight_decay=True),
        needs_params=True,
        by_path=True,
    ),
    # -- CAME ------------------------------------------------------------------------------------
    E(
        "scale_by_came",
        "default",
        gradtx.scale_by_came,
        idle=("eps", "eps_instability"),
    ),
    E("came", "default", lambda: gradtx.came(0.1), needs_params=True, rates=(0.03, 3e-3)),
)
