"""Configurations: what is written and read, what is refused and where, and that no code runs."""

# ruff: noqa: E501  (tables of data)

import builtins
import enum
import gc
import json
import math
import pickle
import types
from collections import OrderedDict
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import ConfigError, from_config, matching, parse
from gradtx import torch as gt
from gradtx.core.known import Names
from gradtx.interop.public import public_names

COSINE = {"cosine_decay_schedule": {"init_value": 0.001, "decay_steps": 100}}

# Value by value, what it is written as.
WRITTEN: dict[str, tuple[Any, Any]] = {
    "defaults are left out": (
        lambda: gradtx.adamw(1e-3, 0.9, weight_decay=0.1),
        {"adamw": {"learning_rate": 0.001, "weight_decay": 0.1}},
    ),
    "no arguments": (gradtx.kahan, {"kahan": {}}),
    "parts": (
        lambda: gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.1)),
        {"chain": [{"clip": {"max_delta": 1.0}}, {"scale": {"step_size": -0.1}}]},
    ),
    "no parts": (gradtx.chain, {"chain": []}),
    "named parts": (
        lambda: gradtx.named_chain(("b", gradtx.clip(1.0)), ("a", gradtx.trace(0.9))),
        {"named_chain": [["b", {"clip": {"max_delta": 1.0}}], ["a", {"trace": {"decay": 0.9}}]]},
    ),
    "a schedule": (
        lambda: gradtx.sgd(gradtx.cosine_decay_schedule(1e-3, 100)),
        {"sgd": {"learning_rate": COSINE}},
    ),
    "arithmetic": (
        lambda: 1 - gradtx.cosine_decay_schedule(1e-3, 100).clip(high=0.5),
        {
            "Schedule.minus": {
                "left": 1,
                "right": {"Schedule.clip": {"schedule": COSINE, "high": 0.5}},
            }
        },
    ),
    "a pattern": (
        lambda: gradtx.masked(gradtx.kahan(), matching("a")),
        {"masked": {"inner": {"kahan": {}}, "mask": {"matching": "a"}}},
    ),
    "all others": (lambda: gradtx.freeze(~matching("a")), {"freeze": {"mask": {"~matching": "a"}}}),
    "a tree": (
        lambda: gradtx.freeze({"a": True, "b": [False, None]}),
        {"freeze": {"mask": {"a": True, "b": [False, None]}}},
    ),
    "a tree of one key": (
        lambda: gradtx.freeze({"scale": True}),
        {"freeze": {"mask": {"dict": {"scale": True}}}},
    ),
    "a tree with Hydra's key": (
        lambda: gradtx.freeze({"_target_": True, "b": True}),
        {"freeze": {"mask": {"dict": {"_target_": True, "b": True}}}},
    ),
    "a tree with tuples": (
        lambda: gradtx.freeze((True, (False,), ())),
        {"freeze": {"mask": {"tuple": [True, {"tuple": [False]}, {"tuple": []}]}}},
    ),
    "an empty tree": (lambda: gradtx.freeze({}), {"freeze": {"mask": {}}}),
    "labels in order": (
        lambda: gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.freeze()}),
        {"partition": {"transforms": {"a": {"sgd": {"learning_rate": 0.1}}, "b": {"freeze": {}}}}},
    ),
    "labels that sorting would move": (
        lambda: gradtx.partition({"b": gradtx.sgd(0.1), ".*": gradtx.freeze()}),
        {
            "partition": {
                "transforms": [["b", {"sgd": {"learning_rate": 0.1}}], [".*", {"freeze": {}}]]
            }
        },
    ),
    "labels that are numbers": (
        lambda: gradtx.partition({1: gradtx.kahan()}, 1),
        {"partition": {"transforms": [[1, {"kahan": {}}]], "param_labels": 1}},
    ),
    "a label like a word": (
        lambda: gradtx.partition({"dict": gradtx.kahan()}),
        {"partition": {"transforms": {"dict": {"kahan": {}}}}},
    ),
    "formats in order": (
        lambda: gradtx.store(gradtx.kahan(), {"nu/w": "bfloat16", "": "int8"}),
        {"store": {"inner": {"kahan": {}}, "format": [["nu/w", "bfloat16"], ["", "int8"]]}},
    ),
    "one format": (
        lambda: gradtx.store(gradtx.kahan(), {"nu": "int8"}),
        {"store": {"inner": {"kahan": {}}, "format": {"nu": "int8"}}},
    ),
    "boundaries": (
        lambda: gradtx.piecewise_constant_schedule(0.5, {4: 0.5, 8: 0.1}),
        {
            "piecewise_constant_schedule": {
                "init_value": 0.5,
                "boundaries_and_scales": {"dict": [[4, 0.5], [8, 0.1]]},
            }
        },
    ),
    "a dtype": (
        lambda: gradtx.adam(1, mu_dtype=jnp.bfloat16),
        {"adam": {"learning_rate": 1, "mu_dtype": "bfloat16"}},
    ),
    "PyTorch's": (
        lambda: gt.adam(0.1, betas=[0.9, 0.95]),
        {"torch.adam": {"lr": 0.1, "betas": [0.9, 0.95]}},
    ),
    "an array": (
        lambda: gradtx.scale(np.arange(2.0)),
        {"scale": {"step_size": {"array": {"data": [0.0, 1.0], "dtype": "float64"}}}},
    ),
    "an array of one number": (
        lambda: gradtx.scale(jnp.float32(0.5)),
        {"scale": {"step_size": {"array": {"data": 0.5, "dtype": "float32"}}}},
    ),
    "a narrow array": (
        lambda: gradtx.scale(jnp.array([[0.5, 2.0]], jnp.bfloat16)),
        {"scale": {"step_size": {"array": {"data": [[0.5, 2.0]], "dtype": "bfloat16"}}}},
    ),
    "a key": (
        lambda: gradtx.add_noise(0.1, 0.55, jax.random.key(3)),
        {
            "add_noise": {
                "eta": 0.1,
                "gamma": 0.55,
                "key": {"array": {"data": [0, 3], "dtype": "uint32"}},
            }
        },
    ),
    "gradtx's functions": (
        lambda: gradtx.multi_steps(gradtx.kahan(), 2, True, gradtx.skip_not_finite),
        {
            "multi_steps": {
                "opt": {"kahan": {}},
                "every_k_schedule": 2,
                "should_skip_update_fn": {"function": "skip_not_finite"},
            }
        },
    ),
    "a norm": (
        lambda: gradtx.monitor({"norm": gradtx.global_norm}),
        {"monitor": {"measures": {"norm": {"function": "global_norm"}}}},
    ),
    "a pattern that is a word": (
        lambda: gradtx.store(gradtx.kahan(), {"tuple": "int8"}),
        {"store": {"inner": {"kahan": {}}, "format": [["tuple", "int8"]]}},
    ),
    "a pattern that is a public name": (
        lambda: gradtx.store(gradtx.kahan(), {"MuonDimensionNumbers": "int8"}),
        {"store": {"inner": {"kahan": {}}, "format": [["MuonDimensionNumbers", "int8"]]}},
    ),
    "a list of widths": (
        lambda: gradtx.scale_by_muon(split_outputs=[64, 32, 32]),
        {"scale_by_muon": {"split_outputs": [64, 32, 32]}},
    ),
    "a list of axes": (
        lambda: gradtx.scale_by_muon(
            weight_dimension_numbers=[gradtx.MuonDimensionNumbers(0, 1), None]
        ),
        {
            "scale_by_muon": {
                "weight_dimension_numbers": [
                    {"MuonDimensionNumbers": {"reduction_axis": 0, "output_axis": 1}},
                    None,
                ]
            }
        },
    ),
    "axes by pattern": (
        lambda: gradtx.scale_by_muon(
            weight_dimension_numbers={"qkv": gradtx.MuonDimensionNumbers(0, 1)}
        ),
        {
            "scale_by_muon": {
                "weight_dimension_numbers": {
                    "qkv": {"MuonDimensionNumbers": {"reduction_axis": 0, "output_axis": 1}}
                }
            }
        },
    ),
    "a tree of axes with one name": (
        lambda: gradtx.scale_by_muon(weight_dimension_numbers={"w": None}),
        {"scale_by_muon": {"weight_dimension_numbers": {"w": None}}},
    ),
    "axes": (
        lambda: gradtx.scale_by_muon(
            weight_dimension_numbers=gradtx.MuonDimensionNumbers((0,), (1,))
        ),
        {
            "scale_by_muon": {
                "weight_dimension_numbers": {
                    "MuonDimensionNumbers": {
                        "reduction_axis": {"tuple": [0]},
                        "output_axis": {"tuple": [1]},
                    }
                }
            }
        },
    ),
}


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data, sort_keys=True, allow_nan=False))


