"""Gradient transformations for JAX: optimizers as values.

    >>> import jax, jax.numpy as jnp, gradtx
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    >>> params = {"w": jnp.ones(3)}
    >>> state = tx.init(params)
    >>> grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2))(params)
    >>> params, state = gradtx.step(tx, grads, state, params)

A transformation makes updates of gradients, `updates, state = tx.update(grads, state, params)`. An
optimizer is a chain of them. `apply_updates` adds its updates to the parameters; `step` does both.
It is a value: print it, compare it, `tx.replace(learning_rate=3e-4)`, give it to a jitted function,
map over its numbers with `jax.vmap`, differentiate through it. Each number may be a schedule.

    optimizers      sgd, adam, adamw, lion, adafactor, lamb, muon, lbfgs, ...
    parts of them   scale_by_adam, scale_by_momentum, add_decayed_weights, clip_by_global_norm, ...
    wrappers        chain, masked, partition, freeze, accumulate, finite_guard, sam, lookahead, ...
    schedules       cosine_decay_schedule, warmup_cosine_decay_schedule, wsd_schedule, ...
    few bits        store, stochastic_rounding, kahan, master_weights
    your own        per_leaf, per_tree, recipe, schedule
    and in          gradtx.tree, .inspection, .interop (Optax), .sharding (many devices), .torch

`help(gradtx.adamw)` tells the formula, every argument, what is kept and its bytes, and an example.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from gradtx import interop as interop
from gradtx import schedules as schedules
from gradtx import tree as tree
from gradtx.combinators import *
from gradtx.core.apply import apply_updates as apply_updates
from gradtx.core.decorators import per_leaf as per_leaf
from gradtx.core.decorators import per_tree as per_tree
from gradtx.core.decorators import recipe as recipe
from gradtx.core.definition import schedule as schedule
from gradtx.core.exports import export_names as _export_names
from gradtx.core.hyperparameters import Decay as Decay
from gradtx.core.hyperparameters import DType as DType
from gradtx.core.hyperparameters import Fraction as Fraction
from gradtx.core.hyperparameters import NonNegative as NonNegative
from gradtx.core.hyperparameters import Positive as Positive
from gradtx.core.hyperparameters import PositiveSteps as PositiveSteps
from gradtx.core.hyperparameters import Real as Real
from gradtx.core.hyperparameters import Steps as Steps
from gradtx.core.inner import Inner as Inner
from gradtx.core.mask import MaskedNode as MaskedNode
from gradtx.core.mask import matching as matching
from gradtx.core.numerics import zeros_like as zeros_like
from gradtx.core.place import Place as Place
from gradtx.core.problem import NegatedState as NegatedState
from gradtx.core.rule import Rule as Rule
from gradtx.core.schedule import Schedule as Schedule
from gradtx.core.state import Count as Count
from gradtx.core.state import EmptyState as EmptyState
from gradtx.core.state import Factors as Factors
from gradtx.core.state import LeafState as LeafState
from gradtx.core.state import LikeParams as LikeParams
from gradtx.core.state import OptState as OptState
from gradtx.core.state import Params as Params
from gradtx.core.state import PastParams as PastParams
from gradtx.core.state import ScaleByScheduleState as ScaleByScheduleState
from gradtx.core.state import ScheduledState as ScheduledState
from gradtx.core.state import Updates as Updates
from gradtx.core.step import Step as Step
from gradtx.core.training_step import step as step
from gradtx.core.transformation import GradientTransformation as GradientTransformation
from gradtx.interop.config import *
from gradtx.interop.migrate import *
from gradtx.interop.names import *
from gradtx.interop.report import *
from gradtx.optimizers import *
from gradtx.precision import *
from gradtx.schedules import *
from gradtx.transforms import *
from gradtx.tree import bias_correction as bias_correction
from gradtx.tree import global_norm as global_norm
from gradtx.tree import update_infinity_moment as update_infinity_moment
from gradtx.tree import update_moment as update_moment
from gradtx.tree import update_moment_per_elem_norm as update_moment_per_elem_norm
from gradtx.tree.averaging import *
from gradtx.tree.spectral import *

if _TYPE_CHECKING:
    from gradtx import contrib as contrib
    from gradtx import inspection as inspection
    from gradtx import sharding as sharding
    from gradtx import torch as torch
    from gradtx import tree_utils as tree_utils
    from gradtx.inspection.hyperparams import hyperparams as hyperparams
    from gradtx.inspection.reading import ParseError as ParseError
    from gradtx.inspection.reading import parse as parse
    from gradtx.inspection.report import report as report

__version__ = "0.1.0"

# Imported when they are used; the last two are for `import gradtx as optax`.
_LATER = ("inspection", "sharding", "torch", "contrib", "tree_utils")
_OF_INSPECTION = ("ParseError", "hyperparams", "parse", "report")

_export_names(globals(), "interop", "schedules", "tree", *_LATER, *_OF_INSPECTION)


def __getattr__(name: str) -> _Any:
    if name in _LATER:
        return _importlib.import_module(f"gradtx.{name}")
    if name in _OF_INSPECTION:
        return getattr(_importlib.import_module("gradtx.inspection"), name)
    from gradtx.interop.missing import no_such_name

    raise no_such_name(name, globals()["__all__"])


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_OF_INSPECTION})
