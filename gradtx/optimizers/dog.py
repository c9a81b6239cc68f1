"""Distance over gradients."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.stateless import identity
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.distance import scale_by_dog, scale_by_dowg
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["dog", "dowg"]


@recipe
def dog(
    learning_rate: NonNegative = 1.0,
    init_step: tuple[str, float] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
    mask: MaskLike = None,
) -> GradientTransformation:
    """Set SGD's rate to the distance from the start over the norm of all gradients so far.

        g  = grad + weight_decay * param
        r <- max(r, ||param - x0||)         G <- G + ||g||^2
        u  = -learning_rate * r / sqrt(G + eps) * g

    x0 are the params given to init, the norms are of the whole tree, and u = 0 if G + eps = 0.
    There is no learning rate to tune, but the authors recommend averaging the params. The params
    must move: steps below their precision, as in bfloat16 with the default init_step, leave the
    distance at its initial value.

    Args:
        learning_rate: a factor on every step; usually left at 1
        init_step: the size of the first step, set by how r starts: ("heuristic", a) at a * (1 +
            ||x0||); ("distance", r0) at r0; ("learning_rate", eta) at 0, with eta g as the first
            step. Use ("heuristic", 1e-4) for models with batch normalisation
        eps: a small number added to the sum G of squared norms
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before anything else. 0 switches it off, and so does None
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: x0, 4 bytes a parameter.

    Raises: ValueError for any other init_step.

    Example:
        >>> params = jnp.array([0.0, 0.0])
        >>> tx = gradtx.dog(init_step=("distance", 0.1))
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = gradtx.step(tx, jnp.array([3.0, 4.0]), state, params)
        ...     print(np.asarray(params).round(4), np.asarray(state[1].max_dist).round(4))
        [-0.06 -0.08] 0.1
        [-0.1024 -0.1366] 0.1

    See also: `dowg`; `scale_by_distance_over_gradients`, layer by layer.

    References: Ivgi et al., 2023, https://arxiv.org/abs/2302.12022
    """
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dog(init_step, eps),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def dowg(
    learning_rate: NonNegative = 1.0,
    init_estim_sq_dist: NonNegative | None = None,
    eps: NonNegative = 1e-4,
    weight_decay: NonNegative | None = None,
    mask: MaskLike = None,
) -> GradientTransformation:
    """Take DoG's steps with gradients that are weighted by the distance from the start.

        g  = grad + weight_decay * param
        D <- max(D, ||param - x0||^2)       v <- v + D ||g||^2
        u  = -learning_rate * D / (sqrt(v) + eps) * g

    x0 are the params given to init, the norms are of the whole tree, and u = 0 if sqrt(v) + eps =
    0. Gradients from before the params had moved far count little, so steps grow sooner than with
    `dog`.

    Args:
        learning_rate: a factor on every step; usually left at 1
        init_estim_sq_dist: the initial value of D, the squared distance: the square of the first
            step's length. None means eps
        eps: a small number added to the root of v; also the initial D without init_estim_sq_dist
        weight_decay: L2 regularisation: this fraction of each parameter is added to its gradient,
            before anything else. 0 switches it off, and so does None
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all

    State: x0, 4 bytes a parameter.

    Example:
        >>> params = jnp.array([0.0, 0.0])
        >>> tx = gradtx.dowg(init_estim_sq_dist=0.01)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = gradtx.step(tx, jnp.array([3.0, 4.0]), state, params)
        ...     print(np.asarray(params).round(3))
        [-0.06 -0.08]
        [-0.102 -0.137]

    See also: `dog`.

    References: Khaled et al., 2023, https://arxiv.org/abs/2305.16284
    """
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_learning_rate(learning_rate),
    )
