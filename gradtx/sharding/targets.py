"""The devices to compile for. None has to be there: a description is enough for XLA's compilers.

A target is "cpu", "h100", "h100x8", the same with "h200", or a TPU: "v5e" for one chip, "v5e:4x4"
for 16 of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NamedTuple

import jax
from jax.experimental import topologies

Platform = Literal["cpu", "cuda", "tpu"]

EXAMPLES = ("cpu", "h100", "h100x8", "h200", "v5e", "v5e:4x4")

# What JAX and libtpu have to find when they are imported.
ENVIRONMENT: dict[Platform, dict[str, str]] = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "cuda": {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"},
    "tpu": {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Ask no metadata server where it runs, and let other processes load it too.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    },
}


class _Memory(NamedTuple):
    """What tells one GPU of compute capability 9.0 from another: their processors are the same, and
    XLA weighs what it computes against what it moves. size, cache: bytes; bandwidth: bytes/s."""

    size: int
    bandwidth: int
    cache: int


# NVIDIA's data sheets of the H100 SXM and the H200 SXM.
_GPUS = {
    "h100": _Memory(84929347584, 3352320000000, 52428800),
    "h200": _Memory(150754820096, 4800000000000, 62914560),
}

# A GpuTargetConfigProto, from the same data sheets and the limits of compute capability 9.0.
_HOPPER = """
platform_name: "CUDA"
device_description_str: "NVIDIA %(name)s"
runtime_version { major: 12 minor: 8 patch: 0 }
dnn_version_info { major: 9 minor: 8 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: %(size)d
  memory_bandwidth: %(bandwidth)d
  l2_cache_size: %(cache)d
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""


@dataclass(frozen=True)
class Target:
    """Devices of one kind. shape: of their mesh, None for a single device."""

    name: str
    platform: Platform
    shape: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, name: str) -> Target:
        """The target of this name.

        Raises: ValueError if there is no such target.
        """
        if name == "cpu":
            return cls(name, "cpu")
        if match := re.fullmatch(rf"(?:{'|'.join(_GPUS)})(?:x([1-9]\d*))?", name):
            return cls(name, "cuda", (int(match[1]),) if match[1] else None)
        if match := re.fullmatch(r"v\d+[a-z]*(?::([1-9]\d*(?:x[1-9]\d*){1,2}))?", name):
            return cls(name, "tpu", tuple(map(int, match[1].split("x"))) if match[1] else None)
        raise ValueError(
            f"no target {name!r}; there are {', '.join(EXAMPLES)}, other numbers of GPUs and "
            f"other TPUs, as 'v5p:2x2x4'"
        )

    @property
    def file_name(self) -> str:
        """Its name, in a form that can be part of a file's."""
        return self.name.replace(":", "-")

    @property
    def count(self) -> int:
        """How many devices it has."""
        return math.prod(self.shape or ())

    def devices(self) -> list[jax.Device]:
        """Descriptions of its devices; needs the compiler for them and, where there are none, the
        variables in `ENVIRONMENT`, set before JAX is imported or by `without_device`.

        Raises: ImportError if the compiler is not installed.
        """
        if self.platform == "cpu":
            return jax.devices("cpu")[:1]
        if self.platform == "cuda":
            if not importlib.util.find_spec("jax_cuda13_plugin"):
                _need(
                    "jax_cuda12_plugin", "jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12"
                )
            gpu = self.name.partition("x")[0]
            config = _HOPPER % {"name": gpu.upper(), **_GPUS[gpu]._asdict()}
            topology = topologies.get_topology_desc(
                gpu.upper(), "cuda", topology=f"1x1x{self.count}", target_config=config
            )
        else:
            libtpu = _need("libtpu", "libtpu")
            os.environ.setdefault("TPU_LIBRARY_PATH", libtpu.get_library_path())
            # TPUs are described by boards, of four chips.
            name = self.name if self.shape else f"{self.name}:2x2"
            topology = topologies.get_topology_desc(name, "tpu")
        return list(topology.devices)[: self.count]


def without_device(platform: Platform) -> None:
    """Set what JAX and libtpu have to find, where it is not set, in a process that has not used
    JAX yet and only compiles."""
    for name, value in ENVIRONMENT[platform].items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]


def _need(module: str, packages: str) -> ModuleType:
    """Import the compiler of an accelerator.

    Raises: ImportError that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"no compiler for it is installed: pip install {packages}, of JAX's version"
        ) from error
