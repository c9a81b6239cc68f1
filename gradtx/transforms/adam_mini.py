"""Adam-mini: Adam with one second moment for each block of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.combinators.partition import partition
from gradtx.core.decorators import per_leaf, recipe
from gradtx.core.dtypes import cast
from gradtx.core.hyperparameters import ByPattern, Decay, NonNegative
from gradtx.core.leaves import Leaves, at
from gradtx.core.mask import check_pattern, first_matching
from gradtx.core.numerics import abs_sq, plus, running_mean, sqrt, zeros_like, zeros_like_result
from gradtx.core.printing import show
from gradtx.core.rule import Rule
from gradtx.core.state import Count, Params, Updates
from gradtx.core.step import Step
from gradtx.core.transformation import GradientTransformation

__all__ = ["AdamMiniState", "scale_by_adam_mini"]

# "rows", "columns", "whole", "elements"; a number of groups of rows; ("columns", a number).
Block = str | int | tuple[str, int]
Blocks = Annotated[Mapping[str, Any], ByPattern()]
WORDS = ("rows", "columns", "whole", "elements")


class AdamMiniState(NamedTuple):
    """The running means of the gradient (mu), shaped like the parameter, and of the mean square of
    each block (nu), real, with length 1 along every axis that is averaged over."""

    count: Count
    mu: Updates
    nu: Updates


@recipe
def scale_by_adam_mini(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    blocks: Blocks | None = None,
) -> GradientTransformation:
    """Divide the running mean of the gradient by a root mean square of its block.

        mu <- b1 * mu + (1 - b1) * g,                       m = mu / (1 - b1^t)
        nu <- b2 * nu + (1 - b2) * mean(g^2, over a block), n = nu / (1 - b2^t)
        u   = m / (sqrt(n) + eps)

    Args:
        blocks: a mapping from path patterns to the blocks that share a second moment: "rows" (one
            block per index of the first axis) or "columns" (of the last axis); a number of groups
            of neighbouring rows, such as 8, or of columns, such as ("columns", 8); the "whole"
            array; or single "elements", as in Adam. The first pattern found in a leaf's path
            decides. Leaves that match none, or all leaves if blocks is None, are divided into rows
            if they are matrices and kept whole otherwise

    State: mu, 4 bytes a parameter, and nu, 4 bytes a block; a group of leaves for each kind of
    block.

    Raises: ValueError for any other kind of block, for a pattern that matches no leaf and, with the
    leaf's path, for a number that does not divide its axis.

    Example:
        >>> params = {"embed": jnp.zeros((4, 2)), "wq": jnp.zeros((4, 4)), "bias": jnp.zeros(4)}
        >>> tx = gradtx.scale_by_adam_mini(blocks={"wq": 2})
        >>> state = tx.init(params).inner_states
        >>> [x.inner_state.nu[name].shape for x, name in zip(state.values(), params)]
        [(4, 1), (2, 1, 1), (1,)]

    See also: `adam_mini`, `scale_by_adam`, `partition`.

    References: Zhang et al., 2024, https://arxiv.org/abs/2406.16793
    """
    if blocks is not None and not isinstance(blocks, Mapping):
        raise TypeError(f"adam_mini: blocks must be a dict by path pattern, got {show(blocks)}")
    given = {pattern: _checked(pattern, block) for pattern, block in (blocks or {}).items()}

    def labels(params: Params) -> Params:
        leaves = Leaves.of(params)
        found = first_matching(tuple(given), leaves.paths, "adam_mini: blocks")
        kinds = [
            _default(x) if pattern is None else given[pattern]
            for x, pattern in zip(leaves.values, found, strict=True)
        ]
        for x, kind, path in zip(leaves.values, kinds, leaves.paths, strict=True):
            _check_fits(x, kind, path)
        return leaves.tree(map(_label, kinds))

    kinds = dict.fromkeys(["rows", *given.values(), "whole"])
    return partition(
        {_label(block): adam_by_blocks(b1, b2, eps, block=block) for block in kinds}, labels
    )


@per_leaf
def adam_by_blocks(b1: Decay, b2: Decay, eps: NonNegative, *, block: Block) -> Rule:
    """Adam-mini with a single kind of block.

    mu <- b1 * mu + (1 - b1) * g
    nu <- b2 * nu + (1 - b2) * mean(g^2, over a block)
    u   = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)
    """

    def mean_square(x: Array) -> Array:
        shape, axes = view(x.shape, block)
        total = jnp.sum(abs_sq(x).reshape(shape), axes, keepdims=True)
        return total / max(math.prod(shape[a] for a in axes), 1)

    def init(param: Array) -> AdamMiniState:
        return AdamMiniState(None, zeros_like(param), zeros_like_result(mean_square, param))

    def update(grad: Array, state: AdamMiniState, step: Step) -> tuple[Array, AdamMiniState]:
        mu = running_mean(state.mu, grad, b1)
        nu = running_mean(state.nu, mean_square(grad), b2)
        size = cast(plus(eps, sqrt(step.debias(nu, b2))), grad.dtype)
        u = step.debias(mu, b1).reshape(view(grad.shape, block)[0]) / size
        return u.reshape(grad.shape), state._replace(mu=mu, nu=nu)

    return Rule(init, update)


def view(shape: tuple[int, ...], block: Block) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape in which an array is viewed, and the axes that its blocks extend over."""
    if not shape:
        return (), ()
    if isinstance(block, str):
        every = tuple(range(len(shape)))
        return shape, {"rows": every[1:], "columns": every[:-1], "whole": every}.get(block, ())
    groups, axis = (block, 0) if isinstance(block, int) else (block[1], len(shape) - 1)
    viewed = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return viewed, tuple(a for a in range(len(viewed)) if a != axis)


def _check_fits(x: Array | None, block: Block, path: str) -> None:
    """Refuse a block that an array cannot be divided into."""
    if x is None or block in ("whole", "elements"):
        return
    here = f"adam_mini: {at(path)}"
    if not x.ndim:
        raise ValueError(f"{here}: a scalar has no {_label(block)}; give it the block 'whole'")
    groups, axis = (block, 0) if isinstance(block, int) else (block[1], -1)
    if isinstance(groups, int) and x.shape[axis] % groups:
        raise ValueError(f"{here}: {_label(block)} do not divide an array of shape {x.shape}")


def _default(x: Array | None) -> Block:
    return "rows" if x is not None and x.ndim == 2 else "whole"


def _checked(pattern: str, block: Any) -> Block:
    """The kind of block, checked, with a list turned into a tuple."""
    if not isinstance(pattern, str):
        raise TypeError(f"adam_mini: the keys of blocks are path patterns, got {show(pattern)}")
    check_pattern("adam_mini", pattern)
    block = tuple(block) if isinstance(block, list) else block
    groups = (
        block[1] if isinstance(block, tuple) and block[:1] == ("columns",) == block[:-1] else block
    )
    if block in WORDS or (type(groups) is int and groups >= 1):
        return block
    raise ValueError(
        f"adam_mini: blocks[{pattern!r}] must be 'rows', 'columns', 'whole', 'elements', a number "
        f"of groups of rows >= 1, or ('columns', a number of groups), got {show(block)}"
    )


def _label(block: Block) -> str:
    """The name of the group of leaves with this kind of block."""
    if isinstance(block, int):
        return f"{block} groups of rows"
    return block if isinstance(block, str) else f"{block[1]} groups of columns"