@pytest.mark.parametrize("about", WRITTEN)
def test_what_is_written_and_read_back(about: str) -> None:
    make, data = WRITTEN[about]
    assert make().to_config() == data
    again = from_config(through_json(data))
    assert again == make()
    assert hash(again) == hash(make())


@gradtx.recipe
def of_anything(x: Any = None) -> Any:
    return gradtx.identity()


@pytest.mark.parametrize(
    "x",
    [
        *(
            math.inf,
            -math.inf,
            1j,
            complex(math.inf, -0.0),
            np.dtype("int8"),
            np.float32(0.1),
            2**70,
        ),
        *(
            "adamw(1e-3)",
            "",
            "~",
            "inf",
            "\u2028",
            True,
            (1, [2, (3,)]),
            {"a": {"b": {}}},
            {1: 2, 3: 4},
        ),
        *({(1, 2): "x"}, {None: 1}, matching("a"), -0.0, np.bool_(True), {"x": 1j}, gradtx.adamw),
        *(gradtx.constant_schedule(1.0), (gradtx.clip(1.0), {"deep": gradtx.kahan()})),
    ],
    ids=repr,
)
def test_an_argument_without_a_kind_may_be_any_data(x: Any) -> None:
    value = of_anything(x)
    again = from_config(through_json(value.to_config()))
    assert again == value
    assert type(again.x) is type(value.x) or isinstance(x, np.generic)


