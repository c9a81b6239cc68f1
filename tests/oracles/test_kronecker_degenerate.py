"""SOAP, Shampoo and Kron where gradients leave directions out, or are too large for float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.transforms.kronecker import eigenvectors, inverse_roots

OPTIMIZERS = {
    "soap": lambda: gradtx.soap(1.0, precondition_frequency=1, weight_decay=0.0),
    "shampoo": lambda: gradtx.shampoo(1.0, merge_small_dims=False),
    "shampoo, not grafted": lambda: gradtx.shampoo(1.0, merge_small_dims=False, grafting=None),
    "kron": lambda: gradtx.kron(1.0),
    "kron of the gradient": lambda: gradtx.kron(1.0, momentum_into_precond_update=False),
    "procrustes": lambda: gradtx.kron(1.0, method="procrustes"),
}


def test_bases_are_complete_whatever_the_null_space() -> None:
    # The eigenvectors of a matrix of ones may hold the first axes, or nearly.
    for x in (np.ones((6, 6)), np.diag([0.0, 0, 0, 1, 0, 0]), np.zeros((6, 6))):
        (q,) = eigenvectors([jnp.asarray(x, jnp.float32)], [4])
        np.testing.assert_allclose(q.T @ q, np.eye(6), atol=1e-5)


def test_soap_in_float32_does_not_divide_rounding_errors_by_each_other() -> None:
    tx = OPTIMIZERS["soap"]()
    step = jax.jit(tx.update)
    rng = np.random.default_rng(0)
    for shape in ((6, 4), (20, 20)):
        params = jnp.ones(shape)
        state = tx.init(params)
        for size in 1e3 * rng.standard_normal(12):
            updates, state = step(jnp.full(shape, size, jnp.float32), state, params)
            # Adam's are at most sqrt(1 - b2) / (1 - b1), less than 5 learning rates each.
            assert np.sqrt(np.mean(np.square(updates))) < 5


@pytest.mark.parametrize("size", [1.0, 1e4, 1e12])
def test_inverse_roots_of_singular_matrices(size: float) -> None:
    rng = np.random.default_rng(1)
    for n in (4, 30):
        v = rng.standard_normal((n, 1))
        a = (size * v @ v.T).astype(np.float32)
        (root,) = inverse_roots([jnp.asarray(a)[None]], 1e-12, [0.25])
        along = (v.T @ np.asarray(root[0], np.float64) @ v / (v.T @ v)).item()
        # Along v; across it the root depends on the rounding of eigenvalues, and is at most this.
        np.testing.assert_allclose(along, (size * (v.T @ v).item()) ** -0.25, rtol=0.03)
        assert np.abs(root).max() <= 1.01e3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_squares_beyond_float32_leave_no_nan(name: str) -> None:
    tx = OPTIMIZERS[name]()
    step = jax.jit(tx.update)
    rng = np.random.default_rng(2)
    grads = rng.standard_normal((6, 4, 3)).astype(np.float32)
    for when in (0, 2):
        params = jnp.ones((4, 3))
        state = tx.init(params)
        for t, g in enumerate(grads):
            size = np.float32(1e20 if t == when else 1)
            updates, state = step(jnp.asarray(g * size), state, params)
            assert np.isfinite(updates).all()


def test_soap_without_eps() -> None:
    grads = jnp.array([[1.0, 2.0], [3.0, -4.0]])
    tx = gradtx.soap(0.1, eps=0.0, weight_decay=0.0)
    state = tx.init(grads)
    for _ in range(2):
        updates, state = tx.update(grads, state, grads)
        assert np.isfinite(updates).all()
    q1, q2 = state[0].bases
    np.testing.assert_allclose(-updates, 0.1 * q1 @ np.sign(q1.T @ grads @ q2) @ q2.T, rtol=1e-5)


@pytest.mark.parametrize("size", [1e18, 1e25])
@pytest.mark.parametrize(("name", "longest"), [("kron", 1.1), ("procrustes", 10.0)])
def test_a_huge_gradient_makes_no_huge_step_of_kron(name: str, longest: float, size: float) -> None:
    tx = OPTIMIZERS[name]()
    step = jax.jit(tx.update)
    rng = np.random.default_rng(3)
    params = jnp.ones((6, 4))
    state = tx.init(params)
    for t in range(12):
        g = rng.standard_normal((6, 4)) * (size if t == 6 else 1)
        updates, state = step(jnp.asarray(g, jnp.float32), state, params)
        assert np.sqrt(np.mean(np.square(updates))) <= 1.001 * longest


def test_roots_of_directions_without_gradients_do_not_lengthen_rounding_errors() -> None:
    rng = np.random.default_rng(0)
    direction = np.outer(rng.standard_normal(6), rng.standard_normal(4))
    grads = direction * rng.standard_normal((8, 1, 1))
    tx = gradtx.scale_by_shampoo(merge_small_dims=False)
    step = jax.jit(tx.update)
    params = jnp.ones((6, 4), jnp.float32)
    state = tx.init(params)
    for g in grads:
        updates, state = step(jnp.asarray(g, jnp.float32), state, params)
    # Of rank 1, as the gradients are, but for what eps and rounding leave.
    values = np.linalg.svd(np.asarray(updates, np.float64), compute_uv=False)
    assert values[1] < 1e-3 * values[0]


def test_soap_leaves_elements_alone_that_it_does_not_rotate() -> None:
    """A vector runs Adam, however small some of its gradients are."""
    rng = np.random.default_rng(1)
    sizes = 10.0 ** -np.arange(12)
    grads = rng.standard_normal((6, 12)) * sizes
    adam, tx = (
        gradtx.scale_by_adam(0.95, 0.95, 1e-20),
        gradtx.scale_by_soap(eps=1e-20, precondition_frequency=1),
    )
    state, expected = tx.init(jnp.ones(12)), adam.init(jnp.ones(12))
    _, state = tx.update(jnp.asarray(grads[0], jnp.float32), state)
    for g in grads[1:]:
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        wanted, expected = adam.update(jnp.asarray(g, jnp.float32), expected)
        np.testing.assert_allclose(updates, wanted, rtol=1e-4)
