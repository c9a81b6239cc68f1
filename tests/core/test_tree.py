"""Trees: arithmetic, moments, dtypes, random numbers, values by name; averages, norms, spectra."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

RNG = np.random.default_rng(0)
X = {"a": RNG.standard_normal((2, 3)), "b": [RNG.standard_normal(4), RNG.standard_normal(())]}
Y = jax.tree.map(lambda x: RNG.uniform(0.5, 2, np.shape(x)), X)


def arrays(numbers: Any = X, dtype: Any = np.float64) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), numbers)


def assert_equal(got: Any, expected: Any, rtol: float = 1e-14) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        if isinstance(y, np.dtype):
            assert x == y
            continue
        assert jnp.result_type(x) == jnp.result_type(y)
        np.testing.assert_allclose(x, y, rtol=rtol)


# Each is called with Optax's and with ours in float64, where both are right.
CALLS: dict[str, Any] = {
    "add": lambda t: t.add(arrays(), arrays(Y), arrays(Y)),
    "add_scale": lambda t: t.add_scale(arrays(), 0.3, arrays(Y)),
    "add_scale of None": lambda t: t.add_scale({"a": None}, 0.3, {"a": jnp.ones(2)}),
    "allclose": lambda t: t.allclose(arrays(), arrays(), 1e-3, equal_nan=True),
    "not allclose": lambda t: t.allclose(arrays(), arrays(Y)),
    "batch_shape": lambda t: t.batch_shape(arrays(), (2, 1)),
    "bias_correction": lambda t: t.bias_correction(arrays(), 0.9, jnp.asarray(3)),
    "clip": lambda t: t.clip(arrays(), -0.5, 0.7),
    "clip on one side": lambda t: t.clip(arrays(), max_value=0.1),
    "conj": lambda t: t.conj(arrays(dtype=complex)),
    "real": lambda t: t.real(jax.tree.map(lambda x: x + 1j, arrays())),
    "dtype": lambda t: t.dtype(arrays()),
    "dtype of nothing": lambda t: t.dtype({}),
    "highest dtype": lambda t: t.dtype([jnp.ones(2, jnp.float16), jnp.ones(2)], "highest"),
    "lowest dtype": lambda t: t.dtype([jnp.ones(2, jnp.float16), jnp.ones(2)], "lowest"),
    "promoted dtype": lambda t: t.dtype(
        [jnp.ones(2, jnp.float16), jnp.ones(2, jnp.bfloat16)], "promote"
    ),
    "max": lambda t: t.max(arrays()),
    "min": lambda t: t.min(arrays()),
    "sum in pairs": lambda t: t.sum(arrays(), associative_reduction=True),
    "random_like": lambda t: t.random_like(jax.random.key(3), arrays()),
    "random_like uniform": lambda t: t.random_like(
        jax.random.key(3), arrays(), jax.random.uniform, np.float32
    ),
    "split_key_like": lambda t: t.unwrap_random_key_data(
        t.split_key_like(jax.random.key(1), arrays())
    ),
    "unwrap_random_key_data": lambda t: t.unwrap_random_key_data([jax.random.key(1), jnp.ones(2)]),
    "update_moment": lambda t: t.update_moment(arrays(), arrays(Y), 0.9, 2),
    "update_moment of None": lambda t: t.update_moment({"a": None}, {"a": jnp.ones(2)}, 0.9, 1),
    "update_infinity_moment": lambda t: t.update_infinity_moment(arrays(), arrays(Y), 0.9, 1e-3),
    "update_moment_per_elem_norm": lambda t: t.update_moment_per_elem_norm(
        jax.tree.map(lambda x: x + 1j, arrays()), arrays(Y), 0.9, 2
    ),
    "update_moment_per_elem_norm odd": lambda t: t.update_moment_per_elem_norm(
        arrays(), arrays(Y), 0.9, 3
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_equals_optax(name: str, x64: None) -> None:
    assert_equal(CALLS[name](tree), CALLS[name](optax.tree))


def test_everything_of_optax_tree_is_there() -> None:
    names = {name for name in dir(optax.tree) if not name.startswith("_")}
    assert names <= set(tree.__all__)


def test_moments_keep_their_dtypes_and_are_rounded_once() -> None:
    g, m = {"x": jnp.asarray([3.0, -4.0], jnp.bfloat16)}, {"x": jnp.asarray([1.0, 2.0])}
    made = tree.update_moment(g, m, 0.999, 2)
    np.testing.assert_allclose(made["x"], [0.999 + 0.009, 1.998 + 0.016], rtol=1e-6)
    narrow = tree.update_moment(g, tree.cast(m, jnp.bfloat16), 0.5, 1)
    assert narrow["x"].dtype == jnp.bfloat16
    for decay, rtol in ((0.999, 1e-6), (jnp.float32(0.999), 1e-4)):
        with jax.numpy_dtype_promotion("strict"):
            debiased = tree.bias_correction(m, decay, jnp.asarray(1))
        np.testing.assert_allclose(debiased["x"], [1000, 2000], rtol=rtol)


def test_extremes_skip_empty_leaves() -> None:
    leaves = [jnp.zeros((0, 3)), jnp.asarray([1.0, 5.0], jnp.bfloat16), jnp.asarray([-2.0])]
    assert (tree.max(leaves), tree.min(leaves)) == (5.0, -2.0)
    assert (tree.max({}), tree.min({})) == (-np.inf, np.inf)


def test_dtypes_that_differ_are_named() -> None:
    mixed = {"a": jnp.ones(2), "b": {"c": jnp.ones(2, jnp.bfloat16)}}
    with pytest.raises(ValueError, match=r"a: float32, b/c: bfloat16.*mixed_dtype_handler"):
        tree.dtype(mixed)
    with pytest.raises(ValueError, match="neither of float16 and bfloat16"):
        tree.dtype([jnp.ones(2, jnp.float16), jnp.ones(2, jnp.bfloat16)], "highest")
    with pytest.raises(ValueError, match="must be None, 'promote', 'highest' or 'lowest'"):
        tree.dtype(mixed, "widest")


# -- values by name ------------------------------------------------------------------------------


def state_of(lib: Any) -> Any:
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    schedule = lib.linear_schedule(0.1, 0.0, 10)
    return lib.chain(lib.adamw(schedule), lib.masked(lib.trace(0.9), {"w": True, "b": False})).init(
        params
    )


def shown(found: Any) -> set[str]:
    return {jax.tree_util.keystr(path) for path, _ in found}


@pytest.mark.parametrize("key", ["count", "mu", "w", "trace", "ScaleByAdamState", "surely_not"])
def test_values_are_found_where_optax_finds_them(key: str) -> None:
    ours, theirs = (lib.tree.get_all_with_path(state_of(lib), key) for lib in (gradtx, optax))
    assert shown(ours) == shown(theirs)
    assert len(ours) == len(theirs)


def test_what_a_node_holds_itself_is_found_first() -> None:
    nested = {"a": {"b": {"x": 1}, "x": 2}, "x": 3}
    ours, theirs = (lib.tree.get_all_with_path(nested, "x") for lib in (gradtx, optax))
    assert ours == theirs
    assert [value for _, value in ours] == [3, 2, 1]


def test_get() -> None:
    state = state_of(gradtx)
    assert tree.get(state, "nu") is state[0][0].nu
    assert tree.get(state, "ScaleByAdamState") is state[0][0]
    assert tree.get(state, "surely_not") is None
    assert tree.get(state, "surely_not", 3) == 3
    assert tree.get({"a": {"b": 5}}, "b") == 5
    of_adam = lambda path, value: path[-1].tuple_name == "ScaleByAdamState"  # noqa: E731
    assert tree.get(state, "count", filtering=of_adam) is state[0][0].count


def test_get_names_what_is_ambiguous() -> None:
    with pytest.raises(KeyError) as raised:
        tree.get(state_of(gradtx), "count")
    message = str(raised.value)
    assert "2 values called 'count'" in message
    assert "[0][0]ScaleByAdamState.count" in message
    assert "ScaleByScheduleState.count" in message
    assert "filtering=" in message


def test_set() -> None:
    state = state_of(gradtx)
    zeros = tree.set(state, count=jnp.asarray(7), trace="gone")
    assert [v for _, v in tree.get_all_with_path(zeros, "count")] == [7, 7]
    assert tree.get(zeros, "trace") == "gone"
    assert zeros[0][0].mu["w"] is state[0][0].mu["w"]
    assert jax.tree.structure(tree.set(state, count=7)) == jax.tree.structure(state)
    of_adam = lambda path, value: path[-1].tuple_name == "ScaleByAdamState"  # noqa: E731
    one = tree.set(state, of_adam, count=7)
    assert one[0][0].count == 7
    assert sorted(int(v) for _, v in tree.get_all_with_path(one, "count")) == [0, 7]
    assert tree.set(state, ScaleByAdamState=None)[0][0] is None
    with pytest.raises(KeyError, match="no value called 'surely_not'"):
        tree.set(state, surely_not=1)
    with pytest.raises(KeyError, match="that the filter keeps"):
        tree.set(state, lambda path, value: False, count=1)


class Wrapped(NamedTuple):
    """A state in a state of the same name."""

    count: Any
    inner: Any


def test_values_inside_values_of_the_same_name_are_found() -> None:
    nested = Wrapped(0, {"count": Wrapped(1, ())})
    assert [str(p[-1]) for p, _ in tree.get_all_with_path(nested, "count")] == [
        "Wrapped.count",
        "['count']",
        "Wrapped.count",
    ]
    assert tree.set(nested, count=5) == Wrapped(5, {"count": 5})


@pytest.mark.parametrize("make", [lambda lib: lib.adamw(0.1), lambda lib: lib.sgd(0.1, 0.9)])
def test_map_params(make: Any) -> None:
    """Shardings of a state from those of the params, as trainers make them."""
    params, specs = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, {"w": "rows", "b": "all"}
    made = []
    for lib in (gradtx, optax):
        tx = make(lib)
        state = tx.init(params)
        with_specs = lib.tree_map_params(
            tx, lambda _, spec: spec, state, specs, transform_non_params=lambda _: "copied"
        )
        made.append(with_specs)
        assert lib.tree.map_params(tx.init, lambda x: x, state)[0] is not None
    assert shown(jax.tree_util.tree_leaves_with_path(made[0])) == shown(
        jax.tree_util.tree_leaves_with_path(made[1])
    )
    assert jax.tree.leaves(made[0]) == jax.tree.leaves(made[1])


def test_map_params_of_lbfgs_and_searches() -> None:
    params, specs = {"w": jnp.ones((2, 2))}, {"w": "rows"}
    tx = gradtx.lbfgs()
    made = gradtx.tree_map_params(tx, lambda _, spec: spec, tx.init(params), specs)
    assert made[0].diff_params_memory == specs
    assert made[-1].grad == specs


# -- averages, counts, norms -----------------------------------------------------------------------


def test_incremental_update() -> None:
    new, old = {"x": jnp.ones(2), "n": None}, {"x": jnp.zeros(2), "n": None}
    np.testing.assert_allclose(gradtx.incremental_update(new, old, 0.1)["x"], 0.1, rtol=1e-6)
    narrow = tree.cast({"x": jnp.ones(2)}, jnp.bfloat16)
    averaged = gradtx.incremental_update(narrow, {"x": jnp.zeros(2)}, jnp.float32(1e-3))
    assert averaged["x"].dtype == jnp.float32
    np.testing.assert_allclose(averaged["x"], 1e-3, rtol=1e-6)
    assert gradtx.incremental_update({"x": jnp.ones(2)}, narrow, 0.5)["x"].dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_integers_are_not_averaged(dtype: Any) -> None:
    """They become the new ones, as those of a count of batches must."""
    new, old = {"n": jnp.asarray([1, 0], dtype)}, {"n": jnp.asarray([0, 1], dtype)}
    for run in (gradtx.incremental_update, jax.jit(gradtx.incremental_update)):
        taken = run(new, old, 1e-3)["n"]
        assert taken.dtype == dtype
        np.testing.assert_array_equal(taken, new["n"])


def test_periodic_update() -> None:
    new, old = {"x": jnp.ones(2)}, {"x": jnp.zeros(2)}
    taken = [gradtx.periodic_update(new, old, t, 3)["x"][0] for t in range(7)]
    assert taken == [1, 0, 0, 1, 0, 0, 1]
    assert jax.jit(gradtx.periodic_update)(new, old, jnp.asarray(6), 3)["x"][0] == 1


def test_safe_increment() -> None:
    for dtype in (np.int8, np.int32, np.uint8, np.uint32, np.float32):
        top = np.finfo(dtype).max if dtype == np.float32 else np.iinfo(dtype).max
        assert gradtx.safe_increment(jnp.asarray(3, dtype)) == 4
        at_top = gradtx.safe_increment(jnp.asarray(top, dtype))
        assert at_top.item() == top
        assert at_top.dtype == dtype
    assert gradtx.safe_int32_increment is gradtx.safe_increment
    with pytest.raises(ValueError, match="integer or floating dtype, got complex64"):
        gradtx.safe_increment(jnp.asarray(1j))


@pytest.mark.parametrize("kwargs", [{}, {"ord": 1}, {"axis": 0}, {"axis": 1, "keepdims": True}])
def test_safe_norm(kwargs: Any, x64: None) -> None:
    x = jnp.asarray(RNG.standard_normal((3, 2))).at[:, 0].mul(0.01)
    for floor in (0.0, 0.05, 100.0):
        expected = np.maximum(np.linalg.norm(x, **kwargs), floor)
        np.testing.assert_allclose(gradtx.safe_norm(x, floor, **kwargs), expected, rtol=1e-12)
        got, theirs = (
            jax.grad(lambda x, n=lib.safe_norm, low=floor: jnp.sum(n(x, low, **kwargs)))(x)
            for lib in (gradtx, optax)
        )
        np.testing.assert_allclose(got, theirs, rtol=1e-12, atol=1e-15)


def test_safe_norms_have_derivatives_at_zero_and_do_not_overflow() -> None:
    zeros = jnp.zeros(3)
    for function in (gradtx.safe_norm, gradtx.safe_root_mean_squares):
        for floor in (0.0, 1e-3):
            assert function(zeros, floor) == np.float32(floor)
            assert np.all(jax.grad(function)(zeros, floor) == 0)
    large = jnp.full(4, 300, jnp.float16)
    assert gradtx.safe_norm(large, 0.0) == 600
    assert gradtx.safe_root_mean_squares(large, 0.0) == 300
    assert gradtx.safe_root_mean_squares(jnp.ones(4), 2.0) == 2


def test_scale_gradient() -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones((), jnp.bfloat16)}

    def loss(params: Any, scale: Any) -> Any:
        scaled = gradtx.scale_gradient(params, scale)
        return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(scaled))

    for scale in (1.0, 0.0, 0.25):
        for compiled in (loss, jax.jit(loss)):  # Optax's fails where the scale is traced
            value, grad = jax.value_and_grad(compiled)(params, scale)
            assert value == 3
            np.testing.assert_allclose(grad["a"], 2 * scale)
            assert grad["b"].dtype == jnp.bfloat16
            assert grad["b"] == 2 * scale


# -- spectra ---------------------------------------------------------------------------------------


def definite(size: int = 5) -> np.ndarray:
    root = np.random.default_rng(7).standard_normal((size, size))
    return root @ root.T + 0.1 * np.eye(size)


def test_power_iteration(x64: None) -> None:
    matrix = definite()
    values, vectors = np.linalg.eigh(matrix)
    arguments = {"num_iters": 2000, "error_tolerance": 1e-12}
    value, vector = gradtx.power_iteration(jnp.asarray(matrix), **arguments)
    np.testing.assert_allclose(value, values[-1], rtol=1e-10)
    np.testing.assert_allclose(np.abs(vector), np.abs(vectors[:, -1]), atol=1e-8)

    def product(v: Any) -> Any:
        flat = jnp.asarray(matrix) @ jnp.concatenate([v["a"], v["b"]])
        return {"a": flat[:2], "b": flat[2:]}

    v0 = {"a": jnp.ones(2), "b": jnp.ones(3)}
    value, vector = gradtx.power_iteration(product, v0=v0, **arguments)
    np.testing.assert_allclose(value, values[-1], rtol=1e-10)
    with pytest.raises(ValueError, match="needs v0"):
        gradtx.power_iteration(product)
    few = [lib.power_iteration(jnp.asarray(matrix), num_iters=3) for lib in (gradtx, optax)]
    np.testing.assert_allclose(few[0][0], few[1][0], rtol=0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 6, 8])
def test_matrix_inverse_pth_root(p: int, dtype: Any, x64: None) -> None:
    """Of every p; Optax rounds it to a power of two, and knows float32 only."""
    matrix = definite()
    values, vectors = np.linalg.eigh(matrix)
    ridge = 1e-6 * values[-1]
    expected = vectors @ np.diag((values + ridge) ** (-1 / p)) @ vectors.T
    root, error = gradtx.matrix_inverse_pth_root(jnp.asarray(matrix, dtype), p)
    assert root.dtype == dtype
    rtol = 5e-3 if dtype == np.float32 else 1e-6
    np.testing.assert_allclose(root, expected, rtol=rtol, atol=rtol * np.max(expected))
    assert error < (1e-2 if dtype == np.float32 else 1e-6)


def test_roots_of_special_matrices() -> None:
    root, _ = gradtx.matrix_inverse_pth_root(jnp.asarray([[16.0]]), 4)
    np.testing.assert_allclose(root, [[0.5]], rtol=1e-5)
    root, _ = gradtx.matrix_inverse_pth_root(jnp.zeros((3, 3)), 4)  # NaN in Optax
    assert np.all(np.isfinite(root))
    assert gradtx.power_iteration(jnp.zeros((3, 3)))[0] == 0
    for bad in (0, 2.5, True):
        with pytest.raises(ValueError, match="p must be a whole number >= 1"):
            gradtx.matrix_inverse_pth_root(jnp.eye(2), bad)


def test_whole_numbers_of_single_examples_are_clipped_in_float32() -> None:
    sums, shrunk = gradtx.per_example_global_norm_clip([jnp.array([[3, 4], [0, 0]])], 1.0)
    np.testing.assert_allclose(sums[0], [0.6, 0.8], rtol=1e-6)
    assert shrunk == 1


def test_extremes_show_a_nan() -> None:
    # XLA:CPU loses one in the maximum of a long array.
    x = {"a": jnp.ones(100_000).at[0].set(jnp.nan), "b": jnp.full(3, 2.0)}
    for function in (tree.max, tree.min, lambda x: tree.norm(x, ord=jnp.inf)):
        assert np.isnan(function(x))
        assert np.isnan(jax.jit(function)(x))
    assert tree.max({"a": jnp.asarray([jnp.inf, 1.0])}) == np.inf
    assert tree.min({"a": jnp.asarray([-jnp.inf, 1.0])}) == -np.inf
