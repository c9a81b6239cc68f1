"""Optax's own tests, with gradtx's objects in the place of Optax's."""

from __future__ import annotations

import re
import unittest
from typing import Any

import pytest

for package in ("optax", "absl", "flax", "scipy", "sklearn"):
    pytest.importorskip(package)

from .differences import DIFFERENT, LONG, MODULES, OUT_OF_SCOPE, VERSION  # noqa: E402
from .stage import FOLDER, cases, optax, run  # noqa: E402

if optax.__version__ != VERSION or not (FOLDER / f"{MODULES[0]}.py").exists():
    pytest.skip(f"needs the tests of Optax {VERSION}", allow_module_level=True)


def _reason(table: dict[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in table.items() if re.search(pattern, name)), None)


def _everything() -> list[Any]:
    """A parameter for each of Optax's tests, of which one in sixteen is tried; of long ones, one
    in two hundred."""
    made = []
    for path in MODULES:
        module = path.split("/")[-1]
        for described, case in cases(path).items():
            name = f"{module}.{described}"
            if _reason(OUT_OF_SCOPE, name):
                continue
            marks = [pytest.mark.one_in(200 if _reason(LONG, name) else 16)]
            if different := _reason(DIFFERENT, name):
                marks.append(pytest.mark.xfail(reason=different, strict=True))
            made.append(pytest.param(case, marks=marks, id=name))
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _everything())
def test_of_optax(case: unittest.TestCase) -> None:
    result = run(case)
    if bad := result.failures + result.errors:
        pytest.fail("\n\n".join(f"{which}\n{trace}" for which, trace in bad), pytrace=False)
    if result.skipped:
        pytest.skip(result.skipped[0][1])


def test_every_entry_of_the_tables_names_a_test() -> None:
    names = [f"{path.split('/')[-1]}.{name}" for path in MODULES for name in cases(path)]
    for table in (DIFFERENT, OUT_OF_SCOPE, LONG):
        for pattern in table:
            assert any(re.search(pattern, name) for name in names), pattern


def test_the_stand_ins_are_gradtx() -> None:
    import gradtx

    from .stage import stand_in

    staged = stand_in(optax)
    assert staged.adam is gradtx.adam
    assert staged._src.transform.scale_by_adam is gradtx.scale_by_adam
    assert staged.tree_utils.tree_add is gradtx.tree.add
    assert staged.contrib.muon is gradtx.muon
    assert staged.losses.l2_loss is optax.losses.l2_loss
    assert optax.adam is not gradtx.adam
