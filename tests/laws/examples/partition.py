"""A transformation for each group of leaves, and leaves that are frozen."""

from typing import Any

import optax

import gradtx

from .example import E, Example, linear

LABELS = {"w": "matrix", "b": "rest", "s": "rest"}


def labels(params: Any) -> Any:
    """Labels as a function."""
    return {name: LABELS[name] for name in params}


def groups(lib: Any) -> Any:
    """Two groups, one of which needs the norm of its leaves."""
    return {
        "matrix": lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(0.1)),
        "rest": lib.sgd(0.1, 0.9),
    }


def other_groups(lib: Any) -> Any:
    """The same with another rate."""
    return {**groups(lib), "rest": lib.sgd(0.05, 0.9)}


EXAMPLES: tuple[Example, ...] = (
    E(
        "partition",
        "patterns",
        lambda: gradtx.partition({"^w": gradtx.adam(0.1), ".*": gradtx.sgd(linear(), 0.9)}),
        by_path=True,
    ),
    E(
        "partition",
        "tree of labels",
        lambda: gradtx.partition(groups(gradtx), LABELS),
        needs_params=True,
        twin=lambda: optax.partition(groups(optax), LABELS),
        whole_tree=True,
    ),
    E(
        "partition",
        "labels as function",
        lambda: gradtx.partition(groups(gradtx), labels),
        needs_params=True,
        twin=lambda: optax.partition(groups(optax), labels),
        written_out=False,
        by_path=True,
    ),
    E(
        "partition",
        "labels as prefix",
        lambda: gradtx.partition({1: gradtx.adam(0.1), 2: gradtx.set_to_zero()}, 1),
        twin=lambda: optax.partition({1: optax.adam(0.1), 2: optax.set_to_zero()}, 1),
    ),
    E(
        "partition",
        "extra arguments masked",
        lambda: gradtx.partition(
            {"w": gradtx.rmsprop(0.1), ".": gradtx.set_to_zero()}, mask_compatible_extra_args=True
        ),
        by_path=True,
    ),
    E(
        "multi_transform",
        "labels as function",
        lambda: gradtx.multi_transform(other_groups(gradtx), labels),
        needs_params=True,
        twin=lambda: optax.multi_transform(other_groups(optax), labels),
        written_out=False,
        by_path=True,
    ),
)
