"""Differential privacy: gradients that reveal little about any single example."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array

from gradtx.core.decorators import per_tree
from gradtx.core.hyperparameters import NonNegative, RandomKey
from gradtx.core.numerics import times
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.state import Updates
from gradtx.transforms.clipping import per_example_global_norm_clip
from gradtx.transforms.noise import fresh_key, normal_like, start_of

__all__ = ["DifferentiallyPrivateAggregateState", "differentially_private_aggregate"]


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The data of the random key from which the next noise is drawn."""

    rng_key: Array


@per_tree
def differentially_private_aggregate(
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: RandomKey | None = None,
    *,
    seed: RandomKey | None = None,
) -> Rule:
    """Average clipped per-example gradients and add normal noise.

        u = (sum_i g_i * min(1, C / ||g_i||) + noise_multiplier * C * z) / B,       z ~ N(0, 1)

    with C = l2_norm_clip and, for each of the B examples, the norm over the whole tree. Gradients
    have shape (B, *parameter shape), as from `jax.vmap(jax.grad(loss), (None, 0))(params, batch)`,
    so this goes first in a chain; the updates have the shapes of the params. The privacy guarantee
    is for this sum over one batch: averaging batches, or leaving some out, changes it.

    Args:
        l2_norm_clip: the norm C that each example's gradient is clipped to. It bounds what a single
            example can do, and the noise is proportional to it
        noise_multiplier: the standard deviation of the noise in units of C, before it is divided by
            B. More of it reveals less and makes the mean less exact
        key: the seed of the random numbers: a whole number or a key of `jax.random`; None means 0.
            Noise is drawn from it as in `add_noise`: a leaf's does not depend on the other leaves,
            and no two leaves share theirs. It is independent of the noise of an `add_noise` with
            the same key
        seed: the older name of key; give one of them

    State: the key, 8 bytes for the whole tree.

    Raises: ValueError if both key and seed are given and, with the leaf's path, if there is no axis
    of examples or their numbers differ.

    Example:
        >>> params, grads = jnp.zeros(2), jnp.array([[3.0, 0.0], [0.0, 0.5]])  # of two examples
        >>> tx = gradtx.differentially_private_aggregate(l2_norm_clip=1.0, noise_multiplier=0.0)
        >>> updates, state = tx.update(grads, tx.init(params))
        >>> print(np.asarray(updates).round(4))
        [0.5  0.25]

    See also: `dpsgd`, the optimizer; `per_example_global_norm_clip`, without noise.

    References: Abadi et al., 2016, https://arxiv.org/abs/1607.00133
    """
    first = start_of(key, seed, "differentially_private_aggregate")

    def init() -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(fresh_key(first))

    def update(
        updates: Updates, state: DifferentiallyPrivateAggregateState
    ) -> tuple[Updates, DifferentiallyPrivateAggregateState]:
        rng_key, own = jax.random.split(state.rng_key)
        sums, batch = updates, 1
        if leaves := jax.tree.leaves(updates):
            sums, _ = per_example_global_norm_clip(updates, l2_norm_clip)
            batch = len(leaves[0])
        deviation = noise_multiplier * l2_norm_clip
        noise = normal_like(own, sums, "privacy")
        means = jax.tree.map(lambda s, z: (s + times(deviation, z)) / batch, sums, noise)
        return means, DifferentiallyPrivateAggregateState(rng_key)

    return Rule(init, update, place=Place.FIRST)
