"""What `help` says of everything public: a sentence, every argument, an example that runs."""

import contextlib
import doctest
import inspect
import io
import pydoc
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.definition import Definition

from .registry import EXAMPLES, Example, is_first


def functions() -> dict[str, Callable[..., Any]]:
    """Everything public that can be called and is no class, each once, by module and name."""
    found: dict[str, Callable[..., Any]] = {}
    for home in (
        gradtx,
        gradtx.torch,
        gradtx.tree,
        gradtx.inspection,
        gradtx.interop,
        gradtx.sharding,
    ):
        for name in home.__all__:
            x = getattr(home, name)
            own = inspect.isfunction(x) or isinstance(x, Definition)
            if own and not any(x is other for other in found.values()):
                module = x.__module__.removeprefix("gradtx.")
                found[f"{module}.{name}"] = x
    return found


FUNCTIONS = functions()
everything = pytest.mark.parametrize("name", FUNCTIONS)


def printed(name: str) -> str:
    """What `help` prints."""
    text: str = pydoc.render_doc(FUNCTIONS[name], renderer=pydoc.plaintext)
    return text


def section(text: str, title: str) -> str:
    """The lines of a section."""
    lines = inspect.cleandoc(text[text.index("\n", 2) :]).splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() == f"{title}:"), None)
    if start is None:
        return ""
    indent = len(lines[start]) - len(lines[start].lstrip())
    inside = []
    for line in lines[start + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        inside.append(line)
    return "\n".join(inside)


@everything
def test_it_begins_with_one_sentence(name: str) -> None:
    first, *_ = (inspect.getdoc(FUNCTIONS[name]) or "").split("\n\n")
    assert re.fullmatch(r"[A-Z`|<\d].*[.:]", first, re.S), first
    assert len(re.findall(r"(?<!e\.g)(?<!i\.e)[.](?:\s|$)", first)) <= 1, first
    assert "http" not in first


@everything
def test_every_argument_is_described(name: str) -> None:
    arguments = section(printed(name), "Args")
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        line = re.search(rf"^\s+\*{{0,2}}{parameter}(?: \((?s:.*?)\))?:\s+(\S.*)$", arguments, re.M)
        assert line, f"{parameter} is not described:\n{arguments}"


@everything
def test_its_types_say_something(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    assert not re.search(r": '|-> '", printed(name).splitlines()[2])
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter
        assert str(parameter.annotation) not in ("Any", "P.args", "P.kwargs"), parameter


@everything
def test_its_example_runs(name: str) -> None:
    examples = doctest.DocTestParser().get_doctest(
        inspect.getdoc(FUNCTIONS[name]) or "",
        {"gradtx": gradtx, "jax": jax, "jnp": jnp, "np": np},
        name,
        None,
        None,
    )
    assert examples.examples
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        result = doctest.DocTestRunner(optionflags=flags).run(examples, out=said.write)
    assert not result.failed, said.getvalue()


def test_the_package_has_a_page_of_its_own() -> None:
    text = gradtx.__doc__ or ""
    names = re.findall(r"^    [a-z ]+  ([a-z_0-9, ]+?)(?:, \.\.\.)?$", text, re.M)
    listed = [name for line in names for name in line.split(", ")]
    assert len(listed) > 30
    assert all(hasattr(gradtx, name) for name in listed)
    example = doctest.DocTestParser().get_doctest(text, {}, "gradtx", None, None)
    assert not doctest.DocTestRunner().run(example).failed


# Where the state is of the transformation alone, and nothing depends on an argument or a shape.
PLAIN = re.compile(r"State: (?!.*\bwith )[\w, ]*?,? ?([\d.]+) bytes a parameter\.")


def kept() -> list[Any]:
    """The first example of each name of which the docstring says so plainly what it keeps."""
    examples = []
    for example in EXAMPLES:
        definition = getattr(gradtx, example.name, None)
        said = PLAIN.search(inspect.getdoc(definition) or "")
        if said and is_first(example):
            examples.append(pytest.param(example, float(said[1]), id=example.name))
    return examples


@pytest.mark.parametrize(("example", "said"), kept())
def test_it_keeps_what_it_says(example: Example, said: float) -> None:
    params = jnp.zeros((64, 64), jnp.bfloat16 if example.narrow_params else jnp.float32)
    state = jax.tree.leaves(jax.eval_shape(example.make().init, params))
    arrays = sum(x.size * x.dtype.itemsize for x in state if x.size > 64)
    assert arrays / params.size == said


def test_most_say_what_they_keep() -> None:
    assert len(kept()) > 40


def test_a_class_body_does_not_bind_a_definition() -> None:
    class Holder:
        make = gradtx.adam

    assert Holder().make is gradtx.adam
    assert Holder().make(1e-3) == gradtx.adam(1e-3)


@gradtx.per_leaf
def written_by_a_user(steps, rate: gradtx.NonNegative = 0.1) -> Any:  # type: ignore[no-untyped-def]
    """Go on.

    Args:
      steps (int): how many
      rate (float): how fast

    Returns: a transformation
    """
    return lambda grad: grad * rate


@gradtx.per_leaf
def without_words(rate: gradtx.NonNegative = 0.1) -> Any:
    return lambda grad: grad * rate


def test_of_what_users_write() -> None:
    assert (inspect.getdoc(written_by_a_user) or "").splitlines() == [
        "Go on.",
        "",
        "Args:",
        "    steps: how many.",
        "    rate (finite and >= 0, or a schedule; default 0.1): how fast.",
        "",
        "Returns: a transformation",
    ]
    assert (inspect.getdoc(without_words) or "").splitlines() == [
        "Args:",
        "    rate (finite and >= 0, or a schedule; default 0.1)",
    ]
