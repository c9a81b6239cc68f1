"""How Adam relates to second-order methods: its denominators beside the Hessian's diagonal.

Newton's step divides the gradient by the Hessian; RMSProp and Adam divide it by sqrt(nu), its
running root mean square, which follows |g| = |H p|. If the points p were spread evenly around the
minimum, these would be the norms of the rows of H, which equal its diagonal only if H is diagonal.
On a path the points are not spread so: the denominators say as much about p as about H.
"""

from collections.abc import Sequence

import numpy as np

from gradtx.demo.descent import Descent
from gradtx.demo.functions import HESSIAN

ROW_NORMS = np.linalg.norm(HESSIAN, axis=1)


def distance(denominators: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """|d / mean(d) - h / mean(h)| / |h / mean(h)|: [..., n] and [n] give [...].

    Only proportions count, since a factor common to all denominators is a learning rate.
    """
    d = denominators / np.maximum(denominators.mean(-1, keepdims=True), np.finfo(float).tiny)
    h = diagonal / diagonal.mean()
    return np.asarray(np.linalg.norm(d - h, axis=-1) / np.linalg.norm(h))


def with_denominators(paths: Sequence[Descent]) -> list[tuple[str, np.ndarray]]:
    """(name, sqrt(nu) at every step, [steps, 2]) of RMSProp and Adam."""
    return [
        (path.walker.name, np.sqrt(path.nus.astype(float)))
        for path in paths
        if path.nus is not None and path.walker.name in ("RMSProp", "Adam")
    ]


def denominator_table(paths: Sequence[Descent]) -> str:
    """How far the denominators of RMSProp and Adam are from the Hessian's diagonal."""
    diagonal = np.diag(HESSIAN)
    rows = [
        ("Hessian's diagonal", diagonal),
        ("norms of its rows", ROW_NORMS),
        ("none (SGD)", np.ones(2)),
    ]
    for name, roots in with_denominators(paths):
        steps = len(roots)
        for at in sorted({1, min(10, steps), steps}):
            rows.append((f"{name}, step {at}", roots[at - 1]))
    lines = ["denominators: what Newton, RMSProp and Adam divide by, each scaled to mean 1"]
    lines.append(f"  {'':<20} {'x':>7} {'y':>7} {'y : x':>8} {'distance':>9}")
    for name, row in rows:
        x, y = row / row.mean()
        lines.append(
            f"  {name:<20} {x:>7.3f} {y:>7.3f} {y / x:>8.2f} {distance(row, diagonal):>9.3f}"
        )
    return "\n".join(lines)
