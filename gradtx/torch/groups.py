"""PyTorch's optimizers with their groups of parameters, read from a state_dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gradtx.combinators.partition import partition
from gradtx.core.leaves import Leaves
from gradtx.core.mask import MaskLike
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation
from gradtx.torch.adafactor import adafactor
from gradtx.torch.adam import adam, adamax, nadam, radam
from gradtx.torch.definitions import OptimizerDefinition
from gradtx.torch.muon import muon
from gradtx.torch.optimizers import adadelta, adagrad, asgd, rmsprop, rprop, sgd
from gradtx.torch.parameters import Names, StateDict, numbered, parameters_of
from gradtx.torch.states import NOT_PYTORCHS, check_state_dict, imported

Group: TypeAlias = Mapping[str, Any]

# The optimizers that a group's arguments tell apart. AdamW's are Adam's with
# decoupled_weight_decay.
OPTIMIZERS: tuple[OptimizerDefinition[...], ...] = (
    sgd,
    adagrad,
    rmsprop,
    adam,
    nadam,
    radam,
    adamax,
    adadelta,
    adafactor,
    rprop,
    asgd,
    muon,
)
# What a group holds besides the arguments of these functions: how PyTorch computes, and what its
# schedulers leave there.
IGNORED = frozenset(
    {
        *("params", "param_names", "foreach", "fused", "capturable", "differentiable"),
        *("initial_lr", "swa_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"),
    }
)


def from_state_dict(
    state_dict: StateDict,
    params: Params,
    step: int | None = None,
    names: Names | None = None,
    transpose: MaskLike | None = None,
    *,
    optimizer: Callable[..., GradientTransformation] | None = None,
) -> tuple[GradientTransformation, OptState]:
    """Make the optimizer that `optimizer.state_dict()` stands for, and the state to go on with.

    Several groups of parameters become a `partition`, with a label for each: "group 0", ... The
    learning rates are the current ones; for a schedule, make the optimizer yourself, and its state
    with `import_state`.

    Args:
        state_dict: what `optimizer.state_dict()` returned, with tensors or NumPy arrays.
        params: the parameters, a pytree of arrays.
        step: the number of updates made, where PyTorch does not keep it, as in `import_state`.
        names: which leaf is which of PyTorch's parameters, as in `import_state`.
        transpose: the leaves whose axes are in another order in PyTorch, as in `import_state`.
        optimizer: one of gradtx.torch's, where the arguments do not tell which: PyTorch before 2.7
            wrote the same for Adam and AdamW.

    Raises: ValueError if no optimizer, or more than one, takes the arguments of a group; and what
    `import_state` raises.

    Example:
        >>> saved = {"state": {}, "param_groups": [
        ...     {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False,
        ...      "maximize": False, "foreach": None, "differentiable": False, "fused": None,
        ...      "params": [0]}]}
        >>> tx, state = gradtx.torch.from_state_dict(saved, jnp.zeros(2))
        >>> print(tx.definition.name, tx.lr, tx.momentum)
        torch.sgd 0.1 0.9

    See also: `import_state`, `export_state`, `gradtx.partition`.
    """
    where = "from_state_dict"
    check_state_dict(state_dict, where)
    groups = state_dict.get("param_groups")
    if not groups:
        raise ValueError(f"{where}: the state_dict has no param_groups")
    made = [_made(group, optimizer, f"{where}: group {i}") for i, group in enumerate(groups)]
    tx = made[0] if len(made) == 1 else _partition(made, state_dict, params, names, where)
    return tx, imported(tx, state_dict, params, step, names, transpose, where)


def _made(
    group: Group, optimizer: Callable[..., GradientTransformation] | None, where: str
) -> GradientTransformation:
    """The optimizer of a group."""
    given = {name: x for name, x in group.items() if name not in IGNORED}
    definition = optimizer
    if definition is None:
        fitting = [known for known in OPTIMIZERS if _arguments(known) == set(given)]
        if len(fitting) != 1:
            raise ValueError(
                f"{where}: none of gradtx.torch's optimizers takes exactly {', '.join(given)}; say "
                "which it is, as in optimizer=gradtx.torch.adamw"
            )
        definition = fitting[0]
    if not isinstance(definition, OptimizerDefinition):
        raise TypeError(f"{where}: optimizer must be one of gradtx.torch's, got {optimizer!r}")
    names = _arguments(definition)
    return definition(**{name: _number(x) for name, x in given.items() if name in names})


def _arguments(definition: OptimizerDefinition[...]) -> set[str]:
    return set(definition.parameters) - NOT_PYTORCHS


def _number(x: Any) -> Any:
    """A number that may be a tensor; lists, as JSON has them, become tuples."""
    if isinstance(x, tuple | list):
        return tuple(map(_number, x))
    return x.item() if hasattr(x, "item") else x


def _partition(
    made: list[GradientTransformation],
    state_dict: StateDict,
    params: Params,
    names: Names | None,
    where: str,
) -> GradientTransformation:
    """The optimizers of several groups, each for its own leaves."""
    members = numbered(parameters_of(params, None, where), state_dict, names, where)
    labels = [f"group {i}" for i in range(len(made))]
    label_of = {
        int(number): label
        for label, group in zip(labels, state_dict["param_groups"], strict=True)
        for number in group["params"]
    }
    by_path = {member.path: label_of[member.number] for member in members}
    leaves = Leaves.of(params)
    tree = leaves.tree(by_path.get(path) for path in leaves.paths)
    return partition(dict(zip(labels, made, strict=True)), tree)
