"""PyTorch's Muon: rows are outputs, the momentum is not debiased, the iteration is in bfloat16."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from gradtx.core.batches import in_batches
from gradtx.core.dtypes import cast
from gradtx.core.hyperparameters import DType, Fraction, NonNegative, NonNegativeInt, Real
from gradtx.core.leaves import Leaves, at, describe
from gradtx.core.meshes.matrix_plans import NEWTON_SCHULZ, lengths, summed
from gradtx.core.meshes.partitioned import Names
from gradtx.core.meshes.placing import full_spec
from gradtx.core.meshes.told import told
from gradtx.core.numerics import over_size, running_mean, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import LikeParams, Params, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.torch.definitions import per_tree, recipe
from gradtx.torch.descent import descent

Adjustment = Literal["original", "match_rms_adamw"]
Triple = tuple[float | Array, float | Array, float | Array]


class OrthogonalMomentumState(NamedTuple):
    """The running mean of gradients, shaped like the params."""

    mu: LikeParams


@per_tree
def orthogonal_momentum(
    momentum: Fraction = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[Real, Real, Real] = (3.4445, -4.7750, 2.0315),
    eps: NonNegative = 1e-7,
    ns_steps: NonNegativeInt = 5,
    adjust_lr_fn: Adjustment | None = None,
    *,
    ns_dtype: DType = "bfloat16",
) -> Rule:
    """Replace each matrix by an orthogonal one near its momentum, times a factor for its shape."""

    def init(params: Params) -> OrthogonalMomentumState:
        _check_matrices(params, "its parameters")
        return OrthogonalMomentumState(jax.tree.map(zeros_like, params))

    def update(
        updates: Updates, state: OrthogonalMomentumState
    ) -> tuple[Updates, OrthogonalMomentumState]:
        _check_matrices(updates, "the updates")
        mu = jax.tree.map(lambda g, m: running_mean(m, g, momentum), updates, state.mu)
        ahead = mu
        if nesterov:
            ahead = jax.tree.map(lambda g, m: running_mean(m, g, momentum), updates, mu)
        leaves = Leaves.of(ahead)
        made = in_batches(
            _orthogonal,
            [None if x is None else _rounded(_lying(x), ns_dtype)[None] for x in leaves.values],
            *(ns_coefficients, ns_steps, eps),
            work=NEWTON_SCHULZ,
            kinds=leaves.kinds,
            specs=list(map(_spec_lying, told(leaves), leaves.values)),
        )
        return leaves.tree(
            None if y is None else _restored(y[0], x, adjust_lr_fn)
            for x, y in zip(leaves.values, made, strict=True)
        ), OrthogonalMomentumState(mu)

    return Rule(init, update)


def _check_matrices(tree: Params, what: str) -> None:
    leaves = Leaves.of(tree)
    for x, path in zip(leaves.values, leaves.paths, strict=True):
        if x is not None and (x.ndim != 2 or jnp.iscomplexobj(x)):
            raise ValueError(
                f"torch.muon: {at(path)}: {what} must be real matrices, got {describe(x)}. Leave "
                "the others to another optimizer: "
                'partition({"kernel": torch.muon(...), ".*": torch.adamw(...)})'
            )


def _lying(x: Array) -> Array:
    """The matrix transposed if it has more rows than columns, since X X^T would be larger."""
    return x.T if x.shape[0] > x.shape[1] else x


def _spec_lying(spec: PartitionSpec | None, x: Array) -> PartitionSpec | None:
    """How a batch of this one matrix is divided once `_lying` has transposed it."""
    if spec is None:
        return None
    sides = full_spec(spec, 2)
    return PartitionSpec(None, *(sides[::-1] if x.shape[0] > x.shape[1] else sides))  # type: ignore[no-untyped-call]


def _restored(y: Array, like: Array, adjustment: Adjustment | None) -> Array:
    """The orthogonal matrix in the shape and dtype of the momentum, times its factor."""
    rows, columns = like.shape
    if adjustment == "match_rms_adamw":
        factor = 0.2 * math.sqrt(max(rows, columns))
    else:
        factor = math.sqrt(max(1, rows / max(columns, 1)))
    return times(factor, cast(y.T if rows > columns else y, like.dtype))


def _orthogonal(
    x: Array, coefficients: Triple, steps: int, eps: float | Array, *, over: Names = ()
) -> Array:
    """Newton-Schulz on matrices (batch, rows, columns), in their dtype. over: the axes of a mesh
    that the columns are divided among.

    Matrices of norm eps or more get norm 1. Then X <- (a I + b A + c A^2) X with A = X X^T; each of
    the three products is summed in float32 or wider and rounded once, together with the term added
    to it.
    """
    wide = cast(x, jnp.promote_types(x.dtype, np.float32))
    size = _rounded(jnp.maximum(lengths(wide, over).value, eps), x.dtype)
    x = _rounded(over_size(wide, cast(size, wide.dtype)), x.dtype)
    a, b, c = coefficients
    for _ in range(steps):
        gram = _rounded(summed(_product(x, x.mT), over), x.dtype)
        gram_update = _sum(b, gram, c, _product(gram, gram))
        x = _sum(a, x, 1, _product(gram_update, x))
    return x


def _product(x: Array, y: Array) -> Array:
    wide = jnp.promote_types(x.dtype, np.float32)
    batched: Array = lax.dot_general(
        x, y, (((2,), (1,)), ((0,), (0,))), preferred_element_type=wide
    )
    return batched


def _sum(a: float | Array, x: Array, b: float | Array, product: Array) -> Array:
    """a x + b product, in x's dtype."""
    return _rounded(times(a, cast(x, product.dtype)) + times(b, product), x.dtype)


