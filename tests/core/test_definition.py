"""A definition: a function whose calls are values. Its signature, and what it refuses."""

import copy
import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


@gradtx.per_leaf
def scale_and_shift(
    factor: gradtx.Positive, shift: gradtx.Real = 0.0, *, flip: bool = False
) -> Any:
    """u = factor * g + shift"""
    sign = -1 if flip else 1
    return lambda grad: sign * (factor * grad + shift)


def test_it_reads_like_the_function() -> None:
    assert scale_and_shift.__name__ == "scale_and_shift"
    assert scale_and_shift.__doc__.splitlines()[0] == "u = factor * g + shift"
    assert scale_and_shift.__module__ == __name__
    assert repr(scale_and_shift) == f"<scale_and_shift{inspect.signature(scale_and_shift)}>"


def test_its_signature_is_the_functions() -> None:
    signature = inspect.signature(gradtx.adamw)
    defaults = {name: p.default for name, p in signature.parameters.items()}
    assert defaults == {
        "learning_rate": inspect.Parameter.empty,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "eps_root": 0.0,
        "mu_dtype": None,
        "weight_decay": 1e-4,
        "mask": None,
        "nesterov": False,
        "nu_dtype": None,
        "independent_decay": False,
        "cautious_weight_decay": False,
    }
    assert signature.parameters["nesterov"].kind is inspect.Parameter.KEYWORD_ONLY
    assert (inspect.getdoc(gradtx.adamw) or "").startswith(
        "Take Adam's steps, and pull the parameters"
    )
    assert "return chain(" in inspect.getsource(gradtx.adamw)


def test_positions_and_names_are_the_same() -> None:
    tx = scale_and_shift(2.0, 1.0, flip=True)
    assert tx == scale_and_shift(flip=True, shift=1.0, factor=2.0)
    assert tx.update(jnp.float32(3.0), tx.init(0.0))[0] == -7.0
    assert repr(scale_and_shift(2.0)) == "scale_and_shift(factor=2.0, shift=0.0, flip=False)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scale_and_shift(), "missing a required argument: 'factor'"),
        (lambda: scale_and_shift(1.0, scale=2), "got an unexpected keyword argument 'scale'"),
        (lambda: scale_and_shift(1.0, 2.0, True), "too many positional arguments"),
        (lambda: scale_and_shift(1.0, factor=2.0), "multiple values for argument 'factor'"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == f"scale_and_shift: {message}; it takes factor, shift, flip"


def test_arguments_of_a_definition_that_takes_none() -> None:
    with pytest.raises(TypeError) as caught:
        gradtx.identity(1)
    assert str(caught.value) == "identity: too many positional arguments; it takes no arguments"


def test_a_static_argument_must_be_hashable() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "Unhashable()"

    with pytest.raises(TypeError) as caught:
        gradtx.masked(gradtx.clip(1.0), Unhashable())
    assert str(caught.value) == (
        "masked: mask is static and its parts must be hashable, got Unhashable()"
    )


@gradtx.per_leaf
def damped(k: float = 0.5, *, offset=0.0, power: float | None = None):  # type: ignore[no-untyped-def]
    """A rule whose author forgot to say which of its arguments are hyperparameters."""
    return lambda grad: grad * k + offset


@pytest.mark.parametrize("name", ["k", "offset", "power"])
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (gradtx.constant_schedule(1.0), "be a schedule, got constant_schedule(value=1.0)"),
        (abs, "be a schedule, got abs"),
        (jnp.ones(()), "hold an array, got 1.0"),
        (np.ones(2), "hold an array, got [1., 1.]"),
        ([np.ones(2)], "hold an array, got [[1., 1.]]"),
    ],
)
def test_a_static_number_says_how_it_becomes_a_hyperparameter(
    name: str, given: Any, problem: str
) -> None:
    with pytest.raises(TypeError) as caught:
        damped(**{name: given})
    assert str(caught.value) == (
        f"damped: {name} is static and cannot {problem}. Annotate it with a kind of number, such "
        "as gradtx.Real or gradtx.NonNegative, to make it a hyperparameter: those may be arrays "
        "and schedules"
    )


def test_the_advice_about_static_numbers_works() -> None:
    @gradtx.per_leaf
    def damped(k: gradtx.Real = 0.5):  # type: ignore[no-untyped-def]
        return lambda grad: grad * k

    for k in (gradtx.constant_schedule(3.0), lambda step: 3.0, jnp.full((), 3.0)):
        updates, _ = damped(k).update(jnp.ones(2), damped(k).init(jnp.ones(2)))
        assert updates.tolist() == [3.0, 3.0]


def test_a_static_argument_of_another_kind_may_be_a_function() -> None:
    @gradtx.per_leaf
    def mapped(function: Callable[[Any], Any] | float = 1.0, other=None):  # type: ignore[no-untyped-def]
        return lambda grad: function(grad)

    assert mapped(abs, other=abs).update(-jnp.ones(1), gradtx.EmptyState())[0].tolist() == [1.0]


