"""The links in which PyTorch treats a complex number as two real ones.

Links that are not here, such as momentum and weight decay, are linear with real factors: for them
it makes no difference.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradtx.core.decorators import per_leaf
from gradtx.core.definition import Definition
from gradtx.core.dtypes import cast, cast_shape, is_inexact, number_dtype, real_dtype
from gradtx.core.hyperparameters import Decay, NonNegative
from gradtx.core.leaves import is_shape
from gradtx.core.per_leaf import LeafTransformation
from gradtx.core.rule import Rule, as_rule
from gradtx.core.transformation import GradientTransformation
from gradtx.torch.definitions import qualified
from gradtx.transforms import (
    adadelta,
    adam,
    adamax,
    nadam,
    radam,
    rprop,
    second_moment,
)

P = ParamSpec("P")


def in_two_reals(
    definition: Definition[P, GradientTransformation],
) -> Definition[P, GradientTransformation]:
    """The same rule, run separately on the real and the imaginary part of each complex array.

    The state of such an array is complex too: its real part is the state of the real part, its
    imaginary part that of the imaginary part, as in PyTorch. Real arrays are unaffected.
    """

    @functools.wraps(definition.function)
    def function(*args: P.args, **kwargs: P.kwargs) -> Rule:
        return _lifted(as_rule(definition.function(*args, **kwargs), name))

    name = definition.name
    function.__module__ = __name__  # for pickle
    first, _, others = inspect.cleandoc(definition.function.__doc__ or "").partition("\n\n")
    function.__doc__ = f"{first}\n\nA complex array is two real ones.\n\n{others}"
    return Definition(function, LeafTransformation, name=qualified(name))


def _lifted(rule: Rule) -> Rule:
    return replace(rule, init=rule.init and _on_parts(rule.init), update=_on_parts(rule.update))


def _on_parts(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule's init or update, run on the parts of its inputs if one of them is complex."""

    @functools.wraps(function)
    def run(**given: Any) -> Any:
        if not any(map(_is_complex, given.values())):
            return function(**given)
        real, imaginary = (function(**jax.tree.map(part, given)) for part in (_real, _imaginary))
        return jax.tree.map(_whole, real, imaginary)

    return run


def _is_complex(x: object) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.complexfloating)


def _real(x: Any) -> Any:
    if is_shape(x):
        return cast_shape(x, real_dtype(x.dtype))
    return lax.real(x) if _is_complex(x) else x


def _imaginary(x: Any) -> Any:
    return lax.imag(x) if _is_complex(x) and not is_shape(x) else _real(x)


def _whole(real: Any, imaginary: Any) -> Any:
    return lax.complex(real, imaginary) if is_inexact(real) else real


def averaged_steps(decay: float | Array, count: Array) -> tuple[Array, Array]:
    """rho and rho_inf by the paper's formula in float64, which loses half the digits, as in
    PyTorch; in float32 it would leave none, so `gradtx.scale_by_radam`'s is used."""
    if number_dtype(decay) != np.float64:
        return radam.averaged_steps(decay, count)
    power = jnp.power(decay, cast(count, np.float64))
    rho_inf = jnp.asarray(2 / (1 - decay) - 1)
    return rho_inf - 2 * count * power / (1 - power), rho_inf


@in_two_reals
@per_leaf
def scale_by_radam(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8, threshold: NonNegative = 5.0
) -> Rule:
    """Adam, but plain momentum while the second moment averages too few gradients.

    `gradtx.scale_by_radam` with PyTorch's rounding errors.
    """
    return radam.rectified_adam(b1, b2, eps, 0.0, threshold, False, "raw", averaged_steps)


scale_by_adadelta = in_two_reals(adadelta.scale_by_adadelta)
scale_by_adam = in_two_reals(adam.scale_by_adam)
scale_by_adamax = in_two_reals(adamax.scale_by_adamax)
scale_by_amsgrad = in_two_reals(adam.scale_by_amsgrad)
scale_by_nadam = in_two_reals(nadam.scale_by_nadam)
scale_by_rms = in_two_reals(second_moment.scale_by_rms)
scale_by_rprop = in_two_reals(rprop.scale_by_rprop)
scale_by_rss = in_two_reals(second_moment.scale_by_rss)
scale_by_stddev = in_two_reals(second_moment.scale_by_stddev)
