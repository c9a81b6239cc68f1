"""The Pythons that have the compilers for accelerators, which do not belong into a user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from gradtx.sharding.targets import Platform

VARIABLES: dict[Platform, str] = {"cuda": "GRADTX_H100_PYTHON", "tpu": "GRADTX_TPU_PYTHON"}
MAKE: dict[Platform, str] = {
    "cuda": "python -m benchmarks.programs --target h100 --make",
    "tpu": "python -m benchmarks.programs --target v5e --make",
}


class MissingError(Exception):
    """There is no environment for a target, or none can be made; the text says what to do."""


def python_for(platform: Platform) -> Path:
    """The Python that compiles for a platform: this one for the CPU; otherwise that of an
    environment variable, or one that was made.

    Raises: MissingError if there is none.
    """
    if platform == "cpu":
        return Path(sys.executable)
    if given := os.environ.get(VARIABLES[platform]):
        if not os.access(given, os.X_OK):
            raise MissingError(f"{VARIABLES[platform]}={given}: nothing there that can be run")
        return Path(given)
    folder = _folder(platform)
    if not _complete(folder).exists():
        raise MissingError(
            f"no environment that compiles for {platform}: `{MAKE[platform]}` makes it, "
            f"{VARIABLES[platform]} may name the Python of another"
        )
    return _python(folder)


def make(platform: Platform) -> Path:
    """The Python that compiles for a platform; its environment is made if it is not there.

    Raises: MissingError if it cannot be made.
    """
    try:
        return python_for(platform)
    except MissingError:
        if os.environ.get(VARIABLES[platform]):
            raise
    folder = _folder(platform)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making an environment that compiles for {platform} in {folder}", file=sys.stderr)
    _run(sys.executable, "-m", "venv", str(folder))
    for requirements in _requirements(platform):
        _run(str(_python(folder)), "-m", "pip", "install", "--quiet", *requirements)
    _complete(folder).touch()
    return _python(folder)


def _folder(platform: Platform) -> Path:
    """Outside of the checkout, one for each version of JAX."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "gradtx-programs" / f"{platform}-{version('jax')}"


def _complete(folder: Path) -> Path:
    return folder / "complete"


def _python(folder: Path) -> Path:
    scripts, name = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return folder / scripts / name


def _requirements(platform: Platform) -> list[list[str]]:
    """What pip installs, one call each: compilers of the version of the JAX that runs here."""
    jax = version("jax")
    common = [f"jaxlib=={version('jaxlib')}", f"optax=={version('optax')}"]
    if platform == "tpu":
        return [[f"jax[tpu]=={jax}", *common]]
    # Without what the plugin needs to run programs, gigabytes of CUDA's libraries.
    plugin = [f"jax-cuda12-plugin=={jax}", f"jax-cuda12-pjrt=={jax}", "nvidia-cuda-nvcc-cu12"]
    return [[f"jax=={jax}", *common], ["--no-deps", *plugin]]


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise MissingError(f"{' '.join(command)} failed:\n{done.stdout.strip()}")
