"""Constructions read from text: what is read, what is refused, and that nothing else happens."""

import builtins
import pickle
import warnings

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import ParseError, matching, parse
from gradtx import torch as gt
from gradtx.core.reading import did_you_mean, read
from gradtx.inspection.reading import public_names

READ = {
    "adamw(1e-3, b2=0.95)": lambda: gradtx.adamw(1e-3, b2=0.95),
    "chain(clip(1.0), adam(1e-3))": lambda: gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3)),
    "torch.adam(1e-3)": lambda: gt.adam(1e-3),
    "torch.scale_by_adam()": lambda: gt.scale_by_adam(),
    "gradtx.torch.sgd(0.1)": lambda: gt.sgd(0.1),
    "chain(scale_by_adam(), scale_by_learning_rate(cosine_decay_schedule(1e-3, 100)))": lambda: (
        gradtx.chain(
            gradtx.scale_by_adam(),
            gradtx.scale_by_learning_rate(gradtx.cosine_decay_schedule(1e-3, 100)),
        )
    ),
    "partition({'body': adam(1e-3), '.*': sgd(0.1)})": lambda: gradtx.partition(
        {"body": gradtx.adam(1e-3), ".*": gradtx.sgd(0.1)}
    ),
    r"partition({'layer\d': adam(1e-3), '.*': freeze()})": lambda: gradtx.partition(
        {r"layer\d": gradtx.adam(1e-3), ".*": gradtx.freeze()}
    ),
    "multi_transform({'a': adam(1e-3)}, {'w': 'a'})": lambda: gradtx.multi_transform(
        {"a": gradtx.adam(1e-3)}, {"w": "a"}
    ),
    "masked(adam(1e-3), ~matching('bias'))": lambda: gradtx.masked(
        gradtx.adam(1e-3), ~matching("bias")
    ),
    "add_decayed_weights(0.1, {'w': True, 'b': [False, None]})": lambda: (
        gradtx.add_decayed_weights(0.1, {"w": True, "b": [False, None]})
    ),
    "adam(1e-3, mu_dtype=bfloat16)": lambda: gradtx.adam(1e-3, mu_dtype=jnp.bfloat16),
    "adam(1e-3, mu_dtype='bfloat16')": lambda: gradtx.adam(1e-3, mu_dtype=jnp.bfloat16),
    "adopt(0.1, clip_value_fn=fourth_root)": lambda: gradtx.adopt(0.1),
    "adam(array([0.1, 0.2], 'float32'))": lambda: gradtx.adam(jnp.array([0.1, 0.2])),
    "adam(array(0.1, 'float32'))": lambda: gradtx.adam(jnp.array(0.1)),
    "adam(array([[1, 2]], 'bfloat16'), b1=array([0, 0.5]))": lambda: gradtx.adam(
        jnp.array([[1, 2.0]], "bfloat16"), b1=np.array([0, 0.5])
    ),
    "sgd(array(0.5, 'float32') * linear_schedule(1, 0, 10))": lambda: gradtx.sgd(
        jnp.float32(0.5) * gradtx.linear_schedule(1, 0, 10)
    ),
    "multi_steps(sgd(1), 2, True, skip_not_finite)": lambda: gradtx.multi_steps(
        gradtx.sgd(1), 2, True, gradtx.skip_not_finite
    ),
    "gradtx.monitor({'norm': gradtx.global_norm})": lambda: gradtx.monitor(
        {"norm": gradtx.global_norm}
    ),
    "scale(-1)": lambda: gradtx.scale(-1),
    "scale(+2.5)": lambda: gradtx.scale(2.5),
    "torch.rprop(0.1, step_sizes=(1e-6, 50))": lambda: gt.rprop(0.1, step_sizes=(1e-6, 50)),
    "  sgd(\n  0.1, # comment\n)\n": lambda: gradtx.sgd(0.1),
    "sgd(0.5 * linear_schedule(1, 0, 10).clip(high=0.5).shift(3) ** 2)": lambda: gradtx.sgd(
        0.5 * gradtx.linear_schedule(1, 0, 10).clip(high=0.5).shift(3) ** 2
    ),
    "-(1 - constant_schedule(0.5)) / constant_schedule(2)": lambda: (
        -(1 - gradtx.constant_schedule(0.5)) / gradtx.constant_schedule(2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read_as_code_is(text):
    assert parse(text) == READ[text]()


# The problem, and the part of the text under the marks.
REFUSED = {
    "adamm(1e-3)": ("unknown name adamm: did you mean adam, ", "adamm"),
    "Adam": ("unknown name Adam: did you mean adam, ", "Adam"),
    "optax.adam(1)": ("did you mean torch.adam", "optax.adam"),
    "chain(clip(1.0), adamm)": ("did you mean adam, ", "adamm"),
    "adam": ("adam must be called, adam(...)", "adam"),
    "chain(adam(1), é)": ("unknown name é: words are written in quotes", "é"),
    "chain('é', adam(1, b3=0.1))": ("adam has no argument b3: did you mean ", "b3=0.1"),
    "adam(1, b1=0.9, b1=0.9)": ("b1 is given twice", "b1=0.9"),
    "chain(clip(1.0), adam(1e-3, b1=1.5))": ("adam: b1 must be in [0, 1), got 1.5", "b1=1.5"),
    "adam(-1)": ("learning_rate must be finite and >= 0, got -1", "-1"),
    "adam(nan)": ("got nan", "nan"),
    "adam(\n  0.1,\n  b1='é', b2=inf)": ("b1 must be a number", "b1='é'"),
    "adam(1, b2=-inf)": ("got -inf", "b2=-inf"),
    "adam([0.1, 0.2])": ("an array is written array([0.1", "[0.1, 0.2]"),
    "adam(b2=[0.1, 0.2], learning_rate=1)": ("an array is written", "b2=[0.1, 0.2]"),
    "adam([0.1 0.2])": ("cannot be read: invalid syntax", "0"),
    "adam([0.1, ..., 0.2])": ("an array that was shortened cannot be read", "..."),
    "adam(array([[1], [1, 2]]))": ("inhomogeneous", "array([[1], [1, 2]])"),
    "adam(array(['a']))": ("array: object must be real numbers", "['a']"),
    "adam(array([0.5], 'int32'))": ("does not fit into int32", "[0.5]"),
    "adam(array([1], 'float31'))": ("float31", "array([1], 'float31')"),
    "add_decayed_weights(0.1, only_w)": ("functions cannot be read", "only_w"),
    "add_decayed_weights(0.1, mask=lambda p: p)": ("not part of how constructions", "lambda p: p"),
    "adam(1e-3, mu_dtype=bfloat17)": ("unknown name bfloat17", "bfloat17"),
    "adam(1e-3, mu_dtype='bfloat17')": ("mu_dtype must be a dtype", "mu_dtype='bfloat17'"),
    "adam(1e-3, mu_dtype=object)": ("unknown name object", "object"),
    "adam(1e-3, mu_dtype=a)": ("unknown name a", "a"),  # of which NumPy warns
    "clip()": ("missing a required argument: 'max_delta'", "clip()"),
    "adam(1e-3)(1)": ("only a name can be called", "adam(1e-3)"),
    "adam(1e-3).init(3)": ("the only methods", "adam(1e-3).init"),
    "constant_schedule(1)._evaluate(3)": ("the only methods", "constant_schedule(1)._evaluate"),
    "adam(1e-3).b1": ("not part of how constructions", "adam(1e-3).b1"),
    "adam(2**-10)": ("arithmetic is for schedules", "2**-10"),
    "sgd(constant_schedule(1) % 2)": ("arithmetic is for schedules", "constant_schedule(1) % 2"),
    "sgd(linear_schedule(1, 0, 9) / 0)": ("not 0", "linear_schedule(1, 0, 9) / 0"),
    "sgd(linear_schedule(1, 0, 9) + True)": ("arithmetic", "linear_schedule(1, 0, 9) + True"),
    "freeze(~'bias')": ("~ may only stand before matching('pattern')", "~'bias'"),
    "freeze(-'bias')": ("a sign may only stand before a number or a schedule", "-'bias'"),
    "freeze(not True)": ("not part of how constructions", "not True"),
    "freeze(matching('('))": ("'(' is not a valid regular expression", "matching('(')"),
    "chain(*[])": ("* is not read here", "*[]"),
    "chain(**{})": ("** is not read here", "**{}"),
    "partition({**{}})": ("** is not read here", "{}"),
    "partition({'a': freeze(), 'a': freeze()})": ("the key 'a' is given twice", "'a'"),
    "partition({[]: freeze()})": ("a key cannot be a list", "[]"),
    "partition({1: freeze()})": ("the keys are path patterns, got 1", "partition({1: freeze()})"),
    "adam(1j)": ("not part of how constructions", "1j"),
    "adam(b'1')": ("not part of how constructions", "b'1'"),
    "adam(f'1')": ("not part of how constructions", "f'1'"),
    "adam({1})": ("not part of how constructions", "{1}"),
    "adam(0.1 if True else 0.2)": ("not part of how constructions", "0.1 if True else 0.2"),
    "3": ("this is 3, not a transformation or a schedule", "3"),
    " 'adam' ": ("this is 'adam', not a transformation", "'adam'"),
    "matching('a')": ("this is matching('a'), not", "matching('a')"),
    "__import__('os').getcwd()": ("unknown name __import__", "__import__"),
    "adam(1e-3": ("'(' was never closed", "("),
    "adam(1e-3); sgd(0.1)": ("cannot be read", ";"),
    "import os": ("cannot be read", "i"),
    "adam(" + "1" * 400 + ")": ("too large", "adam(" + "1" * 400 + ")"),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_a_refusal_shows_its_place(text):
    problem, place = REFUSED[text]
    with pytest.raises(ParseError) as raised:
        parse(text)
    error = raised.value
    assert problem in error.problem
    assert error.text[error.start : error.end] == place
    said, line, marks = str(error).split("\n")
    assert said == error.problem
    at, length = marks.index("^"), marks.count("^")
    assert line[at : at + length] == place.replace("\n", " ")[:length]
    assert len(line) < 90


@pytest.mark.parametrize(
    "text",
    ["", " \n", "\0", "sgd(0.1)\0", "\ud800", "1" * 5000, "x" * 100_001, "  sgd(0.1)\n sgd(0.2)"],
    ids=repr,
)
def test_what_is_no_expression_is_a_value_error(text):
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize("count", [60, 1000, 20_000])
@pytest.mark.parametrize(
    "nested",
    [
        lambda n: "chain(" * n + ")" * n,
        lambda n: "-" * n + "1",
        lambda n: "1+" * n + "1",
        lambda n: "{1:" * n + "1" + "}" * n,
        lambda n: "constant_schedule(1)" + ".shift(1)" * n,
        lambda n: "a" + "()" * n,
        lambda n: "a." * n + "b",
        lambda n: "(" * n,
    ],
)
def test_deep_nesting_is_a_value_error(nested, count):
    with pytest.raises(ParseError):
        parse(nested(count))


def test_a_caller_deep_in_the_stack_gets_a_value_or_a_parse_error():
    def at_the_bottom():
        try:
            return at_the_bottom()
        except RecursionError:
            return tried()

    def tried():
        try:
            return parse("chain(chain(chain(sgd(0.1))))")
        except (ParseError, RecursionError) as error:
            return error

    assert at_the_bottom() is not None


def test_anything_but_text_is_a_type_error():
    for wrong in (None, 3, b"adam(1e-3)", gradtx.adam(1e-3)):
        with pytest.raises(TypeError, match="read from text"):
            parse(wrong)


def test_a_kind_can_be_asked_for():
    assert parse("sgd(0.1)", gradtx.GradientTransformation) == gradtx.sgd(0.1)
    with pytest.raises(ParseError, match="this is a transformation, not a schedule"):
        parse("sgd(0.1)", gradtx.Schedule)


def test_an_error_pickles_and_backslashes_do_not_warn():
    with pytest.raises(ParseError) as raised:
        parse("adam(-1)")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse(r"freeze('\d')") == gradtx.freeze(r"\d")


def test_only_names_that_are_given_are_called():
    assert read("f(2)", {"f": lambda x: [x]}) == [2]
    with pytest.raises(ParseError, match="unknown name f"):
        read("f(2)", {})


def test_suggestions_are_the_nearest_three():
    assert did_you_mean("adamm", ["adam", "adamw", "adamax", "radam", "sgd"]).count("ada") == 3
    assert did_you_mean("SGD", ["sgd", "adam"]) == "did you mean sgd?"
    assert did_you_mean("sgb", ["sgd", "sga"]) == "did you mean sgd or sga?"
    assert did_you_mean("qqq", ["sgd"]) == ""


# -- whatever the text is ------------------------------------------------------------------------

_WORDS = [
    *public_names(),
    "matching",
    "gradtx",
    "torch",
    "inf",
    "nan",
    "bfloat16",
    "print",
    "input",
    "breakpoint",
]
_ATOMS = st.one_of(
    st.sampled_from(["1e-3", "-1", "True", "None", "'w'", "'('", "0", "1e999", "...", "2.5", "10"]),
    st.floats().map(repr),
    st.integers().map(repr),
    st.text(max_size=4).map(repr),
    st.sampled_from(_WORDS),
)
_SHAPES = [
    "{w}({a})",
    "{w}({a}, {b})",
    "{w}({a}, b1={b})",
    "{w}(inner={a}, mask={b})",
    "{{{a}: {b}}}",
    "({a},)",
    "[{a}, {b}]",
    "{a} + {b}",
    "{a} * {b}",
    "{a} ** {b}",
    "{a} / {b}",
    "~{a}",
    "-{a}",
    "{a}.clip({b})",
    "{a}.shift({b})",
    "{a}.{w}({b})",
    "{a}({b})",
    "{w}.{w}({a})",
]


@st.composite
def _constructions(draw, depth=3):
    """Text that looks like a construction."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(_ATOMS)
    a, b = (draw(_constructions(depth - 1)) for _ in "ab")
    return draw(st.sampled_from(_SHAPES)).format(w=draw(st.sampled_from(_WORDS)), a=a, b=b)


_ALPHABET = "adm(){}[]'\"=,.:~-+*1e9\n\t\\ #lf\0é\u2028"


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(st.one_of(st.text(), st.text(_ALPHABET), _constructions()))
def test_no_text_runs_code_or_raises_anything_else(text):
    def never(*args, **kwargs):
        raise SystemExit("code was evaluated")

    with pytest.MonkeyPatch.context() as patched:
        for name in ("print", "input", "breakpoint"):
            patched.setattr(builtins, name, never)
        made = error = None
        try:
            made = parse(text)
        except ParseError as raised:
            error = raised
    if error is None:
        assert isinstance(made, gradtx.GradientTransformation | gradtx.Schedule)
    else:
        assert error.problem
        assert 0 <= error.start <= error.end
        assert len(str(error).split("\n")) == 3
