"""A state whose moments are stored in few bits: encoding it, and one update from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path

from gradtx.core.apply import Applied
from gradtx.core.elementwise import Constant, Function, Operand, Part, Variable, split, value_of
from gradtx.core.leaves import path_words
from gradtx.core.meshes.explicit import divided_like, explicit_mesh, on_auto_axes
from gradtx.core.meshes.placing import kept_like
from gradtx.core.state import OptState, Params, Updates
from gradtx.precision.blocks import is_whole
from gradtx.precision.formats import (
    FORMATS,
    Format,
    Stored,
    code_of,
    format_of,
    is_stored,
    shapes_of,
)
from gradtx.precision.in_blocks import in_blocks
from gradtx.precision.moments import Given, Moments, encode
from gradtx.precision.narrow import key_of
from gradtx.tree.access import KeyPath

__all__ = ["decode_state"]

Run = Callable[[OptState], tuple[Updates, OptState]]


class Storing(NamedTuple):
    """How the leaves of a state are stored at this step.

    formats: by path, as `keystr` prints it. seed, step_count: what the random bits of a leaf are
    made from, together with its path. kernel: whether a kernel may update a leaf.
    """

    formats: Mapping[str, Format]
    seed: int
    # An int32 scalar. The name `count` would clash with the method of tuples.
    step_count: jax.Array
    kernel: bool = True

    def format(self, path: KeyPath) -> Format | None:
        """The format of a leaf, if it is stored."""
        return self.formats.get(keystr(path))

    def key(self, path: KeyPath) -> jax.Array:
        """The key for the random bits of a leaf."""
        return key_of(self.seed, self.step_count, *path_words(path, "store"))

    def encode(self, path: KeyPath, x: jax.Array) -> Stored:
        """A leaf of the state as it is stored."""
        form = self.format(path)
        if form is None:
            return x
        run, given = partial(encode, form), (x, self.key(path), self.step_count)
        if explicit_mesh(x) is None:
            return jax.tree.map(lambda y: kept_like(y, x) if y.shape == x.shape else y, run(*given))
        like = jax.tree.map(partial(_divided_like, x), jax.eval_shape(run, *shapes_of(given)))
        return on_auto_axes(run, given, like)


def encode_state(state: OptState, how: Storing) -> OptState:
    """The state with its leaves as they are stored."""
    return tree_map_with_path(how.encode, state)


def decode_state(state: OptState) -> OptState:
    """Read what `store` keeps: the same tree with plain float32 arrays in place of encoded ones.

    For looking at a state, plotting or comparing it. It holds the numbers from which the next
    update will be made; the state itself stays as it is. Other leaves are returned unchanged.

    Args:
        state: the state of `store`, a state that contains one, or a part of it such as
            `tree.get(state, "mu")`.

    Returns: the tree with float32 arrays of the moments' shapes in place of `Blocks`,
    `PackedBlocks`, `SplitFloat` and bfloat16 arrays.

    Example:
        >>> tx = gradtx.store(gradtx.adam(1e-3), "int8", min_size=1)
        >>> state = tx.init({"w": jnp.zeros(3)})
        >>> updates, state = tx.update({"w": jnp.array([1.0, -1.0, 0.0])}, state)
        >>> gradtx.decode_state(gradtx.tree.get(state, "mu"))
        {'w': Array([ 0.1, -0.1,  0. ], dtype=float32)}

    See also: `store`, `tree.get`.
    """
    return jax.tree.map(_decode, state, is_leaf=is_stored)


def formats_of(state: OptState) -> dict[str, Format]:
    """The formats of the stored leaves of a state, by path."""
    leaves = tree_flatten_with_path(state, is_leaf=is_stored)[0]
    return {keystr(path): form for path, x in leaves if (form := format_of(x))}


def update_stored(
    run: Run, state: OptState, params: Params | None, how: Storing
) -> tuple[Updates | Applied, OptState]:
    """run(state) -> (updates, new state), from a stored state to a stored one.

    Under a trace the parts of `run` that work element by element on stored moments are run
    `in_blocks`; what cannot be run there gets the decoded moments.
    """
    done = None
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(state)):
        done = _update_in_parts(run, state, params, how)
    if done is None:
        updates, new = run(decode_state(state))
        done = updates, encode_state(new, how)
    return done


def _update_in_parts(
    run: Run, state: OptState, params: Params | None, how: Storing
) -> tuple[Updates | Applied, OptState] | None:
    """`update_stored` in parts, or None if `run` has no such part."""
    leaves, treedef = tree_flatten_with_path(state, is_leaf=is_stored)
    chosen = [i for i, (path, _) in enumerate(leaves) if how.format(path)]
    given = [jax.eval_shape(_decode, x) if i in chosen else x for i, (_, x) in enumerate(leaves)]
    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(jax.tree.unflatten(treedef, given))
    function = Function(jaxpr, chosen)
    held = {function.inputs[i]: _Held(*leaves[i]) for i in chosen}
    stored = dict(held.values())

    outputs = [
        (path[1:] if path[0].idx == 1 else None, x)
        for (path, _), x in zip(tree_flatten_with_path(shapes)[0], function.outputs, strict=True)
    ]
    # The parts make the moments of the new state, each of them once.
    moments: dict[Variable, KeyPath] = {}
    others = []
    for path, x in outputs:
        if path and how.format(path) and not isinstance(x, Constant) and x not in moments:
            moments[x] = path
        else:
            others.append(x)
    steps = split(function, list(moments), others)
    if jaxpr.effects or not steps.parts:
        return None

    values: dict[Variable, Any] = dict(zip(function.inputs, given, strict=True))
    values |= function.constants
    values |= {x: _decode(own.stored) for x, own in held.items() if x in steps.needed_after}
    for equation in steps.before:
        equation.run(values)
    applied = params if isinstance(shapes[0], Applied) else None
    overwrites = dict(zip(function.outputs, jax.tree.leaves(applied), strict=False))
    made: dict[KeyPath, Stored] = {}
    for part in steps.parts:
        made |= _run_part(part, values, held, moments, overwrites, how)
    for equation in steps.after:
        equation.run(values)

    def result(path: KeyPath | None, x: Operand) -> Stored:
        if path in made:
            return _kept(made[path], stored[path])
        value = value_of(x, values)
        if path is None:
            return value
        new = how.encode(path, value)
        return _kept(new, stored[path]) if path in stored else new

    results = [result(path, x) for path, x in outputs]
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _kept(new: Stored, old: Stored) -> Stored:
    """A new moment, laid out like the old one. XLA would divide codes differently if devices share
    blocks, which they do not if blocks were cut for the shards, and may divide scales differently
    in any case."""
    form = format_of(old)
    code = code_of(form)
    if form is None or code is None:
        return new
    meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(old)]
    most = max((n for mesh in meshes for n in mesh.axis_sizes), default=1)
    codes, _ = jax.eval_shape(code.take, shapes_of(old))
    stays = form != FORMATS[form.name] or is_whole(code.cut(codes.shape), most)

    def kept(x: jax.Array, before: jax.Array) -> jax.Array:
        return x if stays and x.shape == codes.shape else kept_like(x, before)

    return jax.tree.map(kept, new, old)


class _Held(NamedTuple):
    """A stored leaf of the old state."""

    path: KeyPath
    stored: Stored


def _run_part(
    part: Part,
    values: dict[Variable, Any],
    held: Mapping[Variable, _Held],
    moments: Mapping[Variable, KeyPath],
    overwrites: Mapping[Any, jax.Array],
    how: Storing,
) -> dict[KeyPath, Stored]:
    """Run a part on its leaf: the new moments, stored, by path; its other results are added to the
    values. overwrites: for a variable that holds new params, the old params."""
    paths = [moments[x] for x in part.makes[: part.wanted]]
    rest = part.makes[part.wanted :]
    # New moments take the place of the old ones, and new params that of the params.
    places: dict[Any, int] = {}
    for i, x in enumerate(part.arrays):
        places[held[x].path if x in held else id(values[x])] = i
    takes = [*paths, *[id(overwrites[x]) if x in overwrites else None for x in rest]]
    what = Moments(
        part,
        reads=tuple([format_of(held[x].stored) if x in held else None for x in part.arrays]),
        makes=tuple([form for path in paths if (form := how.format(path))]),
        replaces=tuple([places.get(take) for take in takes]),
        kernel=how.kernel,
    )
    given = Given(
        arrays=[held[x].stored if x in held else values[x] for x in part.arrays],
        scalars=[values[x] for x in part.scalars],
        keys=[how.key(path) for path in paths],
        step_count=how.step_count,
    )
    stored, arrays = in_blocks(what, given)
    values.update(zip(rest, arrays, strict=True))
    return dict(zip(paths, stored, strict=True))


@partial(jax.jit, static_argnums=0)
def _decode_leaf(form: Format, stored: Stored) -> jax.Array:
    return form.decode(stored)


def _decode(x: Stored) -> Stored:
    """A leaf of a stored state in float32; a leaf that is not stored, as it is."""
    form = format_of(x)
    if form is None:
        return x
    codes, *_ = jax.tree.leaves(x)
    return on_auto_axes(partial(_decode_leaf, form), (x,), codes)


def _divided_like(x: jax.Array, stored: jax.ShapeDtypeStruct) -> NamedSharding:
    """How an array that is stored for x is divided if explicit axes divide x. It has the axes of x,
    or a single one, in memory order."""
    axes = range(stored.ndim) if stored.ndim == x.ndim else [0]
    return divided_like(x, stored.shape, axes)
