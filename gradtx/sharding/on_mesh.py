"""Telling a transformation how the parameters lie, for compilers that do not say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import jax

from gradtx.core.definition import makes
from gradtx.core.flat_updates import FlatUpdates
from gradtx.core.inner import Inner
from gradtx.core.leaves import Leaves
from gradtx.core.meshes.placing import mesh_at, mesh_of_types
from gradtx.core.meshes.told import telling
from gradtx.core.place import Place
from gradtx.core.run import Stage
from gradtx.core.state import OptState, Params
from gradtx.core.transformation import GradientTransformation, Inside, TransformationLike
from gradtx.core.value import thaw
from gradtx.sharding.layout import AnyMesh
from gradtx.sharding.places import Places, spec_of

__all__ = ["on_mesh"]


class OnMesh(GradientTransformation):
    """Runs the inner transformation, which is told how the parameters lie; the state is that of
    the inner one."""

    @property
    def inner(self) -> GradientTransformation:
        """The transformation that is told."""
        inner: GradientTransformation = self.arguments["inner"]
        return inner

    @property
    def parts(self) -> tuple[GradientTransformation, ...]:
        """The transformation that is told."""
        return (self.inner,)

    @property
    def place(self) -> Place:
        """Where the inner one must stand."""
        return self.inner.place

    def _inside_at(self, state: OptState) -> Sequence[Inside]:
        return [Inside("", self.inner, state)]

    def _init(self, params: Params) -> OptState:
        with self._telling(params, mesh_at):  # how they lie, as far as it can be seen
            return self.inner._init(params)

    def _run(self, stage: Stage, flat: FlatUpdates) -> tuple[FlatUpdates, list[OptState]]:
        (link,), (state,), (selected,) = stage.links, stage.states, stage.selections
        grads, params = flat.tree(selected), flat.stored_params_tree(selected)
        inner = Inner(
            self.inner,
            params,
            flat.visible(stage.extra, link.masks),
            applies=stage.applying and all(selected) and not flat.frozen,
        )
        from_examples = Place.FIRST in self.place
        # Gradients of single examples lie as the examples do.
        like = params if params is not None or from_examples else grads
        with self._telling(like, mesh_of_types):
            u, state = inner.emit(grads, state)
        return flat.put(u, selected, self.definition.name, from_examples=from_examples), [state]

    def _telling(
        self, tree: Params | None, mesh_on: Callable[[Any], AnyMesh | None]
    ) -> AbstractContextManager[None]:
        leaves = Leaves.of(tree)
        meshes = (mesh_on(x) for x in leaves.values if isinstance(x, jax.Array))
        mesh = next((mesh for mesh in meshes if mesh is not None), None)
        if mesh is None:  # one device, or an eager step, which asks its arrays
            return nullcontext()
        where, specs = self.definition.name, thaw(self.arguments["params"])
        present = (i if x is not None else None for i, x in enumerate(leaves.values))
        return telling(
            leaves,
            [None if i is None else spec_of(where, specs, mesh, leaves, i) for i in present],
        )


@makes(OnMesh, name="sharding.on_mesh")
def on_mesh(
    inner: TransformationLike, params: Annotated[Params | AnyMesh, Places()]
) -> GradientTransformation:
    """Tell a transformation how the parameters lie, for a compiler that does not say it.

    The numbers, the state and its structure are those of `inner`, and so is the place in a chain.
    What changes is what the devices of a TPU send each other: Muon, SOAP, Shampoo and PSGD multiply
    whole matrices, and with `on_mesh` the devices exchange parts of these as the layout requires.
    Without it they assume a layout that may not be the actual one, or gather everything. It is
    needed on a mesh with axes of type `Auto`, outside of `zero`; with `Explicit` axes, the types of
    the arrays say the same. On CPU and GPU, where XLA says how arrays are divided, and on arrays of
    one device it does nothing.

    Args:
        inner: the transformation to tell, gradtx's or Optax's: a whole optimizer or a part of one.
        params: the parameters, which say how they are divided: arrays on a mesh, shapes with
            shardings, or the shardings; or the mesh, if every device has all of them. Only what is
            divided is kept, by path: `{"blocks/kernel": (None, "model")}`.

    State: that of `inner`.

    Raises: TypeError for params on one device; ValueError, in init, for parameters that are
    divided otherwise, and, in init and update, for an axis that the mesh does not have.

    Example:
        >>> mesh = jax.make_mesh((1, jax.device_count()), ("data", "model"))
        >>> columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "model"))
        >>> params = {"w": jax.device_put(jnp.ones((8, 64)), columns)}
        >>> print(gradtx.sharding.on_mesh(gradtx.scale_by_muon(), params))
        sharding.on_mesh(inner=scale_by_muon(), params={'w': (None, 'model')})

    See also: `zero`, which includes this; `gradtx.sharding.plan`.
    """
    return inner
