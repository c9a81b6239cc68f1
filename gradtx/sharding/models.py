"""The parameters of well-known models, as shapes on a mesh, to plan with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from gradtx.sharding.layout import sizes
from gradtx.transforms.matrix_axes import MuonDimensionNumbers

Layout: TypeAlias = Literal["replicated", "tensor", "full"]
Shapes: TypeAlias = dict[str, tuple[int, ...]]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class Llama:
    """One of Meta's Llama models, with its layers stacked so that each kind of matrix is one array
    (layers, inputs, outputs).

    heads: of the queries; key_heads: of the keys and of the values. tied: whether the embedding is
    also the last layer.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    key_heads: int
    vocabulary: int = 128256
    tied: bool = False

    def shapes(self) -> Shapes:
        """The shape of each parameter."""
        n, d = self.layers, self.width
        keys = d // self.heads * self.key_heads
        made: Shapes = {
            "embed": (self.vocabulary, d),
            "attention/query": (n, d, d),
            "attention/key": (n, d, keys),
            "attention/value": (n, d, keys),
            "attention/output": (n, d, d),
            "mlp/gate": (n, d, self.hidden),
            "mlp/up": (n, d, self.hidden),
            "mlp/down": (n, self.hidden, d),
            "attention/norm": (n, d),
            "mlp/norm": (n, d),
            "norm": (d,),
        }
        return made if self.tied else made | {"head": (d, self.vocabulary)}

    def matrices(self) -> dict[str, MuonDimensionNumbers]:
        """Which parameters are stacks of hidden matrices, for `muon_weight_dimension_numbers`."""
        return {"attention/(query|key|value|output)|mlp/(gate|up|down)": MuonDimensionNumbers(1, 2)}


# The published configurations: Llama 3.2 1B, Llama 3 8B, 70B and 405B.
MODELS: Mapping[str, Llama] = {
    "llama-1b": Llama(16, 2048, 8192, 32, 8, tied=True),
    "llama-8b": Llama(32, 4096, 14336, 32, 8),
    "llama-70b": Llama(80, 8192, 28672, 64, 8),
    "llama-405b": Llama(126, 16384, 53248, 128, 8),
}

# The matrices whose inputs, not outputs, are divided along the axis of tensor parallelism, as in
# Megatron-LM: their products are summed over it.
_BY_INPUTS = ("embed", "attention/output", "mlp/down")


def parameters(
    model: str,
    mesh: Mesh | AbstractMesh,
    layout: Layout = "full",
    dtype: DTypeLike = jnp.float32,
) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters of a model on a mesh, as shapes.

    Args:
        model: a name in `MODELS`.
        mesh: with an axis "data", an axis "model", or both.
        layout: "replicated": every device has all of them. "tensor": each matrix is divided along
            the axis "model", by its outputs or its inputs, and repeated along "data". "full": its
            other side is divided along "data" too. Vectors are always replicated.
        dtype: of the parameters.

    Returns:
        A `jax.ShapeDtypeStruct` with its sharding for each parameter.

    Raises:
        ValueError: if there is no such model or layout, the mesh has none of the axes that the
            layout divides over, or a division leaves a remainder.

    Example:
        >>> from gradtx.sharding import models
        >>> mesh = jax.sharding.AbstractMesh((2, 4), ("data", "model"))
        >>> models.parameters("llama-1b", mesh)["mlp/down"].sharding.spec
        PartitionSpec(None, 'model', 'data')
    """
    if model not in MODELS:
        raise ValueError(f"no model {model!r}; there are {', '.join(MODELS)}")
    if layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    needed = {"replicated": (), "tensor": ("model",), "full": ("data", "model")}[layout]
    if needed and not any(axis in mesh.shape for axis in needed):
        raise ValueError(
            f"{model}: the layout {layout!r} divides over {' and '.join(map(repr, needed))}, and "
            f"the mesh ({sizes(mesh)}) has no such axis"
        )
    data = "data" if layout == "full" and "data" in mesh.shape else None
    tensor = "model" if layout != "replicated" and "model" in mesh.shape else None

    shaped: Any = jax.ShapeDtypeStruct  # which JAX leaves untyped, like the next
    divided: Any = PartitionSpec

    def placed(name: str, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        sides = (tensor, data) if name in _BY_INPUTS else (data, tensor)
        stacked = [None] * (len(shape) - 2)
        spec = divided() if name.endswith("norm") else divided(*stacked, *sides)
        for length, axis in zip(shape, spec, strict=False):
            if axis is not None and length % mesh.shape[axis]:
                raise ValueError(
                    f"{model}: {name} of {shape}: the axis {axis!r} of {mesh.shape[axis]} devices "
                    f"does not divide {length}"
                )
        sharding = NamedSharding(mesh, spec)
        made: jax.ShapeDtypeStruct = shaped(shape, jnp.dtype(dtype), sharding=sharding)
        return made

    return {name: placed(name, shape) for name, shape in MODELS[model].shapes().items()}


def size(model: str) -> int:
    """How many parameters a model has."""
    return sum(math.prod(shape) for shape in MODELS[model].shapes().values())
