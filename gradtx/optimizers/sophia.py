"""Sophia."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import (
    Decay,
    DType,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import decoupled_decay
from gradtx.transforms.sophia import hutchinson_estimator_diag_hessian, scale_by_sophia

__all__ = ["sophia"]

_HUTCHINSON = hutchinson_estimator_diag_hessian()


@recipe
def sophia(
    learning_rate: NonNegative,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: MaskLike = None,
    gamma: NonNegative = 0.01,
    clip_threshold: NonNegative | None = 1.0,
    update_interval: PositiveInt = 10,
    hessian_diagonal_fn: GradientTransformation = _HUTCHINSON,
    mu_dtype: DType | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: NonNegativeInt = 0,
    *,
    nu_dtype: DType | None = None,
    independent_decay: bool = False,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Divide momentum by an estimate of the Hessian's diagonal, then clip, with decoupled decay.

        mu <- b1 * mu + (1 - b1) * g
        a   = clip(mu / (1 - b1^t) / max(gamma * nu, eps), clip_threshold)
        u   = -learning_rate * (a + weight_decay * param)
        nu <- b2 * nu + (1 - b2) * h                (on the first of every update_interval steps)

    h is the output of hessian_diagonal_fn for the gradients, params and extra arguments. With the
    default, update needs `obj_fn=loss`, a function of params alone, and every tenth step costs
    about two more gradients. Steps are long along flat directions and short along curved ones;
    where the curvature is small or negative, clipping bounds them.

    Args:
        b2: the decay of the running mean of the Hessian's diagonal; it reaches back over about 1 /
            (1 - b2) estimates, not steps
        eps: the least divisor, which takes over where the curvature is small or negative
        weight_decay_mask: the parameters that decay: a tree of booleans (or a prefix of one), a
            function from the params to one, or a path pattern such as "kernel" or
            ~matching("bias|scale"); None means all
        gamma: a factor on the curvature: larger makes steps shorter and clips fewer of them. Tune
            it so that 10 to 50 percent of the elements are not clipped
        clip_threshold: the largest magnitude of an element before the learning rate; None does not
            clip
        update_interval: how many steps lie between two estimates of the Hessian. Larger is cheaper,
            but nu lags behind
        hessian_diagonal_fn: the transformation that estimates the diagonal, by default Hutchinson's
            estimate from random signs
        nu_dtype: the dtype in which the running mean of the Hessian's diagonal is kept; None keeps
            float32 (float64 for float64 parameters). `store` narrows any optimizer's state
        verbose: print the win rate, the fraction of elements that were not clipped
        print_win_rate_every_n_steps: how many steps pass between two prints with verbose; 0 never
            prints

    State: mu and nu, 8 bytes a parameter.

    Raises: TypeError for complex parameters, and if update is called without what
    hessian_diagonal_fn needs.

    Example:
        >>> loss = lambda x: 50 * x[0] ** 2 + 0.5 * x[1] ** 2
        >>> params = jnp.array([1.0, 1.0])
        >>> tx = gradtx.sophia(0.1, b2=0.0, gamma=1.0, weight_decay=0.0)
        >>> state = tx.init(params)
        >>> update = jax.jit(lambda grads, *rest: tx.update(grads, *rest, obj_fn=loss))
        >>> for _ in range(2):
        ...     updates, state = update(jnp.array([100.0, 1.0]), state, params)
        >>> print(np.asarray(state[0].nu).round(3), np.asarray(updates).round(3))
        [100.   1.] [-0.1 -0.1]

    See also: `scale_by_sophia`, `hutchinson_estimator_diag_hessian`, `adamw`.

    References: Liu et al., 2023, https://arxiv.org/abs/2305.14342
    """
    return chain(
        scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            hessian_diagonal_fn,
            mu_dtype,
            verbose,
            print_win_rate_every_n_steps,
            nu_dtype=nu_dtype,
        ),
        *decoupled_decay(
            learning_rate, weight_decay, weight_decay_mask, independent_decay, cautious_weight_decay
        ),
    )
