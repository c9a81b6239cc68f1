"""L-BFGS and line searches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

from ..running import STEPS, grads, params  # noqa: TID252
from .example import E, Example


def targets() -> Any:
    """Where a paraboloid must have its minimum, so that from each point of the laws' run one whole
    update leads to the lowest point along it: <u_i, target - params_i> = |u_i|^2. So the searches
    find a rate at once, and rounding does not decide where they end."""
    shapes, start = {k: np.shape(x) for k, x in params().items()}, flat(params())
    steps = [flat({k: g[i] for k, g in grads().items()}) for i in range(STEPS)]
    gone = [sum(steps[:i], np.zeros_like(start)) for i in range(STEPS)]
    sizes = [u @ u + u @ before for u, before in zip(steps, gone, strict=True)]
    target = start + np.linalg.lstsq(np.stack(steps), np.asarray(sizes), rcond=None)[0]
    cuts = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1]
    return {k: x.reshape(shapes[k]) for k, x in zip(shapes, np.split(target, cuts), strict=True)}


def flat(tree: Any) -> np.ndarray:
    """One vector of the leaves."""
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in tree.values()])


TARGETS = targets()


def distance(tree: Any) -> Any:
    """What the searches descend on: |params - target|^2 / 2, of any tree."""
    total = jnp.zeros(())
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        target = TARGETS.get(getattr(path[-1], "key", None) if path else None, np.zeros(()))
        fits = target.shape == x.shape
        off = x - jnp.asarray(target if fits else 0, x.real.dtype).astype(x.dtype)
        total = total + 0.5 * jnp.sum(off.real**2 + off.imag**2).astype(total.dtype)
    return total


# A function among the arguments of a compiled step is a static part of this.
OBJECTIVE = {"value_fn": jax.tree_util.Partial(distance)}
# What shapes a search decides only now and then where it ends.
IDLE = (
    "slope_rtol",
    "decrease_factor",
    "increase_factor",
    "max_learning_rate",
    "atol",
    "rtol",
    "tol",
    "curv_rtol",
    "approx_dec_rtol",
    "stepsize_precision",
)


EXAMPLES: tuple[Example, ...] = (
    E(
        "scale_by_lbfgs",
        "default",
        gradtx.scale_by_lbfgs,
        needs_params=True,
        couples=True,
        twin=optax.scale_by_lbfgs,
    ),
    E(
        "scale_by_lbfgs",
        "short memory unscaled",
        lambda: gradtx.scale_by_lbfgs(2, False),
        needs_params=True,
        couples=True,
        twin=lambda: optax.scale_by_lbfgs(2, False),
    ),
    # With its search it is tried on functions, whose gradients belong to their values.
    E(
        "lbfgs",
        "without a search",
        lambda: gradtx.lbfgs(0.5, linesearch=None),
        needs_params=True,
        couples=True,
        # At some rates, 0.1 among them, a last digit decides whether this diverges, in Optax too.
        rates=(0.5, 0.15),
        twin=lambda: optax.lbfgs(0.5, linesearch=None),
    ),
    E(
        "scale_by_backtracking_linesearch",
        "default",
        lambda: gradtx.scale_by_backtracking_linesearch(15),
        needs_params=True,
        couples=True,
        idle=IDLE,
        unread=True,
        by_path=True,  # the objective is of named leaves
        extra=OBJECTIVE,
    ),
    E(
        "scale_by_backtracking_linesearch",
        "keeps gradients",
        lambda: gradtx.scale_by_backtracking_linesearch(15, rtol=1e-3, store_grad=True),
        needs_params=True,
        couples=True,
        idle=IDLE,
        unread=True,
        by_path=True,  # the objective is of named leaves
        extra=OBJECTIVE,
    ),
    E(
        "scale_by_zoom_linesearch",
        "default",
        lambda: gradtx.scale_by_zoom_linesearch(15),
        needs_params=True,
        couples=True,
        idle=IDLE,
        unread=True,
        by_path=True,  # the objective is of named leaves
        extra=OBJECTIVE,
    ),
    E(
        "scale_by_zoom_linesearch",
        "from one, bounded, exact criteria",
        lambda: gradtx.scale_by_zoom_linesearch(
            10, 1.5, 1e-4, 3.0, 1e-3, 0.1, None, initial_guess_strategy="one"
        ),
        needs_params=True,
        couples=True,
        idle=IDLE,
        unread=True,
        by_path=True,  # the objective is of named leaves
        extra=OBJECTIVE,
    ),
)