def _rounded(x: Array, dtype: DTypeLike) -> Array:
    """A cast that rounds even where XLA sees that a wider dtype follows."""
    kept = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    return cast(lax.reduce_precision(x, int(kept.nexp), int(kept.nmant)), dtype)


@recipe(momentum_buffer="mu")
def muon(
    lr: NonNegative = 1e-3,
    weight_decay: NonNegative = 0.1,
    momentum: Fraction = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[Real, Real, Real] = (3.4445, -4.7750, 2.0315),
    eps: NonNegative = 1e-7,
    ns_steps: NonNegativeInt = 5,
    adjust_lr_fn: Adjustment | None = None,
    *,
    ns_dtype: DType = "bfloat16",
) -> GradientTransformation:
    """Take steps along orthogonalised momentum, as torch.optim.Muon does.

        mu <- momentum * mu + (1 - momentum) * g
        m   = momentum * mu + (1 - momentum) * g            (m = mu without nesterov)
        X   = m / max(||m||, eps),  then ns_steps times     X <- (a I + b A + c A^2) X,  A = X X^T
        u   = -lr * (factor * X + weight_decay * w)

    Every leaf must be a matrix (outputs, inputs), as PyTorch stores them; leave biases and
    embeddings to another optimizer with `gradtx.partition`.

    Args:
        weight_decay: how strongly parameters are pulled towards 0: this fraction of each, times lr,
            is subtracted at every step. 0 switches it off
        momentum: the decay of the running mean of gradients, which reaches back about
            1 / (1 - momentum) steps
        ns_coefficients: a, b and c of the iteration
        eps: the smallest norm to divide by. Matrices of a much smaller norm stay small
        ns_steps: how many iterations there are, each of three products of matrices
        adjust_lr_fn: the factor: "original", and None, is sqrt(max(1, outputs / inputs));
            "match_rms_adamw" is 0.2 * sqrt(max(outputs, inputs)), which suits AdamW's rates
        ns_dtype: the dtype of the iteration, which is not among PyTorch's arguments. PyTorch's is
            bfloat16, whose rounding errors differ from device to device; "float32" is the same
            method without them

    State: mu, 4 bytes a parameter.

    Raises: ValueError, with the leaf's path, for an array that is not a real matrix.

    Example:
        >>> params = jnp.diag(jnp.array([4.0, 2.0, 1.0]))
        >>> tx = gradtx.torch.muon(lr=1.0, weight_decay=0.0, ns_dtype="float32")
        >>> updates, state = tx.update(params, tx.init(params), params)
        >>> print(np.diag(updates).round(1))
        [-0.8 -1.1 -0.7]

    See also: `gradtx.muon`, for matrices (inputs, outputs) and other arrays.

    References: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; "match_rms_adamw":
    Liu et al., 2025, https://arxiv.org/abs/2502.16982
    """
    direction = orthogonal_momentum(
        momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn, ns_dtype=ns_dtype
    )
    return descent(direction, lr=lr, weight_decay=weight_decay, maximize=False, decoupled=True)
