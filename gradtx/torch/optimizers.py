"""PyTorch's optimizers as recipes; Adam's family is in `adam`.

`lr` may be any schedule, of `gradtx.torch` or not. A literal 0 for momentum, dampening or
weight_decay omits that part. With maximize=True the gradient is negated before weight decay is
added, as in PyTorch.
"""

from __future__ import annotations

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
from gradtx.torch.descent import descent, gradient
from gradtx.torch.transforms import (
    scale_by_adadelta,
    scale_by_rms,
    scale_by_rprop,
    scale_by_rss,
    scale_by_stddev,
)
from gradtx.transforms.asgd import scale_by_asgd
from gradtx.transforms.momentum import scale_by_momentum
from gradtx.transforms.scaling import scale, scale_by_schedule


@recipe(momentum_buffer="trace")
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
        dampening: how much is taken off the weight of each gradient in the running sum, from the
            second step on; with dampening = momentum the sum is a running mean.
        weight_decay: the strength of L2 regularisation: this fraction of each parameter is added to
            its gradient. 0 leaves it out.

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
    direction = []
    if not is_static_zero(momentum):
        direction = [scale_by_momentum(momentum, nesterov=nesterov, dampening=dampening)]
    return descent(*direction, lr=lr, weight_decay=weight_decay, maximize=maximize)


@recipe(step="count", sum="sum_of_squares")
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
        lr_decay: how fast the learning rate decreases, in addition to the effect of s. 0 leaves it
            out.
        weight_decay: the strength of L2 regularisation: this fraction of each parameter is added to
            its gradient. 0 leaves it out.

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
    direction = [scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=False)]
    if not is_static_zero(lr_decay):
        direction.append(scale_by_schedule(inverse_time_decay_schedule(1.0, lr_decay)))
    return descent(*direction, lr=lr, weight_decay=weight_decay, maximize=maximize)


@recipe(step="count", square_avg="nu", grad_avg="mu", momentum_buffer="trace")
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

    eps is outside the root, and the learning rate outside the momentum. There is no bias
    correction: the first steps are long.

    Args:
        alpha: the decay of the running means, which reach back about 1 / (1 - alpha) steps.
        weight_decay: the strength of L2 regularisation: this fraction of each parameter is added to
            its gradient. 0 leaves it out.
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
    scaling = scale_by_stddev if centered else scale_by_rms
    direction = [scaling(alpha, eps, eps_in_sqrt=False)]
    if not is_static_zero(momentum):
        direction.append(scale_by_momentum(momentum))
    return descent(*direction, lr=lr, weight_decay=weight_decay, maximize=maximize)


@recipe(step="count", square_avg="e_g", acc_delta="e_x")
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
        weight_decay: the strength of L2 regularisation: this fraction of each parameter is added to
            its gradient. 0 leaves it out.

    State: e_g and e_x, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.torch.adadelta()
        >>> updates, _ = tx.update(jnp.array([0.1, -100.0]), tx.init(jnp.zeros(2)))
        >>> print(np.asarray(updates).round(4))
        [-0.0032  0.0032]

    See also: `gradtx.adadelta`.

    References: Zeiler, 2012, https://arxiv.org/abs/1212.5701
    """
    direction = scale_by_adadelta(rho, eps)
    return descent(direction, lr=lr, weight_decay=weight_decay, maximize=maximize)


@recipe(step="count", step_size="step_sizes", prev="prev_updates")
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

    A step size per element grows while its gradient keeps its sign and shrinks once it flips. It is
    for gradients of all examples: the noise of batches flips signs.

    Args:
        lr: the initial step size; of a schedule only the first value matters.
        etas: the factors on a step size where the sign has flipped, at most 1, and where it
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
    return chain(*gradient(maximize), scale_by_rprop(lr, *etas, *step_sizes), scale(-1))


def _weight_of_mean(step: float, t0: float) -> float:
    """mu, the weight with which the next point enters the mean."""
    return 1 / max(1.0, step - t0)


@recipe(step="count", eta="eta", ax="ax", mu=_weight_of_mean)
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
        lr: the first learning rate. A schedule takes effect one step later, as in PyTorch.
        lambd: how fast the learning rate decreases; it is also the strength of a separate L2
            regularisation.
        alpha: the power of that decrease; 0 keeps the learning rate constant.
        t0: the step after which averaging begins; until then ax is the latest point. The default
            of a million steps is PyTorch's, and rarely reached.
        weight_decay: the strength of L2 regularisation: this fraction of each parameter is added to
            its gradient. 0 leaves it out.

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
    return chain(*gradient(maximize, weight_decay), scale_by_asgd(lr, lambd, alpha, t0))
