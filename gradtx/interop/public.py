"""What may be written by its name, in a text or in data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import MappingProxyType, ModuleType
from typing import Any

from jax.sharding import PartitionSpec

from gradtx import combinators, optimizers, precision, schedules, transforms
from gradtx.combinators.inject import injection
from gradtx.combinators.multi_steps import skip_not_finite
from gradtx.core.definition import Definition
from gradtx.core.known import FUNCTIONS, Names
from gradtx.core.mask import matching
from gradtx.core.schedule import EXPRESSIONS
from gradtx.core.value import Value
from gradtx.interop import names as optax_names
from gradtx.transforms.adopt import fourth_root
from gradtx.transforms.matrix_axes import GaLoreDimensionNumbers, MuonDimensionNumbers
from gradtx.tree import global_norm

FUNCTIONS.update({f.__name__: f for f in (fourth_root, global_norm, skip_not_finite)})


@functools.cache
def public_names() -> Names:
    """Whatever a text may call, by name: definitions, and functions that return their values."""
    from gradtx import sharding, torch  # imported when they are used

    modules = (combinators, optimizers, precision, schedules, transforms, optax_names)
    ours = {name: f for module in modules for name, f in _made(module, module.__all__)}
    # The parts of PyTorch's optimizers too: they print under these names.
    theirs = {f"torch.{name}": f for name, f in _made(torch, vars(torch))}
    spread = {f"sharding.{name}": f for name, f in _made(sharding, vars(sharding))}
    parts = (matching, MuonDimensionNumbers, GaLoreDimensionNumbers)
    named = {f.__name__: f for f in parts} | dict.fromkeys(("P", "PartitionSpec"), PartitionSpec)
    return Names(MappingProxyType({**ours, **theirs, **spread, **named}))


def only_in_data() -> dict[str, Any]:
    """What a text writes in other ways: arithmetic on schedules, `inject_hyperparams`."""
    return {made.name: made for made in (*EXPRESSIONS.values(), injection)}


def _made(module: ModuleType, names: Any) -> Iterator[tuple[str, Any]]:
    """The definitions, and the functions that say that they return a value."""
    for name in names:
        thing = getattr(module, name)
        if isinstance(thing, Definition):
            yield name, thing
        elif inspect.isfunction(thing):
            returned = inspect.signature(thing, eval_str=True).return_annotation
            if isinstance(returned, type) and issubclass(returned, Value):
                yield name, thing