def test_a_dict_of_keys_in_tuples_is_written_in_pairs() -> None:
    assert of_anything({(1, 2): 3}).to_config() == {
        "of_anything": {"x": {"dict": [[{"tuple": [1, 2]}, 3]]}}
    }


def test_defaults_on_request() -> None:
    data = gradtx.adopt(0.1).to_config(defaults=True)
    assert data["adopt"]["b2"] == 0.9999
    assert data["adopt"]["clip_value_fn"] == {"function": "fourth_root"}
    assert from_config(data) == gradtx.adopt(0.1)


# By hand, what is read as what.
READ: dict[str, tuple[Any, Any]] = {
    "a repr": ("adamw(1e-3)", lambda: gradtx.adamw(1e-3)),
    "a repr in a list": ({"chain": ["clip(1.0)", {"sgd": 1}]}, lambda: gradtx.chain(gradtx.clip(1.0), gradtx.sgd(1))),
    "arithmetic": (
        {"sgd": {"learning_rate": "0.5 * linear_schedule(1, 0, 10)"}},
        lambda: gradtx.sgd(0.5 * gradtx.linear_schedule(1, 0, 10)),
    ),
    "YAML's 1e-3, which is a string": (
        {"torch.adam": {"lr": "1e-3", "betas": ["0.9", 0.95]}},
        lambda: gt.adam(1e-3, betas=(0.9, 0.95)),
    ),
    "arguments by position": ({"adam": [0.1, 0.8]}, lambda: gradtx.adam(0.1, 0.8)),
    "one argument": ({"clip": 0.5}, lambda: gradtx.clip(0.5)),
    "None": ({"kahan": None}, gradtx.kahan),
    "gradtx in front": ({"gradtx.torch.sgd": {"lr": 0.1}}, lambda: gt.sgd(0.1)),
    "parts by name": ({"chain": {"args": [{"kahan": {}}]}}, lambda: gradtx.chain(gradtx.kahan())),
    "a tuple": ({"chain": ({"kahan": {}},)}, lambda: gradtx.chain(gradtx.kahan())),
    "a mask of one key": (
        {"freeze": {"mask": {"enc": [{"scale": True}, {"dict": {"w": False}}]}}},
        lambda: gradtx.freeze({"enc": [{"scale": True}, {"w": False}]}),
    ),
    "one group": (
        {"partition": {"transforms": {".*": {"sgd": {"learning_rate": 0.1}}}}},
        lambda: gradtx.partition({".*": gradtx.sgd(0.1)}),
    ),
    "Hydra": (
        {
            "_target_": "gradtx.chain",
            "_recursive_": True,
            "_args_": [
                {"_target_": "gradtx.clip", "max_delta": 1.0},
                {"_target_": "gradtx.adamw", "learning_rate": {"_target_": "gradtx.constant_schedule", "value": 0.1}},
            ],
        },
        lambda: gradtx.chain(gradtx.clip(1.0), gradtx.adamw(gradtx.constant_schedule(0.1))),
    ),
    "keys that are numbers": (
        {"piecewise_constant_schedule": {"init_value": 1, "boundaries_and_scales": {4: 0.5}}},
        lambda: gradtx.piecewise_constant_schedule(1, {4: 0.5}),
    ),
    "a function": ({"sgdr_schedule": [[{"dict": [["init_value", 0.0], ["peak_value", 1], ["warmup_steps", 1], ["decay_steps", 5]]}]]},
        lambda: gradtx.sgdr_schedule([{"init_value": 0.0, "peak_value": 1, "warmup_steps": 1, "decay_steps": 5}])),
    "subclasses": (
        OrderedDict(adam=OrderedDict(learning_rate=np.float64(0.1), b1=np.float32(0.5), nesterov=np.True_)),
        lambda: gradtx.adam(0.1, 0.5, nesterov=True),
    ),
    "an enumeration": ({"adam": {"learning_rate": enum.IntEnum("E", {"a": 2}).a}}, lambda: gradtx.adam(2)),
}  # fmt: skip


