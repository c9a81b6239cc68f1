"""Packages that only the demonstrations need: imported when used, never before."""

import importlib
from types import ModuleType

from gradtx.demo.errors import MissingPackageError

# What is imported (left) and what is installed (right), where they differ.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def load(module: str, *, command: str) -> ModuleType:
    """Import ``module`` for ``gradtx <command>``, or say in one line how to install it."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # the package is there, and broken: its own message says more than ours
        raise MissingPackageError(command, _DISTRIBUTIONS.get(package, package)) from None
