"""Second moments kept in bfloat16, where a transformation has `nu_dtype`."""

import gradtx

from .example import E, Example
from .learning_rate_free import OBJECTIVE

BF16 = "bfloat16"

EXAMPLES: tuple[Example, ...] = (
    E(
        "scale_by_adam",
        "nu bf16",
        lambda: gradtx.scale_by_adam(nu_dtype=BF16),
        narrow=True,
        written_out=False,
    ),
    E("adam", "nu bf16", lambda: gradtx.adam(0.1, nu_dtype=BF16), narrow=True, written_out=False),
    E("nadam", "nu bf16", lambda: gradtx.nadam(0.1, nu_dtype=BF16), narrow=True, written_out=False),
    E(
        "adamw",
        "both bf16",
        lambda: gradtx.adamw(0.1, mu_dtype=BF16, nu_dtype=BF16),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    E(
        "nadamw",
        "nu bf16",
        lambda: gradtx.nadamw(0.1, nu_dtype=BF16),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    E(
        "scale_by_amsgrad",
        "nu bf16",
        lambda: gradtx.scale_by_amsgrad(nu_dtype=BF16),
        narrow=True,
        written_out=False,
    ),
    E(
        "amsgrad",
        "nu bf16",
        lambda: gradtx.amsgrad(0.1, max_of="raw", nu_dtype=BF16),
        narrow=True,
        written_out=False,
    ),
    E(
        "scale_by_ademamix",
        "nu bf16",
        lambda: gradtx.scale_by_ademamix(nu_dtype=BF16),
        narrow=True,
        written_out=False,
    ),
    E(
        "ademamix",
        "nu bf16",
        lambda: gradtx.ademamix(0.1, weight_decay=0.1, nu_dtype=BF16),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    E(
        "scale_by_adopt",
        "nu bf16",
        lambda: gradtx.scale_by_adopt(nu_dtype=BF16, use_clipping=False),
        narrow=True,
        written_out=False,
        idle=("eps", "clip_value_fn"),
    ),
    E(
        "adopt",
        "nu bf16",
        lambda: gradtx.adopt(0.1, nu_dtype=BF16, use_clipping=False),
        narrow=True,
        written_out=False,
        idle=("eps", "clip_value_fn"),
    ),
    E(
        "optimistic_adam",
        "nu bf16",
        lambda: gradtx.optimistic_adam(0.1, nu_dtype=BF16),
        narrow=True,
        written_out=False,
    ),
    E(
        "optimistic_adam_v2",
        "nu bf16",
        lambda: gradtx.optimistic_adam_v2(0.1, nu_dtype=BF16),
        narrow=True,
        written_out=False,
    ),
    E(
        "scale_by_sophia",
        "nu bf16",
        lambda: gradtx.scale_by_sophia(gamma=0.5, update_interval=2, nu_dtype=BF16),
        needs_params=True,
        couples=True,
        real=True,
        narrow=True,
        idle=("eps",),
        extra=OBJECTIVE,
        written_out=False,
    ),
    E(
        "sophia",
        "nu bf16",
        lambda: gradtx.sophia(0.1, gamma=0.5, update_interval=2, nu_dtype=BF16),
        needs_params=True,
        couples=True,
        real=True,
        narrow=True,
        idle=("eps",),
        extra=OBJECTIVE,
        written_out=False,
    ),
    E(
        "muon",
        "nu bf16",
        lambda: gradtx.muon(0.1, ns_steps=2, nu_dtype=BF16),
        needs_params=True,
        narrow=True,
        written_out=False,
        idle=("eps",),
    ),
)