@pytest.mark.parametrize("about", READ)
def test_what_is_written_by_hand(about: str) -> None:
    data, make = READ[about]
    assert from_config(data) == make()


# The data, where it is wrong, and what is said.
REFUSED: list[tuple[Any, str, str]] = [
    ({"chain": [{"clip": 1.0}, {"adamw": {"learning_rate": 1, "b2": 1.5}}]}, "chain[1].adamw.b2", "must be in [0, 1), got 1.5"),
    ({"chain": [{"clip": 1.0}, {"adamm": {}}]}, "chain[1]", "unknown name adamm: did you mean adam, "),
    ({"adamw": {"learning_rate": 1, "wd": 0.1}}, "adamw.wd", "adamw has no argument wd: adamw takes learning_rate, b1"),
    ({"adamw": {"learning_rate": 1, "weight_deca": 0.1}}, "adamw.weight_deca", "did you mean weight_decay"),
    ({"chain": {"clip": 1.0}}, "chain.clip", "chain takes a list, {chain: [...]}"),
    ([{"clip": 1.0}, {"sgd": 0.1}], "", "several in sequence as {chain: [...]}"),
    ({"freeze": "("}, "freeze[0]", "must be a regular expression, got '(': missing )"),
    ({"layerwise_lr_decay": {"decay": 1.0, "by": {"kernel": 1}}}, "layerwise_lr_decay.by", "unknown name kernel: a dict of one key that is no construction is written {dict: {key: value}}. For a construction, did you mean kron?"),
    ({"adamw": {}}, "adamw", "missing a required argument: 'learning_rate'; it takes"),
    ({"adamw": "abc"}, "adamw[0]", "unknown name abc"),
    ({"adamw": {"learning_rate": None}}, "adamw.learning_rate", "must be finite and >= 0, got None"),
    ({"adamw": {"learning_rate": "???"}}, "adamw.learning_rate", "is missing"),
    ({"adamw": {"learning_rate": "lambda t: 1"}}, "adamw.learning_rate", "not part of how constructions are written"),
    ({"adamw": {"learning_rate": [0.1, 0.2]}}, "adamw.learning_rate", "must be a number"),
    ({"adamw": {"learning_rate": 10**400}}, "adamw.learning_rate", "too large"),
    ({"adamw": [1, 2, 3, 4]}, "adamw[1]", "must be in [0, 1), got 2"),
    ({"kahan": [1]}, "kahan[0]", "kahan takes 0 by position"),
    ({"_target_": "gradtx.clip", "_args_": [1.0], "max_delta": 2.0}, "max_delta", "is given twice"),
    ({"_target_": "gradtx.clip", "_partial_": True}, "_partial_", "is not read"),
    ({"_target_": 3}, "_target_", "must be a name"),
    ({"_target_": "os.system", "_args_": ["true"]}, "", "unknown name os.system"),
    ({"chain": ["clip(1.0)", 3]}, "chain[1]", "must be a gradient transformation, got 3"),
    ({"chain": 3}, "chain[0]", "must be a gradient transformation, got 3"),
    ({"chain": {"args": 3}}, "chain.args", "must be a list"),
    ({"adamw": None, "learning_rate": 0.1}, "", "a construction is a dict of one key"),
    ({"masked": {"inner": {"sgd": 1}, "mask": {"matching": "("}}}, "masked.mask.matching", "'(' is not a valid regular expression"),
    ({"masked": {"inner": {"sgd": 1}, "mask": {"matching": 3}}}, "masked.mask.matching", "must be a pattern"),
    ({"partition": {"transforms": {"a b": {"sgd": -1}}}}, "partition.transforms['a b'].sgd[0]", "must be finite"),
    ({"partition": {"transforms": [["a", "sgd(1)"], ["a", "sgd(1)"]]}}, "partition.transforms[1]", "is given twice"),
    ({"partition": {"transforms": [["a"]]}}, "partition.transforms[0]", "must be a pair"),
    ({"freeze": {"mask": {"dict": 3}}}, "freeze.mask.dict", "must be a dict or a list of pairs"),
    ({"freeze": {"mask": {"dict": [[[], 1]]}}}, "freeze.mask.dict[0]", "a key cannot be a list"),
    ({"freeze": {"mask": {"tuple": 3}}}, "freeze.mask.tuple", "must be a list"),
    ({"freeze": {"mask": {"float": 3}}}, "freeze.mask.float", "must be 'inf'"),
    ({"freeze": {"mask": {"complex": [1]}}}, "freeze.mask.complex", "must be two numbers"),
    ({"freeze": {"mask": {"dtype": "object"}}}, "freeze.mask.dtype", "unknown name object"),
    ({"freeze": {"mask": {"function": "eval"}}}, "freeze.mask.function", "must be one of fourth_root, "),
    ({"freeze": {"mask": {"definition": "eval"}}}, "freeze.mask.definition", "unknown name eval"),
    ({"scale": {"array": [1.0]}}, "scale.array", "has no argument array"),
    ({"scale": [{"array": {"data": [[1], [1, 2]], "dtype": "float32"}}]}, "scale[0].array.data", "inhomogeneous"),
    ({"scale": [{"array": {"data": ["a"], "dtype": "float32"}}]}, "scale[0].array.data", "must be real numbers"),
    ({"scale": [{"array": {"data": [1]}}]}, "scale[0].array", "must be a dict of data and dtype"),
    ({"adam": {"learning_rate": 1, "mu_dtype": "bfloat17"}}, "adam.mu_dtype", "must be a dtype"),
    ({"multi_transform": {"transforms": {}, "what": 1}}, "multi_transform.what", "has no argument"),
    ("adamm(1)", "", "unknown name adamm"),
    ({"matching": "a"}, "", "this is matching('a'), not a transformation or a schedule"),
    (3, "", "this is 3, not a transformation"),
    (None, "", "this is None, not a transformation"),
    ([], "", "this is a list of 0, not a transformation"),
    ({}, "", "this is a dict of 0, not a transformation"),
    (object(), "", "a object is no plain data"),
    (gradtx.adam(1), "", "is no plain data"),
    ({"clip": {"max_delta": {1, 2}}}, "clip.max_delta", "a set is no plain data"),
    ({"clip": {"max_delta": b"1"}}, "clip.max_delta", "a bytes is no plain data"),
    ({"clip": types.MappingProxyType({})}, "clip", "a mappingproxy is no plain data"),
    ({"clip": np.ones(2)}, "clip", "a ndarray is no plain data"),
    ({"clip": {(1, 2): 3}}, "clip", "a key cannot be a list"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "path", "problem"), REFUSED, ids=[f"{path} {problem}" for _, path, problem in REFUSED]
)
def test_a_refusal_says_where(data: Any, path: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_config(data)
    error = raised.value
    assert error.path == path
    assert problem in error.problem
    assert str(error) == (f"{path}: {error.problem}" if path else error.problem)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_kind_can_be_asked_for() -> None:
    assert from_config("sgd(0.1)", gradtx.GradientTransformation) == gradtx.sgd(0.1)
    assert from_config(COSINE, gradtx.Schedule) == gradtx.cosine_decay_schedule(1e-3, 100)
    with pytest.raises(ConfigError, match="this is a transformation, not a schedule"):
        from_config("sgd(0.1)", gradtx.Schedule)


def a_function(step: Any) -> Any:
    return step


# What cannot be written, where, and what to do.
UNWRITABLE: list[tuple[Any, str, str]] = [
    (lambda: gradtx.chain(gradtx.kahan(), gradtx.adam(a_function)), "chain[1].adam.learning_rate", "a_function is no data: define the schedule with @gradtx.schedule"),
    (lambda: gradtx.adamw(1, mask=a_function), "adamw.mask", "write the mask as a path pattern"),
    (lambda: gradtx.chain(gradtx.stateless(a_function)), "chain[0]", "@gradtx.per_leaf"),
    (lambda: gradtx.GradientTransformation(a_function, a_function), "", "@gradtx.per_leaf"),
    (lambda: gradtx.partition({"a": gradtx.kahan()}, a_function), "partition.param_labels", "write what it returns"),
    (lambda: gradtx.freeze(OrderedDict(a=True)), "freeze.mask", "a OrderedDict cannot be written"),
    (lambda: gradtx.scale(np.ones(1001)), "scale.step_size", "an array of 1,001 numbers"),
    (lambda: of_anything(b"a"), "of_anything.x", "a bytes cannot be written"),
    (lambda: of_anything("???"), "of_anything.x", "stands for a missing value"),
    (lambda: of_anything(np.dtype([("a", "i4")])), "of_anything.x", "a dtype that has no name"),
    (lambda: of_anything(gradtx.Place.LAST), "of_anything.x", "a Place cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "path", "problem"),
    UNWRITABLE,
    ids=[f"{path} {problem}" for _, path, problem in UNWRITABLE],
)
def test_what_cannot_be_written_says_where(make: Any, path: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make().to_config()
    assert raised.value.path == path
    assert problem in raised.value.problem


def test_numbers_that_are_traced_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"scale\.step_size: the numbers are being traced"):
        jax.jit(lambda x: gradtx.scale(x).to_config())(1.0)


def test_depth_and_size_are_bounded() -> None:
    deep: Any = "kahan()"
    for _ in range(5000):
        deep = {"chain": [deep]}
    endless: dict[str, Any] = {}
    endless["chain"] = [endless]
    wide: Any = [True] * 10
    for _ in range(20):
        wide = [wide] * 10
    for data in (deep, endless):
        with pytest.raises(ConfigError, match="nested too deeply"):
            from_config(data)
    with pytest.raises(ConfigError, match="more than 100,000 entries"):
        from_config({"freeze": {"mask": wide}})
    value = gradtx.constant_schedule(1.0)
    for _ in range(500):
        value = -value
    with pytest.raises(ConfigError, match="nested too deeply"):
        value.to_config()


# -- definitions of users --------------------------------------------------------------------------


@gradtx.per_leaf
def half_of_it(factor: gradtx.Real = 0.5) -> Any:
    return lambda grad: factor * grad


@gradtx.schedule
def sawtooth_of_mine(top: gradtx.NonNegative) -> Any:
    return lambda step: top * (step % 2)


HERE = __name__


def defined(name: str, module: str) -> Any:
    """A definition of this name, as if it stood at the top of the module."""

    def function(x: gradtx.Real = 1.0) -> Any:
        return lambda grad: x * grad

    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    return gradtx.per_leaf(function)


def test_a_decorated_definition_is_known() -> None:
    for value in (half_of_it(0.25), gradtx.chain(half_of_it(sawtooth_of_mine(2.0)))):
        data = value.to_config()
        assert from_config(data) == value
        assert parse(repr(value)) == value
    assert half_of_it(0.25).to_config() == {"half_of_it": {"factor": 0.25}}
    assert from_config({f"{HERE}.half_of_it": {}}) == half_of_it()
    assert from_config({"_target_": f"{HERE}.half_of_it"}) == half_of_it()
    assert parse(f"{HERE}.half_of_it(0.1)") == half_of_it(0.1)
    with pytest.raises(ConfigError, match="did you mean half_of_it"):
        from_config({"half_of_i": {}})
    assert from_config({"__main__.half_of_it": {}}) == half_of_it()  # written by a script


def test_two_of_one_name_are_told_apart_by_their_modules() -> None:
    one, two = defined("twice_there", "a.b"), defined("twice_there", "c")
    for data in ("twice_there()", {"twice_there": {}}):
        with pytest.raises(ConfigError, match=r"write a\.b\.twice_there or c\.twice_there"):
            from_config(data)
    with pytest.raises(gradtx.ParseError, match=r"write a\.b\.twice_there or c\.twice_there"):
        parse("twice_there()")
    assert one(2.0).to_config() == {"a.b.twice_there": {"x": 2.0}}
    for made in (one(2.0), two(2.0)):
        assert from_config(made.to_config()) == made
    del one, made
    gc.collect()
    assert from_config({"twice_there": {}}) == two()


def test_defined_again_it_replaces_the_earlier() -> None:
    old = defined("again_and_again", "notebook")
    new = defined("again_and_again", "notebook")
    assert from_config({"again_and_again": {}}) == new() != old()
    assert new().to_config() == {"again_and_again": {}}
    with pytest.raises(ConfigError, match="cannot be found by its name: it was defined again"):
        old().to_config()


def test_gradtx_keeps_its_names() -> None:
    mine, word = defined("adam", "my.code"), defined("tuple", "my.code")
    assert from_config({"adam": [0.1]}) == gradtx.adam(0.1)
    assert parse("adam(0.1)") == gradtx.adam(0.1)
    for definition, name in ((mine, "my.code.adam"), (word, "my.code.tuple")):
        assert definition().to_config() == {name: {}}
        assert from_config({name: {}}) == definition()


def test_a_definition_inside_a_function_is_known_while_it_is_held() -> None:
    @gradtx.recipe
    def _local(rate: gradtx.NonNegative) -> Any:
        return gradtx.sgd(rate)

    assert from_config(_local(0.1).to_config()) == _local(0.1)
    names = Names({})
    assert "_local" in list(names)
    assert len(names) == len(list(names))
    del _local
    gc.collect()
    assert "_local" not in list(names)
    with pytest.raises(ConfigError, match="unknown name _local"):
        from_config({"_local": {}})


def test_reading_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    public_names()
    monkeypatch.setattr(builtins, "__import__", None)
    with pytest.raises(ConfigError, match="those that were imported are known"):
        from_config({"antigravity.zzz_unlike_all_names": {}})


# -- OmegaConf -------------------------------------------------------------------------------------


def test_containers_of_omegaconf_are_taken() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    whole = omegaconf.OmegaConf.create(
        {
            "rate": 0.1,
            "tx": {"chain": [{"clip": 1.0}, {"adam": {"learning_rate": "${rate}", "b1": "???"}}]},
            "bad": {"adam": {"learning_rate": "${nowhere}"}},
        }
    )
    with pytest.raises(ConfigError, match=r"chain\[1\].adam.b1: is missing"):
        from_config(whole.tx)
    whole.tx.chain[1].adam.b1 = 0.8
    expected = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1, 0.8))
    assert from_config(whole.tx) == expected
    assert from_config({"chain": whole.tx.chain}) == expected
    with pytest.raises(ConfigError, match=r"nowhere") as raised:
        from_config(whole.bad)
    assert "adam.learning_rate" in raised.value.path
    yaml = omegaconf.OmegaConf.to_yaml(omegaconf.OmegaConf.create(expected.to_config()))
    assert from_config(omegaconf.OmegaConf.create(yaml)) == expected


