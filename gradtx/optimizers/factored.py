"""Adafactor and SM3: adaptive steps with little memory."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, Real
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.factored import scale_by_factored_rms
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.transforms.sm3 import scale_by_sm3
from gradtx.transforms.trust_ratio import scale_by_param_block_rms

__all__ = ["adafactor", "sm3"]


@recipe
def adafactor(
    learning_rate: NonNegative | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: Real = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: NonNegative | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: DType = jnp.float32,
    weight_decay_rate: NonNegative | None = None,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """Divide by a factored second moment, clip, and scale by the size of the parameters.

    Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235, with Optax's choices: momentum
    comes after the learning rate, and weight decay after both, not multiplied by the rate.
    clipping_threshold: the largest root mean square of an update; None omits the part, as it does
    for learning_rate, momentum and weight_decay_rate. dtype_momentum: the dtype in which the
    momentum is stored. decay_rate, decay_offset and eps are decay_rate, step_offset and epsilon of
    `scale_by_factored_rms`. weight_decay_mask: as in `masked`.
    """
    parts = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        parts.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        parts.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        parts.append(scale_by_param_block_rms())
    if momentum is not None:
        parts.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        parts.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*parts, scale(-1))


@recipe
def sm3(learning_rate: NonNegative, momentum: Decay = 0.9) -> GradientTransformation:
    """Memory-efficient AdaGrad. Anil et al., 2019, https://arxiv.org/abs/1901.11150"""
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
