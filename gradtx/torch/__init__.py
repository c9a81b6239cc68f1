"""PyTorch's optimizers and schedules, exactly: its names, defaults and order of operations.

A complex parameter is treated as two real ones, as in PyTorch, and its state is complex: the real
part of `nu` belongs to the real part, the imaginary part to the imaginary part. The gradient is
`p.grad` as in PyTorch, which points uphill: for a real loss, the conjugate of what `jax.grad`
returns.

PyTorch counts the steps of each parameter, gradtx those of the optimizer. Where a gradient is None
at first, this matters to whatever uses the count: the Adam family, Adagrad with lr_decay, SGD with
dampening, ASGD. Give parameters whose gradients start later an optimizer of their own, whose count
starts later too:

    >>> from gradtx import conditionally_transform, partition, torch
    >>> waiting = conditionally_transform(torch.adam(), lambda step: step >= 100)
    >>> tx = partition({"head": waiting, ".*": torch.adam()})

or, if the steps at which they start are not known beforehand, one that waits for a flag:

    >>> def given(step, *, head):
    ...     return head
    >>> told = conditionally_transform(torch.adam(), given, forward_extra_args=True)
    >>> tx = partition({"head": told, ".*": torch.adam()})
    >>> # tx.update(grads, state, params, head=grads["head"] is not None)
"""

from gradtx.core.exports import show_types as _show_types
from gradtx.torch.adafactor import FactoredState as FactoredState
from gradtx.torch.adafactor import adafactor, factored_steps  # noqa: F401
from gradtx.torch.adam import adam, adamax, adamw, nadam, radam
from gradtx.torch.cycles import cyclic_lr, one_cycle_lr
from gradtx.torch.groups import from_state_dict
from gradtx.torch.muon import OrthogonalMomentumState as OrthogonalMomentumState
from gradtx.torch.muon import muon, orthogonal_momentum  # noqa: F401
from gradtx.torch.optimizers import adadelta, adagrad, asgd, rmsprop, rprop, sgd
from gradtx.torch.plateau import ReduceLROnPlateauState as ReduceLROnPlateauState
from gradtx.torch.plateau import reduce_lr_on_plateau
from gradtx.torch.schedules import (
    constant_lr,
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    exponential_lr,
    linear_lr,
    multi_step_lr,
    polynomial_lr,
    sequential_lr,
    step_lr,
)
from gradtx.torch.states import export_state, import_state
from gradtx.torch.transforms import (  # noqa: F401  (parts, under the names that they print)
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
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "exponential_lr",
    "export_state",
    "from_state_dict",
    "import_state",
    "linear_lr",
    "multi_step_lr",
    "muon",
    "nadam",
    "one_cycle_lr",
    "polynomial_lr",
    "radam",
    "reduce_lr_on_plateau",
    "rmsprop",
    "rprop",
    "sequential_lr",
    "sgd",
    "step_lr",
]

_show_types(export_state, from_state_dict, import_state)
