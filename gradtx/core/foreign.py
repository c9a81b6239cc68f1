"""A pair of functions, Optax's or a user's own, as a link of a chain."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax

from gradtx.core.definition import Definition, makes
from gradtx.core.dtypes import cast, is_inexact, widen_tree
from gradtx.core.kinds import Instance
from gradtx.core.problem import accepted
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation, Link
from gradtx.core.value import Value, show
from gradtx.core.work import Work


class Foreign(GradientTransformation):
    """A pair of functions that is not made of rules: it sees whole trees and keeps any state."""

    @classmethod
    def _make(cls, definition: Definition[Any, Any], arguments: Mapping[str, Any]) -> Value:
        known = _method_of(arguments["init"], "init")
        ours = known is not None and known == _method_of(arguments["update"], "update")
        return known if known is not None and ours else super()._make(definition, arguments)

    @property
    def begins_with_params(self) -> bool:
        """What a plain function needs is not known: it says so itself."""
        return False

    def check_given(self, who: object, has_params: bool, extra: dict[str, Any]) -> None:
        """What a plain function needs is not known: it says so itself."""

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """As the signature of the function says."""
        return name in accepted(self.arguments["update"], {name: None})

    def _init(self, params: Params) -> OptState:
        # In float32 or wider, as its updates and params will be.
        return self.arguments["init"](widen_tree(params))

    def _run(self, state: OptState, work: Work, link: Link, extra: dict[str, Any]) -> OptState:
        selected = work.selected(link.masks)
        function = self.arguments["update"]
        given = work.visible(accepted(function, extra), link.masks)
        updates, new_state = function(
            work.tree(selected), state, work.params_tree(selected), **given
        )
        work.put(updates, selected, repr(self))
        return in_dtypes_of(state, new_state)

    def __repr__(self) -> str:
        init, update = self.arguments["init"], self.arguments["update"]
        return f"GradientTransformation(init={show(init)}, update={show(update)})"


def in_dtypes_of(old: OptState, new: OptState) -> OptState:
    """The new state in the dtypes of the old one, where they are alike."""
    if jax.tree.structure(old) != jax.tree.structure(new):  # type: ignore[operator]
        return new

    def same(before: Any, after: Any) -> Any:
        array = isinstance(before, jax.Array) and is_inexact(before)
        return cast(after, before.dtype) if array else after

    return jax.tree.map(same, old, new)


def known_to(function: Callable[..., Any], extra: dict[str, Any], who: str) -> dict[str, Any]:
    """The extra arguments that a user's function takes; one that it needs and that is not there
    is an error that says how to give it."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    missing = [name for name in needed if name not in extra]
    if missing:
        given = ", ".join(f"{name}=..." for name in missing)
        raise TypeError(f"{who} {show(function)}: call update(grads, state, params, {given})")
    return accepted(function, extra)


def _method_of(function: Any, name: str) -> GradientTransformation | None:
    """The transformation of this library whose init or update a function is, as it is, jitted, or
    in a wrapper that adds nothing to it."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, GradientTransformation) and function == getattr(owner, name):
        return owner
    if isinstance(function, functools.partial) and not function.args and not function.keywords:
        return _method_of(function.func, name)
    if isinstance(function, _JITTED):
        return _method_of(function.__wrapped__, name)
    if getattr(function, "__qualname__", "") == _WITHOUT_EXTRA and inspect.isfunction(function):
        tx = inspect.getclosurevars(function).nonlocals.get("tx")
        return _method_of(getattr(tx, name, None), name)
    return None


_JITTED: Any = type(jax.jit(lambda: None))
# What Optax's wrapper of that name, which leaves the extra arguments out, calls its update.
_WITHOUT_EXTRA = "with_extra_args_support.<locals>.update"


@makes(Foreign, name="GradientTransformation")
def from_functions(init: Any, update: Any) -> Any:
    """`init(params) -> state` and `update(updates, state, params, **extra)` as a transformation:
    that of which they are the methods, if they are."""
    return init, update


# A transformation, or what `as_transformation` makes one of.
TransformationLike = Annotated[Any, Instance(GradientTransformation)]


def as_transformation(x: Any, where: str) -> GradientTransformation:
    """A transformation as it is, a pair with `init` and `update` as a link; else an error."""
    if isinstance(x, GradientTransformation):
        return x
    init, update = getattr(x, "init", None), getattr(x, "update", None)
    if callable(init) and callable(update):
        made: GradientTransformation = from_functions(init, update)
        return made
    hint = ""
    if callable(x):
        hint = "; a schedule goes through scale_by_schedule(...), a definition must be called first"
    raise TypeError(
        f"{where} must be a gradient transformation, got {show(x)} ({type(x).__name__}){hint}"
    )
