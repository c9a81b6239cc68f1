"""The optimizers of the comparison by name, from SGD to AdamW, each with its Optax twin.

gradtx keeps Optax's names, so one expression usually builds both: ``o`` is either library,
``r`` the learning rate, ``n`` the number of steps. Where gradtx has a name of its own (momentum),
``twin`` says the same in Optax's names.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple

import gradtx
from gradtx.core.reading import ParseError, read
from gradtx.demo import naming
from gradtx.demo.errors import CommandError
from gradtx.interop.public import public_names

Optimizer = Any  # a transformation of gradtx or of Optax
Build = Callable[[ModuleType, float, int], Optimizer]


class Family(Enum):
    """The ideas behind the optimizers; each has a panel in the pictures."""

    GRADIENT = "The gradient and its running sum"
    SQUARE = "Divided by its root mean square"
    MOMENTS = "Adam: both at once"
    OTHER = "Other ideas"


class Recipe(NamedTuple):
    """One optimizer, with a learning rate that works for each task."""

    name: str
    family: Family
    digits: float
    text: float
    build: Build
    twin: Build | None = None

    def ours(self, task: str, steps: int) -> Optimizer:
        """The gradtx transformation."""
        return self.build(gradtx, getattr(self, task), steps)

    def theirs(self, optax: ModuleType, task: str, steps: int) -> Optimizer | None:
        """The same in Optax, unless Optax does not have it."""
        return (self.twin or self.build)(optax, getattr(self, task), steps)


def _at_rate(o: ModuleType, r: float, *links: Optimizer) -> Optimizer:
    return o.chain(*links, o.scale_by_learning_rate(r))


def _l2(o: ModuleType) -> Optimizer:
    """Decay that is added to the gradient, where the links after it see it."""
    return o.add_decayed_weights(0.003)


def _decoupled(o: ModuleType) -> Optimizer:
    """Decay that is added to the update, where the momentum before it does not see it."""
    return o.add_decayed_weights(0.01)


def _warmup_cosine(o: ModuleType, peak: float, steps: int) -> Callable[[Any], Any]:
    """Up for the first tenth of the steps, then down half a cosine to zero at the last."""
    return o.warmup_cosine_decay_schedule(0.0, peak, max(1, steps // 10), max(2, steps))


_G, _S, _M, _ = Family

# One line each: name, family, learning rate for digits and for text, recipe (and twin).
# The two decayed SGDs have momentum: without it, decay before and decay after would be the same
# update, r (g + w p).
# fmt: off
_RECIPES = [
    Recipe("sgd", _G, 0.5, 0.5,
           lambda o, r, n: o.sgd(r)),
    Recipe("sgd_l2", _G, 0.1, 0.1,
           lambda o, r, n: o.chain(_l2(o), o.sgd(r, momentum=0.9))),
    Recipe("sgd_decoupled", _G, 0.1, 0.1,
           lambda o, r, n: _at_rate(o, r, o.scale_by_momentum(0.9), _decoupled(o)),
           lambda o, r, n: _at_rate(o, r, o.trace(0.9), _decoupled(o))),
    Recipe("momentum", _G, 0.1, 0.1,
           lambda o, r, n: _at_rate(o, r, o.scale_by_momentum(0.9)),
           lambda o, r, n: o.sgd(r, momentum=0.9)),
    Recipe("nesterov", _G, 0.1, 0.1,
           lambda o, r, n: _at_rate(o, r, o.scale_by_momentum(0.9, nesterov=True)),
           lambda o, r, n: o.sgd(r, momentum=0.9, nesterov=True)),
    Recipe("adagrad", _S, 0.1, 0.1,
           lambda o, r, n: o.adagrad(r)),
    Recipe("rmsprop", _S, 0.003, 0.003,
           lambda o, r, n: o.rmsprop(r)),
    Recipe("rmsprop_centered", _S, 0.003, 0.003,
           lambda o, r, n: o.rmsprop(r, centered=True)),
    Recipe("rmsprop_momentum", _S, 0.001, 0.0005,
           lambda o, r, n: o.rmsprop(r, momentum=0.9)),
    Recipe("adam", _M, 0.003, 0.003,
           lambda o, r, n: o.adam(r)),
    Recipe("adam_l2", _M, 0.003, 0.003,
           lambda o, r, n: o.chain(_l2(o), o.adam(r))),
    Recipe("nadam", _M, 0.003, 0.003,
           lambda o, r, n: o.nadam(r)),
    Recipe("amsgrad", _M, 0.003, 0.003,
           lambda o, r, n: o.amsgrad(r)),
    Recipe("adamw", _M, 0.003, 0.003,
           lambda o, r, n: o.adamw(r, weight_decay=0.1)),
    Recipe("adamw_scheduled", _M, 0.006, 0.006,
           lambda o, r, n: o.chain(
               o.clip_by_global_norm(1.0),
               o.adamw(_warmup_cosine(o, r, n), weight_decay=0.1))),
]
# fmt: on

OPTIMIZERS: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}


# -- what is written on the command line -----------------------------------------------------------


def pick(texts: Sequence[str] | None) -> list[Recipe]:
    """The recipes written so, or all of the comparison; each once, in the order given.

    ``adam`` and ``adam:0.01`` are the comparison's own, ``lion`` and ``lion:3e-4`` any public name,
    at a learning rate of 0.001 unless there is another; and ``chain(clip(1.0), adam(1e-3))``.
    """
    if texts is None:
        return list(OPTIMIZERS.values())
    if not texts:
        raise CommandError(f"no optimizer named; known: {', '.join(OPTIMIZERS)}")
    return [_pick(text) for text in dict.fromkeys(texts)]


def _pick(text: str) -> Recipe:
    name, rate = naming.name_and_rate(text)
    if name in OPTIMIZERS:
        known = OPTIMIZERS[name]
        return known if rate is None else known._replace(name=text, digits=rate, text=rate)
    written = naming.construction(text, "compare", OPTIMIZERS)
    return Recipe(
        text,
        family_of(naming.construct(written, gradtx.GradientTransformation)),
        digits=0.0,  # the rate, if it has one, is written
        text=0.0,
        build=lambda o, r, n: gradtx.parse(written),
        twin=lambda o, r, n: _in_optax(o, written),
    )


def _in_optax(optax: ModuleType, text: str) -> Optimizer | None:
    """The same construction in Optax, under the names that both have; None if there is none."""
    found = {**vars(optax.contrib), **vars(optax)}  # without names that it has deprecated
    names = {name: found[name] for name in public_names() if name in found}
    try:
        return read(text, names)
    except ParseError:
        return None


# By the names of their parts: those that only scale, add and accumulate, and those that divide.
_PLAIN = {
    "add_decayed_weights", "add_noise", "clip", "clip_by_block_rms", "clip_by_global_norm",
    "ema", "identity", "scale", "scale_by_learning_rate", "scale_by_momentum",
    "scale_by_schedule", "trace",
}  # fmt: skip
_SQUARES = {"scale_by_rms", "scale_by_rss", "scale_by_stddev"}
_MOMENTS = {"scale_by_adam", "scale_by_amsgrad"}


def family_of(tx: gradtx.GradientTransformation) -> Family:
    """The idea behind an optimizer, told from its parts."""
    parts = {part.definition.name.removeprefix("torch.") for part in _smallest(tx)}
    if not parts <= _PLAIN | _SQUARES | _MOMENTS:
        return Family.OTHER
    if parts & _MOMENTS:
        return Family.MOMENTS
    return Family.SQUARE if parts & _SQUARES else Family.GRADIENT


def _smallest(tx: gradtx.GradientTransformation) -> Iterator[gradtx.GradientTransformation]:
    """The parts that have no parts."""
    if not tx.parts:
        yield tx
    for part in tx.parts:
        yield from _smallest(part)
