"""An update in blocks is the plain one: in the kernel for TPU, interpreted, and twice as on GPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.precision import stored
from gradtx.precision.formats import FORMATS
from gradtx.precision.kernel import can_run_in_kernel, run_in_kernel
from gradtx.precision.moments import Given, Made, Moments, after_another
from gradtx.precision.twice import can_run_twice, run_twice

BLOCK_FORMATS = [name for name in FORMATS if FORMATS[name].code]
KERNEL_FORMATS = [*BLOCK_FORMATS, "bfloat16+8"]
# One tile and several, rows that do not fill one, one row, three axes, a vector.
CUT = [(2048, 256), (1100, 512), (3, 40, 256), (1, 768), (70 * 256,)]
# The last block of a row is shorter; several rows are in one block, in 128 columns; vectors.
UNEVEN = [(33, 700), (2, 5, 258), (520, 1002), (32, 128), (3, 8, 128), (1002,), (300,)]
# Several rows in one block otherwise.
SHORT = [(3, 64, 4), (33, 126), (24, 12, 64)]
OPTIMIZERS = {
    "adamw": lambda: gradtx.adamw(1e-2),
    "lion": lambda: gradtx.lion(1e-2),
    "amsgrad": lambda: gradtx.amsgrad(1e-2),
    "momentum": lambda: gradtx.sgd(1e-2, momentum=0.9, nesterov=True),
    "lamb": lambda: gradtx.lamb(1e-2),
    "clipped": lambda: gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(1e-2)),
    "scheduled": lambda: gradtx.adamw(gradtx.cosine_decay_schedule(1e-2, 10)),
}

Form = Callable[[Moments, Given], Made]


class Spy:
    """A form, and how many leaves were given to it."""

    def __init__(self, form: Form):
        self.form, self.leaves = form, 0

    def __call__(self, what: Moments, given: Given) -> Made:
        self.leaves += 1
        return self.form(what, given)


def in_kernel(what: Moments, given: Given) -> Made:
    assert can_run_in_kernel(what, given)
    return run_in_kernel(what, given, interpret=True)


def twice(what: Moments, given: Given) -> Made:
    assert can_run_twice(what, given)
    return run_twice(what, given)


def trained(
    form: Form, tx: Any, shape: tuple[int, ...], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, int]:
    """The params and the state after three steps in this form, and how many leaves it was given."""
    spy = Spy(form)
    monkeypatch.setattr(stored, "in_blocks", spy)
    keys = jax.random.split(jax.random.key(0), 4)
    params: Any = {"w": jax.random.normal(keys[0], shape, dtype), "b": jnp.ones(3, dtype)}
    state = tx.init(params)
    # One program, made anew for each form: the spy is found while it is traced.
    step = jax.jit(lambda g, s, p: gradtx.step(tx, g, s, p))
    for key in keys[1:]:
        grads = {"w": 0.1 * jax.random.normal(key, shape, dtype), "b": jnp.ones(3, dtype)}
        params, state = step(grads, state, params)
    return (params, state), spy.leaves


def assert_alike(got: Any, expected: Any) -> None:
    """Equal, but for what a contracted product and sum changes: the last bits of a number, and so,
    rarely, the choice between two neighbours."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    pairs = zip(*(jax.tree.leaves(stored.decode_state(x)) for x in (got, expected)), strict=True)
    for a, b in pairs:
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(x.astype(jnp.float32)) for x in (a, b))
        error, size = np.abs(a - b), np.max(np.abs(b), initial=1e-30)
        assert np.mean(error > 2e-6 * size) <= 1e-3
        assert np.all(error <= 0.2 * size)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", CUT + UNEVEN, ids=str)
