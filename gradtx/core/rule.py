"""What an author writes: a rule for one array or one tree, and what it may ask for by name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core.dtypes import cast, real_dtype
from gradtx.core.state import EmptyState, increased


@dataclass(frozen=True)
class Rule:
    """The maths of one array (`per_leaf`) or of one tree (`per_tree`).

    `init(param)` returns the state; `update(grad, state)` returns the update and the new state.
    Without `init` the rule keeps no state and `update` returns the update alone. A Python number as
    the update of a leaf stands for all of its elements. Each function
    receives what it names, in any order: `grad`, `state`, `param`, `step` and `gathered` one leaf
    at a time, `updates`, `state`, `params` and `step` for a tree; of a leaf also `stored_dtype`,
    in which the parameter is kept, and `leaf`, two uint32 made from its path, both of which are to
    be folded into a random key; of a tree `needed`, the updates with zeros for gradients at which
    the transformation inside does not look, as of a frozen leaf, and `stored_params`, the params in
    their own dtypes, for an inner transformation: one that rounds the parameters can be inside of a
    rule only if that asks for them, and lets the updates leave as they are. Keyword-only names are
    extra arguments of the caller's `update(..., value=loss)`; `**extra` takes all.

    `batched` (per leaf only): leaves of equal shape are run as one batch by `jax.vmap`, so that a
    rule of matrices makes one batched product of them instead of one each.

    `unrounded`: the updates leave in float32 or wider whatever the parameter's dtype, because
    `apply_updates` shall land on exactly what the rule says. Such a rule comes last.

    `per_example` (trees only): the first axis of every update is the example, and the rule sums or
    averages over it, so that its updates have the shapes of the params. Such a rule comes first.

    `gather` (per leaf only) is run once a tree, before the leaves: what it returns, such as the
    norm of all `updates`, reaches `update` by the name `gathered`. It asks for what it needs of
    `updates`, `params` and `step`.
    """

    init: Callable[..., Any] | None
    update: Callable[..., Any]
    gather: Callable[..., Any] | None = None
    batched: bool = False
    unrounded: bool = False
    per_example: bool = False


class Step:
    """How far the run is. `step.count` is the number of updates so far, this one included.

    biases: pairs (decay, 1 - decay^count) that were computed once for the tree.
    """

    def __init__(self, count: jax.Array, biases: Sequence[tuple[Any, Any]] = ()):
        self.count = count
        self._biases = biases

    @property
    def next(self) -> Step:
        """The step after this one."""
        return Step(increment(self.count))

    def bias(self, decay: Any, dtype: Any) -> Any:
        """1 - decay^count, by which a running mean that started at zero is too small."""
        for known, bias in self._biases:
            if known is decay:
                return cast(bias, dtype)
        return one_minus_power(decay, cast(self.count, dtype))

    def debias(self, moment: jax.Array, decay: Any) -> jax.Array:
        """moment / (1 - decay^count): a running mean that started at zero, without that bias."""
        return lax.div(moment, cast(self.bias(decay, real_dtype(moment.dtype)), moment.dtype))


def one_minus_power(decay: Any, time: jax.Array) -> jax.Array:
    """1 - decay^time, computed as -expm1(time * log(decay)): near time = 1 with decay = 0.999 the
    direct form loses five of float32's seven digits."""
    log_decay: Any
    if isinstance(decay, int | float):
        log_decay = math.log1p(decay - 1) if decay > 0 else _LOG_OF_ZERO
    else:
        log = jnp.log1p(jnp.where(decay > 0, decay, 1) - 1)
        log_decay = jnp.where(decay > 0, log, _LOG_OF_ZERO)
    return -jnp.expm1(time * log_decay)


# Its exponential is 0 in float64 too; an infinity would stop a run under `jax_debug_infs`.
_LOG_OF_ZERO = -1e4


class Asks(NamedTuple):
    """The names by which a function asks for its inputs."""

    names: frozenset[str]
    required: frozenset[str]
    extra: frozenset[str]
    required_extra: frozenset[str]
    all_extra: bool = False

    def of(self, extra: dict[str, Any]) -> dict[str, Any]:
        """The extra arguments among the given ones that are asked for."""
        if self.all_extra:
            return dict(extra)
        return {name: extra[name] for name in sorted(self.extra) if name in extra}

    def call(
        self,
        function: Callable[..., Any],
        available: dict[str, Any],
        extra: dict[str, Any] | None = None,
    ) -> Any:
        """The function on those of the available inputs that it asks for, and on extra arguments,
        which may be called as an input is that it does not ask for."""
        named = {name: x for name, x in available.items() if name in self.names}
        return function(**((extra or {}) | named))


NOTHING = Asks(frozenset(), frozenset(), frozenset(), frozenset())


def asks(function: Callable[..., Any] | None, allowed: tuple[str, ...], where: str) -> Asks:
    """Read what a rule's function asks for; a name that nobody provides is an error."""
    if function is None:
        return NOTHING
    names, required, extra, required_extra = set(), set(), set(), set()
    all_extra = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            extra.add(parameter.name)
            if parameter.default is parameter.empty:
                required_extra.add(parameter.name)
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name in allowed:
            names.add(parameter.name)
            if parameter.default is parameter.empty:
                required.add(parameter.name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            all_extra = True
        elif parameter.default is parameter.empty:
            raise TypeError(
                f"{where} asks for {str(parameter)!r}; it may ask for {', '.join(allowed)}, "
                "and for extra arguments as keyword-only names"
            )
    return Asks(
        names=frozenset(names),
        required=frozenset(required),
        extra=frozenset(extra),
        required_extra=frozenset(required_extra),
        all_extra=all_extra,
    )


def as_rule(returned: Any, where: str) -> Rule:
    """A rule, or a bare update function of a rule that keeps no state."""
    if isinstance(returned, Rule):
        return returned
    if callable(returned):
        return Rule(None, returned)
    raise TypeError(
        f"{where} must return a Rule(init, update) or an update function, "
        f"got {type(returned).__name__}"
    )


def split_result(rule: Rule, result: Any, where: str) -> tuple[Any, Any]:
    """What `update` returned, as (update, state)."""
    if rule.init is None:
        return result, EmptyState()
    if type(result) is not tuple or len(result) != 2:
        raise TypeError(
            f"{where}: update must return (update, state), because the rule has an init"
        )
    return result


@functools.partial(jax.jit, inline=True)
def increment(count: jax.Array) -> jax.Array:
    """count + 1, staying at the largest integer. Jitted so that outside of jit it is one call."""
    return increased(count, 1)
