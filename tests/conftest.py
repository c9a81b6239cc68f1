"""Settings that every test shares."""

import datetime
import gc
import itertools
import math
import os
import platform
import random
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

# Before JAX is imported: the sharding laws need eight devices, and more devices than one change
# nothing for programs that do not ask for them.
_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()
# XLA has as many threads as this says, or as there are cores. A device that waits for the others in
# a collective keeps one; with two they may wait for each other until XLA aborts the process.
os.environ.setdefault("NPROC", "16")

import jax  # noqa: E402
import jax.experimental  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

from tests.folders import kept_folder  # noqa: E402

if not hasattr(jax, "enable_x64"):  # its name until JAX 0.8
    jax.enable_x64 = jax.experimental.enable_x64

# Compiling makes the first example of a test slow and the others fast, so time says nothing.
settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", settings.get_profile("ci"), derandomize=False, max_examples=500
)
# The same examples everywhere; `pytest --hypothesis-profile=thorough` looks for new ones.
settings.load_profile("ci")


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit types in one test; the setting is as it was afterwards, also where the test fails."""
    with jax.enable_x64(True):
        yield


# -- compiled programs ---------------------------------------------------------------------------


def _forget_old(folder: Path) -> None:
    """What was kept a month ago, of code that is no more."""
    for file in folder.iterdir():
        if file.stat().st_mtime < time.time() - 30 * 24 * 3600:
            file.unlink(missing_ok=True)


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs for the other worker and for the next run: compiling is what takes
    the time of the tests. `JAX_ENABLE_COMPILATION_CACHE=0` compiles everything afresh."""
    # Here, and before the workers start: one that starts after midnight draws the same.
    os.environ.setdefault(_SEED, datetime.date.today().isoformat())
    _share_contexts()
    programs = kept_folder(f"jax-{jax.__version__}-{platform.node()}")
    if not hasattr(config, "workerinput"):
        for folder in (programs, kept_folder("figures")):
            if folder:
                _forget_old(folder)
    if programs:
        jax.config.update("jax_compilation_cache_dir", str(programs))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _share_contexts(programs: int = 200) -> None:
    """Have JAX lower so many programs in one MLIR context. It makes one for each, with all
    dialects, which takes longer than the programs of most tests do, and keeps it: that is a third
    of the time of tests that compile nothing anew, and most of their memory."""
    make = getattr(mlir, "make_ir_context", None)
    if make is None:  # it is internal
        return
    number = itertools.count()
    kept: list[Any] = []

    def shared() -> Any:
        if next(number) % programs == 0:
            kept[:] = [make()]
        return kept[0]

    mlir.make_ir_context = shared


@pytest.fixture(scope="module")
def compiled_afresh() -> Iterator[None]:
    """No program that was kept, in tests of what the compiler makes: to the end of the module."""
    before = jax.config.jax_enable_compilation_cache
    _use_kept_programs(False)
    yield
    _use_kept_programs(before)


def _use_kept_programs(yes: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", yes)
    compilation_cache.reset_cache()  # JAX asks the setting once


_finished = itertools.count(1)
_PROCESS = Path("/proc/self")


def pytest_runtest_teardown() -> None:
    """Forget what was compiled, before it is too much: at 4 GB, or at a tenth of the 65,530 memory
    mappings that Linux allows a process, without which XLA aborts."""
    if next(_finished) % 200 or not _PROCESS.exists():
        return
    pages = int((_PROCESS / "statm").read_text().split()[1])
    mappings = (_PROCESS / "maps").read_bytes().count(b"\n")
    if pages * os.sysconf("SC_PAGE_SIZE") > 4e9 or mappings > 6_500:
        jax.clear_caches()


# -- which tests are tried -----------------------------------------------------------------------

_SEED = "GRADTX_TESTS_SEED"


# Where of the parameters of a test one in so many is tried, if no mark `one_in` says how many.
_PARTS = 14
_IN_PART = (
    *(f"tests/{name}/" for name in ("core", "docs", "golden", "houses", "interop", "oracles")),
    *(f"tests/{name}/" for name in ("precision", "programs", "sharding")),
    *("tests/demo/test_command", "tests/demo/test_cli.py::test_a_schedule_is_drawn"),
    *("tests/laws/test_help.py::test_its_example_runs", "tests/laws/test_schedule"),
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tens of thousands of tests are no garbage: it is not looked for while they are made, nor
    among them afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is not drawn: others every day, and at least one of each test.

    The tests of a file get the same parameters, as far as they can: they share what they compile.
    """
    by_test: dict[str, list[tuple[pytest.Item, int]]] = {}
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: give it ids that are the same in every worker")
        if (parts := _one_in(item)) > 1 and not item.get_closest_marker("slow"):
            by_test.setdefault(item.nodeid.partition("[")[0], []).append((item, parts))
    for of_test in by_test.values():
        share = math.ceil(sum(1 / parts for _, parts in of_test))
        for item, _ in sorted(of_test, key=lambda pair: _turn(*pair))[share:]:
            item.add_marker(pytest.mark.slow)


def _one_in(item: pytest.Item) -> int:
    """Of how many like this one the day tries one."""
    marked = [mark.args[0] for mark in item.iter_markers("one_in")]
    return max(marked, default=_PARTS if item.nodeid.startswith(_IN_PART) else 1)


def _turn(item: pytest.Item, parts: int) -> float:
    """The lowest are drawn; what is one in many is rarely low."""
    test, _, parameters = item.nodeid.partition("[")
    file, _, _ = test.partition("::")
    return random.Random(f"{os.environ[_SEED]} {file} {parameters}").expovariate(1 / parts)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(
        f"a part of the tests was tried: {_SEED}={os.environ[_SEED]} tries the same, -m '' all"
    )


# -- which worker tries them ---------------------------------------------------------------------

_TARGETS = ("h100", "h200", "v5e", "cpu")  # each with a compiler that takes long to start


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: one worker for all that is tried on one example of the laws, for all programs of
    one target, and for all parameters of one test elsewhere, so that what they have in common is
    compiled, or run, once."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByExample(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            test, _, parameters = nodeid.partition("[")
            if test.startswith(("tests/benchmarks/", "tests/demo/")):
                return test.partition("::")[0]
            if test.startswith("tests/programs/"):
                return next((name for name in _TARGETS if name in parameters), test)
            return parameters if parameters and test.startswith("tests/laws/") else test

    return ByExample(config, log)
