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
    """Descend with momentum, step by step as torch.optim.SGD does.

        g <- g + weight_decay * w
        v <- momentum * v + (1 - dampening) * g         (the first v is g)
        u  = -lr * v                                    u = -lr * (g + momentum * v) with nesterov

    Args:
        momentum: the decay of the running sum of gradients: 0.9 adds up about the last ten. 0
            keeps no state.
        dampening: how much less than in full a gradient enters the running sum, from the second
            step on; with dampening = momentum it is a running mean.
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.

    State: v, 4 bytes a parameter; none without momentum.

    Raises: ValueError for nesterov without momentum or with dampening.

    Example:
        >>> tx = gradtx.torch.sgd(lr=1.0, momentum=0.5, dampening=0.5)
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(3):
        ...     updates, state = tx.update(jnp.array([4.0]), state)
        ...     print(updates)
        [-4.]
        [-4.]
        [-4.]

    See also: `gradtx.sgd`, `gradtx.noisy_sgd`.
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
    """Divide each gradient by the root of the sum of its squares, as torch.optim.Adagrad does.

        g <- g + weight_decay * w
        s <- s + g^2                            (s starts at initial_accumulator_value)
        u  = -lr / (1 + lr_decay * (t - 1)) * g / (sqrt(s) + eps)

    The sum only grows, so steps get shorter for good. It suits sparse gradients: a parameter that
    is rarely used keeps taking long steps.

    Args:
        lr_decay: how fast the learning rate decreases, besides what s does. 0 leaves it out.
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.

    State: s, 4 bytes a parameter, and a count with lr_decay.

    Example:
        >>> tx = gradtx.torch.adagrad(lr=1.0, lr_decay=1.0)
        >>> state = tx.init(jnp.zeros(1))
        >>> for grad in (3.0, 4.0):  # 3 / 3 / 1, then 4 / 5 / 2
        ...     updates, state = tx.update(jnp.array([grad]), state, jnp.zeros(1))
        ...     print(np.asarray(updates).round(4))
        [-1.]
        [-0.4]

    See also: `gradtx.adagrad`.

    References: Duchi et al., 2011, https://jmlr.org/papers/v12/duchi11a.html
    """
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
    """Divide each gradient by its running root mean square, as torch.optim.RMSprop does.

        g  <- g + weight_decay * w
        nu <- alpha * nu + (1 - alpha) * g^2
        mu <- alpha * mu + (1 - alpha) * g              (with centered; otherwise mu = 0)
        v  <- momentum * v + g / (sqrt(nu - mu^2) + eps)
        u   = -lr * v

    eps is outside of the root, and the learning rate outside of the momentum. There is no bias
    correction: the first steps are long.

    Args:
        alpha: the decay of the running means, which reach back about 1 / (1 - alpha) steps.
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.
        momentum: the decay of the running sum of divided gradients: 0.9 adds up about the last
            ten. 0 keeps no state for it.
        centered: divide by the running standard deviation in place of the root mean square.

    State: nu, 4 bytes a parameter; 4 more with momentum and 4 more with centered.

    Example:
        >>> tx = gradtx.torch.rmsprop(lr=1.0, alpha=0.75)
        >>> updates, state = tx.update(jnp.array([0.01, -100.0]), tx.init(jnp.zeros(2)))
        >>> print(np.asarray(updates).round(4))
        [-2.  2.]

    See also: `gradtx.rmsprop`.

    References: Tieleman & Hinton, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf; centered: Graves,
    2013, https://arxiv.org/abs/1308.0850
    """
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
    """Take steps of Adam with L2 regularisation, as torch.optim.Adam does.

        g  <- g + weight_decay * w
        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -lr * m / (sqrt(n) + eps)
        m   = mu / (1 - b1^t),      n = nu / (1 - b2^t)
        n   = nu_max / (1 - b2^t),  nu_max <- max(nu_max, nu)           (with amsgrad)

    weight_decay goes through the moments, which weakens it where gradients are large; `adamw` is
    usually the better choice.

    Args:
        betas: b1 and b2, the decays of the running means of the gradient and of its square, which
            reach back about 1 / (1 - beta) steps.
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.

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
    """Take steps of Adam that begin as plain momentum, as torch.optim.RAdam does.

        g  <- g + weight_decay * w                      (unless it is decoupled)
        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        m   = mu / (1 - b1^t)
        rho_inf = 2 / (1 - b2) - 1,     rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        u = -lr * r * m * sqrt(1 - b2^t) / (sqrt(nu) + eps)     where rho >= 5
        u = -lr * m                                             before that

    and - lr * weight_decay * w if it is decoupled. While nu averages too few gradients it is not
    divided by, which serves as a warmup. eps is added before the second moment's bias correction.

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
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.

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
    """Scale each gradient by the ratio of two running means, as torch.optim.Adadelta does.

        g   <- g + weight_decay * w
        e_g <- rho * e_g + (1 - rho) * g^2
        d    = sqrt(e_x + eps) / sqrt(e_g + eps) * g
        e_x <- rho * e_x + (1 - rho) * d^2
        u    = -lr * d

    Its steps have the units of the parameters, whatever those of the loss, so lr is usually 1.

    Args:
        rho: the decay of both running means, which reach back about 1 / (1 - rho) steps.
        eps: a number added to both means under the root. It sets the length of the first steps:
            larger ones start faster.
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.

    State: e_g and e_x, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.torch.adadelta()
        >>> updates, _ = tx.update(jnp.array([0.1, -100.0]), tx.init(jnp.zeros(2)))
        >>> print(np.asarray(updates).round(4))
        [-0.0032  0.0032]

    See also: `gradtx.adadelta`.

    References: Zeiler, 2012, https://arxiv.org/abs/1212.5701
    """
    return _decayed(scale_by_adadelta(rho, eps), lr, weight_decay, False, maximize)


@recipe
def rprop(
    lr: NonNegative = 1e-2,
    etas: tuple[NonNegative, NonNegative] = (0.5, 1.2),
    step_sizes: tuple[NonNegative, NonNegative] = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """Follow the signs of gradients with step sizes that adapt, as torch.optim.Rprop does.

        turn  = sign(g) * sign(previous g)
        size <- clip(size * f, *step_sizes)
        f     = etas[1] where turn > 0,    etas[0] where turn < 0,    1 where turn = 0
        u     = -size * sign(g), and 0 where turn < 0, after which the previous g counts as 0

    A step size per element grows while its gradient keeps its sign and shrinks once it flips. For
    gradients of all examples: the noise of batches flips signs.

    Args:
        lr: the initial step size; of a schedule only the start matters.
        etas: what a step size is multiplied by where the sign has flipped, at most 1, and where it
            persists, at least 1.
        step_sizes: the smallest and the largest step size.

    State: step sizes and previous gradients, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.torch.rprop(lr=1.0, etas=(0.5, 2.0))
        >>> state = tx.init(jnp.zeros(1))
        >>> for grad in (3.0, 0.1, -7.0, -7.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        ...     print(updates)
        [-1.]
        [-2.]
        [-0.]
        [1.]

    See also: `gradtx.rprop`.

    References: Riedmiller & Braun, 1993, https://doi.org/10.1109/ICNN.1993.298623
    """
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
    """Take steps of SGD with a decreasing rate and average their points, as torch.optim.ASGD does.

        g  <- g + weight_decay * w
        u   = -eta_t * (g + lambd * w)
        ax <- ax + (w + u - ax) / max(1, t - 1 - t0)
        eta_1 = lr,     eta_(t+1) = lr / (1 + lambd * lr * t)^alpha

    The mean ax does not influence the steps. Evaluate with it: `gradtx.tree.get(state, "ax")`.

    Args:
        lr: the first learning rate. That of a schedule takes effect one step later, as in PyTorch.
        lambd: how fast the learning rate decreases; it is also the strength of an L2
            regularisation of its own.
        alpha: the power of that decrease; 0 keeps the learning rate constant.
        t0: the step after which averaging begins; until then ax is the latest point. The default
            of a million steps is PyTorch's, and rarely reached.
        weight_decay: the strength of L2 regularisation: so much of each parameter is added to its
            gradient. 0 leaves it out.

    State: ax, 4 bytes a parameter, the learning rate and a count.

    Example:
        >>> params = jnp.array([0.0])
        >>> tx = gradtx.torch.asgd(lr=1.0, lambd=0.0, t0=0)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.step(tx, jnp.array([1.0]), state, params)
        ...     print(params, gradtx.tree.get(state, "ax"))
        [-1.] [-1.]
        [-2.] [-2.]
        [-3.] [-2.5]

    See also: `gradtx.scale_by_asgd`.

    References: Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046
    """
    return chain(*_gradient(maximize, weight_decay), scale_by_asgd(lr, lambd, alpha, t0))
