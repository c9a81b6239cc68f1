"""PyTorch's optimizers and schedules, exactly: its names, defaults and order of operations."""

from gradtx.torch.optimizers import adagrad, adam, adamw, rmsprop, sgd
from gradtx.torch.schedules import (
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    step_lr,
)

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "rmsprop",
    "sgd",
    "step_lr",
]
