"""PyTorch's optimizers as recipes.

`lr` may be any schedule, of `gradtx.torch` or not. A literal 0 for momentum, dampening or
weight_decay omits that part. With maximize=True the gradient is negated before weight decay is
added, as in PyTorch.
"""

from __future__ import annotations

from jax import Array

from gradtx.combinators.chain import chain
from gradtx.core.hyperparameters import (
    Decay,
    FractionOrOff,
    NonNegative,
    NonNegativeOrOff,
    is_static_zero,
)
from gradtx.core.transformation import GradientTransformation
from gradtx.schedules.polynomial import inverse_time_decay_schedule
from gradtx.torch.definitions import recipe
from gradtx.torch.transforms import (
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_nadam,
    scale_by_radam,
    scale_by_rms,
    scale_by_rprop,
    scale_by_rss,
    scale_by_stddev,
)
from gradtx.transforms.asgd import scale_by_asgd
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import scale_by_momentum
from gradtx.transforms.scaling import scale, scale_by_learning_rate, scale_by_schedule

Parts = list[GradientTransformation]


def _gradient(maximize: bool, weight_decay: float | Array | None) -> Parts:
    """The gradient as PyTorch's optimizers see it: negated to maximize, then L2 is added."""
    ascent = [scale(-1)] if maximize else []
    return ascent + (
        []
        if weight_decay is None or is_static_zero(weight_decay)
        else [add_decayed_weights(weight_decay)]
    )


@recipe
def sgd(
    lr: NonNegative = 1e-3,
    momentum: FractionOrOff = 0.0,
    dampening: FractionOrOff = 0.0,
    weight_decay: NonNegativeOrOff = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.SGD

    Raises: ValueError for nesterov without momentum or with dampening.
    """
    if nesterov and (is_static_zero(momentum) or not is_static_zero(dampening)):
        raise ValueError("torch.sgd: nesterov needs a momentum and zero dampening")
    parts = _gradient(maximize, weight_decay)
    if not is_static_zero(momentum):
        parts.append(scale_by_momentum(momentum, nesterov=nesterov, dampening=dampening))
    return chain(*parts, scale_by_learning_rate(lr))


@recipe
def adagrad(
    lr: NonNegative = 1e-2,
    lr_decay: NonNegativeOrOff = 0.0,
    weight_decay: NonNegativeOrOff = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
    eps: NonNegative = 1e-10,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.Adagrad: the rate of step t = 0, 1, ... is lr / (1 + lr_decay * t)."""
    parts = _gradient(maximize, weight_decay)
    parts.append(scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=False))
    if not is_static_zero(lr_decay):
        parts.append(scale_by_schedule(inverse_time_decay_schedule(1.0, lr_decay)))
    return chain(*parts, scale_by_learning_rate(lr))


@recipe
def rmsprop(
    lr: NonNegative = 1e-2,
    alpha: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    momentum: FractionOrOff = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.RMSprop: eps outside of the root, the learning rate outside of the momentum."""
    parts = _gradient(maximize, weight_decay)
    parts.append((scale_by_stddev if centered else scale_by_rms)(alpha, eps, eps_in_sqrt=False))
    if not is_static_zero(momentum):
        parts.append(scale_by_momentum(momentum))
    return chain(*parts, scale_by_learning_rate(lr))


def _moments(
    betas: tuple[float | Array, float | Array], eps: float | Array, amsgrad: bool
) -> GradientTransformation:
    b1, b2 = betas
    return scale_by_amsgrad(b1, b2, eps, max_of="raw") if amsgrad else scale_by_adam(b1, b2, eps)


@recipe
def adam(
    lr: NonNegative = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.Adam: weight_decay is L2, added to the gradient before the moments."""
    parts = _gradient(maximize, weight_decay)
    return chain(*parts, _moments(betas, eps, amsgrad), scale_by_learning_rate(lr))


@recipe
def adamw(
    lr: NonNegative = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.AdamW: the parameters decay by lr * weight_decay, decoupled from the moments."""
    parts = _gradient(maximize, None)
    parts.append(_moments(betas, eps, amsgrad))
    if not is_static_zero(weight_decay):
        parts.append(add_decayed_weights(weight_decay))
    return chain(*parts, scale_by_learning_rate(lr))


def _decayed(
    moments: GradientTransformation,
    lr: float | Array,
    weight_decay: float | Array,
    decoupled: bool,
    maximize: bool,
) -> GradientTransformation:
    """Moments, with weight decay before them (L2) or decoupled from them."""
    before = _gradient(maximize, None if decoupled else weight_decay)
    after = (
        [add_decayed_weights(weight_decay)]
        if decoupled and not is_static_zero(weight_decay)
        else []
    )
    return chain(*before, moments, *after, scale_by_learning_rate(lr))


@recipe
def nadam(
    lr: NonNegative = 2e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    momentum_decay: NonNegative = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.NAdam: momentum grows from about half of betas[0] to all of it."""
    moments = scale_by_nadam(*betas, eps, momentum_decay)
    return _decayed(moments, lr, weight_decay, decoupled_weight_decay, maximize)


@recipe
def radam(
    lr: NonNegative = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.RAdam: eps is added before the second moment's bias correction."""
    moments = scale_by_radam(*betas, eps, eps_of="raw")
    return _decayed(moments, lr, weight_decay, decoupled_weight_decay, maximize)


@recipe
def adamax(
    lr: NonNegative = 2e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.Adamax"""
    return _decayed(scale_by_adamax(*betas, eps), lr, weight_decay, False, maximize)


@recipe
def adadelta(
    lr: NonNegative = 1.0,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegativeOrOff = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.Adadelta"""
    return _decayed(scale_by_adadelta(rho, eps), lr, weight_decay, False, maximize)


@recipe
def rprop(
    lr: NonNegative = 1e-2,
    etas: tuple[NonNegative, NonNegative] = (0.5, 1.2),
    step_sizes: tuple[NonNegative, NonNegative] = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.Rprop: lr is the initial step size; of a schedule only the start matters."""
    return chain(*_gradient(maximize, None), scale_by_rprop(lr, *etas, *step_sizes), scale(-1))


@recipe
def asgd(
    lr: NonNegative = 1e-2,
    lambd: NonNegative = 1e-4,
    alpha: NonNegative = 0.75,
    t0: NonNegative = 1e6,
    weight_decay: NonNegativeOrOff = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch.optim.ASGD: the mean of the parameters is `gradtx.tree.get(state, "ax")`."""
    return chain(*_gradient(maximize, weight_decay), scale_by_asgd(lr, lambd, alpha, t0))
