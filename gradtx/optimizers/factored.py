"""Adafactor and SM3: adaptive steps with little memory."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative, Real
from gradtx.core.mask import MaskLike
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
    weight_decay_mask: MaskLike = None,
    *,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Divide by a factored second moment, clip, and scale by the size of the parameters.

        R <- d * R + (1 - d) * mean(g^2 + eps, over the longest axis)
        C <- d * C + (1 - d) * mean(g^2 + eps, over the second longest axis)
        u  = g / sqrt(R * C / mean(R)),             d = 1 - (t - decay_offset)^-decay_rate
        u  = u * min(1, clipping_threshold / rms(u))
        u  = u * learning_rate
        u  = u * max(rms(param), 0.001)             with multiply_by_parameter_scale
        m <- momentum * m + (1 - momentum) * u,     u = m
        u  = -(u + weight_decay_rate * param)

    A line drops out where its clipping_threshold, learning_rate, momentum or weight_decay_rate is
    None. Arrays without two long axes keep the mean V of every element, and u = g / sqrt(V). These
    are Optax's choices: momentum comes after the learning rate, and weight decay after both, not
    multiplied by the rate.

    It is for large models: the state of a matrix is one number per row and one per column.

    Args:
        learning_rate: the length of a step relative to the size of each array (without
            multiply_by_parameter_scale, the length itself): 0.01 changes parameters by about one
            percent. None omits the factor, which leaves steps as long as the parameters
        min_dim_size_to_factor: arrays without two axes of at least this length keep a second moment
            for every element
        decay_rate: how the decay d grows towards 1: at step t the mean reaches back about
            t^decay_rate steps. Larger is smoother
        decay_offset: a number subtracted from the step t, if the count continues that of an earlier
            run; the difference is at least 1
        multiply_by_parameter_scale: make steps proportional to the root mean square of each array
        clipping_threshold: the largest root mean square of a divided gradient; None does not clip
        momentum: the decay of a running mean of updates; None keeps none, which saves 4 bytes a
            parameter
        dtype_momentum: the dtype in which the momentum is kept
        weight_decay_rate: the fraction of each parameter that is subtracted at every step, not
            multiplied by the learning rate; None subtracts nothing
        eps: a tiny number added to every squared gradient, so that no mean is 0
        factored: False keeps the second moment of every element of all arrays

    State: R and C for a matrix, 4 bytes a row and a column; V for any other array, 4 bytes a
    parameter; with momentum 4 more bytes a parameter.

    Example:
        >>> params = {"embedding": jnp.ones((4096, 512)), "scale": jnp.ones(512)}
        >>> state = jax.eval_shape(gradtx.adafactor(0.01).init, params)
        >>> print(state[0].v_row["embedding"].shape, state[0].v_col["embedding"].shape)
        (512,) (4096,)
        >>> print(state[0].v["scale"].shape)
        (512,)

    See also: `sm3`, `galore`, `store`, also with little state; `scale_by_factored_rms`.

    References: Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235
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
        parts.append(
            add_decayed_weights(
                weight_decay_rate, weight_decay_mask, cautious=cautious_weight_decay
            )
        )
    return chain(*parts, scale(-1))


@recipe
def sm3(learning_rate: NonNegative, momentum: Decay = 0.9) -> GradientTransformation:
    """Approximate AdaGrad with one accumulator per row and per column in place of one per element.

        v       = min(mu_1[i], mu_2[j], ...) + g^2              (for the element i, j, ...)
        mu_1[i] <- max(v[i, :, ...]),   mu_2[j] <- max(v[:, j, ...]),   ...
        nu     <- momentum * nu + (1 - momentum) * g / sqrt(v + 1e-8)   (g / sqrt = 0 where v = 0)
        u       = -learning_rate * nu

    v is an upper bound on the sum of all squared gradients. It is tight where rows, or columns,
    have gradients of similar size, as in embeddings. Steps become ever shorter, as in AdaGrad.

    Args:
        momentum: the decay of the running mean of steps; 0.9 averages about the last ten

    State: nu, 4 bytes a parameter, and 4 bytes a row and a column (for a vector, an element).

    Example:
        >>> tx = gradtx.sm3(1.0)
        >>> state = tx.init(jnp.zeros((2, 3)))
        >>> updates, state = tx.update(jnp.array([[1.0, 2.0, 1.0], [0.0, 3.0, 0.0]]), state)
        >>> print(*state[0].mu)
        [4. 9.] [1. 9. 1.]

    See also: `adagrad`, `adafactor`.

    References: Anil et al., 2019, https://arxiv.org/abs/1901.11150 (SM3-II)
    """
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