# -- whatever the data is --------------------------------------------------------------------------


class Trap(BaseException):
    """Code of the data was run."""


def _sprung(*args: Any, **kwargs: Any) -> Any:
    raise Trap


def _hostile(base: type = object, **more: Any) -> Any:
    """A class whose every method is a trap."""
    names = "iter len getitem eq hash contains bool int float index str repr call get array next"
    names += " reduce format add neg"
    methods = {f"__{name}__": _sprung for name in names.split()} | {"__getattr__": _sprung}
    methods |= {"__class__": property(_sprung), "items": _sprung, "keys": _sprung}
    methods |= {"init": _sprung, "update": _sprung, "dtype": property(_sprung)} | more
    return type("Hostile", (base,), methods)


_HOSTILE = [
    _hostile()(),
    _hostile(dict)(adam={"learning_rate": 0.1}),
    _hostile(list)([1, 2]),
    _hostile(str)("adam(1)"),
    _hostile(int)(3),
    _hostile(float)(0.5),
    _hostile(tuple)((1,)),
    type("Meta", (type,), {"__instancecheck__": _sprung})("Class", (), {}),
    type("Omega", (), {"__module__": "omegaconf", "__getattr__": _sprung})(),
]

_NAMES = st.one_of(
    st.sampled_from([*public_names(), "half_of_it", "_target_", "_args_", "Schedule.plus"]),
    st.sampled_from(["__import__('os')", "__import__", "eval", "os.system", "__class__", "print"]),
    st.sampled_from(["tuple", "dict", "float", "array", "matching", "~matching", "definition"]),
    st.sampled_from(
        ["learning_rate", "b1", "inner", "mask", "args", "transforms", "data", "dtype"]
    ),
    st.text(max_size=6),
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(4000, 5000).map(lambda n: 10**n),
    st.floats(),
    _NAMES,
    st.sampled_from(["???", "sgd(0.1)", "print()", "1e-3", "a" * 9000, "(" * 300, "\ud800", "\0"]),
    st.sampled_from(
        [b"", {1}, 1j, ..., int, print, np.ones(2), np.float32(1), np.datetime64("NaT")]
    ),
    st.integers(0, len(_HOSTILE) - 1).map(lambda i: _HOSTILE[i]),
)
_KEYS = st.one_of(
    _NAMES, st.none(), st.integers(), st.floats(), st.booleans(), st.tuples(st.text(max_size=2))
)


