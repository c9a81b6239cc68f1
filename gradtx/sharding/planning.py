"""What a training step needs on each device of a mesh, before there is one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from gradtx.core.printing import plural
from gradtx.core.state import Params
from gradtx.core.training_step import step
from gradtx.core.transformation import TransformationLike
from gradtx.sharding.layout import layout_of
from gradtx.sharding.sizes import bytes_per_device
from gradtx.sharding.spread import zero as spread_over
from gradtx.sharding.states import state_shapes
from gradtx.sharding.targets import Target
from gradtx.sharding.traffic import by_kind, collectives

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """What a step needs; bytes are those of one device.

    optimizer: as it was given. mesh: how many devices each axis has. count: of the parameters'
    elements, on all devices together. params, grads, state: the bytes of the step's arguments.
    target: the devices that it was compiled for, None if it was not; then so are the next two.
    temporary: the bytes that the program allocates besides these. collectives: by kind, how many
    and the bytes of all of them, as `gradtx.sharding.collectives` counts them. refusal: what the
    compiler said if the program does not fit into the memory of a device; then those two are None.
    """

    optimizer: TransformationLike
    mesh: dict[str, int]
    count: int
    params: int
    grads: int
    state: int
    target: str | None = None
    temporary: int | None = None
    collectives: dict[str, tuple[int, int]] | None = None
    refusal: str | None = None

    @property
    def total(self) -> int:
        """The bytes of the arguments and of what the program allocates besides them."""
        return self.params + self.grads + self.state + (self.temporary or 0)

    @property
    def exchanged(self) -> int | None:
        """The bytes of all collectives."""
        if self.collectives is None:
            return None
        return sum(size for _, size in self.collectives.values())


def plan(
    tx: TransformationLike,
    params: Params,
    *,
    zero: str | tuple[str, ...] | None = None,
    target: str | None = None,
) -> Plan:
    """What a step of an optimizer needs on each device: bytes of parameters, gradients and state,
    and, with the compiler for the target, temporary bytes and what the devices exchange.

    No array is made, and no device of the target has to be there. The program is that of
    `jax.jit(gradtx.step)`, which is given the gradients, laid out like the parameters, and
    overwrites state and parameters; what the model itself needs comes on top.

    Args:
        tx: a transformation, gradtx's or Optax's.
        params: the parameters, or their shapes, each with a `NamedSharding` of one mesh, which may
            be an `AbstractMesh`: `models.parameters` has those of well-known models.
        zero: an axis of the mesh, or several, over which the state is spread too, as by `zero`.
        target: what to compile for: "h100x8", "h200x8", "v5e:4x4" and the like, with as many
            devices as the mesh has; it needs `pip install libtpu`, or for a GPU
            jax-cuda12-plugin, jax-cuda12-pjrt and nvidia-cuda-nvcc-cu12. None: nothing is compiled.

    Raises: ValueError if a parameter has no sharding, the target is not known or has another number
        of devices than the mesh; ImportError if its compiler is not installed.

    Example:
        >>> from gradtx.sharding import models, plan
        >>> mesh = jax.sharding.AbstractMesh((64, 16), ("data", "model"))
        >>> made = plan(gradtx.adamw(1e-3), models.parameters("llama-70b", mesh))
        >>> round(made.state / made.params, 2)
        2.0

    See also: `state_shapes`, `zero`.
    """
    mesh = layout_of("plan", params).mesh
    if target is not None:
        mesh = _mesh_on(target, mesh)
        params = jax.tree.map(lambda x: _placed(x, NamedSharding(mesh, x.sharding.spec)), params)
    whole = tx if zero is None else spread_over(tx, params, zero)
    state = state_shapes(whole, params)
    made = Plan(
        optimizer=tx,
        mesh=dict(mesh.shape),
        count=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        params=bytes_per_device(params),
        grads=bytes_per_device(params),
        state=bytes_per_device(state),
    )
    return made if target is None else _compiled(made, target, whole, params, state)


def _compiled(made: Plan, target: str, tx: TransformationLike, params: Params, state: Any) -> Plan:
    """The plan, with what is known of the compiled step."""

    # In this order of results, each donated buffer gets its own new value.
    def one_step(params: Params, state: Any, grads: Params) -> tuple[Params, Any]:
        return step(tx, grads, state, params)

    shardings = jax.tree.map(lambda x: x.sharding, (params, state))
    made = dataclasses.replace(made, target=target)
    lowered = (
        jax.jit(one_step, donate_argnums=(0, 1), out_shardings=shardings)
        .trace(params, state, params)
        .lower(lowering_platforms=(Target.parse(target).platform,))
    )
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return dataclasses.replace(made, refusal=str(error).partition("\n")[0])
    return dataclasses.replace(
        made,
        temporary=program.memory_analysis().temp_size_in_bytes,
        collectives=by_kind(collectives(program.as_text())),
    )


def _mesh_on(target: str, mesh: Mesh | AbstractMesh) -> Mesh:
    """A mesh of the target's devices with the axes of another."""
    devices = Target.parse(target).devices()
    if len(devices) != mesh.size:
        raise ValueError(
            f"plan: target {target!r} has {plural(len(devices), 'device')}, the mesh "
            f"{dict(mesh.shape)} has {mesh.size}"
        )
    grid = mesh_utils.create_device_mesh(
        mesh.axis_sizes, devices=devices, allow_split_physical_axes=True
    )
    return Mesh(grid, mesh.axis_names)


def _placed(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    shaped: Any = jax.ShapeDtypeStruct  # which JAX leaves untyped
    made: jax.ShapeDtypeStruct = shaped(x.shape, x.dtype, sharding=sharding)
    return made
