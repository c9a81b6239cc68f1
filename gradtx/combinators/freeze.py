"""Keep leaves as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from gradtx.combinators.masked import masked
from gradtx.combinators.partition import Labels, Partition
from gradtx.core.decorators import recipe
from gradtx.core.definition import makes
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.leaves import Leaves
from gradtx.core.mask import Mask, MaskLike
from gradtx.core.origin import Held, is_nothing, show_class, wrong
from gradtx.core.run import Stage
from gradtx.core.state import EmptyState, OptState, Params
from gradtx.core.transformation import GradientTransformation, TransformationLike
from gradtx.core.value import Value, thaw

__all__ = ["freeze", "selective_transform"]


class Freeze(GradientTransformation):
    """Takes its leaves off the line of links: the links after it see no gradient there."""

    def takes(self, name: str, extra: Mapping[str, Any]) -> bool:
        """It takes no extra argument."""
        return False

    def _can_ignore(self) -> bool:
        return True

    def _init(self, params: Params) -> OptState:
        return EmptyState()

    def _split(self, state: OptState, path: str) -> list[Held]:
        if not is_nothing(state):
            raise wrong(state, f"the {show_class(EmptyState)} of freeze", path)
        return super()._split(state, path)

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (state,), (selected,) = stage.states, stage.selections
        return flat.freeze(selected), [state]


@makes(Freeze)
def freeze_all() -> None:
    """u = 0, whatever follows"""


@recipe
def freeze(mask: MaskLike = True) -> GradientTransformation:
    """Keep some parameters as they are, whatever else stands in the chain.

        u = 0 where the mask holds, wherever in a chain it stands; u = g elsewhere

    To the transformations after it a frozen leaf is absent: weight decay or noise does not move
    it, and a norm does not count it. Those before it still see the leaf's gradient. If freeze comes
    first, a NaN in the gradient of a frozen leaf does not make `finite_guard`, `apply_if_finite`,
    `accumulate`, `MultiSteps` or `dynamic_loss_scale` around it skip a step.

    Args:
        mask: which parameters are frozen: a tree of booleans (or a prefix of one), a function from
            the params to one, or a path pattern such as "encoder" or ~matching("head"). True means
            all.

    State: none. The state that the rest of the chain keeps for a frozen leaf stays as it is;
    `partition` and `selective_transform` keep none in the first place.

    Example:
        >>> params = {"encoder": jnp.ones(2), "head": jnp.ones(2)}
        >>> tx = gradtx.chain(gradtx.freeze("encoder"), gradtx.sgd(0.1))
        >>> updates, _ = tx.update(params, tx.init(params))
        >>> updates["encoder"], updates["head"]
        (Array([0., 0.], dtype=float32), Array([-0.1, -0.1], dtype=float32))

    See also: `masked`, `partition`, `selective_transform`, `set_to_zero`.
    """
    return masked(freeze_all(), mask)


@dataclass(frozen=True)
class _ByMask:
    """Labels leaves "freeze" where the mask holds, and "train" elsewhere."""

    mask: Any

    def __call__(self, params: Params) -> Params:
        leaves = Leaves.of(params)
        frozen = Mask(self.mask).select(leaves, "selective_transform: freeze_mask")
        return leaves.tree("freeze" if f else "train" for f in frozen)


class Selective(Partition):
    """The groups "train", which the optimizer updates, and "freeze"."""

    @cached_property
    def transforms(self) -> Mapping[Any, GradientTransformation]:
        """The transformation of each group."""
        return {"train": self.arguments["optimizer"], "freeze": freeze_all()}

    def replace(self, **changes: Any) -> Self:
        """The same with another `optimizer` or `freeze_mask`, or with some hyperparameters of the
        optimizer changed.

        Raises: TypeError for an argument that neither has.
        """
        given = {name: changes.pop(name, thaw(x)) for name, x in self.arguments.items()}
        inside = {"optimizer": given["optimizer"]}
        hint = f". Its own arguments: {', '.join(given)}"
        made = self._parts_with(changes, inside, hint)
        return self.definition.replace(self.arguments, given | made)

    def _check(self) -> None:
        """Nothing to check: the names of the groups are fixed."""

    @cached_property
    def _labels(self) -> Labels:
        return Labels(_ByMask(self.arguments["freeze_mask"]), tuple(self.transforms))

    @property
    def _covers(self) -> bool:
        return False

    def _text(self) -> str:
        return Value._text(self)


@makes(Selective)
def selective_transform(optimizer: TransformationLike, *, freeze_mask: MaskLike) -> Any:
    """Freeze the parameters under a mask, and run the optimizer on all others.

        u = 0, without state, where the mask holds; u = optimizer(g) elsewhere

    Args:
        optimizer: the transformation for the parameters that are not frozen, gradtx's or Optax's.
            It keeps state for these alone.
        freeze_mask: which parameters are frozen: a tree of booleans (or a prefix of one), a
            function from the params to one, or a path pattern such as "encoder" or
            ~matching("head").

    It has the groups "train" and "freeze"; `assignment(params)` says which leaf is in which.

    State: that of a `partition` into these groups.

    Example:
        >>> params = {"encoder": jnp.ones(2), "head": jnp.ones(2)}
        >>> tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask="encoder")
        >>> print(tx.assignment(params))
        encoder  'freeze'
        head     'train'

    See also: `freeze`, which may stand anywhere in a chain, and `partition`.
    """
    return optimizer, freeze_mask