def _one(inner: Any) -> Any:
    return st.builds(lambda k, x: {k: x}, _NAMES, inner)


_DATA = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        _one(inner),
        _one(st.dictionaries(_NAMES, inner, max_size=3)),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(_KEYS, inner, max_size=3),
    ),
    max_leaves=12,
)


def _tried(data: Any) -> None:
    with pytest.MonkeyPatch.context() as patched:
        for name in ("print", "input", "breakpoint"):
            patched.setattr(builtins, name, _sprung)
        made = error = None
        try:
            made = from_config(data)
        except ConfigError as raised:
            error = raised
    if error is None:
        assert isinstance(made, gradtx.GradientTransformation | gradtx.Schedule)
        assert repr(made)
    else:
        assert error.problem
        assert len(str(error)) < 900


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(_DATA)
def test_no_data_runs_code_or_raises_anything_else(data: Any) -> None:
    _tried(data)


VALID = [data for _, data in WRITTEN.values()]


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(st.data(), st.sampled_from(VALID), _LEAVES | _one(_LEAVES))
def test_nor_does_valid_data_with_an_entry_exchanged(
    draw: st.DataObject, valid: Any, other: Any
) -> None:
    def exchanged(x: Any) -> Any:
        if not isinstance(x, dict | list) or not x or draw.draw(st.integers(0, 3)) == 0:
            return other
        if isinstance(x, list):
            i = draw.draw(st.integers(0, len(x) - 1))
            return [exchanged(y) if i == j else y for j, y in enumerate(x)]
        key = draw.draw(st.sampled_from(list(x)))
        renamed = draw.draw(_KEYS) if draw.draw(st.integers(0, 4)) == 0 else key
        return {renamed if k == key else k: exchanged(y) if k == key else y for k, y in x.items()}

    _tried(exchanged(valid))


@pytest.mark.parametrize("hostile", range(len(_HOSTILE)))
def test_nothing_of_an_object_is_called(hostile: int) -> None:
    x = _HOSTILE[hostile]
    for data in (x, {"clip": x}, {"clip": {"max_delta": x}}, {"chain": [x]}, {"tuple": x}):
        _tried(data)
