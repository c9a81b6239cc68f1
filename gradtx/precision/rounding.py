"""How a parameter that is narrower than float32 is rounded: the last link of a chain.

Nearest rounding, which `apply_updates` does by itself, loses every update below half a unit of the
parameter's last place: in bfloat16 1.0 - 1e-3 is 1.0. The transformations here emit, in float32,
the update r - param, for which `apply_updates` (Optax's too) lands on exactly their r.
(Where r is 2^16 times smaller than the parameter, on the nearest to it that the sum can reach.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.combinators.masked import masked
from gradtx.core.decorators import per_leaf, per_tree, recipe
from gradtx.core.inner import Inner
from gradtx.core.numerics import zeros_like
from gradtx.core.place import Place
from gradtx.core.rule import Rule
from gradtx.core.state import OptState, Params, PastParams, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.precision.narrow import Seed, dither_bits, is_narrow, key_of, round_to, uniform

__all__ = ["KahanState", "MasterWeightsState", "kahan", "master_weights", "stochastic_rounding"]


@dataclass(frozen=True)
class NarrowLeaves:
    """A mask of the leaves narrower than float32; `where` names who needs one."""

    where: str

    def __call__(self, params: Params) -> Any:
        """True for each narrow leaf. Raises: ValueError where there is none."""
        leaves = jax.tree.leaves(params)
        if leaves and not any(is_narrow(x.dtype) for x in leaves):
            dtypes = ", ".join(sorted({str(x.dtype) for x in leaves}))
            raise ValueError(
                f"{self.where} rounds parameters narrower than float32, and all are {dtypes}: "
                "leave it out, or cast params to bfloat16"
            )
        return jax.tree.map(lambda x: is_narrow(x.dtype), params)


@recipe
def stochastic_rounding(seed: Seed = 0) -> Any:
    """Round each parameter up or down at random, so that it is right on average.

        r = the number of the parameter's dtype below param + g, or the one above it,
            with probabilities for which E[r] = param + g
        u = r - param

    The last link of a chain. Random bits depend on the seed, the step and the leaf's path (64 bits
    of a hash of it), not on sharding; they are independent of those of a `store` of the same seed.
    Only leaves narrower than float32 (bfloat16, float16, float8) are rounded. Raises:
    ValueError at init where there is none. Gupta et al., 2015, https://arxiv.org/abs/1502.02551
    """
    return masked(round_stochastically(seed), NarrowLeaves("stochastic_rounding"))


@per_leaf
def round_stochastically(seed: int) -> Any:
    """u = r - param, E[r] = param + g"""

    def update(grad: Any, param: Any, step: Any, leaf: Any) -> Any:
        dither = uniform(
            key_of(seed, step.count, *leaf.words), param.shape, dither_bits(leaf.dtype)
        )
        return round_to(param + grad, leaf.dtype, dither) - param

    return Rule(None, update, place=Place.LAST)


class KahanState(NamedTuple):
    """compensation: what rounding has kept back so far, in the parameter's dtype or bfloat16."""

    compensation: Updates


@recipe
def kahan() -> Any:
    """Keep what rounding loses, and add it to the next update: compensated summation.

        y = g + c        r = param + y, rounded to nearest        u = r - param
        c <- (param - r) + y

    The last link of a chain. The compensation c is kept in the parameter's dtype, so that the two
    together have about twice its digits; in bfloat16 beside float8. Only leaves narrower than
    float32 are compensated. Raises: ValueError at init where there is none. Kahan, 1965; Zamirai et
    al., 2020, https://arxiv.org/abs/2010.06192
    """
    return masked(compensate_rounding(), NarrowLeaves("kahan"))


@per_leaf
def compensate_rounding() -> Any:
    """u = r - param;  c <- (param - r) + g + c"""

    def init(param: Any, leaf: Any) -> KahanState:
        wide_enough = leaf.dtype if np.dtype(leaf.dtype).itemsize > 1 else jnp.bfloat16
        return KahanState(zeros_like(param, wide_enough))

    def update(grad: Any, state: KahanState, param: Any, leaf: Any) -> Any:
        y = grad + state.compensation
        rounded = round_to(param + y, leaf.dtype)
        return rounded - param, KahanState((param - rounded) + y)

    return Rule(init, update, place=Place.LAST)


class MasterWeightsState(NamedTuple):
    """inner_state: of the optimizer; master: the parameters in float32, None where they are that
    themselves."""

    inner_state: OptState
    master: PastParams


@per_tree
def master_weights(inner: GradientTransformation) -> Any:
    """Train a float32 copy of the parameters; the parameters are its rounding at every step.

        master <- master + inner(g, at master)        r = master, rounded to nearest
        u = r - param

    The copy starts as the parameters that init is given, four bytes for each that is narrower than
    float32. Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740. Raises: ValueError for
    an inner transformation that rounds, and at init where no parameter is narrower than float32.
    """
    if Place.LAST in inner.place:
        raise ValueError(
            f"master_weights: {inner} rounds the parameter, and inside of master_weights it is in "
            "float32: leave one of the two out"
        )
    narrow_leaves = NarrowLeaves("master_weights")

    def init(params: Any, inner: Inner) -> MasterWeightsState:
        narrow = narrow_leaves(inner.params)
        master = jax.tree.map(lambda x, n: x if n else None, params, narrow)
        return MasterWeightsState(inner.at(params).init(), master)

    def update(needed: Any, state: MasterWeightsState, params: Any, inner: Inner) -> Any:
        at = jax.tree.map(lambda p, m: p if m is None else m, params, state.master)
        updates, inner_state = inner.at(at)(needed, state.inner_state)
        new = jax.tree.map(lambda u, m: m + u, updates, at)
        landed = jax.tree.map(_land, updates, new, params, inner.params)
        master = jax.tree.map(lambda m, old: None if old is None else m, new, state.master)
        return landed, MasterWeightsState(inner_state, master)

    return Rule(init, update, place=Place.LAST)


def _land(update: Any, new: Any, param: Any, stored: Any) -> Any:
    """The update that takes a narrow parameter to the rounding of its new master."""
    return round_to(new, stored.dtype) - param if is_narrow(stored.dtype) else update
