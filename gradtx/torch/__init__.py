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
from gradtx.torch.transforms import (  # noqa: F401  (parts, under the names they print)
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_nadam,
    scale_by_radam,
    scale_by_rms,
    scale_by_rprop,
    scale_by_rss,
    scale_by_stddev,
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
