"""Muon: momentum with orthogonalised matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from gradtx.core.batches import in_batches, one_by_one
from gradtx.core.decorators import per_tree
from gradtx.core.dtypes import Scalar, real_dtype, real_dtype_of, widen
from gradtx.core.hyperparameters import Decay, DType, NonNegative, NonNegativeInt, Numbers
from gradtx.core.leaves import Leaves, aligned_arrays, at, map_leaves
from gradtx.core.meshes.matrix_plans import DECOMPOSITION, NEWTON_SCHULZ, Work, lengths, summed
from gradtx.core.meshes.partitioned import Names
from gradtx.core.meshes.told import told
from gradtx.core.norms import norm_over
from gradtx.core.numerics import over_size, running_mean, sqrt, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Count, LikeParams, Params, Updates
from gradtx.core.step import Step
from gradtx.transforms.matrix_axes import (
    Axes,
    Layout,
    Numbering,
    Split,
    axes_of,
    widths_of,
)

__all__ = ["MuonState", "scale_by_muon"]

# Jordan, 2024; and separate coefficients for each of five iterations, Ahn et al., 2025.
Triple = tuple[float, float, float]
STANDARD = (3.4445, -4.7750, 2.0315)
DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
# Amsel et al., 2025. The authors divide the matrix by 1.02 times its norm, so that rounding cannot
# take it out of the interval for which the coefficients are the best; here the first triple does.
_FIRST = (8.156554524902461, -22.48329292557795, 15.878769915207462)
POLAR_EXPRESS = (
    (_FIRST[0] / 1.02, _FIRST[1] / 1.02**3, _FIRST[2] / 1.02**5),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
PRESETS: dict[str, Triple | tuple[Triple, ...]] = {
    "standard": STANDARD,
    "dion": DION,
    "polar_express": POLAR_EXPRESS,
}
# How the factor on a matrix depends on its shape.
Scaling = Literal["width", "spectral"]
Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]
Table = Sequence[Sequence[Scalar]]  # the coefficients of each iteration


@dataclass(frozen=True)
class CoefficientsKind(Numbers):
    """Three numbers, a tuple of triples, or the name of a preset."""

    def convert(self, where: str, value: Any) -> Any:
        """The checked numbers, as tuples."""
        if isinstance(value, str):
            if value not in PRESETS:
                known = ", ".join(map(repr, PRESETS))
                raise ValueError(f"{where} must be numbers or one of {known}, got {value!r}")
            value = PRESETS[value]
        if isinstance(value, list | tuple):
            value = tuple(tuple(x) if isinstance(x, list) else x for x in value)
        is_table = isinstance(value, tuple) and len(value) > 0 and isinstance(value[0], tuple)
        triples = value if is_table else (value,)
        if not all(isinstance(triple, tuple) and len(triple) == 3 for triple in triples):
            raise ValueError(f"{where} must be three numbers or a tuple of triples, got {value!r}")
        return super().convert(where, value)


Coefficients = Annotated[Any, CoefficientsKind("finite numbers", lambda x: np.isfinite(x))]


class MuonState(NamedTuple):
    """The momentum, a tree like the params, and the coefficients of the iteration: an array of
    shape (3,) or (iterations, 3)."""

    count: Count
    mu: LikeParams
    ns_coeffs: Array


@per_tree
def scale_by_muon(
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: NonNegativeInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: Numbering = None,
    bias_correction: bool = True,
    split_outputs: Split = None,
) -> Rule:
    """Replace every matrix of the momentum by a nearby orthogonal matrix.

        mu <- beta * mu + (1 - beta) * g
        m   = mu / (1 - beta^t)             with nesterov, m as in `scale_by_adam`
        m   = mu                            without bias_correction; with nesterov,
                                            m = beta * mu + (1 - beta) * g
        u   = newton_schulz(m)              with adaptive, <m, u> u

    Newton-Schulz: X = M / (||M|| + eps), then X <- (a I + b A + c A^2) X with A = X X^T, ns_steps
    times with ns_coeffs = (a, b, c), or once for each triple if ns_coeffs is a tuple of triples.
    This pushes the singular values towards 1. Matrices of equal shape, up to transposition, are
    processed as one batch. Products of matrices have the default precision of the device, bfloat16
    on TPU and TF32 on GPU: each iteration makes up for the errors of the ones before it, and the
    authors' own code runs in bfloat16.

    It is for the matrices of hidden layers; `muon` leaves the other parameters to Adam.

    Args:
        ns_coeffs: the coefficients (a, b, c) of the iteration; a tuple of such triples, one for
            each iteration, from the first; or the name of a preset: "standard", the default;
            "dion" or "polar_express", five triples that end closer to 1. All triples of a table are
            used, where Optax takes the last ns_steps of them
        ns_steps: how many iterations there are, if ns_coeffs is one triple. More of them also lift
            smaller singular values; each costs three products of matrices
        beta: the decay of the running mean of gradients, which reaches back about 1 / (1 - beta)
            steps
        eps: a small number added to the norm. Matrices of a much smaller norm stay small
        nesterov: look ahead: use what the running mean becomes if the next gradient equals this one
        adaptive: multiply the result by its scalar product with the momentum, so that it is longer
            where gradients are larger
        preconditioning: how M is scaled before the iteration: "frobenius" as above; "spectral"
            divides by the largest singular value, which is exact but slow; "aol" and "schatten"
            rescale within the first iteration, by the row sums of |A| and by the norm of A
        weight_dimension_numbers: which axes are rows and which columns: `MuonDimensionNumbers` for
            all arrays, a mapping from path patterns to them, {"layers": MuonDimensionNumbers(1,
            2)}, a tree of them like the params (or a prefix of one), or a function from params to
            such a tree; by default every array must be a matrix
        bias_correction: divide mu by 1 - beta^t, and look ahead as Adam does. Without it, as in
            Jordan's code and PyTorch's, the newest gradient counts less at first: the two
            directions differ by several percent in the first steps
        split_outputs: the widths of matrices that lie side by side in one, such as fused q, k and
            v, each of which is made orthogonal on its own: (64, 32, 32) for all matrices, a mapping
            from path patterns to widths, {"qkv": (64, 32, 32)}, or a tree of widths (None for a
            whole matrix) like the params

    State: mu, 4 bytes a parameter, the count and the coefficients.

    Raises: ValueError for any other preconditioning or preset, for ns_steps < 0 and, with the
    leaf's path, for an array without these axes and for widths that do not add up to its columns.

    Example:
        >>> grads = jnp.diag(jnp.array([4.0, 2.0, 1.0]))
        >>> tx = gradtx.scale_by_muon()
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(np.diag(updates).round(1))
        [0.8 1.1 0.7]

    See also: `muon`, the optimizer.

    References: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; "dion": Ahn et al.,
    2025; "polar_express": Amsel et al., 2025, https://arxiv.org/abs/2505.16932; adaptive:
    https://arxiv.org/abs/2409.20325; "aol": https://arxiv.org/abs/2512.04632; "schatten":
    https://arxiv.org/abs/2506.10935
    """
    where = "scale_by_muon"
    table = ns_coeffs if isinstance(ns_coeffs[0], tuple) else (ns_coeffs,) * ns_steps
    momentum = _Momentum(beta, nesterov, bias_correction)

    def init(params: Params) -> MuonState:
        # Whether the arrays fit is checked in update: leaves that are frozen need not be matrices.
        _given_for(Leaves.of(params), weight_dimension_numbers, split_outputs, where)
        return MuonState(
            count=None,
            mu=map_leaves(where, lambda x: zeros_like(x, mu_dtype), params),
            ns_coeffs=jnp.asarray(ns_coeffs, real_dtype_of(params)),
        )

    def update(updates: Updates, state: MuonState, step: Step) -> tuple[Updates, MuonState]:
        leaves = Leaves.of(updates)
        layouts = layouts_of(weight_dimension_numbers, leaves, where, split_outputs)
        old = leaves.tree(aligned_arrays(leaves, state.mu, f"{where}: the state's mu"))
        mu = jax.tree.map(lambda g, m: running_mean(widen(m, g.dtype), g, beta), updates, old)

        def made_orthogonal(
            x: Array, table: Table, eps: Scalar, scales: Mapping[str, Scalar], **over: Names
        ) -> Array:
            own = scales[str(real_dtype(x.dtype))]
            return newton_schulz(x, table, preconditioning, eps, own, **over)

        def adapted(x: Array, m: Array) -> Array:
            """<m, x> x"""
            return momentum.scale(step, real_dtype(x.dtype)) * jnp.sum(m.conj() * x) * x

        means = Leaves.of(jax.tree.map(partial(momentum.over_scale, step), mu, updates))
        dtypes = {real_dtype(x.dtype) for x in means.values if x is not None}
        scales = {str(dtype): momentum.scale(step, dtype) for dtype in dtypes}
        made = of_matrices(
            made_orthogonal,
            means,
            layouts,
            *(table, eps, scales),
            then=adapted if adaptive else None,
            work=DECOMPOSITION if preconditioning == "spectral" else NEWTON_SCHULZ,
        )
        return leaves.tree(made), state._replace(mu=mu)

    return Rule(init, update)


class _Momentum(NamedTuple):
    """The matrix m that is made orthogonal, split into a factor, `scale`, and the rest.

    To Newton-Schulz the factor matters only relative to eps, so debiasing is done there. With one
    scalar fewer, XLA emits and compiles the loops over arrays of equal shape alike.
    """

    beta: float | Array
    nesterov: bool
    bias_correction: bool

    def scale(self, step: Step, dtype: DTypeLike) -> float | Array:
        """The factor."""
        own: float | Array = 1 - self.beta if self.nesterov else 1
        return own / step.bias(self.beta, dtype) if self.bias_correction else own

    def over_scale(self, step: Step, mu: Array, g: Array) -> Array:
        """m / scale, of the running mean with the gradient g."""
        if not self.nesterov:
            return mu
        ahead = self.beta / (1 - self.beta)
        if self.bias_correction:
            now, then = (s.bias(self.beta, real_dtype(mu.dtype)) for s in (step, step.next))
            ahead = ahead * now / then
        return lax.add(times(ahead, mu), g)


@per_tree
def scale_by_shape(
    weight_dimension_numbers: Numbering = None,
    consistent_rms: NonNegative | None = None,
    *,
    scale: Scaling = "width",
    split_outputs: Split = None,
) -> Callable[..., Updates]:
    """Scale each matrix by a factor that depends on its shape.

        u = g * sqrt(max(1, columns / rows))                scale="width"
        u = g * sqrt(columns / rows)                        scale="spectral"

    or with consistent_rms, whatever the scale,

        u = g * sqrt(max(rows, columns)) * consistent_rms

    which gives orthogonal matrices of every shape the root mean square consistent_rms.

    Args:
        weight_dimension_numbers: which axes are rows and which columns, as in `scale_by_muon`
        consistent_rms: the root mean square of the result; Adam's steps have about 0.2
        scale: whether matrices with more rows than columns keep their length ("width") or are
            scaled down ("spectral")
        split_outputs: the widths of matrices side by side, as in `scale_by_muon`

    State: none.

    References: Jordan, 2024; Liu et al., 2025, https://arxiv.org/abs/2502.16982; "spectral":
    Bernstein & Newhouse, 2024, https://arxiv.org/abs/2409.20325
    """

    def factor(shape: tuple[int, int]) -> float | Array:
        rows, columns = shape
        if consistent_rms is not None:
            return max(rows, columns) ** 0.5 * consistent_rms
        ratio = columns / max(rows, 1)
        return (max(1.0, ratio) if scale == "width" else ratio) ** 0.5

    def scaled(x: Array, layout: Layout) -> Array:
        factors = [factor(shape) for shape in layout.shapes()]
        if len(factors) == 1:
            return times(factors[0], x)
        each = [jnp.full(n, f, x.dtype) for n, f in zip(layout.widths, factors, strict=True)]
        return layout.join(layout.split(x) * jnp.concatenate(each)[None, None])

    def update(updates: Updates) -> Updates:
        leaves, where = Leaves.of(updates), "scale_by_shape"
        layouts = layouts_of(weight_dimension_numbers, leaves, where, split_outputs)
        return leaves.tree(
            x if layout is None else scaled(x, layout)
            for x, layout in zip(leaves.values, layouts, strict=True)
        )

    return update


def layouts_of(
    dimension_numbers: Any, leaves: Leaves, where: str, split: Split = None
) -> list[Layout | None]:
    """How each array is split into matrices; None for an absent leaf."""
    layouts: list[Layout | None] = []
    given = _given_for(leaves, dimension_numbers, split, where)
    for x, own, width, path in zip(leaves.values, *given, leaves.paths, strict=True):
        if x is None:
            layouts.append(None)
            continue
        if own is None and x.ndim != 2:
            raise ValueError(
                f"{where}: {at(path)}: an array of shape {x.shape} is not a matrix. Give it "
                "weight_dimension_numbers, or leave it to another optimizer as muon(...) does"
            )
        layout = Layout.of(x.shape, own or Axes(), where, path)
        layouts.append(layout.with_widths(width, where, path))
    return layouts


def _given_for(
    leaves: Leaves, dimension_numbers: Any, split: Split, where: str
) -> tuple[list[Axes | None], list[Any]]:
    """The axes and the widths that are given for each leaf, or None.

    Raises: ValueError for a pattern that matches no leaf.
    """
    axes: list[Axes | None] = [None] * len(leaves.values)
    if dimension_numbers is not None:
        axes = axes_of(dimension_numbers, leaves, where)
    return axes, widths_of(split, leaves, where)


def of_matrices(
    function: Callable[..., Array],
    leaves: Leaves,
    layouts: Sequence[Layout | None],
    *given: Any,
    then: Callable[[Array, Array], Array] | None = None,
    work: Work = NEWTON_SCHULZ,
) -> list[Array | None]:
    """Apply a function of (batch, rows, columns) to every matrix of the leaves, batched by shape.

    The function must commute with transposition: every matrix is passed with rows <= columns, which
    makes its Gram matrix as small as possible. given, work: as for `in_batches`. then: a function
    applied, leaf by leaf, to its result and the matrices.
    """
    pieces = [
        []
        if x is None or layout is None
        else [_lying(m, s) for m, s in zip(layout.pieces(x), layout.shapes(), strict=True)]
        for x, layout in zip(leaves.values, layouts, strict=True)
    ]
    kinds = [
        (kind, i)
        for kind, layout in zip(leaves.kinds, layouts, strict=True)
        if layout is not None
        for i, _ in enumerate(layout.shapes())
    ]
    specs = [
        None if spec is None else _spec_lying(layout.divided(spec), shape)
        for spec, layout in zip(told(leaves), layouts, strict=True)
        if layout is not None
        for shape in layout.shapes()
    ]
    every = [piece for own in pieces for piece in own]
    made = iter(in_batches(function, every, *given, work=work, kinds=kinds, specs=specs))
    results: list[Array | None] = []
    for x, layout, own in zip(leaves.values, layouts, pieces, strict=True):
        if layout is None:
            results.append(x)
            continue
        done = [(next(made), piece) for piece in own]
        joined = [new if then is None else then(new, old) for new, old in done if new is not None]
        shapes = layout.shapes()
        results.append(
            layout.join_pieces([_lying(y, s) for y, s in zip(joined, shapes, strict=True)])
        )
    return results


def _lying(matrices: Array, shape: tuple[int, int]) -> Array:
    """The matrices transposed if their shape has more rows than columns; its own inverse."""
    rows, columns = shape
    return matrices.mT if rows > columns else matrices


def _spec_lying(spec: PartitionSpec, shape: tuple[int, int]) -> PartitionSpec:
    """How the matrices are divided once `_lying` has transposed them."""
    (batch, *sides), (rows, columns) = spec, shape
    return PartitionSpec(batch, *(sides[::-1] if rows > columns else sides))  # type: ignore[no-untyped-call]


def newton_schulz(
    x: Array,
    table: Table,
    preconditioning: Preconditioning,
    eps: Scalar,
    scale: Scalar = 1,
    *,
    over: Names = (),
) -> Array:
    """Newton-Schulz on the matrices scale * x, (batch, rows, columns).

    table: the coefficients (a, b, c) of each iteration. over: the axes of a mesh that the columns
    are divided among; not with preconditioning="spectral".
    """
    eps, eps_sq = eps / scale, eps / scale**2  # relative to x, and to its Gram matrix
    if preconditioning in ("aol", "schatten"):  # these divide by squares, which must not overflow
        inverse = 1 / lengths(x, over).unit
        # In units of the norm, which is so small for a zero matrix that eps^2 would be infinite.
        largest = np.sqrt(np.finfo(inverse.dtype).max)
        eps_sq = jnp.square(jnp.minimum(eps * inverse, largest.astype(inverse.dtype) / 2))
        x = inverse * x
    if preconditioning == "frobenius":
        x = over_size(x, lengths(x, over).value + eps)
    elif preconditioning == "spectral":
        values = one_by_one(lambda x: jnp.linalg.svd(x, compute_uv=False), x)
        x = over_size(x, values[:, :1, None] + eps)
    for i, (a, b, c) in enumerate(table):
        gram = summed(x @ x.mT.conj(), over)
        if i == 0 and preconditioning == "aol":
            size = sqrt(jnp.maximum(jnp.sum(jnp.abs(gram), axis=2, keepdims=True), eps_sq))
            x, gram = over_size(x, size), over_size(over_size(gram, size), size.mT)
        elif i == 0 and preconditioning == "schatten":
            size = sqrt(jnp.maximum(norm_over(gram, (1, 2)).value, eps_sq))
            x, gram = over_size(x, size), over_size(gram, size * size)
        identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)[None]
        x = (times(a, identity) + times(b, gram) + times(c, gram @ gram)) @ x
    return x
