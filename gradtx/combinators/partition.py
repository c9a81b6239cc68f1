"""Give each group of leaves a transformation of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

from gradtx.combinators.masked import MaskedState, inside
from gradtx.combinators.of_parts import OfParts
from gradtx.core.definition import makes
from gradtx.core.leaves import Leaves, is_function
from gradtx.core.mask import Mask, broadcast_prefix, check_pattern, first_matching, hide
from gradtx.core.origin import Held, is_like, show_class, wrong
from gradtx.core.printing import code, show
from gradtx.core.skipping import some, tells_steps, took_step
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import (
    GradientTransformation,
    Link,
    TransformationLike,
)
from gradtx.core.value import thaw
from gradtx.tree.types import Tree

__all__ = ["PartitionState", "partition"]


@tells_steps(
    lambda old, new: some(took_step(x, new.inner_states[k]) for k, x in old.inner_states.items())
)
class PartitionState(NamedTuple):
    """By label, the state of the group, with `MaskedNode()` in place of leaves of other groups."""

    inner_states: Mapping[Hashable, OptState]


class Assignment(dict[str, Hashable]):
    """The label of each leaf, by path; prints as a table."""

    def __str__(self) -> str:
        width = max((len(path) for path in self), default=0)
        return "\n".join(f"{path:{width}}  {show(label)}" for path, label in self.items())


@dataclass(frozen=True)
class Labels:
    """How leaves are labelled: by the tree or function given, or else by the patterns `known`."""

    given: Any
    known: tuple[Hashable, ...]

    def of(self, leaves: Leaves, *, complete: bool = False) -> list[Hashable]:
        """The label of each leaf. A leaf without one is an error, and if the tree is `complete` so
        is a pattern without a leaf."""
        if not leaves.values:
            return []  # map_params makes states of a placeholder without leaves
        labels = self._found(leaves, complete)
        bare = [
            f"{path or 'the root'}" + ("" if label is None else f" (label {label!r})")
            for path, label, x in zip(leaves.paths, labels, leaves.values, strict=True)
            if x is not None and label not in self.known
        ]
        if bare:
            by_pattern = self.given is None
            what = "pattern matches" if by_pattern else "transformation is given for"
            kind = "Patterns" if by_pattern else "Labels"
            shown = ", ".join(bare[:20]) + (", ..." if len(bare) > 20 else "")
            raise ValueError(
                f"partition: no {what} {shown}. {kind} given: "
                f"{', '.join(map(repr, self.known))}; add one for the rest, with freeze() or "
                "identity() if nothing is to happen to it"
            )
        return labels

    def _found(self, leaves: Leaves, complete: bool) -> list[Any]:
        given = thaw(self.given)
        if given is None:
            return self._matched(leaves.paths, complete)
        labels = given(leaves.tree(leaves.values)) if is_function(given) else given
        try:
            return broadcast_prefix(labels, leaves)
        except ValueError as error:
            raise ValueError(
                f"partition: param_labels does not fit the parameters: {error}. It is a tree of "
                "labels shaped like the params (or a prefix of it), or a function that makes one"
            ) from error

    def _matched(self, paths: list[str], complete: bool) -> list[str | None]:
        """The first pattern found in each path."""
        patterns = [str(key) for key in self.known]
        return first_matching(patterns, paths, "partition", optional=() if complete else patterns)


@dataclass(frozen=True)
class _Group(Mask):
    """The mask of the leaves with one label; `given` says how leaves are labelled."""

    given: Labels
    covers_extra: bool = False
    label: Hashable = None

    def select(self, leaves: Leaves, where: str) -> list[bool]:
        """For each leaf, whether it has the label."""
        if self.given not in leaves.memo:
            leaves.memo[self.given] = self.given.of(leaves)
        return [label == self.label for label in leaves.memo[self.given]]


class Partition(OfParts):
    """The links of the groups' transformations, each under the mask of its group."""

    _for_users = (*GradientTransformation._for_users, "assignment")

    def _check(self) -> None:
        if self.param_labels is None:
            for key in self.transforms:
                if not isinstance(key, str):
                    raise TypeError(
                        "partition: without param_labels the keys are path patterns, got "
                        f"{show(key)}"
                    )
                check_pattern("partition", key)

    @property
    def transforms(self) -> Mapping[Any, GradientTransformation]:
        """The transformations by label, or by pattern, in order."""
        groups: Mapping[Any, GradientTransformation] = self.arguments["transforms"]
        return groups

    _word = "group"

    @property
    def _by_key(self) -> Mapping[Any, GradientTransformation]:
        return self.transforms

    def _path(self, key: Any) -> str:
        return f"transforms[{key!r}]"

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation of each group."""
        return tuple(self.transforms.values())

    def assignment(self, params: Params) -> Assignment:
        """The label of each leaf, by path; prints as a table.

        Raises: ValueError for a leaf without a transformation or a pattern without a leaf.
        """
        leaves = Leaves.of(params)
        labels = self._labels.of(leaves, complete=True)
        return Assignment(
            (path, label)
            for path, label, x in zip(leaves.paths, labels, leaves.values, strict=True)
            if x is not None
        )

    def replace(self, **changes: Any) -> Self:
        """The same with another `transforms` or `param_labels`, or with some hyperparameters of the
        groups' transformations changed, each in the one group that has it.

        Raises: TypeError if no group, or more than one, has the argument.
        """
        given = {name: changes.pop(name, thaw(x)) for name, x in self.arguments.items()}
        groups = ", ".join(f"{k!r}: {tx.definition.name}" for k, tx in self.transforms.items())
        hint = (
            f", tx.replace(transforms=...). The groups: {groups}; partition's own arguments: "
            f"{', '.join(given)}"
        )
        given["transforms"] = self._parts_with(changes, given["transforms"], hint)
        return super().replace(**given)

    @cached_property
    def _labels(self) -> Labels:
        return Labels(self.arguments["param_labels"], tuple(self.transforms))

    @property
    def _covers(self) -> bool:
        covers: bool = self.arguments["mask_compatible_extra_args"]
        return covers

    @cached_property
    def _links(self) -> tuple[Link, ...]:
        return tuple(
            link._replace(masks=(*link.masks, self._group(label)))
            for label, part in self.transforms.items()
            for link in part._links
        )

    def _group(self, label: Hashable) -> Mask:
        """The mask of the leaves with a label."""
        return _Group(self._labels, self._covers, label)

    def _split(self, state: OptState, path: str) -> list[Held]:
        if not is_like(state, PartitionState):
            raise wrong(state, f"the {show_class(PartitionState)} of partition", path)
        states, path = state.inner_states, f"{path}.inner_states"
        if not isinstance(states, Mapping) or states.keys() != self.transforms.keys():
            groups = ", ".join(map(str, self.transforms))
            raise wrong(states, f"the dict of {groups} of partition", path)
        return [
            held
            for label, part in self.transforms.items()
            for held in part._composite._split(
                inside(states[label], f"{path}[{label!r}]"), f"{path}[{label!r}].inner_state"
            )
        ]

    def _join(self, states: Iterator[OptState]) -> OptState:
        pairs = self.transforms.items()
        return PartitionState(
            {label: MaskedState(part._composite._join(states)) for label, part in pairs}
        )

    def _init(self, params: Params) -> OptState:
        leaves = Leaves.of(params)
        labels = self._labels.of(leaves, complete=True)

        def seen(label: Hashable) -> Params:
            mine = [other == label for other in labels]
            return hide(leaves, leaves.values, mine) if mine else params

        pairs = self.transforms.items()
        return PartitionState({k: MaskedState(part._init(seen(k))) for k, part in pairs})

    def _text(self) -> str:
        labels = "" if self.param_labels is None else f", {code(self.param_labels)}"
        covers = ", mask_compatible_extra_args=True" if self._covers else ""
        return f"partition({code(dict(self.transforms))}{labels}{covers})"


@makes(Partition)
def partition(
    transforms: Mapping[Any, TransformationLike],
    param_labels: Tree | Callable[[Params], Tree] | None = None,
    *,
    mask_compatible_extra_args: bool = False,
) -> tuple[object, ...]:
    """Apply to each leaf its group's transformation, which keeps state for its own leaves only.

        partition({"bias|scale": sgd(0.1), ".*": adamw(1e-3)})
        partition({"adam": adam(1e-3), "frozen": freeze()}, {"head": "adam", "body": "frozen"})

    `tx.assignment(params)` returns, and prints as a table, which leaf is in which group. A line
    search in a group moves that group's leaves, with the others where they were before the step,
    even if another group moves them at the same time. `multi_transform` is the older name.

    Args:
        transforms: the transformation of each group, gradtx's or Optax's, by pattern or by label.
            Without param_labels the keys are regular expressions, searched for in the leaf's path
            (`encoder/0/kernel`); the first that is found decides. With param_labels they are
            labels.
        param_labels: the label of each leaf: a tree of labels shaped like the params, a prefix of
            such a tree, or a function from the params to one. None means that the keys are
            patterns.
        mask_compatible_extra_args: show a group only its own leaves of extra arguments of update
            that are trees like the updates. `grad` is masked in any case.

    State: the state of each group for its own leaves, by key.

    Raises: TypeError for anything but a transformation; ValueError for an invalid regular
    expression and, at init, for leaves that no group takes (each is named) and for a pattern that
    gets no leaf, unless it matches them all, as a last ".*" does.

    Example:
        >>> params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
        >>> tx = gradtx.partition({"bias": gradtx.sgd(0.1), ".*": gradtx.adamw(1e-3)})
        >>> print(tx.assignment(params))
        dense/bias    'bias'
        dense/kernel  '.*'

    See also: `masked`, `freeze`, `selective_transform`, `layerwise_lr_decay`.
    """
    return transforms, param_labels, mask_compatible_extra_args
