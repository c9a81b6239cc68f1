"""How a parameter narrower than float32 is rounded: the last link of a chain.

Rounding to nearest, which `apply_updates` does by itself, loses every update below half a unit in
the parameter's last place: in bfloat16, 1.0 - 1e-3 is 1.0. The transformations here choose the
rounded parameter r and emit the update r - param in float32, with which `apply_updates` (Optax's
too) lands exactly on r. (If r is 2^16 times smaller than the parameter, it lands on the number
nearest to r that the sum can reach.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.combinators.masked import masked
from gradtx.core.decorators import per_leaf, per_tree, recipe
from gradtx.core.dtypes import cast
from gradtx.core.hyperparameters import Seed
from gradtx.core.inner import Inner
from gradtx.core.leaf_body import Leaf
from gradtx.core.numerics import zeros_like
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.state import OptState, Params, PastParams, Updates
from gradtx.core.step import Step
from gradtx.core.transformation import GradientTransformation, TransformationLike
from gradtx.precision.narrow import dither_bits, is_narrow, key_of, round_to, uniform

__all__ = ["KahanState", "MasterWeightsState", "kahan", "master_weights", "stochastic_rounding"]


@dataclass(frozen=True)
class NarrowLeaves:
    """A mask of the leaves narrower than float32; `where` names the transformation in errors."""

    where: str

    def __call__(self, params: Params) -> Params:
        """A tree of booleans, True for each narrow leaf.

        Raises: ValueError if there is none.
        """
        leaves = jax.tree.leaves(params)
        if leaves and not any(is_narrow(x.dtype) for x in leaves):
            dtypes = ", ".join(sorted({str(x.dtype) for x in leaves}))
            raise ValueError(
                f"{self.where} rounds parameters narrower than float32, and all are {dtypes}: "
                "leave it out, or cast params to bfloat16"
            )
        return jax.tree.map(lambda x: is_narrow(x.dtype), params)


@recipe
def stochastic_rounding(seed: Seed = 0) -> GradientTransformation:
    """Round each parameter up or down at random, so that it is right on average.

        r = the number of the parameter's dtype below param + g, or the one above it,
            with probabilities for which E[r] = param + g
        u = r - param

    Training in bfloat16 without float32 copies: rounding to nearest loses every update below half
    a unit in the parameter's last place, and this keeps it on average. The transformation goes last
    in a chain. Only leaves narrower than float32 (bfloat16, float16, float8) are rounded. The
    random bits depend on the seed, the step and a 64-bit hash of the leaf's path, not on sharding;
    they are independent of those of a `store` with the same seed.

    Args:
        seed: the seed of the random numbers, in [0, 2**32): the same one gives the same run.

    State: a count.

    Raises: ValueError at init if no leaf is narrower than float32.

    Example:
        >>> params = jnp.ones(1000, jnp.bfloat16)  # the next number below is 1 - 2^-8
        >>> tx = gradtx.chain(gradtx.sgd(2.0**-10), gradtx.stochastic_rounding())
        >>> new, _ = gradtx.step(tx, params, tx.init(params), params)
        >>> print(new.min(), new.max(), 200 < jnp.sum(new < 1) < 300)
        0.996094 1 True

    See also: `kahan`, `master_weights`, `store`.

    References: Gupta et al., 2015, https://arxiv.org/abs/1502.02551
    """
    return masked(round_stochastically(seed), NarrowLeaves("stochastic_rounding"))


@per_leaf
def round_stochastically(seed: int) -> Rule:
    """u = r - param, E[r] = param + g"""

    def update(grad: jax.Array, param: jax.Array, step: Step, leaf: Leaf) -> jax.Array:
        dither = uniform(key_of(seed, step.count, *leaf), param.shape, dither_bits(leaf.dtype))
        return round_to(param + grad, leaf.dtype, dither) - param

    return Rule(None, update, place=Place.LAST)


class KahanState(NamedTuple):
    """compensation: what rounding has withheld so far, shaped like the params and in their dtypes
    (bfloat16 for float8)."""

    compensation: Updates


@recipe
def kahan() -> GradientTransformation:
    """Keep what rounding loses, and add it to the next update: compensated summation.

        y = g + c        r = param + y, rounded to nearest        u = r - param
        c <- (param - r) + y

    Training in bfloat16 nearly as if in float32, for two more bytes a parameter. The transformation
    goes last in a chain. The compensation c is kept in the parameter's dtype, so that the two
    together have about twice its digits; for float8 it is kept in bfloat16. Only leaves narrower
    than float32 are compensated.

    State: c, 2 bytes a parameter narrower than float32.

    Raises: ValueError at init if no leaf is narrower than float32.

    Example:
        >>> params = jnp.ones(1, jnp.bfloat16)  # the next number below is 1 - 2^-8
        >>> tx = gradtx.chain(gradtx.sgd(2.0**-10), gradtx.kahan())
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.step(tx, jnp.ones(1, jnp.bfloat16), state, params)
        ...     print(params)
        [1]
        [1]
        [0.996094]

    See also: `stochastic_rounding`, `master_weights`.

    References: Kahan, 1965; Zamirai et al., 2020, https://arxiv.org/abs/2010.06192
    """
    return masked(compensate_rounding(), NarrowLeaves("kahan"))


@per_leaf
def compensate_rounding() -> Rule:
    """u = r - param;  c <- (param - r) + g + c"""

    def init(param: jax.Array, leaf: Leaf) -> KahanState:
        wide_enough = leaf.dtype if np.dtype(leaf.dtype).itemsize > 1 else jnp.bfloat16
        return KahanState(zeros_like(param, wide_enough))

    def update(
        grad: jax.Array, state: KahanState, param: jax.Array, leaf: Leaf
    ) -> tuple[jax.Array, KahanState]:
        y = grad + state.compensation
        u = round_to(param + y, leaf.dtype) - param
        # The parameters as apply_updates makes them, not the same numbers in float32: this way
        # XLA:TPU computes the compensation in the loop that writes them.
        landed = cast(cast(param + u, leaf.dtype), param.dtype)
        return u, KahanState((param - landed) + y)

    return Rule(init, update, place=Place.LAST)


class MasterWeightsState(NamedTuple):
    """inner_state: that of the optimizer; master: the parameters in float32, None for leaves that
    are not narrower themselves."""

    inner_state: OptState
    master: PastParams


@per_tree
def master_weights(inner: TransformationLike) -> Rule:
    """Train a float32 copy of the parameters, which are rounded from it at every step.

        master <- master + inner(g, at master)        r = master, rounded to nearest
        u = r - param

    The model computes in bfloat16 or float16, and the optimizer sees float32. The copy starts as
    the parameters given to init. The transformation goes last in a chain.

    Args:
        inner: the whole optimizer, gradtx's or Optax's; it sees the copy as its params.

    State: the copy, 4 bytes a parameter narrower than float32, and that of `inner`.

    Raises: ValueError if inner rounds too, and at init if no leaf is narrower than float32.

    Example:
        >>> params = jnp.ones(1, jnp.bfloat16)
        >>> tx = gradtx.master_weights(gradtx.sgd(2.0**-10))
        >>> new, state = gradtx.step(tx, params, tx.init(params), params)
        >>> print(new, state.master)
        [1] [0.99902344]

    See also: `kahan`, which keeps 2 bytes instead of 4, and `stochastic_rounding`, which keeps
    none.

    References: Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740
    """
    if Place.LAST in inner.place:
        raise ValueError(
            f"master_weights: {inner} rounds the parameter, and inside master_weights it is in "
            "float32: leave one of the two out"
        )
    narrow_leaves = NarrowLeaves("master_weights")

    def init(params: Params, inner: Inner) -> MasterWeightsState:
        narrow = narrow_leaves(inner.params)
        master = jax.tree.map(lambda x, n: x if n else None, params, narrow)
        return MasterWeightsState(inner.at(params).init(), master)

    def update(
        needed: Updates, state: MasterWeightsState, params: Params, inner: Inner
    ) -> tuple[Updates, MasterWeightsState]:
        at = jax.tree.map(lambda p, m: p if m is None else m, params, state.master)
        updates, inner_state = inner.at(at)(needed, state.inner_state)
        new = jax.tree.map(lambda u, m: m + u, updates, at)
        landed = jax.tree.map(_land, updates, new, params, inner.params)
        master = jax.tree.map(lambda m, old: None if old is None else m, new, state.master)
        return landed, MasterWeightsState(inner_state, master)

    return Rule(init, update, place=Place.LAST)


def _land(update: jax.Array, new: jax.Array, param: jax.Array, stored: jax.Array) -> jax.Array:
    """The update that takes a narrow parameter to its rounded new master."""
    return round_to(new, stored.dtype) - param if is_narrow(stored.dtype) else update
