"""Programs compiled before there are arrays, many at once: on a device whose time is short, what
counts is that compiling is over soon, not how long each program takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from benchmarks.parameters import Shapes, abstract
from benchmarks.recipes import Optimizer, step_of
from gradtx import OptState, Params

K = TypeVar("K")
T = TypeVar("T")


class Programs(NamedTuple):
    """What an optimizer runs on a device. init, step: compiled; traced: the step before that."""

    init: Any
    step: Any
    traced: Any


def on_device(tree: Params | OptState, device: jax.Device) -> Params | OptState:
    """The shapes and dtypes of arrays that lie on the device."""
    where = SingleDeviceSharding(device)
    struct: Any = jax.ShapeDtypeStruct
    return jax.tree.map(lambda x: struct(x.shape, x.dtype, sharding=where), tree)


def compile_programs(
    library: ModuleType, tx: Optimizer, shapes: Shapes, device: jax.Device
) -> Programs:
    """Compile `init` and a step that donates parameters and state."""
    params = on_device(abstract(shapes, np.float32), device)
    state = on_device(jax.eval_shape(tx.init, params), device)
    traced = jax.jit(step_of(library, tx), donate_argnums=(0, 1)).trace(params, state, params)
    with jax.default_device(device):  # of this thread
        return Programs(
            jax.jit(tx.init).trace(params).lower().compile(), traced.lower().compile(), traced
        )


def side_by_side(work: Mapping[K, Callable[[], T]], seconds: float) -> dict[K, T | Exception]:
    """The results, or errors, of functions that run in threads, one for each core. What is not
    done in `seconds` is a TimeoutError: it is not begun or, under way, not waited for."""
    pool = ThreadPoolExecutor(os.cpu_count())
    futures = {key: pool.submit(_attempt, function) for key, function in work.items()}
    done, _ = wait(futures.values(), timeout=max(0.0, seconds))
    pool.shutdown(wait=False, cancel_futures=True)
    late = TimeoutError("not compiled in time")
    return {key: one.result() if one in done else late for key, one in futures.items()}


def _attempt(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:
        return error
