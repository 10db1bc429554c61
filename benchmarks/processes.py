"""Tasks in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["FailedError", "run"]

_ROOT = Path(__file__).parent.parent
_TAIL = 400  # characters of what a process that failed has said


class FailedError(Exception):
    """A process ended without a result; the message is what it said last."""


def run(task: str, threads: int, **options: Any) -> Any:
    """What a task of `benchmarks.tasks` returns.

    Raises:
        FailedError: the process failed.
    """
    bounds = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **bounds, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    given = json.dumps({**options, "threads": threads})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", task, given], capture_output=True, text=True, env=environment
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise FailedError(f"exit code {done.returncode}: {' '.join(done.stderr.split())[-_TAIL:]}")
    return json.loads(lines[-1])
