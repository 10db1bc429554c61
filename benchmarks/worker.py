"""One suite in a process of its own: ``python -m benchmarks.worker TASK OPTIONS``, the options as JSON, prints JSON.

It is started by `benchmarks.processes.run`, with the environment that bounds everybody's threads.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Do a task and print what came of it as the last line."""
    task, options = sys.argv[1], json.loads(sys.argv[2])
    _bind(options["threads"])
    result = import_module(f"benchmarks.tasks.{task}").run(**options)
    print(f"\n{json.dumps(result)}", flush=True)
    os._exit(0)  # threads of libraries that wait or compile must not keep the process


def _bind(threads: int) -> None:
    """Leave as many processors as there may be threads: JAX has no other bound."""
    if hasattr(os, "sched_setaffinity"):
        there: Any = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, there[:threads])


if __name__ == "__main__":
    main()
