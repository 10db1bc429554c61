"""The memory of one peer in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.tasks.given import ready, reason, suite_of

__all__ = ["run"]

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def run(suite: str, peer: str, quick: bool, threads: int) -> dict[str, Any]:
    """See `benchmarks.worker`.

    Returns:
        "bytes": the most that the process held during a step once the library had settled, beyond what it held with the
        library imported and weights and inputs read; or "failed".
    """
    try:
        PEERS[peer].load()
        case = Case.of(suite_of(suite, quick))
        _trim()
        before = _resident("VmRSS")
        prepared, _ = ready(peer, case, threads)
        _trim()
        _RESET.write_text("5")  # sets the peak to what there is now
        for _ in range(3):
            prepared.step()
        return {"bytes": max(0, _resident("VmHWM") - before)}
    except Exception as error:  # see benchmarks.tasks.time
        return {"failed": reason(error)}


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def _trim() -> None:
    """Hand back what is free, which would be counted as held."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
