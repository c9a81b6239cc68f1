"""What is run in PyTorch and in gradtx: one problem, and a table of optimizers and schedules.

The problem is an ill-conditioned quadratic in eight dimensions, its gradient multiplied by a
scale: ``scale (A x - b)`` with the eigenvalues of A between 0.01 and 1. The gradient depends on
the parameters, so an error of one step is seen by the next. Half of the parameters start at zero:
they are the sum of their updates, to full relative precision however small those are.

In complex numbers it is the same with a Hermitian A, which mixes the real and imaginary parts; the
gradient is PyTorch's, which points uphill. It is recorded where no scheduler is at work.
"""

from typing import Any, NamedTuple

import numpy as np

STEPS = 50
RECORDED = (1, 2, 3, 4, 5, 10, 20, 30, 40, 50)
SCALES = (1.0, 1e-4, 1e-8)
DTYPES = ("float64", "float32")
COMPLEX_DTYPES = ("complex128", "complex64")

_mirror = np.arange(1.0, 9.0)
_mirror /= np.linalg.norm(_mirror)
_rotation = np.eye(8) - 2 * np.outer(_mirror, _mirror)

MATRIX = _rotation @ np.diag(np.logspace(-2, 0, 8)) @ _rotation
TARGET = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.25, -0.75, 2.0])
START = np.array([0.0, 1.0, 0.0, -2.0, 0.0, 0.5, 0.0, 3.0])

_complex_mirror = _mirror * np.exp(1j * np.arange(8.0))
_complex_rotation = np.eye(8) - 2 * np.outer(_complex_mirror, _complex_mirror.conj())


