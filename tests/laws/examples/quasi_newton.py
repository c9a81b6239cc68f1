"""L-BFGS and line searches."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

from .example import E, Example


def half_square(params: Any) -> Any:
    """What the searches descend on: |params|^2 / 2, of any tree."""
    return 0.5 * sum((jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(params)), jnp.zeros(()))


# A function among the arguments of a compiled step is a static part of this.
OBJECTIVE = {"value_fn": jax.tree_util.Partial(half_square)}
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


def downhill(tx: Any) -> Any:
    """Behind it the updates go down."""
    return gradtx.chain(gradtx.scale(-1.0), tx)


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
    E(
        "lbfgs",
        "default",
        gradtx.lbfgs,
        needs_params=True,
        couples=True,
        extra=OBJECTIVE,
    ),
    E(
        "lbfgs",
        "without a search",
        lambda: gradtx.lbfgs(0.5, linesearch=None),
        needs_params=True,
        couples=True,
        rates=(0.5, 0.1),
        twin=lambda: optax.lbfgs(0.5, linesearch=None),
    ),
    E(
        "scale_by_backtracking_linesearch",
        "default",
        lambda: gradtx.scale_by_backtracking_linesearch(15),
        needs_params=True,
        couples=True,
        idle=IDLE,
        extra=OBJECTIVE,
    ),
    E(
        "scale_by_backtracking_linesearch",
        "keeps gradients",
        lambda: gradtx.scale_by_backtracking_linesearch(15, rtol=1e-3, store_grad=True),
        needs_params=True,
        couples=True,
        idle=IDLE,
        extra=OBJECTIVE,
    ),
    E(
        "scale_by_zoom_linesearch",
        "default",
        lambda: gradtx.scale_by_zoom_linesearch(15),
        needs_params=True,
        couples=True,
        idle=IDLE,
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
        extra=OBJECTIVE,
    ),
    E(
        "chain",
        "gradient descent with a search",
        lambda: downhill(gradtx.scale_by_zoom_linesearch(15)),
        needs_params=True,
        couples=True,
        extra=OBJECTIVE,
    ),
)
