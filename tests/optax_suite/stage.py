"""Optax's own test modules, imported with gradtx in the place of Optax.

The tests are those that the installed Optax brings along. While one of its test modules is
imported, a stand-in covers each module of Optax in `sys.modules`: a public name that gradtx has
too is gradtx's there, any other is Optax's. Optax itself is left as it is.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
import types
import unittest
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import optax

import gradtx
from gradtx.core import numerics

FOLDER = Path(optax.__file__).parent
_TREES = re.compile(r"optax\.tree(_utils(\._\w+)?)?$")


@functools.wraps(gradtx.optimistic_adam)
def _deprecated(*args: Any, **kwargs: Any) -> Any:
    """Optax deprecates this name and its tests insist on the warning; gradtx only keeps it."""
    warnings.warn("use `optimistic_adam_v2` instead", DeprecationWarning, stacklevel=2)
    return gradtx.optimistic_adam(*args, **kwargs)


_ADAPTED = {
    "optimistic_adam": _deprecated,
    # What the tests look for in signatures, to see whether a learning rate may be a schedule:
    # here every number may.
    "ScalarOrSchedule": mock.ANY,
}


def ours(module: str, name: str) -> Any:
    """What gradtx has under this name of a module of Optax; None if nothing."""
    if _TREES.match(module):
        return getattr(gradtx.tree, name.removeprefix("tree_"), None)
    if name in gradtx.__all__:
        return _ADAPTED.get(name, getattr(gradtx, name))
    return getattr(numerics, name, None) if module == "optax._src.numerics" else None


class StandIn(types.ModuleType):
    """A module of Optax in which gradtx's names come first."""

    def __init__(self, module: types.ModuleType):
        super().__init__(module.__name__)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        theirs = getattr(self._module, name)
        if isinstance(theirs, types.ModuleType):
            return stand_in(theirs)
        mine = ours(self._module.__name__, name)
        return theirs if mine is None else mine


class _LaterJax(types.ModuleType):
    """JAX for tests that compare its version as a string, in which 0.10 is before 0.7."""

    __version__ = "0.99"

    def __getattr__(self, name: str) -> Any:
        return getattr(jax, name)


@functools.cache
def stand_in(module: types.ModuleType) -> types.ModuleType:
    """The module itself unless it is Optax's."""
    return StandIn(module) if module.__name__.split(".")[0] == "optax" else module


def _modules() -> set[str]:
    """Optax's modules, found as files: `optax/_src` is not a package that could be walked."""
    files = [file.relative_to(FOLDER.parent).with_suffix("") for file in FOLDER.rglob("*.py")]
    modules = {".".join(f.parent.parts if f.name == "__init__" else f.parts) for f in files}
    folders = {".".join(file.parent.parts) for file in files}
    return {name for name in modules | folders if not name.endswith("_test")}


@contextmanager
def _on_stage() -> Iterator[None]:
    """Optax's modules covered by their stand-ins."""
    real = {name: importlib.import_module(name) for name in _modules()}
    sys.modules.update({name: stand_in(module) for name, module in real.items()})
    try:
        yield
    finally:
        sys.modules.update(real)


@functools.cache
def cases(path: str) -> dict[str, unittest.TestCase]:
    """The test cases of one of Optax's test modules, by class, method and parameters.

    path: `_src/alias_test`.
    """
    name = "optax." + path.replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{path}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _on_stage():
        sys.modules[name] = module
        spec.loader.exec_module(module)
    if path == "_src/sharding_test":
        vars(module)["jax"] = _LaterJax("jax")
    loader = unittest.TestLoader()
    kinds = [x for x in vars(module).values() if isinstance(x, type)]
    found = [
        kind(method)
        for kind in kinds
        if issubclass(kind, unittest.TestCase) and kind.__module__ == name
        for method in loader.getTestCaseNames(kind)
    ]
    return {_described(case).removeprefix(name + "."): case for case in found}


def _described(case: unittest.TestCase) -> str:
    """Its id, with its parameters, but not where in memory they are."""
    return re.sub(r"<function ([\w.<>]+) at 0x\w+>", r"\1", case.id())


def run(case: unittest.TestCase) -> unittest.TestResult:
    """What comes out, with the settings of JAX as they were."""
    result = unittest.TestResult()
    x64 = jax.config.jax_enable_x64
    try:
        unittest.TestSuite([case]).run(result)
    finally:
        jax.config.update("jax_enable_x64", x64)
    return result
