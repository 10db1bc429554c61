"""The machine: what it is, what is installed, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import timed

__all__ = ["described", "gemm_peak"]

_PACKAGES = (
    "irgrad",
    "numpy",
    "numba",
    "torch",
    "jax",
    "jaxlib",
    "autograd",
    "onnx",
    "onnxruntime",
    "onnx-ad",
)
_SIZE = 2048


def described(threads: int) -> dict[str, Any]:
    """Processor, cores, threads, operating system, and versions."""
    versions = {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def gemm_peak(calls: int = 8) -> float:
    """FLOP/s of the best of some products of large float32 matrices, by numpy and by PyTorch where it is loaded."""
    import sys

    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((_SIZE, _SIZE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    best = min(timed(lambda: np.matmul(a, b, out=out)) for _ in range(calls))
    torch = sys.modules.get("torch")
    if torch is not None:
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        best = min(best, *(timed(lambda: torch.mm(left, right)) for _ in range(calls)))
    return float(2 * _SIZE**3 / best)
