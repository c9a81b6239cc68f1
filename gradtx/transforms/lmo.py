"""Linear minimisation oracles: the point of a norm's ball farthest against the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.hyperparameters import PositiveFraction
from gradtx.core.leaves import Leaves, at
from gradtx.core.norms import norm_over, rms_of
from gradtx.core.numerics import plus, running_mean, times, zeros_like
from gradtx.core.rule import Rule
from gradtx.core.state import Updates
from gradtx.transforms.matrix_axes import Axes, Layout, Numbering, axes_of
from gradtx.transforms.orthogonal import STANDARD, newton_schulz, of_matrices

__all__ = ["ScionState", "scale_by_lmo"]

Norm = Literal["auto", "spectral", "spectral_conv", "sign", "col_norm", "row_norm", "bias_rms"]
# What norm_kwargs may set for each norm, and the defaults.
OPTIONS: dict[str, dict[str, bool | int]] = {
    "auto": {},
    "spectral": {"max": False, "normalized": True, "steps": 5},
    "spectral_conv": {"steps": 5},
    "sign": {"normalized": True},
    "col_norm": {"normalized": False},
    "row_norm": {"normalized": True},
    "bias_rms": {},
}
EPS = 1e-8  # added to a norm or a root mean square
EPS_OF_MATRIX = 1e-7  # added to the norm before Newton-Schulz


class ScionState(NamedTuple):
    """The running mean of the gradient, shaped like the parameter."""

    mu: Updates


@per_leaf
def average(momentum: PositiveFraction) -> Rule:
    """u = mu <- (1 - momentum) * mu + momentum * g"""

    def init(param: Array) -> ScionState:
        return ScionState(zeros_like(param))

    def update(grad: Array, state: ScionState) -> tuple[Array, ScionState]:
        mu = running_mean(state.mu, grad, 1 - momentum)
        return mu, ScionState(mu)

    return Rule(init, update)


@per_tree
def scale_by_lmo(
    norm: Norm = "auto",
    *,
    norm_kwargs: Mapping[str, object] | None = None,
    weight_dimension_numbers: Numbering = None,
) -> Callable[..., Updates]:
    """Replace each array by the point of a unit ball that is farthest in its direction.

        u = newton_schulz(g) * sqrt(out / in)                               "spectral"
        u = newton_schulz(g) * sqrt(out / in) / k^2                         "spectral_conv"
        u = sign(g) / in                                                    "sign"
        u = g / (||g_i|| / sqrt(out) + 1e-8)        for each input i        "col_norm"
        u = g / (||g_o|| * sqrt(in) + 1e-8)         for each output o       "row_norm"
        u = g / (rms(g) + 1e-8)                                             "bias_rms"

    "auto" takes "spectral" for matrices, "spectral_conv" for kernels (k, k, inputs, outputs), k^n
    for n axes of positions, and "bias_rms" for vectors and scalars. The names are the authors', who
    write a matrix with its outputs first: an input is a column there and a row here.

    Args:
        norm: the norm whose ball it is
        norm_kwargs: the options of the authors' classes, by name: "normalized" (True by default for
            "sign", which then divides by in, and for "spectral" and "row_norm", which divide by
            sqrt(in); False for "col_norm", by in), "max" (for "spectral": a factor of at least 1;
            False), "steps" (of Newton-Schulz; 5)
        weight_dimension_numbers: which axes are rows (inputs) and which columns (outputs), as in
            `scale_by_muon`; under "auto" an array with them counts as a matrix

    State: none.

    Raises: ValueError for any other norm, for norm_kwargs that the norm does not take and, with the
    leaf's path, for an array that is not a matrix or a kernel where the norm needs one.

    Example:
        >>> grads = {"w": jnp.diag(jnp.array([4.0, 1.0])), "b": jnp.array([3.0, 3.0])}
        >>> tx = gradtx.scale_by_lmo()
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> print(np.diag(updates["w"]).round(1), updates["b"].round(1))
        [0.7 0.7] [1. 1.]

    See also: `scion`, `scale_by_muon`, `scale_by_sign`.

    References: Pethick et al., 2025, https://arxiv.org/abs/2502.07529
    """
    options = _options(norm, norm_kwargs)

    def update(updates: Updates) -> Updates:
        leaves = Leaves.of(updates)
        kinds, layouts = _kinds(norm, weight_dimension_numbers, leaves)
        orthogonal = [
            layout if kind in ("spectral", "spectral_conv") else None
            for kind, layout in zip(kinds, layouts, strict=True)
        ]
        table = (STANDARD,) * int(options.get("steps", 5))
        given = (table, "frobenius", EPS_OF_MATRIX)
        values = of_matrices(newton_schulz, leaves, orthogonal, *given)
        return leaves.tree(
            None if x is None else _in_ball(x, layout, kind, options)
            for x, kind, layout in zip(values, kinds, layouts, strict=True)
        )

    return update


def _in_ball(x: Array, layout: Layout | None, kind: str, options: Mapping[str, Any]) -> Array:
    """The point of the unit ball for x, which is orthogonal already where the norm is spectral."""
    if layout is None:
        return x / plus(EPS, rms_of(x).value)
    inputs, outputs = max(layout.rows, 1), layout.columns
    if kind == "spectral":
        factor = (outputs / inputs if options.get("normalized", True) else outputs) ** 0.5
        return times(max(1.0, factor) if options.get("max") else factor, x)
    if kind == "spectral_conv":
        width, inputs = max(x.shape[0], 1), max(x.shape[-2], 1)
        return times((outputs / inputs) ** 0.5 / width ** (x.ndim - 2), x)
    if kind == "sign":
        return times(1 / inputs if options["normalized"] else 1.0, jnp.sign(x))
    matrices = layout.split(x)
    if kind == "col_norm":
        size = norm_over(matrices, 2).value / max(outputs, 1) ** 0.5
        size = size * inputs if options["normalized"] else size
    else:
        size = norm_over(matrices, 1).value
        size = size * inputs**0.5 if options["normalized"] else size
    return layout.join(matrices / plus(EPS, size))


def _options(norm: str, given: Mapping[str, object] | None) -> dict[str, Any]:
    """The options of a norm, checked."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"scale_by_lmo: norm_kwargs must be a dict, got {given!r}")
    known, given = OPTIONS[norm], dict(given or {})
    for name, value in given.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"scale_by_lmo: norm_kwargs of {norm!r} are {takes}; got {name!r}")
        kind = type(known[name])
        if type(value) is not kind or (kind is int and int(value) < 0):
            expected = "a whole number >= 0" if kind is int else "True or False"
            raise ValueError(
                f"scale_by_lmo: norm_kwargs[{name!r}] must be {expected}, got {value!r}"
            )
    return known | given


