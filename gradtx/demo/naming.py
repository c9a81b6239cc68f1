"""Turn names and arguments from the command line into gradtx's values."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax

import gradtx
from gradtx.core.hyperparameters import Instance, Kind
from gradtx.demo.errors import CommandError, unknown

_ARGS = inspect.Parameter.VAR_POSITIONAL


def transformations() -> dict[str, Callable[..., Any]]:
    """Every public definition of a transformation; PyTorch's are ``torch.NAME``."""
    return _definitions(gradtx, gradtx.GradientTransformation)


def schedules() -> dict[str, Callable[..., Any]]:
    """Every public schedule; PyTorch's are ``torch.NAME``."""
    return _definitions(gradtx.schedules, gradtx.Schedule)


def _exported(module: ModuleType) -> dict[str, Any]:
    names: list[str] = vars(module)["__all__"]  # computed, so that type checkers do not know it
    return {name: getattr(module, name) for name in names}


def _definitions(module: ModuleType, kind: type) -> dict[str, Callable[..., Any]]:
    ours = {name: thing for name, thing in _exported(module).items() if name[0].islower()}
    torch = {f"torch.{name}": thing for name, thing in _exported(gradtx.torch).items()}
    return {name: f for name, f in (ours | torch).items() if _makes(f, kind)}


def _makes(function: object, kind: type) -> bool:
    """Whether calls return values of that kind; a plain public function is taken as a schedule."""
    made = getattr(function, "value_class", None)
    if made is not None:
        return issubclass(made, kind)
    return kind is gradtx.Schedule and inspect.isfunction(function)


def make_transformation(name: str, words: Sequence[str]) -> gradtx.GradientTransformation:
    """The transformation of that name; its learning rate is 0.001 if it needs one."""
    known = transformations()
    if name not in known and name not in _exported(gradtx):
        raise unknown("transformation", name, known)
    inner = _inner(known[name]) if name in known else None
    if name not in known or inner:
        why = f", since {inner} is not a number or word" if inner else ""
        raise CommandError(
            f"{name} cannot be made from words on a command line{why}; in Python, "
            "gradtx.inspection.describe(tx) says what a transformation is made of"
        )
    given = keywords(words)
    parameters = inspect.signature(known[name]).parameters
    if "learning_rate" in parameters and parameters["learning_rate"].default is inspect._empty:
        given = {"learning_rate": 1e-3} | given
    return _call(name, known[name], given)


def _inner(definition: Callable[..., Any]) -> str | None:
    """The first argument that must be given and is, or holds, a transformation."""
    kinds: Mapping[str, Kind] = getattr(definition, "parameters", {})
    for name, parameter in inspect.signature(definition).parameters.items():
        kind = kinds.get(name)
        needed = parameter.default is parameter.empty and parameter.kind is not _ARGS
        value_class = kind.value_class if needed and isinstance(kind, Instance) else None
        if value_class is not None and issubclass(value_class, gradtx.GradientTransformation):
            return name
    return None


def make_schedule(name: str, words: Sequence[str]) -> gradtx.Schedule:
    """The schedule of that name."""
    known = schedules()
    if name not in known:
        raise unknown("schedule", name, known)

    def tried(**given: Any) -> gradtx.Schedule:
        """The schedule, evaluated once: what an argument holds may be looked at only then."""
        schedule = known[name](**given)
        jax.eval_shape(schedule, 0)
        return schedule

    return _call(name, tried, keywords(words))


def keywords(words: Sequence[str]) -> dict[str, Any]:
    """``["peak_value=0.1", "staircase=True"]`` as keyword arguments, read as Python literals."""
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise CommandError(f"cannot read {word!r}: write an argument as name=value")
        try:
            given[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            raise CommandError(
                f"cannot read {word!r}: the value must be a Python literal such as 0.1 or True"
            ) from None
    return given


def signature(name: str, function: Callable[..., Any]) -> str:
    """``name(argument, other=default)``, without annotations."""
    parameters = inspect.signature(function).parameters.values()
    plain = [parameter.replace(annotation=inspect._empty) for parameter in parameters]
    return f"{name}{inspect.Signature(plain)}"


def _call(name: str, function: Callable[..., Any], given: dict[str, Any]) -> Any:
    try:
        return function(**given)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(reason if name in reason else f"{name}: {reason}") from None
