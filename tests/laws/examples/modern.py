"""Optimizers of recent papers."""

import gradtx

from .example import E, Example
from .orthogonal import as_matrices

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
    # -- MARS ------------------------------------------------------------------------------------
    E("scale_by_mars_correction", "default", gradtx.scale_by_mars_correction),
    E(
        "mars",
        "default",
        lambda: gradtx.mars(0.1, learning_rate_1d=0.1),
        needs_params=True,
        rates=(0.1, 0.03),
    ),
    E(
        "mars",
        "lion all alike",
        lambda: gradtx.mars(0.1, mars_type="lion", optimize_1d=True, gamma=0.5, mask="^w"),
        needs_params=True,
        by_path=True,
        idle=("learning_rate_1d", "b1_1d", "b2_1d", "weight_decay_1d", "b2", "eps"),
    ),
    E(
        "mars",
        "shampoo amsgrad",
        lambda: gradtx.mars(0.1, mars_type="shampoo", amsgrad=True),
        needs_params=True,
        idle=("b2",),
    ),
    # -- Muon's family ---------------------------------------------------------------------------
    E(
        "normalize_neurons",
        "of all arrays",
        lambda: gradtx.normalize_neurons(weight_dimension_numbers=as_matrices),
        needs_params=True,
        written_out=False,
    ),
    E(
        "normuon",
        "nearly default",
        lambda: gradtx.normuon(0.1, ns_steps=2),
        needs_params=True,
        rates=(0.05, 0.03),
    ),
    E(
        "muon",
        "others' conventions",
        lambda: gradtx.muon(
            0.1,
            "polar_express",
            weight_decay=0.1,
            bias_correction=False,
            scale="spectral",
            cautious_weight_decay=True,
        ),
        needs_params=True,
        written_out=False,
    ),
    E(
        "hyperball",
        "of Adam",
        lambda: gradtx.hyperball(gradtx.scale_by_adam(), 0.1),
        needs_params=True,
    ),
    # -- Scion -----------------------------------------------------------------------------------
    E("scale_by_lmo", "default", gradtx.scale_by_lmo),
    E(
        "scion",
        "nearly default",
        lambda: gradtx.scion(0.1, scale=3.0),
        needs_params=True,
        rates=(0.005, 0.003),
    ),
    # -- Adam-mini -------------------------------------------------------------------------------
    E("scale_by_adam_mini", "default", gradtx.scale_by_adam_mini),
    E(
        "adam_mini",
        "default",
        lambda: gradtx.adam_mini(0.1),
        needs_params=True,
        rates=(0.1, 0.03),
    ),
    E(
        "adam_mini",
        "blocks",
        lambda: gradtx.adam_mini(0.1, blocks={"^w": "columns"}),
        needs_params=True,
        by_path=True,
    ),
)
