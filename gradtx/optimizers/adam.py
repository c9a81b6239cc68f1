"""Adam, NAdam, AMSGrad, and with decoupled weight decay AdamW and NAdamW."""

from __future__ import annotations

from typing import Any

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import MaxOf, scale_by_adam, scale_by_amsgrad
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adam", "adamw", "amsgrad", "nadam", "nadamw"]


@recipe
def adam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Adam. Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980"""
    return chain(
        scale_by_adam(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            nesterov=nesterov,
            bias_correction=bias_correction,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def nadam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Adam with Nesterov momentum. Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"""
    moments = (b1, b2, eps, eps_root, mu_dtype)
    return adam(learning_rate, *moments, nesterov=nesterov, nu_dtype=nu_dtype)


@recipe
def amsgrad(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of: MaxOf = "corrected",
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Adam whose denominator never shrinks. Reddi et al., 2018, https://arxiv.org/abs/1904.09237

    max_of: the maximum of the "corrected" second moments (Optax) or of the "raw" ones (PyTorch).
    """
    moments = (b1, b2, eps, eps_root, mu_dtype)
    return chain(
        scale_by_amsgrad(
            *moments, bias_correction_mu, bias_correction_nu, max_of=max_of, nu_dtype=nu_dtype
        ),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def adamw(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Adam with decoupled weight decay. Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101

    mask: the parameters that decay, as in `masked`: a tree, a function or a path pattern.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def nadamw(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """NAdam with decoupled weight decay. Dozat, 2016; Loshchilov & Hutter, 2019."""
    moments = (b1, b2, eps, eps_root, mu_dtype)
    return adamw(learning_rate, *moments, weight_decay, mask, nesterov=nesterov, nu_dtype=nu_dtype)
