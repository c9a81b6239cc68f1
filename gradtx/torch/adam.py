"""PyTorch's Adam and its relatives as recipes."""

from __future__ import annotations

from jax import Array

from gradtx.core.hyperparameters import Decay, NonNegative, NonNegativeOrOff
from gradtx.core.transformation import GradientTransformation
from gradtx.torch.definitions import recipe
from gradtx.torch.descent import descent
from gradtx.torch.transforms import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_nadam,
    scale_by_radam,
)


def _moments(
    betas: tuple[float | Array, float | Array], eps: float | Array, amsgrad: bool
) -> GradientTransformation:
    b1, b2 = betas
    return scale_by_amsgrad(b1, b2, eps, max_of="raw") if amsgrad else scale_by_adam(b1, b2, eps)


@recipe(step="count", exp_avg="mu", exp_avg_sq="nu", max_exp_avg_sq="nu_max")
def adam(
    lr: NonNegative = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> GradientTransformation:
    """Take steps of Adam with L2 regularisation, as torch.optim.Adam does.

        g  <- g + weight_decay * w                                      (unless it is decoupled)
        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -lr * m / (sqrt(n) + eps)
        m   = mu / (1 - b1^t),      n = nu / (1 - b2^t)
        n   = nu_max / (1 - b2^t),  nu_max <- max(nu_max, nu)           (with amsgrad)

    and - lr * weight_decay * w if it is decoupled, which is `adamw`. As L2 it goes through the
    moments, which weakens it where gradients are large.

    Args:
        betas: b1 and b2, the decays of the running means of the gradient and of its square, which
            reach back about 1 / (1 - beta) steps.
        weight_decay: the strength of weight decay, as L2 regularisation unless it is decoupled. 0
            leaves it out.

    State: mu and nu, 8 bytes a parameter; 12 with amsgrad.

    Example:
        >>> params = jnp.array([10.0, 10.0])
        >>> for make in (gradtx.torch.adam, gradtx.torch.adamw):
        ...     tx = make(lr=0.5, weight_decay=0.1)
        ...     updates, _ = tx.update(jnp.array([1.0, 1.0]), tx.init(params), params)
        ...     print(np.asarray(updates).round(4))
        [-0.5 -0.5]
        [-1. -1.]

    See also: `gradtx.adam`, `gradtx.amsgrad`.

    References: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980; amsgrad: Reddi et al., 2018,
    https://arxiv.org/abs/1904.09237
    """
    moments = _moments(betas, eps, amsgrad)
    return descent(
        moments,
        lr=lr,
        weight_decay=weight_decay,
        maximize=maximize,
        decoupled=decoupled_weight_decay,
    )


@recipe(step="count", exp_avg="mu", exp_avg_sq="nu", max_exp_avg_sq="nu_max")
def adamw(
    lr: NonNegative = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """Take steps of Adam with decoupled weight decay, as torch.optim.AdamW does.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -lr * (m / (sqrt(n) + eps) + weight_decay * w)
        m   = mu / (1 - b1^t),      n = nu / (1 - b2^t)
        n   = nu_max / (1 - b2^t),  nu_max <- max(nu_max, nu)           (with amsgrad)

    The parameters decay by lr * weight_decay, decoupled from the moments.

    Args:
        betas: b1 and b2, the decays of the running means of the gradient and of its square, which
            reach back about 1 / (1 - beta) steps.

    State: mu and nu, 8 bytes a parameter; 12 with amsgrad.

    Example:
        >>> params = jnp.array([10.0, -10.0])
        >>> tx = gradtx.torch.adamw(lr=0.5, weight_decay=0.1)
        >>> updates, _ = tx.update(jnp.array([0.0, 0.0]), tx.init(params), params)
        >>> updates  # the decay alone
        Array([-0.5,  0.5], dtype=float32)

    See also: `gradtx.adamw`, whose weight_decay defaults to 1e-4.

    References: Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101
    """
    moments = _moments(betas, eps, amsgrad)
    return descent(moments, lr=lr, weight_decay=weight_decay, maximize=maximize, decoupled=True)


adamw.fixed = {"decoupled_weight_decay": True}


@recipe(step="count", exp_avg="mu", exp_avg_sq="nu", mu_product="product")
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
    """Take steps of Adam with Nesterov momentum that warms up, as torch.optim.NAdam does.

        g  <- g + weight_decay * w                      (unless it is decoupled)
        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        b(t) = b1 * (1 - 0.96^(momentum_decay * t) / 2)
        product <- product * b(t)                       (starts at 1)
        m = b(t+1) * mu / (1 - product * b(t+1)) + (1 - b(t)) * g / (1 - product)
        u = -lr * m / (sqrt(nu / (1 - b2^t)) + eps)     (- lr * weight_decay * w if it is decoupled)

    The momentum b(t) grows from about half of b1 to all of it.

    Args:
        betas: b1 and b2, the decays of the running means of the gradient and of its square, which
            reach back about 1 / (1 - beta) steps.
        weight_decay: the strength of weight decay, as L2 regularisation unless it is decoupled. 0
            leaves it out.
        momentum_decay: how fast the momentum grows to b1. With 0 it stays at half of b1.

    State: mu and nu, 8 bytes a parameter, a count, and a scalar per array.

    Example:
        >>> tx = gradtx.torch.nadam(lr=1.0, betas=(0.0, 0.999))  # without momentum: RMSprop
        >>> updates, state = tx.update(jnp.array([0.01, -100.0]), tx.init(jnp.zeros(2)))
        >>> print(np.asarray(updates).round(4))
        [-1.  1.]

    See also: `gradtx.nadam`, with constant momentum.

    References: Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """
    moments = scale_by_nadam(*betas, eps, momentum_decay)
    return descent(
        moments,
        lr=lr,
        weight_decay=weight_decay,
        maximize=maximize,
        decoupled=decoupled_weight_decay,
    )


@recipe(step="count", exp_avg="mu", exp_avg_sq="nu")
def radam(
    lr: NonNegative = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """Take steps of Adam that begin as plain momentum, as torch.optim.RAdam does.

        g  <- g + weight_decay * w                      (unless it is decoupled)
        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        m   = mu / (1 - b1^t)
        rho_inf = 2 / (1 - b2) - 1,     rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        u = -lr * r * m * sqrt(1 - b2^t) / (sqrt(nu) + eps)     where rho >= 5
        u = -lr * m                                             before that

    and - lr * weight_decay * w if it is decoupled. While nu averages too few gradients, it is not
    used as a divisor, which serves as a warmup. eps is added before the second moment's bias
    correction.

    Args:
        betas: b1 and b2, the decays of the running means of the gradient and of its square, which
            reach back about 1 / (1 - beta) steps.
        weight_decay: the strength of weight decay, as L2 regularisation unless it is decoupled. 0
            leaves it out.

    State: mu and nu, 8 bytes a parameter, and a count.

    Example:
        >>> tx = gradtx.torch.radam(lr=0.5)
        >>> updates, _ = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
        >>> print(np.asarray(updates).round(4))  # -lr * g on the first step
        [-1.  2.]

    See also: `gradtx.radam`.

    References: Liu et al., 2020, https://arxiv.org/abs/1908.03265
    """
    moments = scale_by_radam(*betas, eps)
    return descent(
        moments,
        lr=lr,
        weight_decay=weight_decay,
        maximize=maximize,
        decoupled=decoupled_weight_decay,
    )


@recipe(step="count", exp_avg="mu", exp_inf="nu")
def adamax(
    lr: NonNegative = 2e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrOff = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """Take steps of Adam with a running maximum in place of the mean square, as torch.optim.Adamax
    does.

        g  <- g + weight_decay * w
        mu <- b1 * mu + (1 - b1) * g
        nu <- max(b2 * nu, |g| + eps)
        u   = -lr * mu / (1 - b1^t) / nu

    Args:
        betas: b1 and b2: how much of the running mean of gradients, and of the maximum of their
            magnitudes, remains after a step.
        eps: a small number added to |g|, so that nu is not 0 where a gradient is.
        weight_decay: the strength of L2 regularisation: this fraction of each parameter is added to
            its gradient. 0 leaves it out.

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.torch.adamax(lr=0.5, betas=(0.0, 0.5))
        >>> state = tx.init(jnp.zeros(1))
        >>> for grad in (4.0, 1.0):  # 4 / 4, then 1 / 2
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(np.asarray(updates).round(4))
        [-0.5]
        [-0.25]

    See also: `gradtx.adamax`.

    References: Kingma & Ba, 2015, section 7.1, https://arxiv.org/abs/1412.6980
    """
    moments = scale_by_adamax(*betas, eps)
    return descent(moments, lr=lr, weight_decay=weight_decay, maximize=maximize)
