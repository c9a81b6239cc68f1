"""StableAdamW."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.combinators.partition import partition
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.leaves import Leaves
from gradtx.core.mask import Mask, MaskLike
from gradtx.core.state import Params
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.stable_adam import scale_by_stable_adam

__all__ = ["stable_adamw"]


@recipe
def stable_adamw(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 1e-2,
    mask: MaskLike = None,
    *,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take AdamW's steps, shorter for arrays whose gradients have outgrown their second moment.

        mu <- b1 * mu + (1 - b1) * g,           m = mu / (1 - b1^t)
        nu <- b2 * nu + (1 - b2) * g^2,         n = nu / (1 - b2^t)
        r   = learning_rate / max(1, rms(g / max(sqrt(n), eps)))
        u   = -r * (m / (sqrt(n) + eps) + weight_decay * param)

    Each array has a rate r of its own, which falls while its gradients are larger than nu
    remembers. It takes the place of gradient clipping in the training of transformers: only the
    steps of arrays that spike are shortened. The decay is multiplied by the same r.

    Args:
        weight_decay: how strongly parameters are pulled towards 0: this fraction of each, times r,
            is subtracted at every step. 0 switches it off
        mask: the parameters that decay: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "kernel" or ~matching("bias|scale"); None
            means all. With a mask the state is kept in two groups

    State: mu and nu, 8 bytes a parameter.

    Example:
        >>> tx = gradtx.stable_adamw(0.1, b1=0.0, weight_decay=0.0)
        >>> params = jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for g in (0.01, 0.01, 100.0):  # the last of Adam's steps would be -0.173
        ...     updates, state = tx.update(jnp.array([g]), state, params)
        ...     print(np.asarray(updates).round(3))
        [-0.1]
        [-0.1]
        [-0.1]

    See also: `adamw`, with `clip_by_global_norm` before it; `adafactor`, whose clipping this is.

    References: Wortsman et al., 2023, https://arxiv.org/abs/2304.13013
    """

    def direction(decay: NonNegative) -> GradientTransformation:
        return scale_by_stable_adam(b1, b2, eps, decay, cautious=cautious_weight_decay)

    def groups(params: Params) -> Params:
        leaves = Leaves.of(params)
        selected = Mask(mask).select(leaves, "stable_adamw: mask")
        return leaves.tree("decay" if flag else "stay" for flag in selected)

    # The decay is inside the rule, since it is shortened with the rest.
    whole = direction(weight_decay)
    grouped = partition({"decay": whole, "stay": direction(0.0)}, groups)
    return chain(whole if mask is None else grouped, scale_by_learning_rate(learning_rate))
