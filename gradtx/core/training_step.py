"""One training step in one call."""

from __future__ import annotations

from collections.abc import Callable

from gradtx.core.apply import apply_updates
from gradtx.core.problem import accepted, check_known
from gradtx.core.state import OptState, Params, Updates
from gradtx.core.transformation import TransformationLike, as_transformation


def step(
    tx: TransformationLike,
    grads: Updates,
    state: OptState,
    params: Params,
    **extra: Updates | Callable[..., Updates],
) -> tuple[Params, OptState]:
    """Update and apply in one call: return the new parameters and the new state.

        params, state = step(tx, grads, state, params)

    The numbers are those of

        updates, state = tx.update(grads, state, params, **extra)
        params = apply_updates(params, updates)

    except for a last bit where a compiler contracts a product and a sum. Some transformations need
    less memory traffic this way: micro-batches of `accumulate` that take no step do not touch the
    parameters, and on TPU `store` writes the parameters from the kernel that reads its state. Under
    `jax.jit`, donate params and state, and take them as arguments in the order in which they are
    returned: JAX gives a donated buffer to the first result of its shape, and in another order XLA
    copies on GPU what it could overwrite.

    Args:
        tx: a transformation, gradtx's or Optax's.
        grads: the gradients, a tree like params.
        state: what `tx.init(params)` or the step before returned.
        params: the parameters, a pytree of arrays. They must be given.
        extra: what else `tx.update` takes, by name: `value=loss`, `value_fn=loss_fn` and the like.
            What nothing in tx takes is ignored, so that one call serves every optimizer; but beside
            a `value_fn` that is used it is an error, since it may be a misspelt argument of that
            function.

    Raises: TypeError if grads or params is None; whatever `tx.update` and `apply_updates` raise.

    Example:
        >>> tx, params = gradtx.sgd(0.5), jnp.array([1.0, 2.0])
        >>> params, state = gradtx.step(tx, params, tx.init(params), params)
        >>> params.tolist()
        [0.5, 1.0]

    See also: `apply_updates`.
    """
    transformation = as_transformation(tx, "step: tx")
    if grads is None:
        raise TypeError("step: grads is None; it is a tree like params, as jax.grad returns it")
    if params is None:
        raise TypeError("step: params must be given, since the updates are added to them; got None")
    if transformation is not tx:  # another library's
        updates, state = tx.update(grads, state, params, **accepted(tx.update, extra))
        return apply_updates(params, updates), state
    if extra:
        check_known(transformation, lambda name: transformation.takes(name, extra), extra)
    return transformation._step(grads, state, params, extra)
