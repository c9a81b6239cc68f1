"""A transformation is an instance of Optax's class too, and of nothing else that it was not."""

import collections.abc
import copy
import functools
import inspect
import pickle
import pprint
import subprocess
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.core.kinship import KinOfOptax

optax = pytest.importorskip("optax")

TRANSFORMATIONS = {
    "recipe": gradtx.adamw(1e-3),
    "leaf": gradtx.scale_by_adam(),
    "tree": gradtx.lookahead(gradtx.sgd(0.1), 5, 0.5),
    "chain": gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)),
    "masked": gradtx.masked(gradtx.scale(2.0), "w"),
    "pair": gradtx.GradientTransformation(lambda p: (), lambda g, s, p=None: (g, s)),
}
each = pytest.mark.parametrize("tx", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)


@each
def test_it_is_an_instance_of_both(tx: Any) -> None:
    for kind in (gradtx.GradientTransformation, type(tx)):
        assert isinstance(tx, kind)
        assert issubclass(tx.__class__, kind)
    assert isinstance(tx, optax.GradientTransformation)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    assert not isinstance(optax.sgd(0.1), gradtx.GradientTransformation)


@each
def test_it_is_no_tuple(tx: Any) -> None:
    """Optax's is one; code on trees, JAX's and others', takes tuples apart."""
    for kind in (tuple, collections.abc.Sequence, collections.abc.Sized, optax.EmptyState):
        assert not isinstance(tx, kind)
    assert not hasattr(tx, "_fields")
    assert not {"_fields", "_asdict", "count", "index"} & set(dir(tx))
    assert jax.tree.structure({"tx": tx}) == jax.tree.structure({"tx": tx.replace()})


@each
def test_its_class_reads_as_before(tx: Any) -> None:
    own, shown = type(tx), tx.__class__
    assert (shown.__name__, shown.__qualname__, shown.__module__, shown.__doc__) == (
        own.__name__,
        own.__qualname__,
        own.__module__,
        own.__doc__,
    )
    assert repr(shown) == repr(own)
    assert shown is tx.replace().__class__  # one for each class


def test_schedules_are_not() -> None:
    assert type(gradtx.linear_schedule(0.1, 0.0, 3)) is gradtx.linear_schedule(0.1, 0, 3).__class__


def test_what_goes_by_the_type_is_as_it_was() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-3, mask="w"))
    for again in (pickle.loads(pickle.dumps(tx)), copy.copy(tx), copy.deepcopy(tx)):
        assert type(again) is type(tx)
        assert again == tx
        assert hash(again) == hash(tx)
    assert jax.tree.unflatten(jax.tree.structure(tx), jax.tree.leaves(tx)) == tx
    assert pprint.pformat(tx) == repr(tx)
    assert inspect.getdoc(tx) == inspect.getdoc(type(tx))
    with pytest.raises(AttributeError, match="cannot be changed in place"):
        tx.__class__ = tuple


def test_copy_replace_replaces() -> None:
    """`copy.replace`, from Python 3.13, asks the class of an object for this; Optax's has one, of
    tuples."""
    tx = gradtx.sgd(0.1)
    assert tx.__class__.__replace__(tx, learning_rate=0.2) == gradtx.sgd(0.2)


def test_calling_its_class_makes_one_of_a_pair() -> None:
    tx = gradtx.sgd(0.1)
    assert tx.__class__(*tx) == tx
    assert tx.__class__(optax.sgd(0.1).init, optax.sgd(0.1).update).definition.name == (
        "GradientTransformation"
    )


def test_single_dispatch_goes_to_ours_first() -> None:
    @functools.singledispatch
    def which(x: Any) -> str:
        return "another"

    assert which(gradtx.sgd(0.1)) == "another"
    which.register(optax.GradientTransformation, lambda x: "optax")
    assert which(gradtx.sgd(0.1)) == "optax"
    which.register(gradtx.GradientTransformation, lambda x: "gradtx")
    assert which(gradtx.sgd(0.1)) == "gradtx"
    assert which(optax.sgd(0.1)) == "optax"


def test_patterns() -> None:
    def which(tx: Any) -> Any:
        match tx:
            case tuple():
                return "tuple"
            case gradtx.GradientTransformation(learning_rate=rate):
                return rate
            case optax.GradientTransformation(init=init, update=update):
                return init, update

    assert which(gradtx.sgd(0.1)) == 0.1
    assert which(scale := gradtx.scale(0.1)) == tuple(scale)
    assert which(optax.sgd(0.1)) == "tuple"


def test_mocks_of_one_are_instances_too() -> None:
    fake = mock.create_autospec(gradtx.sgd(0.1), instance=True)
    assert isinstance(fake, gradtx.GradientTransformation)


def test_optax_is_not_imported_for_it() -> None:
    """And where it is not, the class is its own; where it comes later, Optax's too."""
    code = """
import sys, gradtx
tx = gradtx.adamw(1e-3)
assert tx.__class__ is type(tx) and not isinstance(tx, tuple)
assert "optax" not in sys.modules
sys.modules["optax"] = type(sys)("optax")  # as while it is being imported
assert tx.__class__ is type(tx)
del sys.modules["optax"]
import optax
assert isinstance(tx, optax.GradientTransformationExtraArgs)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_step_does_not_ask_for_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `isinstance` that its type decides costs what it did."""
    asked = []
    modules = mock.Mock(get=lambda name: asked.append(name))
    monkeypatch.setattr("gradtx.core.kinship.sys", mock.Mock(modules=modules))
    tx, params = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-3)), jnp.ones(3)
    state = tx.init(params)
    tx.update(params, state, params)
    jax.jit(lambda tx: tx.update(params, state, params))(tx)
    assert asked == []
    assert tx.__class__ is type(tx)
    assert asked == ["optax"]
    assert issubclass(type(tx), KinOfOptax)
