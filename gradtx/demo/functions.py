"""Functions of two variables to descend, with a start and learning rates worth a look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

Point = tuple[float, float]


@dataclass(frozen=True)
class Function:
    """A function of two variables, where to start, and what part of it to show."""

    name: str
    formula: str
    value: Callable[[Array], Array]  # [2] -> scalar
    start: Point
    minimum: Point
    view: tuple[Point, Point]  # x from and to, y from and to
    steps: int
    decay: float  # of momentum
    rates: dict[str, float]  # a learning rate for each optimizer


def ravine(p: Array) -> Array:
    """Thirty times as steep across as along."""
    return 0.5 * (p[0] ** 2 + 30 * p[1] ** 2)


def rosenbrock(p: Array) -> Array:
    """A curved valley with a nearly flat floor. Rosenbrock, 1960."""
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def beale(p: Array) -> Array:
    """Plateaus and steep walls. Beale, 1958."""
    x, y = p
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _tilted(degrees: float, curvatures: Sequence[float]) -> np.ndarray:
    """The symmetric matrix with those eigenvalues, its axes turned by ``degrees``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag(curvatures) @ turn.T


HESSIAN = _tilted(10, (1, 30))


def quadratic(p: Array) -> Array:
    """p^T H p / 2: the ravine, turned so that H is not diagonal."""
    return 0.5 * p @ jnp.asarray(HESSIAN, p.dtype) @ p


# SGD's rate is just below 2 / 30, where it starts to diverge; momentum has the same rate, so
# that only the effect of momentum differs.
_RAVINE_RATES = {
    "SGD": 0.065,
    "momentum": 0.065,
    "Nesterov": 0.03,
    "AdaGrad": 1.3,
    "RMSProp": 0.18,
    "Adam": 0.4,
    "AMSGrad": 0.8,
    "AdamW": 0.4,
}
_ROSENBROCK_RATES = {
    "SGD": 0.001,
    "momentum": 0.0006,
    "Nesterov": 0.0003,
    "AdaGrad": 0.4,
    "RMSProp": 0.01,
    "Adam": 0.05,
    "AMSGrad": 0.2,
    "AdamW": 0.05,
}
_BEALE_RATES = {
    "SGD": 0.01,
    "momentum": 0.001,
    "Nesterov": 0.002,
    "AdaGrad": 0.5,
    "RMSProp": 0.02,
    "Adam": 0.1,
    "AMSGrad": 0.3,
    "AdamW": 0.1,
}

FUNCTIONS = {
    "ravine": Function(
        name="ravine",
        formula="x²/2 + 15 y²",
        value=ravine,
        start=(-9.0, 1.6),
        minimum=(0.0, 0.0),
        view=((-10.2, 2.2), (-2.1, 2.1)),
        steps=60,
        decay=0.6,
        rates=_RAVINE_RATES,
    ),
    "rosenbrock": Function(
        name="rosenbrock",
        formula="(1 - x)² + 100 (y - x²)²",
        value=rosenbrock,
        start=(-1.5, 2.3),
        minimum=(1.0, 1.0),
        view=((-1.95, 1.75), (-0.7, 2.9)),
        steps=1500,
        decay=0.9,
        rates=_ROSENBROCK_RATES,
    ),
    "beale": Function(
        name="beale",
        formula="(1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)²",
        value=beale,
        start=(1.0, 1.5),
        minimum=(3.0, 0.5),
        view=((-0.4, 4.2), (-1.2, 2.1)),
        steps=400,
        decay=0.9,
        rates=_BEALE_RATES,
    ),
    "quadratic": Function(
        name="quadratic",
        formula="pᵀHp / 2, curvatures 1 and 30, turned by 10 degrees",
        value=quadratic,
        start=(-8.0, 0.5),
        minimum=(0.0, 0.0),
        view=((-9.6, 2.6), (-3.5, 2.5)),
        steps=60,
        decay=0.6,
        rates=_RAVINE_RATES,
    ),
}
