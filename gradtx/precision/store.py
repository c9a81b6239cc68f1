"""Keep the state of any transformation in fewer bits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import (
    DictKey,
    GetAttrKey,
    SequenceKey,
    keystr,
    tree_flatten_with_path,
)

from gradtx.core.decorators import per_tree
from gradtx.core.hyperparameters import ByPattern, Seed
from gradtx.core.inner import Inner
from gradtx.core.leaves import paths, shown
from gradtx.core.mask import check_pattern
from gradtx.core.meshes.manual import barrier
from gradtx.core.meshes.placing import shard_shape
from gradtx.core.origin import StateError
from gradtx.core.printing import show
from gradtx.core.rule import Rule
from gradtx.core.state import (
    Count,
    HoldsFactors,
    HoldsParams,
    NarrowedByName,
    OptState,
    Params,
    StateClass,
    Updates,
    fields_narrowed_by_name,
    fields_of_factors,
    fields_of_past_params,
    is_named_tuple,
)
from gradtx.core.step import Step
from gradtx.core.transformation import TransformationLike
from gradtx.precision.formats import FORMATS, Format, FormatName
from gradtx.precision.in_blocks import load_kernel
from gradtx.precision.stored import (
    Storing,
    decode_state,
    encode_state,
    formats_of,
    update_stored,
)
from gradtx.tree.access import KeyPath

__all__ = ["StoreState", "store"]

# One format for all moments, or one by pattern: the first pattern that is found decides.
Formats = Annotated[FormatName | Mapping[str, FormatName], ByPattern()]


class StoreState(NamedTuple):
    """count: updates so far; inner_state: that of the transformation, with its moments encoded."""

    count: Count
    inner_state: OptState


@per_tree
def store(
    inner: TransformationLike,
    format: Formats,
    *,
    seed: Seed = 0,
    min_size: int = 4096,
    kernel: bool = True,
) -> Rule:
    """Keep the moments of `inner` in a format of fewer bits; its maths stays in float32.

        state <- encode(new state)        u, new state = inner(g, decode(state))

    The update is made from the new moments before they are encoded.

    | format       | bytes per element     | rounding   |                                        |
    | ------------ | --------------------- | ---------- | -------------------------------------- |
    | `bfloat16`   | 2                     | stochastic |                                        |
    | `bfloat16+8` | 3                     | nearest    | the upper three bytes of float32       |
    | `float8`     | 1 + 4/256             | stochastic | e4m3, blocks of 256 with a scale       |
    | `int8`       | 1 + 4/256             | stochastic | dynamic code, blocks of 256            |
    | `int4`       | 1/2 + 4/128           | stochastic | dynamic code, blocks of 128            |

    A moment is an array of the state, in float32 or wider and not a scalar, whose path ends with
    that of a parameter of the same shape. Parameters that a state holds, such as DoG's, are not
    moments: their small differences matter. Neither are the factors, bases and roots of SOAP,
    Shampoo and Kron, whose directions an error of a percent would turn, nor Shampoo's mu, whose
    errors its roots amplify: these are stored only by a pattern that names their field, as in
    `{"^mu|^nu": "int8", "^factors": "bfloat16"}`.

    Blocks without a negative number, as in second moments, get a code without a sign and without
    zero, so that nothing is divided by a zero that rounding made. A block with a NaN or an infinity
    becomes NaN as a whole. Blocks lie along the last axis, and the last of a row may be shorter;
    where that axis is shorter than a block, they follow the memory order. The random bits depend on
    the seed, the step and the path in the state, so that each moment of a parameter has its own.

    On a mesh, where devices would share a block, init cuts smaller ones, runs or tiles of at least
    32 numbers: a step then needs nothing from other devices. It sees how the mesh divides a
    parameter that is given as an array, and under `jax.jit` too if the axes of the mesh are
    explicit. Under `jax.jit` with automatic axes it does not, and the state is cut as on one
    device. The shapes of a state say how it is cut, and update accepts any cut; `migrate` converts
    a state to another one.

    What `inner` computes element by element runs inside the blocks, so that no moment is stored in
    float32 on the way. Bytes that an AdamW step accesses per float32 parameter, according to the
    compiled programs (float32 state: 28; in brackets, `gradtx.step`):

    | format       | H100 | TPU v5e     |
    | ------------ | ---- | ----------- |
    | `bfloat16`   | 20   | 20          |
    | `bfloat16+8` | 24   | 36   (24)   |
    | `float8`     | 22.5 | 28.1 (16.1) |
    | `int8`       | 22.5 | 28.1 (16.1) |
    | `int4`       | 20   | 26.1 (14.1) |

    These are bytes, not times: a GPU spends longer computing codes than moving them. On an H200 a
    step with "int8" state took 1.3 to 1.9 times as long as with float32 state, measured before
    codes took fewer operations, and one with "bfloat16" 0.75 to 1.05 times.

    On TPU this is a Pallas kernel that runs the operations of `inner` on tiles of a leaf, or on a
    mesh on tiles of each shard. A leaf gets one if it is a vector, or its last axis is 128 or at
    least 256 (for `int4`, even), and kernel compilers support all operations. Other leaves are
    decoded and encoded by XLA, which costs several times the bytes there. A last axis that is not a
    multiple of 128 costs copies where XLA lays the array out transposed. What `inner` computes from
    a whole leaf, such as LAMB's norms, stays outside the kernel. The kernel was compiled for TPU
    and compared with the plain form in Pallas' interpreter; it has not been run on a TPU yet.

    Parameters in bfloat16 that are rounded stochastically are rounded in the same pass if the
    rounding is inside: `store(chain(adamw(...), stochastic_rounding()), "int8")`.

    Args:
        inner: the optimizer whose state is stored, gradtx's or Optax's.
        format: one of the names above for all moments, or a mapping from patterns to names,
            `{"^nu": "bfloat16", "kernel": "int8"}`. A pattern is searched for in the field's name
            and the leaf's path together, `nu/encoder/kernel`, or `factors/encoder/kernel/0` for the
            factor of an axis. The first that is found decides; a moment in which none is found
            stays in float32.
        seed: the seed of the random numbers, in [0, 2**32): the same one gives the same run.
            Two stores in one chain need two seeds.
        min_size: moments with fewer elements stay as they are: encoding them would save little.
        kernel: use the kernel on TPU. A program compiled ahead of time for several TPUs on a
            machine without any needs False, unless it is in a `jax.shard_map`.

    State: a count and that of `inner`, with its moments encoded: for AdamW in "int8" 2.03 bytes a
    parameter instead of 8.

    Raises: ValueError for an unknown format, for a pattern that matches no moment, if there is no
    moment to store and, with the path, for a state whose moments are in other formats.

    Example:
        >>> tx = gradtx.store(gradtx.adamw(1e-3), {"^mu": "int8", "^nu": "bfloat16"})
        >>> gradtx.inspection.state_bytes_per_parameter(tx)
        {'': 3.016}
        >>> gradtx.inspection.state_bytes_per_parameter(gradtx.store(gradtx.adamw(1e-3), "int4"))
        {'': 1.062}

    See also: `decode_state`, which shows the moments as numbers; `stochastic_rounding`, `kahan`.

    References: Dettmers et al., 2022, https://arxiv.org/abs/2110.02861
    """
    patterns = _patterns(format)
    if kernel:
        load_kernel()

    def init(params: Params, step: Step, inner: Inner) -> StoreState:
        state = inner.init()
        chosen = _choose(patterns, state, params, min_size, show(inner.transformation))
        # The first state is made of constants, which XLA would encode element by element while it
        # compiles. In update nothing is constant, and a barrier would only prevent fusion.
        state = barrier(state)
        return StoreState(None, encode_state(state, Storing(chosen, seed, step.count)))

    def update(
        unwidened: Updates, state: StoreState, step: Step, inner: Inner
    ) -> tuple[Updates, StoreState]:
        old = state.inner_state
        _check_formats(patterns, state, inner)
        how = Storing(formats_of(old), seed, step.count, kernel)
        updates, new = update_stored(partial(inner.emit, unwidened), old, inner.params, how)
        return updates, state._replace(inner_state=new)

    return Rule(init, update, place=inner.place)


# -- which leaves ----------------------------------------------------------------------------------


def _patterns(format: str | Mapping[str, str]) -> dict[str, str]:
    """The name of the format for each pattern, checked."""
    patterns = dict(format) if isinstance(format, Mapping) else {"": format}
    for pattern, name in patterns.items():
        if not isinstance(name, str) or name not in FORMATS:
            raise ValueError(f"store: unknown format {name!r}; known: {', '.join(FORMATS)}")
        check_pattern("store", pattern)
    return patterns


def _choose(
    patterns: Mapping[str, str], state: OptState, params: Params, min_size: int, who: str
) -> dict[str, Format]:
    """By path, the format of each leaf of the state that is to be encoded."""
    moments = list(_moments(state, params))
    sought = [x for x in moments if not x.by_name] if "" in patterns else moments
    if not sought and jax.tree.leaves(params):
        raise ValueError(
            f"store: {who} keeps no array shaped like a parameter: there is nothing to store"
        )
    found: dict[str, Format] = {}
    used = set()
    for moment in moments:
        pattern, x = moment.pattern(patterns), moment.x
        used.add(pattern)
        if pattern is not None and x.size >= max(min_size, 1):
            found[moment.where] = FORMATS[patterns[pattern]].divided(x.shape, shard_shape(x))
    if moments and (unused := [p for p in patterns if p not in used]):
        labels = [moment.label for moment in moments]
        shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        raise ValueError(
            f"store: the pattern {unused[0]!r} matches no moment, or only moments that an "
            f"earlier pattern takes; the moments are: {shown}"
        )
    return found


def _check_formats(patterns: Mapping[str, str], state: StoreState, inner: Inner) -> None:
    """Refuse a state with a moment in another format than the patterns say.

    A moment that is not encoded is accepted: it may come from another `min_size`.
    """
    held = {where: form.name for where, form in formats_of(state.inner_state).items()}
    if set(held.values()) <= {patterns.get("")}:
        return
    decoded = jax.eval_shape(decode_state, state.inner_state)
    moments = _moments(decoded, inner.params) if inner.params is not None else ()
    chosen = {moment.where: moment.pattern(patterns) for moment in moments}
    for where, name in held.items():
        pattern = chosen.get(where)
        wanted = patterns[pattern] if pattern is not None else "float32"
        if inner.params is None:  # without params it is not known which pattern applies to a moment
            wanted = name if name in patterns.values() else " or ".join(patterns.values())
        if name != wanted and not (name == "bfloat16" and _is_narrow(where, inner)):
            problem = f"in the format {name!r}, not {wanted!r} as this store keeps it"
            raise StateError.of("store", problem, f".inner_state{where}", state)


def _is_narrow(where: str, inner: Inner) -> bool:
    """Whether a leaf of the inner state is in bfloat16 by itself, as with mu_dtype."""
    if inner.params is None:
        return True
    leaves = tree_flatten_with_path(jax.eval_shape(inner.init))[0]
    return any(keystr(path) == where and x.dtype == jnp.bfloat16 for path, x in leaves)


class _Moment(NamedTuple):
    """An array of a state that belongs to one parameter.

    where: its path in the state, as `keystr` prints it; field, leaf: the parts of its label;
    by_name: whether it is encoded only if a pattern names its field.
    """

    where: str
    field: str
    leaf: str
    x: jax.Array
    by_name: bool

    @property
    def label(self) -> str:
        """The text that patterns are searched for in."""
        return "/".join(filter(None, (self.field, self.leaf)))

    def pattern(self, patterns: Mapping[str, str]) -> str | None:
        """The first pattern found in the label; if `by_name`, one not found in the leaf alone."""
        for pattern in patterns:
            if re.search(pattern, self.label) and not (
                self.by_name and re.search(pattern, self.leaf)
            ):
                return pattern
        return None


def _moments(state: OptState, params: Params) -> Iterator[_Moment]:
    """The moments of a state, and its factors."""
    keys = [path for path, _ in tree_flatten_with_path(params, is_leaf=lambda x: x is None)[0]]
    names = dict(zip(keys, paths(params), strict=True))
    shapes = {path: np.shape(x) for path, x in tree_flatten_with_path(params)[0]}
    for path, x in tree_flatten_with_path(state)[0]:
        shape = np.shape(x)
        marks, end = _marks_on(state, path)
        is_factor = HoldsFactors in marks
        # The path of a factor goes on after its parameter's with which of the factors it is.
        parts = _parts(path, shapes, range(end, end + 1) if is_factor else None)
        found = next(parts, None)
        wide = jnp.issubdtype(x.dtype, jnp.floating) and np.dtype(x.dtype).itemsize >= 4
        if found is None or not wide or not shape or HoldsParams in marks:
            continue
        before, own = found
        if is_factor or shapes[own] == shape:
            field = next((str(k.name) for k in reversed(before) if hasattr(k, "name")), "")
            which = shown(path[end + len(own) :]) if is_factor else ""
            leaf = "/".join(filter(None, (names[own], which)))
            yield _Moment(keystr(path), field, leaf, x, NarrowedByName in marks)


_MARKS: dict[type, Callable[[StateClass], frozenset[str]]] = {
    HoldsParams: fields_of_past_params,
    HoldsFactors: fields_of_factors,
    NarrowedByName: fields_narrowed_by_name,
}


def _marks_on(state: OptState, path: KeyPath) -> tuple[set[type], int]:
    """The marks on the field that a leaf of the state lies in, and where in its path that field
    ends."""
    node = state
    for depth, key in enumerate(path, 1):
        attribute = key.name if isinstance(key, GetAttrKey) else ""
        if is_named_tuple(node):
            marks = {mark for mark, fields in _MARKS.items() if attribute in fields(type(node))}
            if marks:
                return marks, depth
        if depth == len(path):  # the leaf itself is not read: Flax's variables warn if they are
            break
        match key:
            case GetAttrKey():
                node = getattr(node, attribute)
            case SequenceKey():
                node = node[key.idx]
            case DictKey():
                node = node[key.key]
            case _:
                break  # a user's own pytree node, whose fields are not annotated
    return set(), 0


def _parts(
    path: KeyPath, shapes: Mapping[KeyPath, tuple[int, ...]], starts: range | None = None
) -> Iterator[tuple[KeyPath, KeyPath]]:
    """The paths of parameters that occur in the path of a leaf of the state, longest first, each
    with what comes before it: (before, parameter). starts: where they may begin."""
    for n in sorted({len(known) for known in shapes}, reverse=True):
        for start in range(len(path) - n, -1, -1) if starts is None else starts:
            if path[start : start + n] in shapes:
                yield path[:start], path[start : start + n]
