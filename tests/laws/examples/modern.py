"""Optimizers of recent papers."""

import gradtx

from .example import E, Example

EXAMPLES: tuple[Example, ...] = (
    # -- LaProp ----------------------------------------------------------------------------------
    E("scale_by_laprop", "default", gradtx.scale_by_laprop, idle=("eps",), unmoved=("b1", "b2")),
    E("scale_by_laprop", "amsgrad", lambda: gradtx.scale_by_laprop(eps=1e-3, amsgrad=True)),
    E("laprop", "default", lambda: gradtx.laprop(0.1), needs_params=True, rates=(0.1, 0.03)),
)
