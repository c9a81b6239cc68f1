"""Adaptive moments beside Adam's."""

import optax

import gradtx

from .example import E, Example, linear, only_w

EXAMPLES: tuple[Example, ...] = (
    # -- AdaBelief, ACProp -----------------------------------------------------------------------
    E("scale_by_belief", "default", gradtx.scale_by_belief, twin=optax.scale_by_belief),
    E("scale_by_belief", "nesterov", lambda: gradtx.scale_by_belief(eps=1e-3, nesterov=True)),
    E("scale_by_acprop", "default", gradtx.scale_by_acprop, twin=optax.contrib.scale_by_acprop),
    E(
        "adabelief",
        "default",
        lambda: gradtx.adabelief(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.adabelief(0.1),
    ),
    E(
        "acprop",
        "default",
        lambda: gradtx.acprop(0.1),
        needs_params=True,
        rates=(0.02, 0.02),
        twin=lambda: optax.contrib.acprop(0.1),
    ),
    # -- Adamax ----------------------------------------------------------------------------------
    E("scale_by_adamax", "default", gradtx.scale_by_adamax, twin=optax.scale_by_adamax),
    E(
        "adamax",
        "default",
        lambda: gradtx.adamax(0.1),
        rates=(0.1, 0.1),
        twin=lambda: optax.adamax(0.1),
    ),
    E(
        "adamaxw",
        "default",
        lambda: gradtx.adamaxw(0.1),
        needs_params=True,
        rates=(0.1, 0.1),
        twin=lambda: optax.adamaxw(0.1),
    ),
    # -- Adadelta --------------------------------------------------------------------------------
    E("scale_by_adadelta", "default", gradtx.scale_by_adadelta, twin=optax.scale_by_adadelta),
    E(
        "adadelta",
        "default",
        lambda: gradtx.adadelta(0.1),
        needs_params=True,
        rates=(3.0, 0.2),
        twin=lambda: optax.adadelta(0.1),
    ),
    E(
        "adadelta",
        "no rate, mask as function",
        lambda: gradtx.adadelta(weight_decay=0.1, weight_decay_mask=only_w),
        needs_params=True,
        written_out=False,
    ),
    # -- Yogi ------------------------------------------------------------------------------------
    E("scale_by_yogi", "default", gradtx.scale_by_yogi, twin=optax.scale_by_yogi),
    E(
        "yogi",
        "default",
        lambda: gradtx.yogi(0.1),
        rates=(0.1, 0.1),
        twin=lambda: optax.yogi(0.1),
    ),
    # -- RAdam: until its fifth step it does not divide by the second moment ---------------------
    E(
        "scale_by_radam",
        "default",
        gradtx.scale_by_radam,
        twin=optax.scale_by_radam,
        idle=("b2", "eps", "eps_root", "threshold"),
    ),
    E(
        "scale_by_radam",
        "nesterov",
        lambda: gradtx.scale_by_radam(b1=0.8, nesterov=True),
        idle=("b2", "eps", "eps_root", "threshold"),
    ),
    E(
        "radam",
        "default",
        lambda: gradtx.radam(0.1),
        rates=(0.1, 3e-3),
        twin=lambda: optax.radam(0.1),
        idle=("b2", "eps", "eps_root", "threshold"),
    ),
    # -- NovoGrad --------------------------------------------------------------------------------
    E("scale_by_novograd", "default", gradtx.scale_by_novograd, twin=optax.scale_by_novograd),
    E(
        "scale_by_novograd",
        "decay bf16",
        lambda: gradtx.scale_by_novograd(weight_decay=0.1, mu_dtype="bfloat16"),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    E(
        "novograd",
        "default",
        lambda: gradtx.novograd(0.1),
        rates=(0.01, 1e-3),
        twin=lambda: optax.novograd(0.1),
    ),
    E(
        "novograd",
        "decay",
        lambda: gradtx.novograd(0.1, weight_decay=0.1),
        needs_params=True,
        twin=lambda: optax.novograd(0.1, weight_decay=0.1),
    ),
    # -- Adan, with b2 = 1 / 2 where 1 - b2 is b2 ------------------------------------------------
    E(
        "scale_by_adan",
        "default",
        gradtx.scale_by_adan,
    ),
    E(
        "scale_by_adan",
        "b2 a half",
        lambda: gradtx.scale_by_adan(b2=0.5),
        twin=lambda: optax.scale_by_adan(b2=0.5),
    ),
    E("adan", "default", lambda: gradtx.adan(0.1), needs_params=True, rates=(0.3, 0.1)),
    E(
        "adan",
        "b2 a half",
        lambda: gradtx.adan(0.1, b2=0.5, weight_decay=0.1),
        needs_params=True,
        twin=lambda: optax.adan(0.1, b2=0.5, weight_decay=0.1),
    ),
    # -- Rprop -----------------------------------------------------------------------------------
    E(
        "scale_by_rprop",
        "default",
        lambda: gradtx.scale_by_rprop(0.1),
        real=True,
        at_init=("learning_rate",),
        idle=("min_step_size", "max_step_size"),
    ),
    E(
        "rprop",
        "default",
        lambda: gradtx.rprop(0.1),
        rates=(0.1, 0.01),
        real=True,
        at_init=("learning_rate",),
        idle=("min_step_size", "max_step_size"),
    ),
    E(
        "rprop",
        "bounded",
        lambda: gradtx.rprop(0.1, 0.5, 2.0, 0.09, 0.12),
        real=True,
        at_init=("learning_rate",),
        idle=("learning_rate",),
    ),
    # -- optimistic ------------------------------------------------------------------------------
    E(
        "scale_by_optimistic_gradient",
        "default",
        gradtx.scale_by_optimistic_gradient,
        twin=optax.scale_by_optimistic_gradient,
    ),
    E(
        "scale_by_optimistic_gradient",
        "scheduled",
        lambda: gradtx.scale_by_optimistic_gradient(linear(), linear()),
    ),
    E(
        "optimistic_gradient_descent",
        "default",
        lambda: gradtx.optimistic_gradient_descent(0.1),
        rates=(0.03, 1e-3),
        twin=lambda: optax.optimistic_gradient_descent(0.1),
    ),
    E(
        "optimistic_adam",
        "default",
        lambda: gradtx.optimistic_adam(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.optimistic_adam(0.1),
    ),
    E(
        "optimistic_adam",
        "optimism",
        lambda: gradtx.optimistic_adam(0.1, 0.05, nesterov=False),
        twin=lambda: optax.optimistic_adam(0.1, 0.05, nesterov=False),
    ),
    E(
        "optimistic_adam_v2",
        "default",
        lambda: gradtx.optimistic_adam_v2(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.optimistic_adam_v2(0.1),
    ),
    E(
        "optimistic_adam_v2",
        "scheduled bf16",
        lambda: gradtx.optimistic_adam_v2(linear(), beta=0.5, mu_dtype="bfloat16"),
        narrow=True,
        written_out=False,
    ),
    # -- AdEMAMix --------------------------------------------------------------------------------
    E(
        "scale_by_ademamix",
        "default",
        gradtx.scale_by_ademamix,
        twin=optax.contrib.scale_by_ademamix,
    ),
    E(
        "scale_by_ademamix",
        "scheduled bf16",
        lambda: gradtx.scale_by_ademamix(b3=linear(), alpha=linear(), mu_dtype="bfloat16"),
        narrow=True,
        written_out=False,
    ),
    E(
        "scale_by_simplified_ademamix",
        "default",
        gradtx.scale_by_simplified_ademamix,
        twin=optax.contrib.scale_by_simplified_ademamix,
    ),
    E(
        "ademamix",
        "default",
        lambda: gradtx.ademamix(0.1),
        needs_params=True,
        rates=(0.1, 0.03),
        twin=lambda: optax.contrib.ademamix(0.1),
    ),
    E(
        "simplified_ademamix",
        "default",
        lambda: gradtx.simplified_ademamix(0.01),
        needs_params=True,
        twin=lambda: optax.contrib.simplified_ademamix(0.01),
    ),
    E(  # a momentum of 0.99 would still swing after the few steps of the laws
        "simplified_ademamix",
        "faster",
        lambda: gradtx.simplified_ademamix(0.01, 0.9, alpha=1.0, weight_decay=0.01),
        needs_params=True,
        rates=(0.01, 1e-3),
        twin=lambda: optax.contrib.simplified_ademamix(0.01, 0.9, alpha=1.0, weight_decay=0.01),
    ),
    # -- ADOPT -----------------------------------------------------------------------------------
    E(
        "scale_by_adopt",
        "default",
        gradtx.scale_by_adopt,
        twin=optax.contrib.scale_by_adopt,
        real=True,
        written_out=False,
    ),
    E(
        "scale_by_adopt",
        "nesterov without clipping",
        lambda: gradtx.scale_by_adopt(eps=0.1, nesterov=True, use_clipping=False, clip_value_fn=1),
        idle=("clip_value_fn",),
    ),
    E(
        "scale_by_adopt",
        "a number bf16",
        lambda: gradtx.scale_by_adopt(0.5, mu_dtype="bfloat16", clip_value_fn=0.5),
        real=True,
        narrow=True,
        written_out=False,
    ),
    E(
        "adopt",
        "default",
        lambda: gradtx.adopt(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.contrib.adopt(0.1),
        real=True,
        written_out=False,
    ),
)
