"""PyTorch's optimizers and schedules, exactly: its names, defaults and order of operations."""

from gradtx.torch.optimizers import (
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    asgd,
    nadam,
    radam,
    rmsprop,
    rprop,
    sgd,
)
from gradtx.torch.schedules import (
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    step_lr,
)

__all__ = [
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "step_lr",
]
