"""A state whose moments are stored in few bits: encoding it, and one update from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path

from gradtx.core.apply import Applied
from gradtx.core.elementwise import Constant, Function, Operand, Variable, split, value_of
from gradtx.core.leaves import path_words
from gradtx.core.state import OptState, Params, Updates
from gradtx.precision.formats import FORMATS, Stored, is_stored, name_of
from gradtx.precision.in_blocks import in_blocks
from gradtx.precision.moments import Given, Moments, encode
from gradtx.precision.narrow import key_of
from gradtx.tree.access import KeyPath

Run = Callable[[OptState], tuple[Updates, OptState]]


def update_stored(
    run: Run,
    state: OptState,
    params: Params | None,
    seed: int,
    count: jax.Array,
    kernel: bool,
) -> tuple[Updates | Applied, OptState]:
    """run(state) -> (updates, new state), from a stored state to a stored one.

    Under a trace the parts of `run` that work element by element on stored moments are run
    `in_blocks`; what cannot be run there gets the decoded moments.
    """
    leaves = tree_flatten_with_path(state, is_leaf=is_stored)[0]
    formats = {keystr(path): name for path, x in leaves if (name := name_of(x))}
    done = None
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(state)):
        done = _update_in_parts(run, state, params, formats, seed, count, kernel)
    if done is None:
        updates, new = run(decode_state(state))
        done = updates, encode_state(new, formats, seed, count)
    return done


def encode_state(
    state: OptState, formats: Mapping[str, str], seed: int, count: jax.Array
) -> OptState:
    """The state with the chosen leaves, by path, in their formats."""

    def encoded(path: KeyPath, x: jax.Array) -> Stored:
        name = formats.get(keystr(path))
        return x if name is None else encode(name, x, _key(path, seed, count), count)

    return tree_map_with_path(encoded, state)


def decode_state(state: OptState) -> OptState:
    """The state with its stored leaves in float32."""
    return jax.tree.map(_decode, state, is_leaf=is_stored)


def _update_in_parts(
    run: Run,
    state: OptState,
    params: Params | None,
    formats: Mapping[str, str],
    seed: int,
    count: jax.Array,
    kernel: bool,
) -> tuple[Updates | Applied, OptState] | None:
    """`update_stored` in parts, or None if it has no such part."""
    leaves, treedef = tree_flatten_with_path(state, is_leaf=is_stored)
    given = [
        jax.eval_shape(_decode, x) if keystr(path) in formats else _decode(x) for path, x in leaves
    ]
    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(jax.tree.unflatten(treedef, given))
    function = Function(jaxpr, [i for i, (path, _) in enumerate(leaves) if keystr(path) in formats])
    path_of = dict(zip(function.inputs, [path for path, _ in leaves], strict=True))
    held = {x: leaves[i][1] for i, x in enumerate(function.inputs) if x in function.chosen}

    # The parts make the moments of the new state, each of them once.
    ends = [path for path, _ in tree_flatten_with_path(shapes)[0]]
    new_moments: dict[Variable, KeyPath] = {}
    others = []
    for (which, *path), x in zip(ends, function.outputs, strict=True):
        is_new = which.idx == 1 and keystr(path) in formats and not isinstance(x, Constant)
        if is_new and x not in new_moments:
            new_moments[x] = tuple(path)
        else:
            others.append(x)
    applied = params if isinstance(shapes[0], Applied) else None
    new_params = dict(zip(function.outputs, jax.tree.leaves(applied), strict=False))
    steps = split(function, list(new_moments), others)
    if jaxpr.effects or not steps.parts:
        return None

    values = dict(zip(function.inputs, given, strict=True)) | function.constants
    values |= {x: _decode(stored) for x, stored in held.items() if x in steps.needed_after}
    for equation in steps.before:
        equation.run(values)
    encoded: dict[KeyPath, Stored] = {}
    for part in steps.parts:
        places = [new_moments[x] for x in part.makes[: part.wanted]]
        # The new moments take the place of the old ones, and new params that of the params.
        old = {path_of[x]: i for i, x in enumerate(part.arrays) if x in held}
        old |= {id(values[x]): i for i, x in enumerate(part.arrays) if x not in held}
        takes = [*places, *[id(new_params.get(x)) for x in part.makes[part.wanted :]]]
        what = Moments(
            part,
            reads=tuple(name_of(held[x]) if x in held else None for x in part.arrays),
            makes=tuple(formats[keystr(path)] for path in places),
            replaces=tuple(map(old.get, takes)),
            kernel=kernel,
        )
        arrays = [held[x] if x in held else values[x] for x in part.arrays]
        scalars = [values[x] for x in part.scalars]
        keys = [_key(path, seed, count) for path in places]
        stored, made = in_blocks(what, Given(arrays, scalars, keys, count))
        encoded.update(zip(places, stored, strict=True))
        values.update(zip(part.makes[part.wanted :], made, strict=True))
    for equation in steps.after:
        equation.run(values)

    def result(end: KeyPath, x: Operand) -> Stored:
        which, *path = end
        name = formats.get(keystr(path)) if which.idx == 1 else None
        if which.idx == 1 and tuple(path) in encoded:
            return encoded[tuple(path)]
        value = value_of(x, values)
        return value if name is None else encode(name, value, _key(tuple(path), seed, count), count)

    results = map(result, ends, function.outputs)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _key(path: KeyPath, seed: int, count: jax.Array) -> jax.Array:
    """The key for the random bits of one moment at this step."""
    return key_of(seed, count, *path_words(path, "store"))


@partial(jax.jit, static_argnums=0)
def _decode_leaf(name: str, stored: Stored) -> jax.Array:
    return FORMATS[name].decode(stored)


def _decode(x: Stored) -> Stored:
    """A leaf of a stored state in float32; a leaf that is not stored, as it is."""
    name = name_of(x)
    return x if name is None else _decode_leaf(name, x)
