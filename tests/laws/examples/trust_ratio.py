"""Trust ratios, and steps in proportion to the parameters."""

import optax

import gradtx

from .example import E, Example, T, linear

EXAMPLES: tuple[Example, ...] = (
    E(
        "scale_by_trust_ratio",
        "default",
        gradtx.scale_by_trust_ratio,
        needs_params=True,
        twin=optax.scale_by_trust_ratio,
        idle=("min_norm",),
    ),
    E(
        "scale_by_trust_ratio",
        "bounded",
        lambda: gradtx.scale_by_trust_ratio(2.0, 0.5, 1e-2),
        needs_params=True,
        twin=lambda: optax.scale_by_trust_ratio(2.0, 0.5, 1e-2),
    ),
    E(
        "scale_by_param_block_norm",
        "default",
        gradtx.scale_by_param_block_norm,
        needs_params=True,
        twin=optax.scale_by_param_block_norm,
        idle=("min_scale",),
    ),
    E(
        "scale_by_param_block_norm",
        "at the bound",
        lambda: gradtx.scale_by_param_block_norm(2.0),
        needs_params=True,
        twin=lambda: optax.scale_by_param_block_norm(2.0),
    ),
    E(
        "scale_by_param_block_rms",
        "default",
        gradtx.scale_by_param_block_rms,
        needs_params=True,
        twin=optax.scale_by_param_block_rms,
        idle=("min_scale",),
    ),
    E(
        "scale_by_param_block_rms",
        "at the bound",
        lambda: gradtx.scale_by_param_block_rms(2.0),
        needs_params=True,
        twin=lambda: optax.scale_by_param_block_rms(2.0),
    ),
    E(
        "lamb",
        "default",
        lambda: gradtx.lamb(0.1),
        needs_params=True,
        rates=(0.05, 5e-3),
        twin=lambda: optax.lamb(0.1),
    ),
    E(
        "lamb",
        "decay under a mask",
        lambda: gradtx.lamb(linear(), eps=1e-3, weight_decay=0.1, mask=T),
        needs_params=True,
        twin=lambda: optax.lamb(
            optax.linear_schedule(0.2, 0.05, 6), eps=1e-3, weight_decay=0.1, mask=T
        ),
        whole_tree=True,
    ),
    E(
        "lars",
        "default",
        lambda: gradtx.lars(0.1),
        needs_params=True,
        rates=(10.0, 0.5),
        twin=lambda: optax.lars(0.1),
    ),
    E(
        "lars",
        "masks nesterov",
        lambda: gradtx.lars(0.1, 0.1, "^w", 0.01, 1e-3, "^w|b", 0.5, True),
        needs_params=True,
        by_path=True,
    ),
    E(
        "fromage",
        "default",
        lambda: gradtx.fromage(0.1),
        needs_params=True,
        rates=(0.09, 5e-3),
        twin=lambda: optax.fromage(0.1),
        idle=("min_norm",),
    ),
    E(
        "fromage",
        "scheduled",
        lambda: gradtx.fromage(linear(), 2.0),
        needs_params=True,
        twin=lambda: optax.fromage(optax.linear_schedule(0.2, 0.05, 6), 2.0),
    ),
)
