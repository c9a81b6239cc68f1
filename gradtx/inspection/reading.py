"""Reading transformations and schedules from text, by their public names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from gradtx.core.printing import show
from gradtx.core.reading import ParseError, read
from gradtx.core.schedule import Schedule
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import Value
from gradtx.interop.public import public_names

__all__ = ["ParseError", "parse"]

V = TypeVar("V", bound=Value)

_KINDS: Mapping[type[Value], str] = {
    GradientTransformation: "a transformation",
    Schedule: "a schedule",
}


@overload
def parse(text: str) -> Any: ...


@overload
def parse(text: str, kind: type[V]) -> V: ...


def parse(text: str, kind: type[Value] = Value) -> Any:
    """Read a transformation or a schedule from a text, as code or as `repr` prints it.

    No code is evaluated, so the text may come from a command line or a configuration. It may hold
    calls of gradtx's public definitions, also as `gradtx.adam` and `torch.adam`, and of your own
    in modules that were imported, also as `my_module.my_rule`; numbers (`inf` and `nan` too),
    strings, True, False, None; tuples, lists and dicts; `matching(...)` and `~`; dtypes such as
    `bfloat16`; `array([0.1, 0.2], 'float32')`; and arithmetic on schedules. The only functions
    that can be read are `fourth_root`, `global_norm` and `skip_not_finite`: others belong in a
    program.

    Args:
        text: the construction, such as "chain(clip(1.0), adam(1e-3))".
        kind: `GradientTransformation` or `Schedule`, if it must be that.

    Raises: `ParseError`, a ValueError, which shows the place of what cannot be read, is unknown or
    is refused by what it is given to; TypeError for anything but text.

    Example:
        >>> tx = gradtx.parse("chain(clip(1.0), sgd(cosine_decay_schedule(0.1, 100)))")
        >>> tx.parts[0]
        clip(max_delta=1.0)
        >>> gradtx.parse(repr(tx)) == tx
        True
    """
    value = read(text, public_names())
    if isinstance(value, kind):
        return value
    wanted = _KINDS.get(kind, "a transformation or a schedule")
    made = next((what for each, what in _KINDS.items() if isinstance(value, each)), None)
    text = text.strip()
    raise ParseError(f"this is {made or show(value)}, not {wanted}", text, 0, len(text))
