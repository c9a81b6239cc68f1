"""What is tried every time: from SGD to AdamW, PyTorch's conventions, combinators, a user's own."""

from typing import Any

import optax

import gradtx
from gradtx import torch as gt

from . import own
from .example import E, Example, T, linear, only_w

# Optax's transformations are closures: equal only where they are the same object.
_OPTAX_TRACE = optax.trace(0.5)
_OPTAX_SCALE = optax.scale(0.5)


def halve(updates: Any, params: Any) -> Any:
    """What `stateless` wraps."""
    return gradtx.tree.scale(0.5, updates)


def towards_params(grad: Any, param: Any) -> Any:
    """What `stateless_with_tree_map` wraps; it can do without params."""
    return grad if param is None else 0.5 * grad + 0.25 * param


EXAMPLES: tuple[Example, ...] = (
    # -- without a formula of their own ----------------------------------------------------------
    E("identity", "default", gradtx.identity, twin=optax.identity),
    E("set_to_zero", "default", gradtx.set_to_zero, twin=optax.set_to_zero),
    E("stateless", "halve", lambda: gradtx.stateless(halve), written_out=False),
    E(
        "stateless_with_tree_map",
        "towards params",
        lambda: gradtx.stateless_with_tree_map(towards_params),
        written_out=False,
    ),
    E("GradientTransformation", "a pair of functions", own.pair, written_out=False),
    # -- scaling ---------------------------------------------------------------------------------
    E("scale", "uphill", lambda: gradtx.scale(0.5), twin=lambda: optax.scale(0.5)),
    E("scale", "scheduled", lambda: gradtx.scale(linear())),
    E(
        "scale_by_schedule",
        "linear",
        lambda: gradtx.scale_by_schedule(linear()),
        twin=lambda: optax.scale_by_schedule(optax.linear_schedule(0.2, 0.05, 6)),
    ),
    E(
        "scale_by_learning_rate",
        "default",
        lambda: gradtx.scale_by_learning_rate(0.1),
        twin=lambda: optax.scale_by_learning_rate(0.1),
    ),
    E("scale_by_learning_rate", "no rate", gradtx.scale_by_learning_rate),
    E(
        "scale_by_learning_rate",
        "scheduled uphill",
        lambda: gradtx.scale_by_learning_rate(linear(), flip_sign=False),
        twin=lambda: optax.scale_by_learning_rate(
            optax.linear_schedule(0.2, 0.05, 6), flip_sign=False
        ),
    ),
    # -- clipping and decay ----------------------------------------------------------------------
    E("clip", "default", lambda: gradtx.clip(0.5), twin=lambda: optax.clip(0.5), real=True),
    E(
        "clip_by_global_norm",
        "default",
        lambda: gradtx.clip_by_global_norm(1.0),
        couples=True,
        twin=lambda: optax.clip_by_global_norm(1.0),
    ),
    E(
        "add_decayed_weights",
        "default",
        lambda: gradtx.add_decayed_weights(0.1),
        needs_params=True,
        twin=lambda: optax.add_decayed_weights(0.1),
    ),
    E(
        "add_decayed_weights",
        "mask as function",
        lambda: gradtx.add_decayed_weights(0.1, only_w),
        needs_params=True,
        twin=lambda: optax.add_decayed_weights(0.1, only_w),
        written_out=False,
    ),
    E(
        "add_decayed_weights",
        "cautious",
        lambda: gradtx.add_decayed_weights(0.1, cautious=True),
        needs_params=True,
    ),
    # -- momentum --------------------------------------------------------------------------------
    E("trace", "default", lambda: gradtx.trace(0.9), twin=lambda: optax.trace(0.9)),
    E(
        "trace",
        "nesterov bf16",
        lambda: gradtx.trace(0.9, True, "bfloat16"),
        narrow=True,
        written_out=False,
    ),
    E("ema", "default", lambda: gradtx.ema(0.9), twin=lambda: optax.ema(0.9)),
    E("ema", "no debias", lambda: gradtx.ema(0.9, debias=False)),
    E("scale_by_momentum", "default", lambda: gradtx.scale_by_momentum(0.9)),
    E("scale_by_momentum", "nesterov", lambda: gradtx.scale_by_momentum(0.9, nesterov=True)),
    E("scale_by_momentum", "dampening", lambda: gradtx.scale_by_momentum(0.9, dampening=0.5)),
    # -- second moments --------------------------------------------------------------------------
    E(
        "scale_by_rss",
        "default",
        gradtx.scale_by_rss,
        twin=optax.scale_by_rss,
    ),
    E("scale_by_rss", "eps outside", lambda: gradtx.scale_by_rss(0.0, 1e-3, eps_in_sqrt=False)),
    E("scale_by_rms", "default", gradtx.scale_by_rms, twin=optax.scale_by_rms),
    E("scale_by_rms", "corrected", lambda: gradtx.scale_by_rms(bias_correction=True)),
    E("scale_by_rms", "eps outside", lambda: gradtx.scale_by_rms(0.9, 1e-3, 0.5, False)),
    E("scale_by_stddev", "default", gradtx.scale_by_stddev, twin=optax.scale_by_stddev),
    E(
        "scale_by_stddev",
        "corrected",
        lambda: gradtx.scale_by_stddev(eps=1e-2, bias_correction=True),
    ),
    E("scale_by_adam", "default", gradtx.scale_by_adam, twin=optax.scale_by_adam),
    E(
        "scale_by_adam",
        "nesterov bf16",
        lambda: gradtx.scale_by_adam(mu_dtype="bfloat16", nesterov=True),
        narrow=True,
        written_out=False,
    ),
    E(
        "scale_by_adam",
        "uncorrected",
        lambda: gradtx.scale_by_adam(eps_root=1e-3, bias_correction=False),
    ),
    E(
        "scale_by_amsgrad",
        "default",
        gradtx.scale_by_amsgrad,
        twin=optax.scale_by_amsgrad,
    ),
    E("scale_by_amsgrad", "raw", lambda: gradtx.scale_by_amsgrad(max_of="raw")),
    # -- optimizers ------------------------------------------------------------------------------
    E("sgd", "default", lambda: gradtx.sgd(0.1), rates=(0.1, 1e-3), twin=lambda: optax.sgd(0.1)),
    E(
        "sgd",
        "nesterov",
        lambda: gradtx.sgd(0.1, 0.9, nesterov=True),
        rates=(0.05, 5e-4),
        twin=lambda: optax.sgd(0.1, 0.9, nesterov=True),
    ),
    E(
        "sgd",
        "bf16 scheduled",
        lambda: gradtx.sgd(linear(), 0.9, accumulator_dtype="bfloat16"),
        narrow=True,
        written_out=False,
    ),
    E("maximize", "sgd", lambda: gradtx.maximize(gradtx.sgd(0.1, 0.9))),
    E(
        "adagrad",
        "default",
        lambda: gradtx.adagrad(0.1),
        rates=(0.5, 0.5),
        twin=lambda: optax.adagrad(0.1),
    ),
    E(
        "rmsprop",
        "default",
        lambda: gradtx.rmsprop(0.01),
        rates=(0.02, 5e-3),
        twin=lambda: optax.rmsprop(0.01),
    ),
    E(
        "rmsprop",
        "centered momentum",
        lambda: gradtx.rmsprop(0.01, centered=True, momentum=0.5, eps=1e-3),
        rates=(0.01, 1e-3),
        twin=lambda: optax.rmsprop(0.01, centered=True, momentum=0.5, eps=1e-3),
    ),
    E(
        "rmsprop",
        "rate outside the buffer",
        lambda: gradtx.rmsprop(
            linear(), momentum=0.5, bias_correction=True, learning_rate_in_momentum=False
        ),
    ),
    E(
        "adam",
        "default",
        lambda: gradtx.adam(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.adam(0.1),
    ),
    E(
        "adam",
        "scheduled",
        lambda: gradtx.adam(linear(), b1=linear(), eps=1e-3),
    ),
    E(
        "nadam",
        "default",
        lambda: gradtx.nadam(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.nadam(0.1),
    ),
    E(
        "amsgrad",
        "default",
        lambda: gradtx.amsgrad(0.1),
        rates=(0.1, 0.03),
        twin=lambda: optax.amsgrad(0.1),
    ),
    E("amsgrad", "raw", lambda: gradtx.amsgrad(0.1, max_of="raw")),
    E(
        "adamw",
        "default",
        lambda: gradtx.adamw(0.1),
        needs_params=True,
        rates=(0.1, 0.03),
        twin=lambda: optax.adamw(0.1),
    ),
    E(
        "adamw",
        "mask as tree nesterov",
        lambda: gradtx.adamw(0.1, weight_decay=0.1, mask=T, nesterov=True),
        needs_params=True,
        twin=lambda: optax.adamw(0.1, weight_decay=0.1, mask=T, nesterov=True),
        whole_tree=True,
    ),
    E(
        "adamw",
        "mask as function bf16",
        lambda: gradtx.adamw(0.1, mu_dtype="bfloat16", weight_decay=0.1, mask=only_w),
        needs_params=True,
        narrow=True,
        written_out=False,
    ),
    E(
        "adamw",
        "mask as pattern",
        lambda: gradtx.adamw(0.1, weight_decay=linear(), mask="^w"),
        needs_params=True,
    ),
    E(
        "adamw",
        "independent decay",
        lambda: gradtx.adamw(0.1, weight_decay=linear(), mask="^w", independent_decay=True),
        needs_params=True,
    ),
    E(
        "nadamw",
        "default",
        lambda: gradtx.nadamw(0.1),
        needs_params=True,
        rates=(0.1, 0.03),
        twin=lambda: optax.nadamw(0.1),
    ),
    # -- PyTorch's -------------------------------------------------------------------------------
    E("torch.sgd", "default", lambda: gt.sgd(0.1), rates=(0.1, 1e-3)),
    E(
        "torch.sgd",
        "momentum dampening decay",
        lambda: gt.sgd(0.1, 0.9, 0.5, 0.1),
        needs_params=True,
    ),
    E("torch.sgd", "nesterov uphill", lambda: gt.sgd(0.1, 0.9, nesterov=True, maximize=True)),
    E("torch.adagrad", "default", lambda: gt.adagrad(0.1), rates=(0.5, 0.5)),
    E(
        "torch.adagrad",
        "decaying",
        lambda: gt.adagrad(0.1, lr_decay=0.1, weight_decay=0.1, eps=1e-3),
        needs_params=True,
    ),
    E("torch.rmsprop", "default", lambda: gt.rmsprop(), rates=(0.02, 5e-3)),
    E("torch.rmsprop", "centered momentum", lambda: gt.rmsprop(momentum=0.5, centered=True)),
    E("torch.adam", "default", lambda: gt.adam(), rates=(0.1, 0.03)),
    E(
        "torch.adam",
        "amsgrad decay",
        lambda: gt.adam(0.1, (0.8, 0.9), 1e-3, 0.1, amsgrad=True),
        needs_params=True,
    ),
    E(
        "torch.adam",
        "decoupled decay",
        lambda: gt.adam(0.1, weight_decay=0.1, decoupled_weight_decay=True),
        needs_params=True,
    ),
    E("torch.adamw", "default", lambda: gt.adamw(), needs_params=True, rates=(0.1, 0.03)),
    E(
        "torch.adamw",
        "uphill scheduled",
        lambda: gt.adamw(linear(), weight_decay=0, maximize=True),
    ),
    # -- combinators -----------------------------------------------------------------------------
    E("chain", "empty", gradtx.chain),
    E(
        "chain",
        "clip adam schedule",
        lambda: gradtx.chain(
            gradtx.clip_by_global_norm(1.0),
            gradtx.scale_by_adam(),
            gradtx.scale_by_learning_rate(linear()),
        ),
        couples=True,
        twin=lambda: optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_learning_rate(optax.linear_schedule(0.2, 0.05, 6)),
        ),
    ),
    E(
        "chain",
        "with Optax inside",
        lambda: gradtx.chain(gradtx.scale_by_rms(), _OPTAX_TRACE, _OPTAX_SCALE, gradtx.scale(-0.1)),
        foreign=True,
        written_out=False,
    ),
    E(
        "chain",
        "of chains and own rules",
        lambda: gradtx.chain(
            gradtx.chain(own.mean_of_signs(0.9), own.shrink(0.1)), gradtx.sgd(0.1, momentum=0.9)
        ),
        needs_params=True,
        written_out=False,
    ),
    E(
        "named_chain",
        "adam decay",
        lambda: gradtx.named_chain(
            ("moments", gradtx.scale_by_adam()),
            ("decay", gradtx.add_decayed_weights(0.1)),
            ("rate", gradtx.scale(-0.1)),
        ),
        needs_params=True,
        twin=lambda: optax.named_chain(
            ("moments", optax.scale_by_adam()),
            ("decay", optax.add_decayed_weights(0.1)),
            ("rate", optax.scale(-0.1)),
        ),
    ),
    E(
        "masked",
        "pattern",
        lambda: gradtx.masked(gradtx.adam(0.1), ~gradtx.matching("^w")),
    ),
    E(
        "masked",
        "tree",
        lambda: gradtx.masked(gradtx.sgd(0.1, 0.9), T),
        twin=lambda: optax.masked(optax.sgd(0.1, 0.9), T),
        whole_tree=True,
    ),
    E(
        "masked",
        "function over a norm",
        lambda: gradtx.masked(
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.trace(0.9)), only_w
        ),
        twin=lambda: optax.masked(
            optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9)), only_w
        ),
        written_out=False,
    ),
    E(
        "accumulate",
        "adam",
        lambda: gradtx.accumulate(gradtx.adam(0.1), 2),
        written_out=False,
        couples=True,
        accumulates=True,
    ),
    E(
        "accumulate",
        "adamw in cycles that grow",
        lambda: gradtx.accumulate(
            gradtx.adamw(0.1), gradtx.piecewise_constant_schedule(1, {1: 2}), drop_nonfinite=False
        ),
        written_out=False,
        needs_params=True,
    ),
    E(
        "accumulate",
        "sums",
        lambda: gradtx.accumulate(gradtx.adam(0.1), 2, sums=True),
        written_out=False,
        couples=True,
        accumulates=True,
    ),
    E(
        "multi_steps",
        "sum for sgd",
        lambda: gradtx.multi_steps(gradtx.sgd(0.1, 0.9), 2, use_grad_mean=False),
        float32=True,
        written_out=False,
    ),
    E(
        "multi_steps",
        "from the class that skips",
        lambda: gradtx.MultiSteps(
            gradtx.adam(0.1), 2, should_skip_update_fn=own.skip_nonfinite
        ).gradient_transformation(),
        float32=True,
        couples=True,
        accumulates=True,
        written_out=False,
    ),
    # -- a user's own ----------------------------------------------------------------------------
    E("own per_leaf", "state and step", lambda: own.mean_of_signs(0.9), written_out=False),
    E("own per_leaf", "batched", lambda: own.to_unit_norm(0.9), written_out=False),
    E("own per_leaf", "no state", lambda: own.shrink(0.1), needs_params=True, written_out=False),
    E(
        "own per_leaf",
        "extra argument",
        lambda: own.times_value(2.0),
        written_out=False,
        extra={"value": 0.5},
    ),
    E("own per_tree", "no state", lambda: own.by_largest(), couples=True, written_out=False),
    E(
        "own per_tree",
        "state",
        lambda: own.against_mean(0.9),
        needs_params=True,
        written_out=False,
    ),
    E(
        "own recipe",
        "nested",
        lambda: own.signed_momentum(0.1, decay=0.5),
        needs_params=True,
        written_out=False,
    ),
)
