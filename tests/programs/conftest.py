"""Compilers for the targets, each a process that is started when it is first needed."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from benchmarks.compiler import Compiler
from benchmarks.environments import MissingError, python_for
from gradtx.sharding.targets import Target
from tests.folders import kept_folder


@pytest.fixture(scope="session")
def compiler_for() -> Iterator[Callable[[str], Compiler]]:
    """The compiler for a target; skips the test where its environment is missing."""
    with contextlib.ExitStack() as started:

        @cache
        def start(name: str) -> Compiler:
            target = Target.parse(name)
            try:
                python = python_for(target.platform)
            except MissingError as error:
                pytest.skip(str(error))
            return started.enter_context(Compiler(target, python, kept_folder("figures")))

        yield start
