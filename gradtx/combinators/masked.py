"""Apply a transformation to some of the leaves."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from gradtx.core.definition import makes
from gradtx.core.leaves import Leaves
from gradtx.core.mask import Mask, MaskedNode, MaskLike, hide
from gradtx.core.origin import Held, is_like, show_class, with_nodes, wrong
from gradtx.core.printing import code
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import (
    GradientTransformation,
    Link,
    TransformationLike,
)
from gradtx.core.value import thaw

__all__ = ["MaskedState", "masked"]


class MaskedState(NamedTuple):
    """The state of the inner transformation, with `MaskedNode()` in place of the other leaves."""

    inner_state: OptState


def inside(state: OptState, path: str) -> OptState:
    """The state under a mask, with this library's `MaskedNode`; any other state is an error."""
    if not is_like(state, MaskedState):
        raise wrong(state, f"the {show_class(MaskedState)} of masked", path)
    same_library = isinstance(state, MaskedState)
    return state.inner_state if same_library else with_nodes(state.inner_state, MaskedNode)


class Masked(GradientTransformation):
    """The links of the inner transformation, all under the mask."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation under the mask."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation under the mask."""
        return (self.inner,)

    @property
    def _mask(self) -> Mask:
        return Mask(self.arguments["mask"], self.arguments["mask_compatible_extra_args"])

    @functools.cached_property
    def _links(self) -> tuple[Link, ...]:
        return tuple(link._replace(masks=(*link.masks, self._mask)) for link in self.inner._links)

    def _split(self, state: OptState, path: str) -> list[Held]:
        return self.inner._composite._split(inside(state, path), f"{path}.inner_state")

    def _join(self, states: Iterator[OptState]) -> OptState:
        return MaskedState(self.inner._composite._join(states))

    def _init(self, params: Params) -> OptState:
        leaves = Leaves.of(params)
        if not leaves.values:
            # Nothing to mask; map_params makes states of a placeholder without leaves.
            return MaskedState(self.inner._init(params))
        selected = self._mask.select(leaves, "masked")
        return MaskedState(self.inner._init(hide(leaves, leaves.values, selected)))

    def _text(self) -> str:
        covers = self.arguments["mask_compatible_extra_args"]
        shown = f"inner={code(self.inner)}, mask={code(thaw(self.arguments['mask']))}"
        return f"masked({shown}{', mask_compatible_extra_args=True' if covers else ''})"


@makes(Masked)
def masked(
    inner: TransformationLike, mask: MaskLike, *, mask_compatible_extra_args: bool = False
) -> tuple[object, ...]:
    """Apply a transformation to some leaves; the others pass unchanged and cost no state.

        u = inner(g) where the mask holds, u = g elsewhere

    The usual case is weight decay on matrices only. `freeze` stops leaves, and `partition` gives
    each group a transformation of its own. update takes `grad` and `value_fn` or `obj_fn` of the
    whole tree; inside, a line search sees the objective as a function of the selected leaves, with
    the others where they are.

    Args:
        mask: which parameters: a tree of booleans shaped like the params, or a prefix of it; a
            function from the params to such a tree; a regular expression (`"kernel"`) searched for
            in the leaf's path (`encoder/0/kernel`); or `matching(pattern)`, and
            `~matching(pattern)` for all other leaves.
        mask_compatible_extra_args: also hide masked leaves of extra arguments of update that are
            trees like the updates. `grad` is masked in any case.

    State: that of `inner` for the selected leaves, with `MaskedNode()` in place of the others.

    Raises: ValueError, in init and update, for a mask that does not fit the tree or a pattern that
    matches no leaf.

    Example:
        >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> tx = gradtx.masked(gradtx.add_decayed_weights(0.5), "kernel")
        >>> updates, _ = tx.update(gradtx.tree.zeros_like(params), tx.init(params), params)
        >>> updates["kernel"], updates["bias"]
        (Array([0.5, 0.5], dtype=float32), Array([0., 0.], dtype=float32))

    See also: `freeze`, `partition`, `selective_transform`.
    """
    return inner, mask, mask_compatible_extra_args
