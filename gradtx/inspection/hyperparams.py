"""Every number of a transformation, as it is used at the next step."""

from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import DictKey, SequenceKey, keystr
from jax.typing import ArrayLike

from gradtx.core.hyperparameters import StaticZero
from gradtx.core.leaves import KeyPath
from gradtx.core.state import OptState
from gradtx.core.transformation import TransformationLike
from gradtx.inspection.walk import Part, parts_of

__all__ = ["hyperparams"]


def hyperparams(tx: TransformationLike, state: OptState) -> dict[str, ArrayLike]:
    """Read every hyperparameter as the next step uses it, schedules at the counts of the state.

        {"clip_by_global_norm.max_norm": 1.0, "adamw.learning_rate": 0.00998, "adamw.b1": 0.9, ...}

    A name consists of the transformation's and the argument's, as they were written: the numbers of
    a recipe are those that were given to the recipe. If several transformations have the same name,
    the labels that lead to them come first: groups, names in a `named_chain`, and arguments of
    wrappers that hold several, as in `head.adamw.learning_rate`. Where these are equal too, they
    are numbered in the order in which they run, `clip[0].max_delta`. Numbers in tuples and dicts
    are named by their keys, `torch.adamw.betas[0]`.

    A schedule is read at the count of the link that uses it: inside `accumulate` it advances by
    steps taken, not by micro-batches. Numbers that are kept in the state are read from it: those of
    `inject_hyperparams`, and the `scale` of `dynamic_loss_scale` and `reduce_on_plateau` and the
    `estim_lr` of `prodigy` and `dadapt_adamw`, from which the next step starts. Sizes and switches,
    which are static, are not included; print the transformation to see them. A transformation of
    Optax is a pair of functions, from which nothing can be read. Arguments that are None are left
    out, and so is a schedule that no part of a recipe uses.

    It may be called in a jitted function, and costs a few scalar operations. For Flax NNX it is
    `hyperparams(optimizer.tx, optimizer.opt_state)`.

    Args:
        tx: a gradtx transformation.
        state: its state. The one before an update gives the numbers of that update.

    Returns: a flat dict in the order in which the parts run. Numbers are as they were given, and
    those of schedules and of the state are arrays.

    Raises: TypeError for a transformation of Optax; ValueError for a state that tx did not make.

    Example:
        >>> rate = gradtx.linear_schedule(0.1, 0.0, 10)
        >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(rate))
        >>> state = tx.init(jnp.zeros(1))
        >>> _, state = tx.update(jnp.ones(1), state)
        >>> for name, number in gradtx.hyperparams(tx, state).items():
        ...     print(f"{name} {number:.2f}")
        clip.max_delta 1.00
        sgd.learning_rate 0.09

    See also: `report`, `inject_hyperparams`, `inspection.describe`.
    """
    parts = parts_of("hyperparams", tx, state)
    shown = [part for part in parts if not part.place.recipe]
    return {name: number for part in shown for name, number in numbers_of(part).items()}


def numbers_of(part: Part) -> dict[str, ArrayLike]:
    """The numbers of one part by name, those in containers one by one."""
    return {
        f"{part.name}.{argument}{_suffix(keys)}": 0.0 if isinstance(x, StaticZero) else x
        for argument, value in part.numbers.items()
        for keys, x in jax.tree.leaves_with_path(value, is_leaf=_is_off)
    }


def _is_off(x: object) -> bool:
    return isinstance(x, StaticZero)


def _suffix(keys: KeyPath) -> str:
    """A path as the end of a name, `[0].kernel`."""

    def one(key: Any) -> str:
        match key:
            case SequenceKey(idx=i) | DictKey(key=int(i)):
                return f"[{i}]"
            case _:
                return f".{keystr((key,), simple=True)}"

    return "".join(map(one, keys))
