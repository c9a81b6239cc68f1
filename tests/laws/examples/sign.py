"""Signs."""

import optax

import gradtx

from .example import E, Example, linear, only_w

EXAMPLES: tuple[Example, ...] = (
    E("scale_by_sign", "default", gradtx.scale_by_sign, twin=optax.scale_by_sign),
    E(
        "scale_by_lion",
        "default",
        gradtx.scale_by_lion,
        twin=optax.scale_by_lion,
        idle=("smooth_beta",),
        unmoved=("b1", "b2"),
    ),
    E(
        "scale_by_lion",
        "smooth",
        lambda: gradtx.scale_by_lion(0.8, mode="smooth", smooth_beta=2.0),
        twin=lambda: optax.scale_by_lion(0.8, mode="smooth", smooth_beta=2.0),
        real=True,
    ),
    E(
        "scale_by_lion",
        "refined bf16",
        lambda: gradtx.scale_by_lion(mu_dtype="bfloat16", mode="refined"),
        narrow=True,
        idle=("smooth_beta",),
        written_out=False,
    ),
    E(
        "sign_sgd",
        "default",
        lambda: gradtx.sign_sgd(0.1),
        rates=(0.02, 1e-3),
        twin=lambda: optax.sign_sgd(0.1),
    ),
    E(
        "signum",
        "default",
        lambda: gradtx.signum(0.1),
        rates=(0.02, 3e-3),
        twin=lambda: optax.signum(0.1),
    ),
    E(
        "signum",
        "scheduled bf16",
        lambda: gradtx.signum(linear(), 0.5, "bfloat16"),
        narrow=True,
        unmoved=("beta",),
        written_out=False,
    ),
    E(
        "lion",
        "default",
        lambda: gradtx.lion(0.1),
        needs_params=True,
        rates=(0.02, 3e-3),
        twin=lambda: optax.lion(0.1),
    ),
    E(
        "lion",
        "mask as function",
        lambda: gradtx.lion(0.1, weight_decay=0.1, mask=only_w),
        needs_params=True,
        twin=lambda: optax.lion(0.1, weight_decay=0.1, mask=only_w),
        written_out=False,
    ),
)