def problem(dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, b and where the descent begins, in real or in complex numbers."""
    if np.dtype(dtype).kind == "f":
        return tuple(x.astype(dtype) for x in (MATRIX, TARGET, START))
    matrix = _complex_rotation @ np.diag(np.logspace(-2, 0, 8)) @ _complex_rotation.conj().T
    target, start = TARGET + 1j * TARGET[::-1], START - 0.5j * START[::-1]
    return tuple(x.astype(dtype) for x in (matrix, target, start))


def matrices(optimizer: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The curvatures of a separable quadratic, and where to start: a matrix and, for most
    optimizers, a vector."""
    starts = {"bias": START[1::2] + 0.5, "kernel": np.outer(TARGET[:3], START[1::2] - 0.5)}
    if optimizer == "Muon":
        del starts["bias"]
    return {k: np.logspace(-1, 0, x.size).reshape(x.shape) for k, x in starts.items()}, starts


# Optimizers whose parameters are matrices; they take no complex ones.
SHAPES = {"Muon": (2, 4), "Adafactor": (2, 4)}


def as_reals(x: np.ndarray) -> np.ndarray:
    """The parts of complex numbers one by one; real numbers as they are."""
    return np.ascontiguousarray(x).view(x.real.dtype)


class Schedule(NamedTuple):
    """A scheduler of ``torch.optim.lr_scheduler`` and its arguments."""

    name: str
    arguments: dict[str, Any]


class Case(NamedTuple):
    """An optimizer of ``torch.optim``, its arguments, and what drives its rate."""

    optimizer: str
    arguments: dict[str, Any]
    schedule: Schedule | None = None


def _case(optimizer: str, schedule: Schedule | None = None, /, **arguments: Any) -> Case:
    return Case(optimizer, arguments, schedule)


def _schedule(name: str, /, **arguments: Any) -> Schedule:
    return Schedule(name, arguments)


SCHEDULE_STEPS = 64

SCHEDULES = {
    "step": _schedule("StepLR", step_size=7),
    "step, half": _schedule("StepLR", step_size=3, gamma=0.5),
    "step, every step": _schedule("StepLR", step_size=1, gamma=0.97),
    "step, exact multiples": _schedule("StepLR", step_size=49, gamma=0.3),
    "step, to zero": _schedule("StepLR", step_size=5, gamma=0.0),
    "annealing": _schedule("CosineAnnealingLR", T_max=10),
    "annealing, minimum": _schedule("CosineAnnealingLR", T_max=13, eta_min=0.02),
    "annealing, one step": _schedule("CosineAnnealingLR", T_max=1, eta_min=0.01),
    "annealing, long": _schedule("CosineAnnealingLR", T_max=100),
    "restarts": _schedule("CosineAnnealingWarmRestarts", T_0=10),
    "restarts, minimum": _schedule("CosineAnnealingWarmRestarts", T_0=7, eta_min=0.02),
    "restarts, doubling": _schedule("CosineAnnealingWarmRestarts", T_0=5, T_mult=2),
    "restarts, tripling": _schedule("CosineAnnealingWarmRestarts", T_0=3, T_mult=3, eta_min=0.01),
    "restarts, every step": _schedule("CosineAnnealingWarmRestarts", T_0=1),
    "milestones": _schedule("MultiStepLR", milestones=[3, 20]),
    "milestones, twice": _schedule("MultiStepLR", milestones=[20, 5, 5], gamma=0.5),
    "milestones, at once": _schedule("MultiStepLR", milestones=[0, 4], gamma=0.3),
    "constant": _schedule("ConstantLR"),
    "constant, no end": _schedule("ConstantLR", factor=0.7, total_iters=0),
    "linear": _schedule("LinearLR"),
    "linear, down": _schedule("LinearLR", start_factor=1.0, end_factor=0.0, total_iters=20),
    "linear, no end": _schedule("LinearLR", start_factor=0.7, total_iters=0),
    "exponential": _schedule("ExponentialLR", gamma=0.9),
    "exponential, growth": _schedule("ExponentialLR", gamma=1.1),
    "polynomial": _schedule("PolynomialLR"),
    "polynomial, square": _schedule("PolynomialLR", total_iters=40, power=2.0),
    "polynomial, root": _schedule("PolynomialLR", total_iters=40, power=0.5),
    "polynomial, no power": _schedule("PolynomialLR", power=0.0),
    "polynomial, no end": _schedule("PolynomialLR", total_iters=0),
    "cyclic": _schedule("CyclicLR", base_lr=0.01, max_lr=0.3, step_size_up=7),
    "cyclic, steep": _schedule(
        "CyclicLR", base_lr=0.0, max_lr=0.3, step_size_up=5, step_size_down=9, mode="triangular2"
    ),
    "cyclic, range": _schedule(
        "CyclicLR", base_lr=0.01, max_lr=0.3, step_size_up=5, mode="exp_range", gamma=0.97
    ),
    "one cycle": _schedule("OneCycleLR", max_lr=0.3, total_steps=63),
    "one cycle, epochs": _schedule("OneCycleLR", max_lr=0.3, epochs=8, steps_per_epoch=8),
    "one cycle, linear": _schedule(
        "OneCycleLR", max_lr=0.3, total_steps=63, pct_start=0.25, anneal_strategy="linear"
    ),
    "one cycle, three phases": _schedule(
        "OneCycleLR", max_lr=0.3, total_steps=63, div_factor=10.0, three_phase=True
    ),
    "sequential": _schedule(
        "SequentialLR",
        schedulers=[
            _schedule("LinearLR", start_factor=0.1, total_iters=5),
            _schedule("CosineAnnealingLR", T_max=20),
            _schedule("StepLR", step_size=3),
        ],
        milestones=[5, 25],
    ),
    "sequential, cut short": _schedule(
        "SequentialLR",
        schedulers=[
            _schedule("ConstantLR", factor=0.1, total_iters=20),
            _schedule("ExponentialLR", gamma=0.9),
            _schedule("CosineAnnealingWarmRestarts", T_0=4, T_mult=2),
        ],
        milestones=[7, 25],
    ),
}

_STEP = _schedule("StepLR", step_size=10, gamma=0.5)
_ANNEALING = _schedule("CosineAnnealingLR", T_max=15, eta_min=0.001)
_RESTARTS = _schedule("CosineAnnealingWarmRestarts", T_0=12)
_DOUBLING = _schedule("CosineAnnealingWarmRestarts", T_0=6, T_mult=2, eta_min=0.001)

CASES = {
    "sgd": {
        "default": _case("SGD"),
        "plain": _case("SGD", lr=0.5),
        "momentum": _case("SGD", lr=0.1, momentum=0.9),
        "dampening": _case("SGD", lr=0.1, momentum=0.9, dampening=0.5),
        "nesterov": _case("SGD", lr=0.1, momentum=0.9, nesterov=True),
        "weight_decay": _case("SGD", lr=0.1, momentum=0.9, weight_decay=0.05),
        "maximize": _case("SGD", lr=0.1, momentum=0.5, maximize=True),
        "maximize weight_decay": _case("SGD", lr=0.1, weight_decay=0.05, maximize=True),
        "StepLR": _case("SGD", _STEP, lr=0.1, momentum=0.9),
        "CosineAnnealingLR": _case("SGD", _ANNEALING, lr=0.1, momentum=0.9),
        "CosineAnnealingWarmRestarts": _case("SGD", _RESTARTS, lr=0.1, momentum=0.9),
        "CosineAnnealingWarmRestarts doubling": _case("SGD", _DOUBLING, lr=0.1, momentum=0.9),
        "all": _case("SGD", _STEP, lr=0.1, momentum=0.8, dampening=0.1, weight_decay=0.01),
    },
    "adagrad": {
        "default": _case("Adagrad"),
        "lr_decay": _case("Adagrad", lr=0.1, lr_decay=0.1),
        "weight_decay": _case("Adagrad", lr=0.1, weight_decay=0.05),
        "initial_accumulator_value": _case("Adagrad", lr=0.1, initial_accumulator_value=0.5),
        "eps": _case("Adagrad", lr=0.1, eps=0.01),
        "maximize": _case("Adagrad", lr=0.1, maximize=True),
        "maximize weight_decay": _case("Adagrad", lr=0.1, weight_decay=0.05, maximize=True),
        "StepLR lr_decay": _case("Adagrad", _STEP, lr=0.1, lr_decay=0.1),
    },
    "rmsprop": {
        "default": _case("RMSprop"),
        "alpha": _case("RMSprop", lr=0.01, alpha=0.9),
        "centered": _case("RMSprop", lr=0.01, centered=True),
        "momentum": _case("RMSprop", lr=0.01, momentum=0.9),
        "weight_decay": _case("RMSprop", lr=0.01, weight_decay=0.05),
        "momentum, changing rate": _case("RMSprop", _STEP, lr=0.01, momentum=0.9),
        "maximize": _case("RMSprop", lr=0.01, maximize=True),
        "maximize weight_decay": _case("RMSprop", lr=0.01, weight_decay=0.05, maximize=True),
        "all": _case(
            "RMSprop",
            _ANNEALING,
            lr=0.01,
            alpha=0.95,
            eps=1e-6,
            weight_decay=0.01,
            momentum=0.5,
            centered=True,
        ),
    },
    "adam": {
        "default": _case("Adam"),
        "betas": _case("Adam", lr=0.05, betas=(0.8, 0.95)),
        "eps": _case("Adam", lr=0.05, eps=1e-3),
        "weight_decay": _case("Adam", lr=0.01, weight_decay=0.05),
        "amsgrad": _case("Adam", lr=0.05, betas=(0.8, 0.9), amsgrad=True),
        "maximize": _case("Adam", lr=0.05, maximize=True),
        "maximize weight_decay": _case("Adam", lr=0.01, weight_decay=0.05, maximize=True),
        "decoupled": _case("Adam", lr=0.05, weight_decay=0.5, decoupled_weight_decay=True),
        "decoupled amsgrad maximize": _case(
            "Adam",
            lr=0.05,
            betas=(0.8, 0.9),
            weight_decay=0.1,
            amsgrad=True,
            maximize=True,
            decoupled_weight_decay=True,
        ),
        "amsgrad weight_decay": _case(
            "Adam", lr=0.05, betas=(0.8, 0.9), weight_decay=0.05, amsgrad=True
        ),
        "StepLR": _case("Adam", _STEP, lr=0.05),
        "CosineAnnealingLR": _case("Adam", _ANNEALING, lr=0.05),
        "CosineAnnealingWarmRestarts": _case("Adam", _RESTARTS, lr=0.05),
        "CosineAnnealingWarmRestarts doubling": _case("Adam", _DOUBLING, lr=0.05, amsgrad=True),
    },
    "adamw": {
        "default": _case("AdamW"),
        "weight_decay": _case("AdamW", lr=0.05, weight_decay=0.5),
        "no weight_decay": _case("AdamW", lr=0.05, weight_decay=0.0),
        "amsgrad": _case("AdamW", lr=0.05, betas=(0.8, 0.9), amsgrad=True),
        "maximize": _case("AdamW", lr=0.05, weight_decay=0.1, maximize=True),
        "CosineAnnealingLR": _case("AdamW", _ANNEALING, lr=0.05, weight_decay=0.1),
    },
    "nadam": {
        "default": _case("NAdam"),
        "betas": _case("NAdam", lr=0.05, betas=(0.8, 0.9), eps=1e-3),
        "momentum_decay": _case("NAdam", lr=0.05, momentum_decay=0.1),
        "weight_decay": _case("NAdam", lr=0.01, eps=0.1, weight_decay=0.05),
        "decoupled": _case("NAdam", lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
        "maximize weight_decay": _case("NAdam", lr=0.01, eps=0.1, weight_decay=0.05, maximize=True),
        "StepLR": _case("NAdam", _STEP, lr=0.05),
    },
    "radam": {
        "default": _case("RAdam"),
        "betas": _case("RAdam", lr=0.05, betas=(0.8, 0.9), eps=1e-3),
        "weight_decay": _case("RAdam", lr=0.01, eps=0.1, weight_decay=0.05),
        "decoupled": _case("RAdam", lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
        "maximize weight_decay": _case("RAdam", lr=0.01, eps=0.1, weight_decay=0.05, maximize=True),
        "StepLR": _case("RAdam", _STEP, lr=0.05),
    },
    "adamax": {
        "default": _case("Adamax"),
        "betas": _case("Adamax", lr=0.05, betas=(0.8, 0.9), eps=1e-3),
        "weight_decay": _case("Adamax", lr=0.01, weight_decay=0.05),
        "maximize weight_decay": _case("Adamax", lr=0.01, weight_decay=0.05, maximize=True),
        "StepLR": _case("Adamax", _STEP, lr=0.05),
    },
    "adadelta": {
        "default": _case("Adadelta"),
        "rho": _case("Adadelta", lr=0.5, rho=0.7, eps=1e-3),
        "weight_decay": _case("Adadelta", weight_decay=0.05),
        "maximize weight_decay": _case("Adadelta", weight_decay=0.05, maximize=True),
        "StepLR": _case("Adadelta", _STEP),
    },
    "asgd": {
        "default": _case("ASGD"),
        "averaging": _case("ASGD", lr=0.1, t0=5),
        "lambd alpha": _case("ASGD", lr=0.5, lambd=0.1, alpha=0.5, t0=20.5),
        "weight_decay": _case("ASGD", lr=0.1, lambd=0.01, t0=0, weight_decay=0.05),
        "maximize": _case("ASGD", lr=0.1, t0=3, weight_decay=0.05, maximize=True),
        "StepLR": _case("ASGD", _STEP, lr=0.1, lambd=0.1, t0=10),
    },
    "rprop": {
        "default": _case("Rprop"),
        "etas": _case("Rprop", lr=0.05, etas=(0.3, 1.5)),
        "step_sizes": _case("Rprop", lr=0.05, step_sizes=(0.01, 0.1)),
        "from outside": _case("Rprop", lr=0.05, step_sizes=(0.1, 0.2)),
        "maximize": _case("Rprop", lr=0.05, maximize=True),
        "StepLR": _case("Rprop", _STEP, lr=0.05),
    },
    "adafactor": {
        "default": _case("Adafactor"),
        "lr": _case("Adafactor", lr=0.5, beta2_decay=-0.5, d=1.5),
        "eps": _case("Adafactor", lr=0.02, eps=(0.01, 0.1)),
        "weight_decay maximize": _case("Adafactor", lr=0.1, weight_decay=0.1, maximize=True),
        "StepLR": _case("Adafactor", _STEP, lr=0.1, weight_decay=0.1),
    },
    "muon": {
        "default": _case("Muon"),
        "plain": _case("Muon", lr=0.02, weight_decay=0.0, momentum=0.8, nesterov=False),
        "match_rms_adamw": _case("Muon", lr=0.02, adjust_lr_fn="match_rms_adamw", ns_steps=3),
        "coefficients": _case("Muon", lr=0.02, ns_coefficients=(2.0, -1.5, 0.5), eps=1e-3),
        "StepLR": _case("Muon", _STEP, lr=0.02),
    },
}

# Stopped after so many steps, and gone on with in the other library.
STOP, GO_ON = 20, 20
STOPPED = {
    "sgd": _case("SGD", lr=0.1),
    "sgd, momentum": _case("SGD", lr=0.1, momentum=0.9, nesterov=True),
    "sgd, dampening": _case("SGD", lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
    "adagrad": _case("Adagrad", lr=0.1, lr_decay=0.1, initial_accumulator_value=0.2),
    "rmsprop": _case("RMSprop", lr=0.01),
    "rmsprop, centered": _case("RMSprop", lr=0.01, momentum=0.9, centered=True),
    "adam": _case("Adam", lr=0.05),
    "adam, amsgrad": _case("Adam", lr=0.05, amsgrad=True, weight_decay=0.1),
    "adamw": _case("AdamW", lr=0.05, weight_decay=0.1),
    "nadam": _case("NAdam", lr=0.05),
    "radam": _case("RAdam", lr=0.05, weight_decay=0.1, decoupled_weight_decay=True),
    "adamax": _case("Adamax", lr=0.05),
    "adadelta": _case("Adadelta"),
    "rprop": _case("Rprop", lr=0.05),
    "asgd": _case("ASGD", lr=0.1, lambd=0.1, t0=5),
    "adafactor": _case("Adafactor", lr=0.1),
    "muon": _case("Muon", lr=0.02),
}
