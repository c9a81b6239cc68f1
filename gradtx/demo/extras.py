"""Packages that only the demonstrations need, imported when they are used."""

import importlib
from types import ModuleType

from gradtx.demo.errors import MissingPackageError

# The name to import (left) and the name to install (right), where they differ.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "PyYAML"}


def load(module: str, *, command: str) -> ModuleType:
    """Import ``module`` for ``gradtx <command>``, or say in one line how to install it."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # the package is there but broken, and its own message says more than ours
        raise MissingPackageError(command, _DISTRIBUTIONS.get(package, package)) from None
