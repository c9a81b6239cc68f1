"""Turn what was typed on the command line into gradtx's values: names, constructions, lists."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

import gradtx
from gradtx.core.reading import Names, read
from gradtx.core.value import Value
from gradtx.demo import extras
from gradtx.demo.errors import CommandError, unknown
from gradtx.interop.public import public_names

V = TypeVar("V", bound=Value)

_FILES = (".json", ".yaml", ".yml")
RATE = 1e-3  # the learning rate of what needs one and is given none


def transformations() -> Names:
    """Every public definition of a transformation; PyTorch's are ``torch.NAME``."""
    return _public(gradtx.GradientTransformation)


def schedules() -> Names:
    """Every public schedule; PyTorch's are ``torch.NAME``."""
    return _public(gradtx.Schedule)


def _public(kind: type[Value]) -> Names:
    listed = {*vars(gradtx)["__all__"], *(f"torch.{name}" for name in gradtx.torch.__all__)}
    return {
        name: thing
        for name, thing in sorted(public_names().items(), key=lambda item: "." in item[0])
        if name in listed and issubclass(_made_by(thing) or object, kind)
    }


def _made_by(thing: Callable[..., Any]) -> type | None:
    """The class of what a public definition, or a plain public function, returns, if any."""
    made: type | None = getattr(thing, "value_class", None)
    return made or inspect.signature(thing, eval_str=True).return_annotation


def is_construction(text: str) -> bool:
    """Whether a word is a construction rather than a name or ``name=value``."""
    before = text.partition("(")[0]
    return "(" in text and "=" not in before


def construct(text: str, kind: type[V]) -> V:
    """The value that a construction such as ``chain(clip(1.0), adam(1e-3))`` writes."""
    try:
        return gradtx.parse(text, kind)
    except gradtx.ParseError as error:
        raise CommandError(str(error)) from None


def from_file(path: Path) -> gradtx.GradientTransformation:
    """The transformation that a file of JSON or YAML describes."""
    if path.suffix == ".json":
        load: Callable[[str], object] = json.loads
    else:
        load = extras.load("yaml", command="describe").safe_load
    try:
        data = load(path.read_text())
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    # Of JSON and of text in no encoding ValueErrors; of YAML errors of its own.
    except Exception as error:
        raise CommandError(f"{path} cannot be read: {_one_line(error)}") from None
    try:
        return gradtx.from_config(data, gradtx.GradientTransformation)
    except gradtx.ConfigError as error:
        raise CommandError(f"{path}: {error}") from None


def name_and_rate(text: str) -> tuple[str, float | None]:
    """``lion:3e-4`` as its parts; a construction is all name."""
    name, colon, rate = text.partition(":")
    if is_construction(text) or not colon:
        return text, None
    try:
        return name.strip(), float(rate)
    except ValueError:
        raise CommandError(f"{text}: the learning rate must be a number, got {rate!r}") from None


def construction(text: str, command: str, also: Iterable[str] = ()) -> str:
    """What was written as a construction: ``lion`` is ``lion(learning_rate=0.001)``.

    also: the names that the command knows besides.
    """
    if is_construction(text):
        return text
    name, rate = name_and_rate(text)
    known = transformations()
    if name not in known:
        kind = "transformation" if command == "describe" else "optimizer"
        raise unknown(kind, name, [*also, *known], f"gradtx {command} --list")
    parameters = inspect.signature(known[name]).parameters
    if rate is None and not _needs_rate(known[name]):
        return f"{name}()"
    rates = [word for word in ("learning_rate", "lr") if word in parameters]
    if not rates:
        raise CommandError(f"{text}: {name} has no learning rate")
    return f"{name}({rates[0]}={RATE if rate is None else rate!r})"


def make_transformation(words: Sequence[str]) -> gradtx.GradientTransformation:
    """The transformation of a construction, of a name with a rate, of a name and ``key=value``, or
    of a file; its learning rate is 0.001 if it needs one."""
    name, *given = words
    if not given and Path(name).suffix in _FILES:
        return from_file(Path(name))
    if not given:
        return construct(construction(name, "describe"), gradtx.GradientTransformation)
    if is_construction(name):
        raise CommandError(f"write {given[0]} inside the brackets of the construction")
    definition = _named(name, transformations(), "transformation", "describe")
    defaults = {"learning_rate": RATE} if _needs_rate(definition) else {}
    return _call(name, definition, defaults | keywords(given))


def make_schedules(words: Sequence[str]) -> dict[str, gradtx.Schedule]:
    """By what they are called: constructions, or a name and ``key=value``."""
    name, *given = words
    if is_construction(name):
        stray = next((word for word in given if not is_construction(word)), None)
        if stray is not None:
            raise CommandError(f"cannot read {stray!r}: write name(...) or, alone, name key=value")
        return {text: tried(construct(text, gradtx.Schedule)) for text in words}
    definition = _named(name, schedules(), "schedule", "schedule")
    made = _call(name, lambda **given: tried(definition(**given)), keywords(given))
    return {repr(made): made}


def tried(schedule: gradtx.Schedule) -> gradtx.Schedule:
    """The schedule, evaluated once: what an argument holds may be looked at only then."""
    try:
        jax.eval_shape(schedule, 0)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise CommandError(f"{schedule}: {_one_line(error)}") from None
    return schedule


def _needs_rate(definition: Callable[..., Any]) -> bool:
    """Whether a definition must be given a learning rate."""
    rate = inspect.signature(definition).parameters.get("learning_rate")
    return rate is not None and rate.default is rate.empty


def keywords(words: Sequence[str]) -> dict[str, Any]:
    """``["peak_value=0.1", "mask='bias'"]`` as keyword arguments, read as in a construction."""
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise CommandError(f"cannot read {word!r}: write an argument as name=value")
        if name in given:
            raise CommandError(f"{name} is given twice")
        try:
            given[name] = read(text, public_names())
        except gradtx.ParseError as error:
            raise CommandError(f"cannot read {name}: {error}") from None
    return given


def split(text: str) -> list[str]:
    """The parts between commas, but not those inside brackets and quotes: ``adam(1, 2),sgd``."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def signature(name: str, function: Callable[..., Any]) -> str:
    """``name(argument, other=default)``, without annotations."""
    parameters = inspect.signature(function).parameters.values()
    plain = [parameter.replace(annotation=inspect._empty) for parameter in parameters]
    return f"{name}{inspect.Signature(plain)}"


def _named(name: str, known: Mapping[str, Any], what: str, command: str) -> Callable[..., Any]:
    if name not in known:
        raise unknown(what, name, known, listed_by=f"gradtx {command} --list")
    definition: Callable[..., Any] = known[name]
    return definition


def _call(name: str, function: Callable[..., V], given: Mapping[str, Any]) -> V:
    try:
        return function(**given)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = _one_line(error)
        raise CommandError(reason if name in reason else f"{name}: {reason}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
