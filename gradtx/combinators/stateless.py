"""Transformations from plain functions, and the two that need no formula."""

from __future__ import annotations

from collections.abc import Callable

import jax

from gradtx.core.decorators import per_leaf, per_tree
from gradtx.core.state import Updates

__all__ = ["identity", "set_to_zero", "stateless", "stateless_with_tree_map"]


@per_leaf
def identity() -> Callable[[jax.Array], jax.Array]:
    """Pass the updates on as they are.

        u = g

    It takes the place of a transformation where there is nothing to do: in a group of `partition`,
    or in a chain for a clip that is switched off.

    State: none.

    Example:
        >>> tx = gradtx.identity()
        >>> grads = jnp.array([1.0, -2.0])
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> updates
        Array([ 1., -2.], dtype=float32)

    See also: `set_to_zero`.
    """
    return lambda grad: grad


@per_leaf
def set_to_zero() -> Callable[[], float]:
    """Replace the updates by zeros.

        u = 0

    What stands after it in a chain may still move the parameters, as weight decay does; `freeze`
    holds them wherever it stands.

    State: none.

    Example:
        >>> tx = gradtx.set_to_zero()
        >>> grads = jnp.array([1.0, -2.0])
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> updates
        Array([0., 0.], dtype=float32)

    See also: `freeze`, `identity`.
    """
    return lambda: 0.0


@per_tree
def stateless(f: Callable[..., Updates]) -> Callable[..., Updates]:
    """Make a transformation from a function of the whole tree.

        u = f(g, params)

    Args:
        f: a function of two trees, the updates and the params, to the new updates. It keeps the
            shapes of the leaves. params is None if update was called without it.

    State: none.

    Example:
        >>> tx = gradtx.stateless(lambda updates, params: gradtx.tree.scale(0.5, updates))
        >>> grads = {"a": jnp.array([1.0]), "b": jnp.array([2.0])}
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> updates["a"], updates["b"]
        (Array([0.5], dtype=float32), Array([1.], dtype=float32))

    See also: `stateless_with_tree_map`, `per_tree`.
    """
    return lambda updates, params=None: f(updates, params)


@per_leaf
def stateless_with_tree_map(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Make a transformation from a function of one array, which is applied leaf by leaf.

        u = f(g, param)

    Args:
        f: a function of two arrays, the update and its parameter, to the new update, of the same
            shape. param is None if update was called without params.

    State: none.

    Example:
        >>> tx = gradtx.stateless_with_tree_map(lambda g, param: jnp.sign(g))
        >>> grads = {"a": jnp.array([5.0]), "b": jnp.array([-2.0])}
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> updates["a"], updates["b"]
        (Array([1.], dtype=float32), Array([-1.], dtype=float32))

    See also: `stateless`, `per_leaf`.
    """
    return lambda grad, param=None: f(grad, param)
