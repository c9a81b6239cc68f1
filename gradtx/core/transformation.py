"""The value that users hold: a gradient transformation, and the links that it consists of."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import jax

from gradtx.core import run
from gradtx.core.definition import Definition, makes
from gradtx.core.dtypes import cast, is_inexact, widen_tree
from gradtx.core.flat_updates import FlatUpdates, Selection
from gradtx.core.hyperparameters import Instance
from gradtx.core.kinship import KinOfOptax
from gradtx.core.mask import Mask
from gradtx.core.meshes.elsewhere import check_together
from gradtx.core.meshes.manual import manual_axes, named
from gradtx.core.meshes.placing import trees_alike
from gradtx.core.meshes.whole_sums import whole_sums
from gradtx.core.origin import Held
from gradtx.core.place import Place
from gradtx.core.printing import show
from gradtx.core.problem import Extra, accepted, check_known
from gradtx.core.run import Line, Stage
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.value import Value

InitFn = Callable[[Params], OptState]
UpdateFn = Callable[..., tuple[Updates, OptState]]


class Link(NamedTuple):
    """One transformation of a line, acting on the leaves that every mask selects.

    masks: from the innermost to the outermost; none means all leaves. owner: the recipe of which
    this is the only link or, for a transformation that users cannot write, the innermost recipe
    that it is in.
    """

    transformation: GradientTransformation
    masks: tuple[Mask, ...] = ()
    owner: GradientTransformation | None = None

    @property
    def written(self) -> GradientTransformation:
        """What the user wrote, for errors."""
        return self.owner or self.transformation


class Inside(NamedTuple):
    """A transformation inside a link, and its part of the link's state.

    label: what tells it from others inside the same link; "" if it is the only one.
    """

    label: str
    transformation: GradientTransformation
    state: OptState


class GradientTransformation(KinOfOptax, Value):
    """A pair of pure functions, `init` and `update`, that is also a value.

    `state = tx.init(params)`; `updates, state = tx.update(grads, state, params, **extra)`;
    `init, update = tx`. Its hyperparameters are attributes (`tx.learning_rate`) and the leaves of
    a pytree: pass `tx` to a jitted function and a new learning rate does not retrace; map over
    one with `jax.vmap`; differentiate with respect to one with `jax.grad`.

    `GradientTransformation(init, update)` makes one from a pair of functions.
    """

    _for_users = (*Value._for_users, "init", "parts", "update")

    def __new__(cls, init: InitFn, update: UpdateFn) -> GradientTransformation:
        """A transformation from a pair of functions."""
        return from_functions(init, update)

    def init(self, params: Params) -> OptState:
        """The state before the first update; its arrays are shaped and placed like params.

        params may be `ShapeDtypeStruct`s if no rule computes with their values. Raises: TypeError
        if one does, and, with the leaf's path, for a leaf that is not a floating array.
        """
        if manual_axes():
            return whole_sums(self.definition.name, partial(run.init, self), params)
        return run.init(self, params)

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        """The transformed updates, in the dtypes of params (or of updates, if params is None), and
        the new state.

        Raises: ValueError if trees or shapes differ (with the leaf's path), if a part needs params
        and none were given, or, not under jit, if arrays lie on different devices; TypeError if a
        part needs an extra argument, such as value=, that was not given, or if a value_fn was given
        beside an extra argument that nothing takes.
        """
        if extra:
            check_known(self, lambda name: self.takes(name, extra), extra)
        if manual_axes():
            update = partial(run.update, self)
            return whole_sums(self.definition.name, update, updates, state, params, extra)
        try:
            return run.update(self, updates, state, params, extra)
        except Exception as error:
            check_together(self.definition.name, error, updates, state, params)
            raise

    def _step(
        self, updates: Updates, state: OptState, params: Params, extra: Extra
    ) -> tuple[Params, OptState]:
        """`gradtx.step`: the params after the update, and the new state."""
        if manual_axes():
            step = partial(run.step, self)
            return whole_sums(self.definition.name, step, updates, state, params, extra)
        try:
            return run.step(self, updates, state, params, extra)
        except Exception as error:
            check_together(self.definition.name, error, updates, state, params)
            raise

    @classmethod
    def _make(cls, definition: Definition[Any, Any], arguments: Mapping[str, Any]) -> Value:
        if cls is GradientTransformation:  # perhaps the two methods of an existing transformation
            known = _method_of(arguments["init"], "init")
            if known is not None and known == _method_of(arguments["update"], "update"):
                return known
        return super()._make(definition, arguments)

    @classmethod
    def _accept(cls, where: str, value: Any) -> GradientTransformation:
        return as_transformation(value, where)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        yield self.init
        yield self.update

    def __getitem__(self, index: int) -> Callable[..., Any]:
        """tx[0] is init, tx[1] is update."""
        return (self.init, self.update)[index]

    # -- its parts, and the inputs that it reads ---------------------------------------------------

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformations that this one consists of, in the order in which they run."""
        return ()

    @property
    def place(self) -> Place:
        """Where in a chain it must stand; for a composite, the union over its links."""
        place = Place.ANYWHERE
        for link in self._links:
            if link.transformation is not self:
                place |= link.transformation.place
        return place

    # Whether per-example gradients (a leading axis of examples) pass through it unchanged in form.
    passes_examples = False

    @property
    def begins_with_params(self) -> bool:
        """Whether its init reads the parameters, so that `init(None)` is an error."""
        return not self._is_pair  # a pair of functions raises its own error

    def takes(self, name: str, extra: Extra) -> bool:
        """Whether any part of it reads, or may read, this extra argument."""
        if self._is_pair:
            return name in accepted(self.arguments["update"], {name: None})
        links = (link.transformation for link in self._links)
        inside = [tx for tx in links if tx is not self] or self.parts
        return not inside or any(tx.takes(name, extra) for tx in inside)

    @property
    def _requires(self) -> bool:
        """Whether its update needs params or an extra argument."""
        return False

    def check_given(self, who: object, has_params: bool, extra: Extra) -> None:
        """Raise if `update` needs params or an extra argument that was not given, naming `who`."""

    def _can_ignore(self) -> bool:
        """Whether there may be leaves whose gradients it does not read."""
        return False

    def _ignored(self, flat: FlatUpdates, selected: Selection) -> list[bool]:
        """For each leaf, whether it is selected and its gradient is not read."""
        return [chosen and self._can_ignore() for chosen in selected]

    # -- a composite: its links, and how its state is split among them -----------------------------

    @cached_property
    def _links(self) -> tuple[Link, ...]:
        return (Link(self),)

    @cached_property
    def _line(self) -> Line:
        return Line.of(self._composite, self._links)

    @property
    def _composite(self) -> GradientTransformation:
        """The transformation that splits and joins the state: for a recipe, its body."""
        return self

    def _split(self, state: OptState, path: str) -> list[Held]:
        """The states of its links; `path` locates `state` within the whole state."""
        return [Held(state, path)]

    def _join(self, states: Iterator[OptState]) -> OptState:
        """The inverse of `_split`."""
        return next(states)

    # -- a link: how it starts and runs; here, a pair of functions ---------------------------------

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        """The transformations inside a link, each with its part of the link's state."""
        return ()

    @property
    def _is_pair(self) -> bool:
        return type(self) is GradientTransformation

    def _init(self, params: Params) -> OptState:
        # In float32 or wider, as its updates and params will be.
        wide = widen_tree(params)
        with named(self.definition.name):
            return trees_alike(self.arguments["init"](wide), wide)

    def _joins(self, before: GradientTransformation) -> bool:
        """Whether it runs in the same stage as the link before it."""
        return False

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        """Run a stage that begins with this link: the updates, and the new state of each link."""
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        flat, function = flat.widened(), self.arguments["update"]
        given = flat.visible(accepted(function, stage.extra), link.masks)
        with named(self.definition.name):
            updates, new = function(flat.tree(selected), state, flat.params_tree(selected), **given)
        return flat.put(updates, selected, show(self)), [in_dtypes_of(state, new)]

    def _text(self) -> str:
        if not self._is_pair:
            return super()._text()
        init, update = self.arguments["init"], self.arguments["update"]
        return f"GradientTransformation(init={show(init)}, update={show(update)})"


def in_dtypes_of(old: OptState, new: OptState) -> OptState:
    """The new state in the dtypes of the old one, if they have the same structure."""
    if jax.tree.structure(old) != jax.tree.structure(new):  # type: ignore[operator]
        return new

    def same(before: Any, after: Any) -> Any:
        array = isinstance(before, jax.Array) and is_inexact(before)
        return cast(after, before.dtype) if array else after

    return jax.tree.map(same, old, new)


# -- from a pair of functions ----------------------------------------------------------------------


def _method_of(function: Any, name: str) -> GradientTransformation | None:
    """The transformation whose init or update this function is: bare, jitted, in an empty
    `functools.partial`, or in Optax's `with_extra_args_support`."""
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
# The qualified name of the update made by Optax's wrapper, which drops the extra arguments.
_WITHOUT_EXTRA = "with_extra_args_support.<locals>.update"


@makes(GradientTransformation, name="GradientTransformation")
def from_functions(init: Any, update: Any) -> Any:
    """A transformation from `init(params) -> state` and `update(updates, state, params, **extra)`.

    If they are the two methods of a transformation, it is that transformation.
    """
    return init, update


if TYPE_CHECKING:

    class InitAndUpdate(Protocol, Any):  # type: ignore[misc]
        """A transformation of any library, as it is passed; the function called gets gradtx's."""

        @property
        def init(self) -> Callable[..., Any]:
            """From params to the state."""

        @property
        def update(self) -> Callable[..., Any]:
            """From updates and the state to the next ones."""
else:
    InitAndUpdate = Any

# A transformation, or anything that `as_transformation` turns into one.
TransformationLike = Annotated[InitAndUpdate, Instance(GradientTransformation)]


def as_transformation(x: Any, where: str) -> GradientTransformation:
    """x, if it is a transformation; an Optax-like pair becomes one; anything else is an error."""
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


def check_rounds_outside(who: str, inside: Iterable[GradientTransformation]) -> None:
    """Refuse a link that rounds the parameters inside `who`, which goes on to change the updates:
    the parameters would no longer land on the rounded numbers."""
    for tx in inside:
        if Place.LAST in tx.place:
            raise ValueError(
                f"{who}: {tx} inside it rounds the parameter, which must come last: round "
                f"outside, chain({who}(...), stochastic_rounding()) or master_weights({who}(...)). "
                "A wrapper that hands on the updates as they are says so by the place of its rule"
            )
