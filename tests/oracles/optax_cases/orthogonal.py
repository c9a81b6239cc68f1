"""Muon and GaLore."""

from typing import Any

import jax

from .case import COSINE, Args, Both, args


def dimension_numbers(name: str) -> Any:
    """For the kernel two axes of rows and one of columns, the last a batch; for the rest none."""

    def build(lib: Any) -> Any:
        of = getattr(lib if hasattr(lib, name) else lib.contrib, name)

        def of_tree(params: Any) -> Any:
            kinds = {
                2: of(1, 0),
                4: of((0, 1), 2) if name.startswith("Muon") else of((0, 1), (2, 3)),
            }
            return jax.tree.map(lambda x: kinds.get(x.ndim), params)

        return of_tree

    return Both(f"as {name}", build)


MUON, GALORE = (
    dimension_numbers("MuonDimensionNumbers"),
    dimension_numbers("GaLoreDimensionNumbers"),
)
SLOW = "Optax is slow step by step"


def until(steps: int, case: Args) -> Args:
    """Up to the second decomposition: there the sign of a singular vector is free, and momentum
    that was kept along it shows which one it is."""
    return case.but(rtol=1e-4, states=False, steps=steps, why="Optax decomposes in float32")


# Optax's scale_by_muon runs on trees of matrices only: muon itself stands for it.
TRANSFORMATIONS: dict[str, list[Args]] = {
    "scale_by_galore": [
        until(8, args()),
        until(3, args(1, 3)),
        until(7, args(2, 7, 0.5)),
        until(5, args(2, 5, base_optimizer=Both("trace", lambda lib: lib.trace(0.9)))),
        until(5, args(2, 5, weight_dimension_numbers=GALORE)),
    ],
}

OPTIMIZERS: dict[str, list[Args]] = {
    "muon": [
        case.but(steps=8, why=SLOW)
        for case in (
            args(0.05),
            args(0.05, (3.0, -4.0, 2.0), 3, 0.8, 1e-3, 0.1, adam_weight_decay=0.1),
            args(COSINE, "dion", nesterov=False, adaptive=True),
            args(0.05, ns_steps=2, preconditioning="aol", consistent_rms=0.2),
            args(0.05, preconditioning="spectral", adam_b1=0.5, adam_b2=0.9, adam_eps_root=1e-6),
            args(0.05, "dion", preconditioning="schatten", adam_learning_rate=0.1),
            args(0.05, preconditioning="aol", muon_weight_dimension_numbers=MUON),
        )
    ],
    "galore": [
        until(8, args(0.05)),
        until(5, args(0.05, 1, 5, weight_decay=0.1)),
        until(8, args(COSINE, 2, 10, 0.5)),
        until(5, args(0.05, 2, 5, weight_dimension_numbers=GALORE)),
    ],
}
