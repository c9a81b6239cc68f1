"""Settings that every test shares."""

import itertools
import os
from collections.abc import Iterator

# Before JAX is imported: the sharding laws need eight devices, and more devices than one change
# nothing for programs that do not ask for them.
_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

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


_finished = itertools.count(1)


def pytest_runtest_teardown() -> None:
    """Forget what was compiled, every thousand tests: each program is a few memory mappings, of
    which Linux allows a process 65,530, and XLA aborts where there are no more."""
    if next(_finished) % 1000 == 0:
        jax.clear_caches()
