"""The three decorators that turn a function of hyperparameters into a definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gradtx.core.definition import Definition
from gradtx.core.hyperparameters import Number, Numbers
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.per_tree import TreeTransformation
from gradtx.core.recipe import Recipe
from gradtx.core.ruled import Ruled
from gradtx.core.transformation import GradientTransformation

P = ParamSpec("P")
T = TypeVar("T", bound=Ruled)


def per_leaf(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a transformation by the maths of one array.

    The decorated function takes hyperparameters (annotated `Decay`, `NonNegative`, ...: numbers,
    arrays or schedules) and static options, and returns a `Rule`, or only an update function when
    there is no state. See `Rule` for what init and update may ask for by name. Calling the
    definition makes a transformation.

    Args:
        function: the function of hyperparameters that returns the rule.

    Raises: TypeError at decoration if the rule asks for a name that is not an input, or if a
    hyperparameter has the name of an attribute of transformations, such as `init`.

    Example:
        >>> @gradtx.per_leaf
        ... def sign_of_mean(decay: gradtx.Decay = 0.9):
        ...     def update(grad, state):
        ...         mean = decay * state + (1 - decay) * grad
        ...         return jnp.sign(mean), mean
        ...     return gradtx.Rule(gradtx.zeros_like, update)
        >>> tx = gradtx.chain(sign_of_mean(decay=0.5), gradtx.scale(-0.1))
        >>> updates, state = tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))
        >>> updates
        Array([-0.1,  0.1], dtype=float32)

    See also: `per_tree`, `recipe`, `Rule`.
    """
    return _probed(Definition(function, LeafTransformation))


def per_tree(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a transformation by the maths of a whole tree.

    For what `per_leaf` cannot do: a norm of all leaves, or a wrapper around another transformation,
    whose rule asks for that transformation by name and receives an `Inner`. Otherwise it is like
    `per_leaf`.

    Args:
        function: the function of hyperparameters that returns the rule, or an update function.

    Raises: TypeError at decoration if the rule asks for a name that is not an input, or if a
    hyperparameter has the name of an attribute of transformations, such as `init`.

    Example:
        >>> @gradtx.per_tree
        ... def to_length(length: gradtx.Positive):
        ...     def update(updates):
        ...         return gradtx.tree.scale(length / gradtx.tree.norm(updates), updates)
        ...     return update
        >>> grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
        >>> updates, _ = to_length(10.0).update(grads, to_length(10.0).init(grads))
        >>> updates["a"], updates["b"]
        (Array([6.], dtype=float32), Array([8.], dtype=float32))

    See also: `per_leaf`, `recipe`, `Rule`, `Inner`.
    """
    return _probed(Definition(function, TreeTransformation))


def recipe(function: Callable[P, Any]) -> Definition[P, GradientTransformation]:
    """Define a named composition: a function that returns a chain and has no maths of its own.

    Unlike a plain function that returns a chain, it makes a transformation that prints, compares
    and is changed with `tx.replace` under its own name and arguments.

    Args:
        function: the function of hyperparameters that returns the chain, or any transformation.

    Raises: TypeError at decoration if a hyperparameter has the name of an attribute of
    transformations, such as `init`.

    Example:
        >>> @gradtx.recipe
        ... def clipped_sgd(learning_rate: gradtx.NonNegative, max_delta: gradtx.Positive = 1.0):
        ...     return gradtx.chain(gradtx.clip(max_delta), gradtx.sgd(learning_rate))
        >>> clipped_sgd(0.1).replace(max_delta=0.5)
        clipped_sgd(learning_rate=0.1, max_delta=0.5)

    See also: `per_leaf`, `per_tree`, `chain`.
    """
    definition = Definition(function, Recipe)
    definition.check_names()
    return definition  # type: ignore[return-value]


def _probed(definition: Definition[P, T]) -> Definition[P, GradientTransformation]:
    """Build one value with defaults and example numbers, so that wrong names fail at once."""
    if (definition.function.__module__ or "").startswith("gradtx."):
        return definition  # type: ignore[return-value]  # the tests probe these: it slows imports
    definition.check_names()
    arguments: dict[str, Any] = {}
    for name, parameter in definition.signature.parameters.items():
        kind = definition.parameters[name]
        if parameter.default is not parameter.empty:
            arguments[name] = parameter.default
        elif isinstance(kind, Number) and not isinstance(kind, Numbers):
            arguments[name] = kind.example
        else:
            return definition  # type: ignore[return-value]
    definition.value_class._of(definition, definition._convert(arguments))._check()
    return definition  # type: ignore[return-value]