def test_the_librarys_own_static_arguments_give_no_advice_to_authors() -> None:
    with pytest.raises(TypeError) as caught:
        gradtx.masked(gradtx.clip(1.0), [jnp.ones(2)])
    assert str(caught.value) == "masked: mask is static and cannot hold an array, got [[1., 1.]]"


def test_a_tree_of_hashable_leaves_may_be_static() -> None:
    mask = {"a": [True, (False,)], "b": {"c": True}}
    tx = gradtx.masked(gradtx.clip(1.0), mask)
    assert tx.mask == mask
    assert hash(tx) == hash(gradtx.masked(gradtx.clip(1.0), dict(mask)))
    assert jax.tree.leaves(tx) == [1.0]


def test_definitions_are_pickled_by_reference() -> None:
    assert pickle.loads(pickle.dumps(gradtx.adamw)) is gradtx.adamw
    assert pickle.loads(pickle.dumps(gradtx.linear_schedule)) is gradtx.linear_schedule
    assert copy.deepcopy(gradtx.adamw) is gradtx.adamw


COMPOSITES: dict[str, Any] = {
    "chain": (),
    "named_chain": (),
    "masked": ("inner", "mask", "mask_compatible_extra_args"),
    "partition": ("transforms", "param_labels", "mask_compatible_extra_args"),
    "maximize": ("inner",),
    "monitor": ("measures",),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_are_definitions_like_all_others(name: str) -> None:
    definition, takes = getattr(gradtx, name), ", ".join(COMPOSITES[name] or ["args"])
    assert pickle.loads(pickle.dumps(definition)) is definition
    assert repr(definition) == f"<{name}{inspect.signature(definition)}>"
    assert inspect.getsource(definition).startswith("@")
    with pytest.raises(TypeError, match=rf"^{name}: got an unexpected .*'x'; it takes {takes}$"):
        definition(**dict.fromkeys(COMPOSITES[name], 0), x=1)


def test_arguments_without_a_name_are_told_by_their_position() -> None:
    @gradtx.recipe
    def row(*links: gradtx.GradientTransformation) -> Any:
        return gradtx.chain(*links)

    assert repr(row(gradtx.clip(1.0))) == "row(links=(clip(max_delta=1.0),))"
    with pytest.raises(TypeError, match=r"^row: argument 2 must be a gradient transformation"):
        row(gradtx.clip(1.0), 3)


def test_transformations_in_a_container_are_taken_as_everywhere() -> None:
    @gradtx.recipe
    def parts(
        several: tuple[gradtx.GradientTransformation, ...],
        named: Mapping[str, gradtx.GradientTransformation],
    ) -> Any:
        return gradtx.chain(*several, *named.values())

    pair = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None: (u, s))
    tx = parts((gradtx.clip(1.0), pair), {"z": gradtx.clip(2.0), "a": gradtx.clip(3.0)})
    assert list(tx.named) == ["z", "a"]
    assert jax.tree.leaves(tx) == [1.0, 2.0, 3.0]
    assert list(jax.tree.map(lambda x: x, tx).named) == ["z", "a"]
    with pytest.raises(TypeError, match=r"^parts: several\[1\] must be a gradient transformation"):
        parts((gradtx.clip(1.0), 3), {})
    with pytest.raises(TypeError, match=r"^parts: named\['a'\] must be a gradient transformation"):
        parts((), {"a": 3})
    with pytest.raises(TypeError, match=r"^parts: named must be a dict by label, got 3"):
        parts((), 3)


def test_a_recipe_must_return_a_transformation() -> None:
    @gradtx.recipe
    def broken(learning_rate: gradtx.NonNegative) -> Any:
        return learning_rate

    with pytest.raises(TypeError) as caught:
        broken(0.1)
    assert str(caught.value) == (
        "broken must return a gradient transformation such as chain(...), got float"
    )


def test_a_recipe_takes_transformations_as_arguments() -> None:
    @gradtx.recipe
    def twice(inner: gradtx.GradientTransformation) -> Any:
        return gradtx.chain(inner, inner)

    tx = twice(gradtx.scale(3.0))
    assert repr(tx) == "twice(inner=scale(step_size=3.0))"
    assert tx.update(jnp.float32(1.0), tx.init(0.0))[0] == 9.0
    assert jax.tree.leaves(tx) == [3.0]
    assert tx.parts == (gradtx.scale(3.0),) * 2


def test_a_recipe_has_its_own_arguments_and_the_parts_of_its_chain() -> None:
    @gradtx.recipe
    def heavy(learning_rate: gradtx.NonNegative, momentum: gradtx.Fraction = 0.9) -> Any:
        return gradtx.chain(gradtx.trace(momentum), gradtx.scale_by_learning_rate(learning_rate))

    assert repr(heavy(0.1)) == "heavy(learning_rate=0.1, momentum=0.9)"
    assert heavy(0.1).parts == (gradtx.trace(0.9), gradtx.scale_by_learning_rate(0.1))


