"""What `help` shows of a definition: its docstring with a line for every argument, and its types.

An author describes under `Args:` the arguments that are particular to a definition. Those that mean
the same in many are described once, in `arguments`, and inserted in the order of the signature. A
recipe whose arguments are mostly those of one of its parts says so, "others: as in
`scale_by_kron`", and gets their descriptions from there.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gradtx.core import hyperparameters
from gradtx.core.arguments import COMMON
from gradtx.core.hyperparameters import Kind, Number, Numbers, OneOf, kind_of
from gradtx.core.printing import show

if TYPE_CHECKING:
    from gradtx.core.definition import Definition

# The sections that may follow the arguments.
_AFTER = re.compile(r"^(State|Returns|Raises|Notes?|Examples?|See also|References):|^>>> ", re.M)
_ENTRY = re.compile(r" {2,4}(\*{0,2}\w+)(?: \([^)]*\))?: ")


class Shown(str):
    """An annotation that is printed as its text, without quotes."""

    def __repr__(self) -> str:
        return str(self)


class Documentation:
    """The docstring of a definition, put together when it is asked for."""

    def __get__(self, definition: Definition[Any, Any] | None, owner: type) -> str | None:
        if definition is None:
            return "A function whose calls are values; see `gradtx.core.definition`."
        return document(definition)

    def __set__(self, definition: Definition[Any, Any], text: str | None) -> None:
        raise AttributeError("the docstring of a definition is that of its function")


def document(definition: Definition[Any, Any]) -> str:
    """The docstring of a definition's function, with a line for every argument."""
    written = inspect.cleandoc(definition.function.__doc__ or "")
    before, own, after = _sections(written)
    described = COMMON | _elsewhere(definition, own.get("others", ""))
    lines = []
    for name, parameter in definition.__signature__.parameters.items():
        text = own.get(name) or described.get(name, "")
        text += "." if re.search(r"[\w)`]$", text) else ""
        kind = definition.parameters[name]
        said = _range(kind, parameter)
        head = f"{_stars(parameter)}{name}" + (f" ({said})" if said else "")
        lines.append(f"{head}: {text}" if text else head)
    if not lines:
        return written
    arguments = "\n".join(map(_wrapped, lines))
    parts = [before, f"Args:\n{arguments}", after]
    text = "\n\n".join(part for part in parts if part)
    return text if before else "\n" + text  # the first line's indent says nothing of the others


def _elsewhere(definition: Definition[Any, Any], others: str) -> dict[str, str]:
    """The argument descriptions of the definition in "as in `name`", a name in the same file."""
    named = re.search(r"as in `(\w+)`", others)
    if named is None:
        return {}
    other = definition.function.__globals__[named[1]].function
    return _sections(inspect.cleandoc(other.__doc__))[1]


def _wrapped(entry: str) -> str:
    own, *paragraphs = entry.split("\n\n")
    text = " ".join(own.split())
    first = textwrap.fill(text, 96, initial_indent=" " * 4, subsequent_indent=" " * 8, **_WHOLE)
    return "\n\n".join([first, *paragraphs])


_WHOLE: Any = {"break_long_words": False, "break_on_hyphens": False}


def summary(definition: Definition[Any, Any]) -> str:
    """The docstring up to the arguments."""
    return _sections(inspect.cleandoc(definition.function.__doc__ or ""))[0]


def _sections(written: str) -> tuple[str, dict[str, str], str]:
    """The text before the arguments, the text of each argument, and the text after them."""
    found = _AFTER.search(written)
    end = found.start() if found else len(written)
    before, after = written[:end].rstrip(), written[end:]
    head, _, entries = before.partition("\nArgs:\n")
    own: dict[str, str] = {}
    name = ""
    for line in entries.splitlines():
        if entry := _ENTRY.match(line):
            name = entry[1].lstrip("*")
            own[name] = line[entry.end() :]
        elif name:
            own[name] += "\n" + line.strip()
    return head.rstrip(), own, after


def _stars(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*"
    return "**" if parameter.kind is parameter.VAR_KEYWORD else ""


def _range(kind: Kind, parameter: inspect.Parameter) -> str:
    """What an argument may be, and its default."""
    said = []
    if isinstance(kind, Number):
        said.append(kind.text + (", or a schedule" if kind.scheduled else ""))
    elif parameter.annotation is not parameter.empty:
        said.append(str(parameter.annotation))
    if parameter.default is not parameter.empty:
        said.append(f"default {show(parameter.default)}")
    return "; ".join(said)


# What a caller may pass where an annotation uses one of this library's names.
_NAMES = {
    "AnySchedule": "Schedule",
    "Boundaries": "Sequence[float]",
    "Coefficients": "Sequence[float] | Array",
    "DType": "DTypeLike",
    "Formats": "str | Mapping[str, str]",
    "MaskLike": "Tree | Callable[[Params], Tree] | str",
    "MeasureLike": "Measure | Callable[[Updates], Array]",
    "NonNegativeInt": "int",
    "PositiveInt": "int",
    "RandomKey": "int | Array",
    "ScheduleLike": "Schedule",
    "Scalar": "float | Array",
    "Seed": "int",
    "TransformationLike": "GradientTransformation",
    "jax.Array": "Array",
}
_NAME = re.compile(r"[A-Za-z_][\w.]*")


@functools.cache
def _names() -> Mapping[str, str]:
    """`_NAMES`, and the same for the names of all kinds of numbers."""
    kinds = ((name, kind_of(annotation)) for name, annotation in vars(hyperparameters).items())
    return _NAMES | {name: _number(kind) for name, kind in kinds if isinstance(kind, Number)}


def _number(kind: Number) -> str:
    return "float | Array | Schedule" if kind.scheduled else "float | Array"


def shown(annotation: Any) -> Shown:
    """An annotation as it is written, but with types that a caller knows."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return Shown(_NAME.sub(lambda name: _names().get(name[0], name[0]), text))


def _shown_as(kind: Kind, annotation: Any) -> Shown:
    """An annotation of this kind, whatever alias it is written with."""
    none = " | None" if "None" in str(annotation) else ""
    if isinstance(kind, OneOf):
        return Shown(f"Literal[{', '.join(map(repr, kind.words))}]{none}")
    if isinstance(kind, Number) and not isinstance(kind, Numbers):
        return Shown(_number(kind) + none)
    return shown(annotation)


def shown_signature(
    function: Callable[..., Any], kinds: Mapping[str, Kind], returns: str
) -> inspect.Signature:
    """The signature of a definition's function as `help` prints it."""
    signature = inspect.signature(function)
    parameters = [
        parameter
        if parameter.annotation is parameter.empty
        else parameter.replace(annotation=_shown_as(kinds[name], parameter.annotation))
        for name, parameter in signature.parameters.items()
    ]
    return signature.replace(parameters=parameters, return_annotation=Shown(returns))
