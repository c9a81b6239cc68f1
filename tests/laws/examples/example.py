"""What an example of a public name says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradtx


@dataclass(frozen=True)
class Example:
    """One construction of one public name."""

    name: str  # as in gradtx.__all__; "torch.adam"; "own ..." where the tests define it
    about: str
    make: Callable[[], Any]
    needs_params: bool = False
    couples: bool = False  # the update of one leaf depends on the others
    rates: tuple[float, float] | None = None  # learning rates: for a quadratic, for Rosenbrock
    twin: Callable[[], Any] | None = None  # the same in Optax
    narrow: bool = False  # asks for a state narrower than float32
    narrow_squares: bool = False  # of second moments alone, which are real for complex leaves too
    coded: bool = False  # keeps arrays as codes, which say nothing byte by byte; complex ones not
    narrow_params: bool = False  # for parameters narrower than float32; the laws' are refused
    float32: bool = False  # keeps a part of its state in float32 under x64 too, as Optax does
    foreign: bool = False  # holds functions that do not pickle, and rules that are Optax's own
    whole_tree: bool = False  # holds a tree of masks, which fits one structure only
    by_path: bool = False  # groups leaves by their names, and a bare array has none
    written_out: bool = True  # all arguments are numbers and flags: the repr can be evaluated
    real: bool = False  # has no meaning for complex numbers, and says so
    noisy: bool = False  # adds random numbers; to a complex array in both parts
    spreads: bool = False  # its state lies elsewhere than the parameters, on a mesh of its own
    accumulates: bool = False  # a mean over micro-batches, from which NaN gradients are left out
    idle: tuple[str, ...] = ()  # arguments that change nothing on the laws' tree: bounds far away
    unmoved: tuple[str, ...] = ()  # numbers that do not act on their own step: on the first state
    # alone, on later steps, or under a sign that hides them
    unread: bool = False  # its state holds what update only writes: such a buffer is not taken over
    one_vector: bool = False  # all leaves are one vector, whose length cannot change with a None
    per_example: str = ""  # why it takes the gradients of single examples, before which no other
    # transformation may come
    extra: Mapping[str, Any] = field(default_factory=dict)  # arguments of update

    def __str__(self) -> str:
        return f"{self.name}-{self.about}".replace(" ", "_")


@dataclass(frozen=True)
class ScheduleExample:
    """One construction of one public schedule."""

    name: str
    about: str
    make: Callable[[], Any]
    slope_in: str | None = "init_value"  # an argument with respect to which the value has a slope
    written_out: bool = True
    infix: bool = False  # an expression, printed as it is written: arguments without their names

    def __str__(self) -> str:
        return f"{self.name}-{self.about}".replace(" ", "_")


def linear() -> Any:
    """A schedule for the numbers of examples."""
    return gradtx.linear_schedule(0.2, 0.05, 6)


def only_w(params: Any) -> Any:
    """A mask as a function."""
    return {name: name == "w" for name in params}


E, S = Example, ScheduleExample
T = {"w": True, "b": False, "s": False}
