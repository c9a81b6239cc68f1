"""Adam-mini."""

from __future__ import annotations

from gradtx.combinators.chain import chain
from gradtx.core.decorators import recipe
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.mask import MaskLike
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.adam_mini import Blocks, scale_by_adam_mini
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adam_mini"]


@recipe
def adam_mini(
    learning_rate: NonNegative = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskLike = None,
    *,
    blocks: Blocks | None = None,
    cautious_weight_decay: bool = False,
) -> GradientTransformation:
    """Take AdamW's steps with one second moment for each block of parameters.

        mu <- b1 * mu + (1 - b1) * g,                       m = mu / (1 - b1^t)
        nu <- b2 * nu + (1 - b2) * mean(g^2, over a block), n = nu / (1 - b2^t)
        u   = -learning_rate * (m / (sqrt(n) + eps) + weight_decay * param)

    It is for transformers: half of AdamW's state, at AdamW's rates. A block is a group of
    parameters with a curvature of its own: in the paper each token of an embedding and of the
    output layer, each head of queries and keys, and each neuron of the other layers. You say which
    axes these are. For kernels (inputs, outputs) with fused heads:

        adam_mini(3e-4, b2=0.95, blocks={
            "embed": "rows", "query|key": ("columns", heads), "kernel": "columns", ".*": "whole",
        })

    Args:
        others: as in `scale_by_adam_mini`

    State: mu, 4 bytes a parameter, and nu, 4 bytes a block; a group of leaves for each kind of
    block.

    Raises: ValueError for any other kind of block, for a pattern that matches no leaf and, with the
    leaf's path, for a number that does not divide its axis.

    Example:
        >>> params, grads = jnp.zeros((2, 2)), jnp.array([[3.0, 4.0], [0.01, 0.01]])
        >>> tx = gradtx.adam_mini(0.1)
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(np.asarray(updates).round(3))
        [[-0.085 -0.113]
         [-0.1   -0.1  ]]

    See also: `adamw`; `came`, `adafactor`, `lion`, with as little state; `store`.

    References: Zhang et al., 2024, https://arxiv.org/abs/2406.16793
    """
    return chain(
        scale_by_adam_mini(b1, b2, eps, blocks=blocks),
        add_decayed_weights(weight_decay, mask, cautious=cautious_weight_decay),
        scale_by_learning_rate(learning_rate),
    )
