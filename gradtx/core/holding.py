"""Occasional steps: a function that is due on few updates, and whose state is held in between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import layout
from jax.experimental.layout import with_layout_constraint
from jax.typing import ArrayLike

from gradtx.core.state import OptState

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

# The name of `Layout` until JAX 0.7, where `Layout` was something else.
Layout = getattr(layout, "DeviceLocalLayout", None) or layout.Layout

T = TypeVar("T")
Run = Callable[[OptState], tuple[Any, OptState]]
Idle = Callable[[OptState], Any]
# The traced arrays that a function reads besides its state, and the function of both.
Consts = list[jax.Array]
Closed = Callable[[OptState, Consts], tuple[Any, OptState]]
# Takes run, other, due, the state, and the traced constants of run and of other.
Form = Callable[[Closed, Closed, jax.Array, OptState, Consts, Consts], tuple[Any, OptState]]


def now_and_then(due: ArrayLike, run: Run, idle: Idle, state: OptState) -> tuple[Any, OptState]:
    """run(state), a pair (output, new state), if due, otherwise (idle(state), state).

    For a function that is due on few steps and has a large state. due: a boolean scalar. idle:
    makes an output of the same shapes and dtypes as run's.

    On CPU and TPU it is a conditional, whose branches update the state in place or leave it. XLA
    for GPU copies whatever a conditional passes through, once going in and once coming out, but
    updates a loop's carry in place. There it is a loop of at most one iteration, whose initial
    carry is the result of an idle step.
    """
    return _by_platform(due, run, _holding(idle), state, gpu=at_most_one_turn)


def usually(due: ArrayLike, run: Run, idle: Idle, state: OptState) -> tuple[Any, OptState]:
    """`now_and_then` for a function that is due on nearly every step, such as a guarded one.

    On GPU and TPU an elementwise function always runs, and selects discard what was not due: they
    are fused with the computation, whereas the results of a branch are stored and read again. On
    CPU, where the old state would have to be copied for a select, it is a conditional.
    """
    return _by_platform(due, run, _holding(idle), state, gpu=at_most_one_turn, elementwise=selected)


def one_of(due: ArrayLike, run: Run, other: Run, state: OptState) -> tuple[Any, OptState]:
    """run(state) if due, otherwise other(state): one of two functions, in the forms of `usually`,
    but with a conditional in place of the loop."""
    return _by_platform(due, run, other, state, gpu=_conditional, elementwise=selected)


def either(due: ArrayLike, run: Run, idle: Idle, state: OptState) -> tuple[Any, OptState]:
    """`now_and_then` as a conditional on every platform."""
    return lax.cond(due, run, _holding(idle), state)


@custom_vmap
def anywhere(due: jax.Array) -> jax.Array:
    """due; under `jax.vmap`, whether any of the batch is due.

    A conditional on it stays one there. On `due` itself it would become a select, which runs both
    branches in every step. What the branch makes must be selected by `here(due)` inside it.
    """
    return due


@anywhere.def_vmap
def _anywhere_in_a_batch(size: int, is_batched: list[bool], due: jax.Array) -> tuple[Any, bool]:
    return anywhere(jnp.any(due, axis=0)), False


@custom_vmap
def here(due: jax.Array) -> jax.Array:
    """In a branch for `anywhere(due)`, whether this member of the batch is due. Without a batch
    it is the constant True, so that a select between new state and old does not read the old."""
    return jnp.ones_like(due)


@here.def_vmap
def _here_in_a_batch(size: int, is_batched: list[bool], due: jax.Array) -> tuple[Any, bool]:
    return due, True


def fenced(arrays: T) -> T:
    """Arrays that a branch passes through unchanged, but that must be computed before it.

    If they are computed from old state, the branch can then write new state in its place. Without
    the barrier XLA moves their computation past the conditional, and copies the state.
    """
    made: T = lax.optimization_barrier(arrays)  # type: ignore[no-untyped-call]
    return made


@custom_vmap
def row_major(x: jax.Array) -> jax.Array:
    """x in the layout that state has in memory between steps, for the operands and results of an
    occasional decomposition or solve.

    Those are column-major. Left to itself, XLA gives their layout to what a branch or a loop holds,
    and every step, even an idle one, transposes that on the way in and on the way out. Not for
    arrays that are divided among devices, which would be gathered, or that are differentiated.
    """
    kept: jax.Array = with_layout_constraint(  # type: ignore[no-untyped-call]
        x, Layout(tuple(range(x.ndim)))
    )
    return kept


@row_major.def_vmap
def _row_major_in_a_batch(size: int, is_batched: list[bool], x: jax.Array) -> tuple[Any, bool]:
    return row_major(x), True  # JAX before 0.9 has no rule for the constraint itself


def _holding(idle: Idle) -> Run:
    return lambda old: (idle(old), old)


def _by_platform(
    due: ArrayLike,
    run: Run,
    other: Run,
    state: OptState,
    *,
    gpu: Form,
    elementwise: Form | None = None,
) -> tuple[Any, OptState]:
    """run or other, in the form `gpu` on GPU and as a conditional elsewhere. If both work
    elementwise and there is a form for that, GPU and TPU use it. If they have effects, which a
    custom derivative does not allow, it is a conditional everywhere."""
    # A select between x and x, so that the state varies over the axes of a mesh as `due` does.
    state = jax.tree.map(lambda x: jnp.where(due, x, x), state)
    (runs, beside, jaxpr), (others, aside, alike) = (
        traced_apart(run, state),
        traced_apart(other, state),
    )
    if jaxpr.effects or alike.effects:
        return lax.cond(due, run, other, state)
    tpu: Form = _conditional
    if elementwise is not None and _elementwise(jaxpr) and _elementwise(alike):
        gpu = tpu = elementwise
    on_gpu, on_tpu, elsewhere = (partial(f, runs, others) for f in (gpu, tpu, _conditional))
    operands = (jnp.asarray(due), state, beside, aside)
    return lax.platform_dependent(
        *operands, cuda=on_gpu, rocm=on_gpu, tpu=on_tpu, default=elsewhere
    )


def _conditional(
    run: Closed, other: Closed, due: jax.Array, state: OptState, beside: Consts, aside: Consts
) -> tuple[Any, OptState]:
    return lax.cond(due, lambda old: run(old, beside), lambda old: other(old, aside), state)


def _differentiated_as_conditional(form: Form) -> Form:
    """The form with the conditional's derivatives, in both modes: a loop has none in reverse mode,
    and a NaN that a select discards still reaches the derivative."""
    same = jax.custom_jvp(form, nondiff_argnums=(0, 1))

    @same.defjvp
    def derivative(
        run: Closed, other: Closed, primals: tuple[Any, ...], tangents: tuple[Any, ...]
    ) -> tuple[Any, Any]:
        return jax.jvp(partial(_conditional, run, other), primals, tangents)

    return same


@_differentiated_as_conditional
def at_most_one_turn(
    run: Closed, other: Closed, due: jax.Array, state: OptState, beside: Consts, aside: Consts
) -> tuple[Any, OptState]:
    """`now_and_then` as a loop."""

    def turn(carry: Any) -> Any:
        goes_on, (_, old) = carry
        return jnp.zeros_like(goes_on), run(old, beside)

    return lax.while_loop(lambda carry: carry[0], turn, (due, other(state, aside)))[1]


@_differentiated_as_conditional
def selected(
    run: Closed, other: Closed, due: jax.Array, state: OptState, beside: Consts, aside: Consts
) -> tuple[Any, OptState]:
    """Both functions run, and one result is selected."""
    return jax.tree.map(partial(jnp.where, due), run(state, beside), other(state, aside))


# What makes a step too costly to run and discard (products, decompositions, loops), and what
# changes a part of an array in place, where a select would make a copy.
_COSTLY = frozenset(
    (
        *("dot_general", "conv_general_dilated", "fft", "sort", "while", "scan"),
        *("cholesky", "eig", "eigh", "svd", "qr", "geqrf", "lu", "triangular_solve"),
        *("dynamic_update_slice", "scatter", "pallas_call", "ffi_call"),
    )
)


def _elementwise(jaxpr: Jaxpr) -> bool:
    """Whether a function does little more than elementwise operations and reductions."""
    from jax.extend.core import ClosedJaxpr, Jaxpr  # makes JAX import all of Pallas

    def is_jaxpr(x: object) -> bool:
        return isinstance(x, Jaxpr | ClosedJaxpr)

    for equation in jaxpr.eqns:
        leaves = jax.tree.leaves(equation.params, is_leaf=is_jaxpr)
        inner = [x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in leaves if is_jaxpr(x)]
        if equation.primitive.name in _COSTLY or not all(map(_elementwise, inner)):
            return False
    return True


def traced_apart(function: Callable[[Any], Any], state: Any) -> tuple[Closed, Consts, Jaxpr]:
    """The function, traced once for all forms; the traced arrays of its closure, which become its
    second argument, since a custom derivative covers arguments only; and its jaxpr."""
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(state)
    is_traced = [isinstance(x, jax.core.Tracer) for x in jaxpr.consts]
    beside = [x for x, traced in zip(jaxpr.consts, is_traced, strict=True) if traced]

    def call(state: OptState, beside: Consts) -> Any:
        given = iter(beside)
        pairs = zip(jaxpr.consts, is_traced, strict=True)
        consts = [next(given) if traced else x for x, traced in pairs]
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, consts))(*jax.tree.leaves(state))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return call, beside, jaxpr.jaxpr
