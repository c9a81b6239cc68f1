"""Adam, NAdam, AMSGrad, and with decoupled weight decay AdamW and NAdamW."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, DType, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam import MaxOf, scale_by_adam, scale_by_amsgrad
from gradtx.transforms.decay import decoupled_decay
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
    """Divide the running mean of the gradient by the root of the running mean of its square.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -learning_rate * m / (sqrt(n + eps_root) + eps)
        m   = mu / (1 - b1^t)          n = nu / (1 - b2^t)          (mu, nu without bias_correction)

    With nesterov, m = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t).

    A good first choice. A step is about learning_rate long in every coordinate, whatever the scale
    of its gradient. To regularise, take `adamw`: here nothing decays.

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = jnp.array([1.0, -2.0])
        >>> grads = jnp.array([0.001, 500.0])
        >>> tx = gradtx.adam(0.1)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates).round(4))
        [-0.1 -0.1]

    See also: `adamw`, with weight decay; `nadam`, with Nesterov momentum; `amsgrad`.

    References: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980
    """
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
    """Take Adam's steps with Nesterov momentum.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -learning_rate * m / (sqrt(n + eps_root) + eps)
        m   = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t)
        n   = nu / (1 - b2^t)

    The newest gradient counts more than in Adam, so the direction turns sooner. It is `adam` with
    nesterov=True; the momentum is constant, unlike that of PyTorch's NAdam, which is
    `gradtx.torch.nadam`.

    Args:
        nesterov: look ahead, as above; False is `adam`

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params, grads = jnp.array([1.0]), jnp.array([3.0])
        >>> for tx in (gradtx.adam(0.1), gradtx.nadam(0.1)):
        ...     updates, state = tx.update(grads, tx.init(params), params)
        ...     print(np.asarray(updates).round(4))
        [-0.1]
        [-0.1474]

    See also: `nadamw`, with weight decay; `adam`.

    References: Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """
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
    """Take Adam's steps with a denominator that never shrinks.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -learning_rate * m / (sqrt(n + eps_root) + eps),      m = mu / (1 - b1^t)

        nu_max <- max(nu_max, nu / (1 - b2^t)),     n = nu_max                   max_of="corrected"
        nu_max <- max(nu_max, nu),                  n = nu_max / (1 - b2^t)      max_of="raw"

    After a rare large gradient Adam's steps soon become long again; here they stay short, which is
    what the proof of convergence needs.

    Args:
        bias_correction_mu: divide mu by 1 - b1^t; False omits it, as the paper does, and makes the
            first steps shorter
        bias_correction_nu: divide nu, or with max_of="raw" its maximum, by 1 - b2^t; False omits
            it, as the paper does, and makes the first steps longer
        max_of: take the maximum of the "corrected" second moments (Optax) or of the "raw" ones
            (PyTorch). Without bias_correction_nu the two are the same
        nu_dtype: the dtype in which nu and its maximum are kept; None keeps float32 (float64 for
            float64 parameters). `store` narrows any optimizer's state

    State: mu, nu and nu_max, 12 bytes a parameter.

    Raises: ValueError for any other max_of.

    Example:
        >>> tx = gradtx.amsgrad(0.1, b2=0.5)
        >>> state = tx.init(jnp.array([0.0]))
        >>> for grad in (10.0, 0.0, 0.0):
        ...     updates, state = tx.update(jnp.array([grad]), state)
        >>> print(state[0].nu, state[0].nu_max)
        [12.5] [100.]

    See also: `adam`.

    References: Reddi et al., 2018, https://arxiv.org/abs/1904.09237
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
    mask: MaskLike = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take Adam's steps, and pull the parameters towards 0 independently of their gradients.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -learning_rate * (m / (sqrt(n + eps_root) + eps) + weight_decay * param)
        m   = mu / (1 - b1^t)          n = nu / (1 - b2^t)

    With nesterov, m = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t).

    The usual choice for transformers. The decay is decoupled: it is not divided by the root of nu,
    so all parameters decay at the same rate.

    Args:
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all. Biases and the scales of normalisation layers are usually left out

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params = {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}
        >>> grads = {"kernel": jnp.array([0.0]), "bias": jnp.array([0.0])}
        >>> tx = gradtx.adamw(0.1, weight_decay=0.01, mask="kernel")
        >>> params, state = gradtx.step(tx, grads, tx.init(params), params)
        >>> print(np.asarray(params["kernel"]).round(4), np.asarray(params["bias"]).round(4))
        [1.998] [2.]

    See also: `adam`, without decay; `nadamw`, with Nesterov momentum; `lion`, with half the state.

    References: Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        *decoupled_decay(
            learning_rate, weight_decay, mask, independent_decay, cautious_weight_decay
        ),
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
    mask: MaskLike = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take NAdam's steps, and pull the parameters towards 0 independently of their gradients.

        mu <- b1 * mu + (1 - b1) * g
        nu <- b2 * nu + (1 - b2) * g^2
        u   = -learning_rate * (m / (sqrt(n + eps_root) + eps) + weight_decay * param)
        m   = b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t)
        n   = nu / (1 - b2^t)

    It is `adamw` with nesterov=True.

    Args:
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all
        nesterov: look ahead, as above; False is `adamw`

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> params, grads = jnp.array([10.0]), jnp.array([3.0])
        >>> for decay in (0.0, 0.01):
        ...     tx = gradtx.nadamw(0.1, weight_decay=decay)
        ...     updates, state = tx.update(grads, tx.init(params), params)
        ...     print(np.asarray(updates).round(4))
        [-0.1474]
        [-0.1574]

    See also: `nadam`, without decay; `adamw`.

    References: Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ; Loshchilov &
    Hutter, 2019, https://arxiv.org/abs/1711.05101
    """
    moments = (b1, b2, eps, eps_root, mu_dtype)
    return adamw(
        learning_rate,
        *moments,
        weight_decay,
        mask,
        nesterov=nesterov,
        nu_dtype=nu_dtype,
        independent_decay=independent_decay,
        cautious_weight_decay=cautious_weight_decay,
    )
