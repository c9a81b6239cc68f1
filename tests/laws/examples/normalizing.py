"""Clipping by parts, normalising, and keeping out what is not wanted."""

import optax

import gradtx

from .example import E, Example, linear

EXAMPLES: tuple[Example, ...] = (
    E(
        "clip_by_block_rms",
        "default",
        lambda: gradtx.clip_by_block_rms(0.5),
        twin=lambda: optax.clip_by_block_rms(0.5),
    ),
    E("clip_by_norm", "default", lambda: gradtx.clip_by_norm(0.5)),
    E(
        "adaptive_grad_clip",
        "default",
        lambda: gradtx.adaptive_grad_clip(0.1),
        needs_params=True,
        twin=lambda: optax.adaptive_grad_clip(0.1),
        idle=("eps",),
    ),
    E(
        "adaptive_grad_clip",
        "element by element",
        lambda: gradtx.adaptive_grad_clip(linear(), 1.5, ()),
        needs_params=True,
    ),
    E(
        "normalize",
        "default",
        gradtx.normalize,
        couples=True,
        twin=optax.contrib.normalize,
    ),
    E(
        "normalize_by_update_norm",
        "default",
        gradtx.normalize_by_update_norm,
        couples=True,
        twin=optax.normalize_by_update_norm,
    ),
    E(
        "normalize_by_update_norm",
        "downhill",
        lambda: gradtx.normalize_by_update_norm(-0.5, 0.1),
        couples=True,
        twin=lambda: optax.normalize_by_update_norm(-0.5, 0.1),
    ),
    E("centralize", "default", gradtx.centralize, twin=optax.centralize),
    E("zero_nans", "default", gradtx.zero_nans, twin=optax.zero_nans),
    E(
        "keep_params_nonnegative",
        "default",
        gradtx.keep_params_nonnegative,
        needs_params=True,
        real=True,
        twin=optax.keep_params_nonnegative,
    ),
    E("apply_every", "default", gradtx.apply_every, twin=optax.apply_every, idle=("k",)),
    E("apply_every", "second step", lambda: gradtx.apply_every(2)),
)
