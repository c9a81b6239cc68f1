"""The steps that are compiled, by functions that another process can be asked for by name."""

from typing import Any

import jax
import numpy as np

from benchmarks.compiler import Training
from benchmarks.recipes import LIBRARIES
from benchmarks.steps import STEPS
from tests.oracles.optax_cases import collect
from tests.oracles.optax_cases.case import build

ALL = collect("TRANSFORMATIONS") | collect("OPTIMIZERS")


def shapes(tree: Any) -> Any:
    def leaf(shape: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, np.float32)

    return jax.tree.map(leaf, tree, is_leaf=lambda x: isinstance(x, tuple))


def size(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


# On a TPU what fits into its fast memory is fetched ahead and counted twice, and small arrays are
# padded. So that these figures are as plain as elsewhere, two leaves are larger, and the others,
# which are all kinds that a rule may tell apart, are too small to count.
TREES: dict[str, Any] = {
    "small": shapes(
        {
            "scalar": (),
            "vectors": [(2048,), (512,)],
            "matrix": (128, 256),
            "kernel": {"conv": (3, 3, 64, 64)},
        }
    ),
    "large": shapes(
        {
            "scalar": (),
            "vectors": [(2**25,), (512,)],
            "matrix": (4096, 8192),
            "kernel": {"conv": (3, 3, 64, 64)},
        }
    ),
    "vector": shapes([(2**26,)]),
    "matrix": shapes([(8192, 8192)]),
}


def of_optax(library: str, name: str, index: int, tree: str) -> Training:
    """One of the cases of everything that Optax has too."""
    lib, case, params = LIBRARIES[library], ALL[name][index], TREES[tree]
    tx = build(lib, name, case)

    def step(params: Any, state: Any, grads: Any) -> Any:
        extra = case.extra(params, grads) if case.extra else {}
        updates, state = tx.update(grads, state, params, **extra)
        return lib.apply_updates(params, updates), state

    return Training(step, params, jax.eval_shape(tx.init, params), params)


def recipe(library: str, name: str, tree: str) -> Training:
    """One of the benchmarks' steps."""
    return STEPS[name].training(library, TREES[tree])
