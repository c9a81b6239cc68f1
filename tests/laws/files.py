"""The files of gradtx, by the names of their modules."""

from pathlib import Path

import pytest

import gradtx

ROOT = Path(gradtx.__file__).parent
MODULES = {
    ".".join(("gradtx", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}
every_module = pytest.mark.parametrize("module", MODULES)
