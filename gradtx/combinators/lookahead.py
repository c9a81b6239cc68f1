"""Two sets of parameters, one of which slowly follows the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.apply import apply_updates
from gradtx.core.counts import increment, start
from gradtx.core.definition import makes
from gradtx.core.dtypes import bind_numbers, cast, compute_dtype, scalar_dtype
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.hyperparameters import PositiveSteps, Steps
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves, aligned_arrays
from gradtx.core.numerics import times
from gradtx.core.origin import is_like, located_in, show_class, wrong
from gradtx.core.place import Place
from gradtx.core.problem import Extra, check_known
from gradtx.core.run import Stage
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import GradientTransformation, Inside, TransformationLike

__all__ = ["LookaheadParams", "LookaheadState", "lookahead"]


class LookaheadState(NamedTuple):
    """The state of the fast optimizer; steps_since_sync: its steps since both sets were equal, an
    int32 scalar."""

    fast_state: OptState
    steps_since_sync: jax.Array


class LookaheadParams(NamedTuple):
    """Gradients are taken at `fast`; `slow` are the parameters to evaluate and to keep."""

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> LookaheadParams:
        """Both sets equal, as two copies so that each can be donated."""
        return cls(fast=params, slow=jax.tree.map(lambda x: jnp.array(x, copy=True), params))


class Lookahead(GradientTransformation):
    """An optimizer of pairs of parameters, with the gradients of the fast ones."""

    def _check(self) -> None:
        period = self.sync_period
        if not isinstance(period, jax.core.Tracer) and not np.all(np.asarray(period) >= 1):
            raise ValueError(f"lookahead: sync_period must be >= 1, got {period!r}")
        if Place.LAST in self.fast_optimizer.place:
            raise ValueError(
                f"lookahead: {self.fast_optimizer} rounds the parameter, which must come last, "
                "and nothing can be around lookahead: keep its parameters in float32"
            )

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The fast optimizer."""
        return (self.fast_optimizer,)

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        if not is_like(state, LookaheadState):
            raise wrong(state, f"the {show_class(LookaheadState)} of lookahead", "")
        return [Inside("", self.fast_optimizer, state.fast_state)]

    def init(self, params: Params) -> OptState:
        """The first state, from both sets of parameters or from the fast set alone."""
        return self._init(getattr(params, "fast", params))

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        """The updates of both sets, from gradients taken at the fast set.

        Raises: TypeError if params is not a `LookaheadParams`.
        """
        if not hasattr(params, "fast") or not hasattr(params, "slow"):
            raise TypeError(
                "lookahead needs both sets of parameters: call update(grads, state, params) with "
                f"params = LookaheadParams.init_synced(...), got a {type(params).__name__}"
            )
        if not is_like(state, LookaheadState):
            error = wrong(state, f"the {show_class(LookaheadState)} of lookahead", "")
            raise located_in(state, error, "lookahead")
        check_known(self, lambda name: self.takes(name, extra), extra)
        optimizer, fast_params = self.fast_optimizer, params.fast  # type: ignore[union-attr]
        u, fast_state = Inner(optimizer, fast_params, extra)(updates, state.fast_state)
        steps = increment(state.steps_since_sync)
        sync = steps >= self.sync_period
        if self.reset_state:
            first = optimizer.init(fast_params)
            fast_state = jax.tree.map(
                lambda new, old: old if new is None else jnp.where(sync, new, old),
                first,
                fast_state,
                is_leaf=lambda x: x is None,
            )
        new = LookaheadState(fast_state, cast(jnp.where(sync, 0, steps), np.int32))
        return self._pair(u, params, sync), new

    def _step(
        self, updates: Updates, state: OptState, params: Params, extra: Extra
    ) -> tuple[Params, OptState]:
        u, state = self.update(updates, state, params, **extra)
        return apply_updates(params, u), state

    def _pair(self, updates: Updates, params: Any, sync: jax.Array) -> LookaheadParams:
        """The updates of both sets, in the dtypes of their parameters."""
        leaves = Leaves.of(updates)
        fast = aligned_arrays(leaves, params.fast, "lookahead: params.fast")
        slow = aligned_arrays(leaves, params.slow, "lookahead: params.slow")
        rate = bind_numbers(self.slow_step_size, scalar_dtype(), "lookahead: slow_step_size")

        def pair(
            u: jax.Array | None, f: jax.Array, s: jax.Array
        ) -> tuple[jax.Array, jax.Array] | tuple[None, None]:
            if u is None:
                return None, None
            dtype = compute_dtype(u.dtype)
            ahead = cast(f, dtype) + u - cast(s, dtype)
            fast_update = jnp.where(sync, u - times(1 - rate, ahead), u)
            slow_update = jnp.where(sync, times(rate, ahead), jnp.zeros_like(u))
            return cast(fast_update, f.dtype), cast(slow_update, s.dtype)

        pairs = [pair(u, f, s) for u, f, s in zip(leaves.values, fast, slow, strict=True)]
        return LookaheadParams(*(leaves.tree(p[i] for p in pairs) for i in (0, 1)))

    def _init(self, params: Params) -> OptState:
        return LookaheadState(self.fast_optimizer.init(params), start())

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        raise TypeError(
            "lookahead has two sets of parameters and must be outermost: write "
            "lookahead(chain(...), ...)"
        )


@makes(Lookahead)
def lookahead(
    fast_optimizer: TransformationLike,
    sync_period: PositiveSteps,
    slow_step_size: Steps,
    reset_state: bool = False,
) -> tuple[object, ...]:
    """Let fast parameters run ahead, and every few steps move slow ones towards them.

        fast <- fast + fast_optimizer(g)
        every sync_period steps: slow <- slow + slow_step_size (fast - slow);  fast <- slow

    params is a `LookaheadParams`, and the updates are such a pair too, which `apply_updates` takes
    as it is. Gradients and a `value` are taken at params.fast, and a `value_fn` is a function of
    params.fast. Evaluate and keep params.slow. It must be the outermost transformation.

    Args:
        fast_optimizer: the optimizer of the fast parameters, gradtx's or Optax's.
        sync_period: how many steps the fast parameters run ahead, >= 1; 5 or 10 in the paper.
            A longer period averages over more of the path and lets it stray farther.
        slow_step_size: the share of the way from the slow to the fast parameters that is taken:
            0.5 to 0.8 in the paper. 1 is the fast optimizer alone.
        reset_state: start the fast optimizer afresh after every synchronisation, so that no
            momentum points to where the fast parameters were.

    State: that of fast_optimizer and a count. The parameters are kept twice: 4 bytes a parameter
    more.

    Raises: ValueError for sync_period < 1; TypeError in update for any other params.

    Example:
        >>> params = gradtx.LookaheadParams.init_synced(jnp.array([1.0]))
        >>> tx = gradtx.lookahead(gradtx.sgd(0.5), sync_period=2, slow_step_size=0.5)
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = gradtx.step(tx, jnp.array([1.0]), state, params)
        ...     print(params.fast, params.slow)
        [0.5] [1.]
        [0.5] [0.5]

    References: Zhang et al., 2019, https://arxiv.org/abs/1907.08610
    """
    return fast_optimizer, sync_period, slow_step_size, reset_state