def _kinds(norm: str, numbers: Any, leaves: Leaves) -> tuple[list[str], list[Layout | None]]:
    """The norm of each array, and its layout as a matrix; None for "bias_rms"."""
    axes: list[Axes | None] = [None] * len(leaves.values)
    if numbers is not None:
        axes = axes_of(numbers, leaves, "scale_by_lmo")
    kinds: list[str] = []
    layouts: list[Layout | None] = []
    for x, own, path in zip(leaves.values, axes, leaves.paths, strict=True):
        kind = norm
        if norm == "auto" and x is not None:
            by_axes = ("bias_rms", "bias_rms", "spectral", "spectral_conv")
            kind = "spectral" if own is not None else by_axes[min(x.ndim, 3)]
        kinds.append(kind)
        if x is None or kind == "bias_rms":
            layouts.append(None)
        elif kind == "spectral_conv":
            layouts.append(_of_kernel(x, path))
        elif own is None and x.ndim != 2:
            raise ValueError(
                f"scale_by_lmo: {at(path)}: norm={norm!r} is of matrices, got an array of shape "
                f"{x.shape}. Give it weight_dimension_numbers, or another norm with partition"
            )
        else:
            layouts.append(Layout.of(x.shape, own or Axes(), "scale_by_lmo", path))
    return kinds, layouts


def _of_kernel(x: Array, path: str) -> Layout:
    """The layout of a kernel as one matrix: all axes but the last are its rows."""
    if x.ndim < 3:
        raise ValueError(
            f"scale_by_lmo: {at(path)}: 'spectral_conv' is of kernels (positions..., inputs, "
            f"outputs), got an array of shape {x.shape}"
        )
    axes = Axes(rows=tuple(range(x.ndim - 1)), columns=(x.ndim - 1,))
    return Layout.of(x.shape, axes, "scale_by_lmo", path)