@pytest.mark.parametrize("name", KERNEL_FORMATS)
def test_the_kernel_is_the_plain_form(
    name: Any, shape: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tx = gradtx.store(gradtx.adamw(1e-2), name, min_size=256)
    expected, _ = trained(after_another, tx, shape, dtype, monkeypatch)
    got, leaves = trained(in_kernel, tx, shape, dtype, monkeypatch)
    assert leaves == 1
    assert_alike(got, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("form", [in_kernel, twice])
def test_other_optimizers(form: Form, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tx = gradtx.store(OPTIMIZERS[name](), "int8", min_size=256)
    expected, _ = trained(after_another, tx, (40, 512), jnp.float32, monkeypatch)
    got, leaves = trained(form, tx, (40, 512), jnp.float32, monkeypatch)
    assert leaves == 1
    assert_alike(got, expected)


@pytest.mark.parametrize("shape", CUT + UNEVEN + SHORT, ids=str)
@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_twice_is_the_plain_form(name: Any, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tx = gradtx.store(gradtx.adamw(1e-2), name, min_size=256)
    expected, _ = trained(after_another, tx, shape, jnp.float32, monkeypatch)
    got, leaves = trained(twice, tx, shape, jnp.float32, monkeypatch)
    assert leaves == 1
    assert_alike(got, expected)


@pytest.mark.parametrize("form", [in_kernel, twice])
def test_several_formats_in_one_leaf(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    formats: Any = {"mu": "int8", "nu": "bfloat16+8"}
    tx = gradtx.store(gradtx.adamw(1e-2), formats, min_size=256)
    expected, _ = trained(after_another, tx, (40, 512), jnp.float32, monkeypatch)
    got, _ = trained(form, tx, (40, 512), jnp.float32, monkeypatch)
    assert_alike(got, expected)


@pytest.mark.parametrize(
    "shape", [(1100, 512), (3, 40, 256), (70 * 256,), (5, 1002), (3, 7, 300), (7, 8, 128)], ids=str
)
@pytest.mark.parametrize("form", [in_kernel, twice])
def test_random_rounding_of_the_params_inside(
    form: Form, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positions of numbers in the leaf, from which their random bits are made, are right."""
    tx = gradtx.store(gradtx.chain(gradtx.adamw(1e-2), gradtx.stochastic_rounding()), "int8")
    expected, _ = trained(after_another, tx, shape, jnp.bfloat16, monkeypatch)
    got, leaves = trained(form, tx, shape, jnp.bfloat16, monkeypatch)
    assert leaves == 1
    assert_alike(got, expected)


@pytest.mark.parametrize("shape", [(700, 9), (40, 7, 50)], ids=str)
def test_random_rounding_in_short_rows(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tx = gradtx.store(gradtx.chain(gradtx.adamw(1e-2), gradtx.stochastic_rounding()), "int8")
    expected, _ = trained(after_another, tx, shape, jnp.bfloat16, monkeypatch)
    got, leaves = trained(twice, tx, shape, jnp.bfloat16, monkeypatch)
    assert leaves == 1
    assert_alike(got, expected)


@pytest.mark.parametrize(
    ("name", "shape"), [("int4", (33, 1001)), *(("int8", shape) for shape in SHORT)], ids=str
)
def test_other_shapes_keep_the_plain_form_on_tpu(
    name: Any, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(what: Moments, given: Given) -> Made:
        assert not can_run_in_kernel(what, given)
        return after_another(what, given)

    tx = gradtx.store(gradtx.adamw(1e-2), name, min_size=256)
    trained(refused, tx, shape, jnp.float32, monkeypatch)


def test_a_trust_ratio_is_taken_of_what_a_part_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMB's norms need the whole leaf: they stay outside, and the moments inside."""
    seen = []

    def form(what: Moments, given: Given) -> Made:
        seen.append((len(what.makes), {e.primitive.name for e in what.part.equations}))
        return after_another(what, given)

    tx = gradtx.store(gradtx.lamb(1e-2), "int8", min_size=256)
    trained(form, tx, (40, 512), jnp.float32, monkeypatch)
    ((moments, operations),) = seen
    assert moments == 2
    assert "sqrt" in operations
    assert not {"reduce_sum", "dot_general", "cond"} & operations


@pytest.mark.parametrize("form", [in_kernel, twice])
def test_under_vmap(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep over learning rates."""
    params = {"w": jax.random.normal(jax.random.key(0), (40, 512))}
    grads = {"w": jax.random.normal(jax.random.key(1), (40, 512))}

    def run(form: Form) -> Any:
        monkeypatch.setattr(stored, "in_blocks", form)

        def one(rate: Any) -> Any:
            tx = gradtx.store(gradtx.adamw(rate), "int8")
            return gradtx.step(tx, grads, tx.init(params), params)

        return jax.jit(jax.vmap(one))(jnp.array([1e-3, 1e-2, 1e-1]))

    assert_alike(run(form), run(after_another))


def test_derivatives_are_those_of_the_plain_form() -> None:
    params, grads = jnp.linspace(-1, 1, 4096), jnp.linspace(2, -1, 4096)

    def loss(rate: Any, blocks: bool) -> Any:
        tx = gradtx.adamw(rate)
        tx = gradtx.store(tx, "int8") if blocks else tx
        new, _ = gradtx.step(tx, grads, tx.init(params), params)
        return jnp.sum(new**2)

    # The first update does not depend on how the moments are stored afterwards.
    got = jax.jit(jax.grad(partial(loss, blocks=True)))(1e-2)
    expected = jax.grad(partial(loss, blocks=False))(1e-2)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


# -- on a mesh -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axes"), [((1000,), P("y")), ((16, 600), P("x", "y")), ((16, 1000), P(None, "x"))]
)
def test_rows_that_a_mesh_divides_within_a_block(shape: Any, axes: Any) -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    params = jnp.cos(jnp.arange(np.prod(shape), dtype=jnp.float32)).reshape(shape)
    tx = gradtx.store(gradtx.adamw(0.1), "int8", min_size=1)
    step = jax.jit(partial(gradtx.step, tx))
    expected, _ = step(params, tx.init(params), params)
    divided = jax.device_put(params, NamedSharding(mesh, axes))
    got, _ = step(divided, tx.init(divided), divided)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
