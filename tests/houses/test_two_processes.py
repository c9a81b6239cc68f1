"""Two processes with four devices each: the numbers of one process with eight."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from . import two_processes

# Seconds for both to start, compile and run all cases; on a machine of its own it takes 30.
LIMIT = 480


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    """What the two processes computed: one launch for all cases."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in "01":
            command = [sys.executable, two_processes.__file__, str(folder), port, number]
            with (folder / number).open("w") as said:
                started.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
        end = time.monotonic() + LIMIT
        for process in started:
            process.wait(max(0.0, end - time.monotonic()))
    finally:
        for process in started:
            process.kill()
            process.wait()
    for number, process in zip("01", started, strict=True):
        assert process.returncode == 0, (folder / number).read_text()[-4000:]
    with np.load(folder / "found.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", two_processes.cases())
def test_two_processes_make_the_numbers_of_one(name: str, found: Any) -> None:
    expected = two_processes.run(name)
    got = {key: x for key, x in found.items() if key.split("-")[0] == name}
    assert got.keys() == expected.keys()
    for key, x in got.items():
        np.testing.assert_allclose(
            x.astype(np.float64),
            expected[key].astype(np.float64),
            rtol=1e-6,
            atol=1e-6,
            err_msg=key,
        )