def test_a_schedule_is_a_definition_too() -> None:
    @gradtx.schedule
    def triangle(peak: gradtx.Positive, period: gradtx.PositiveSteps = 10) -> Any:
        """Up and down."""
        return lambda t: peak * (1 - jnp.abs(2 * (t % period) / period - 1))

    value = triangle(2.0)
    assert isinstance(value, gradtx.Schedule)
    assert repr(value) == "triangle(peak=2.0, period=10)"
    assert [float(value(step)) for step in (0, 5, 10, 15)] == [0.0, 2.0, 0.0, 2.0]
    assert value(3).dtype == jnp.float32
    assert jax.tree.leaves(value) == [2.0, 10]
    with pytest.raises(ValueError, match=r"triangle: period must be finite and > 0, got -0\.5"):
        triangle(2.0, -0.5)
    tx = gradtx.scale(value)
    state = tx.init(0.0)
    seen = []
    for _ in range(6):
        update, state = tx.update(jnp.float32(1.0), state)
        seen.append(float(update))
    assert seen[0] == 0.0
    assert seen[5] == 2.0


def test_a_schedule_sees_float64_under_x64() -> None:
    with jax.enable_x64(True):
        value = gradtx.polynomial_schedule(1.0, 0.0, 1, 3)(jnp.int32(1))
        assert value.dtype == jnp.float64
        assert abs(float(value) - 2 / 3) < 1e-15


RESERVED = ("init", "update", "rule", "parts", "place", "arguments", "definition", "replace")


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("decorator", [gradtx.per_leaf, gradtx.per_tree, gradtx.recipe])
def test_an_argument_that_an_attribute_would_hide_is_refused(decorator: Any, name: str) -> None:
    if (decorator, name) == (gradtx.recipe, "rule"):
        return  # a recipe has none
    function = eval(f"lambda {name}=1.0: lambda grad: grad")
    function.__name__ = "shadowed"
    with pytest.raises(TypeError, match=f"^shadowed: an argument cannot be called '{name}'"):
        decorator(function)


def test_an_argument_of_a_schedule_that_an_attribute_would_hide_is_refused() -> None:
    for name in ("clip", "shift", "replace", "definition"):
        function = eval(f"lambda {name}=1.0: lambda t: t")
        with pytest.raises(TypeError, match=f"an argument cannot be called '{name}'"):
            gradtx.schedule(function)


def test_names_that_are_nobodys_are_free() -> None:
    free = (
        "count",
        "inner",
        "step",
        "index",
        "value",
        "name",
        "shift",
        "clip",
        "asked",
        "momentum",
    )
    arguments = ", ".join(f"{name}=1.0" for name in free)
    for decorator in (gradtx.per_leaf, gradtx.per_tree):
        tx = decorator(eval(f"lambda {arguments}: lambda updates=0, grad=0: grad"))
        assert [getattr(tx(), name) for name in free] == [1.0] * len(free)


def test_annotations_may_be_strings() -> None:
    def function(rate, kind="plain"):  # type: ignore[no-untyped-def]
        return lambda grad: rate * grad

    function.__annotations__ = {"rate": "gradtx.Decay", "kind": "str"}
    definition = gradtx.per_leaf(function)
    assert jax.tree.leaves(definition(0.5)) == [0.5]
    with pytest.raises(ValueError, match=r"function: rate must be in \[0, 1\), got 2"):
        definition(2)


def test_an_attribute_error_in_a_definition_is_its_own() -> None:
    @gradtx.recipe
    def misspelt(rate: gradtx.NonNegative) -> Any:
        return gradtx.chain(gradtx.sdg(rate))

    @gradtx.per_leaf
    def misspelt_maths(rate: gradtx.NonNegative) -> Any:
        return lambda grad: jnp.typo(rate)

    with pytest.raises(AttributeError, match="gradtx has no 'sdg'"):
        misspelt(0.1)
    tx = misspelt_maths(0.1)
    with pytest.raises(AttributeError, match=r"'jax\.numpy' has no attribute 'typo'"):
        tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}))


def test_a_recipe_may_leave_the_description_of_arguments_to_a_part() -> None:
    assert "as in `scale_by_shampoo`" not in gradtx.shampoo.__doc__
    for name in ("grafting", "kl", "max_preconditioner_dim"):
        of_part = gradtx.scale_by_shampoo.__doc__.split(f"    {name} (")[1].split("\n    ")[1]
        assert of_part in gradtx.shampoo.__doc__
    # What the recipe says itself comes first.
    assert "vocabulary" in gradtx.soap.__doc__
    assert "vocabulary" not in gradtx.scale_by_soap.__doc__
