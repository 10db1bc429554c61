"""Times of a training step in all libraries, in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.machine import gemm_peak
from benchmarks.peers import PEERS
from benchmarks.tasks.given import ready, reason, suite_of
from benchmarks.timing import samples

__all__ = ["run"]


def run(
    suite: str,
    peers: Sequence[str],
    rounds: int,
    quick: bool,
    threads: int,
    changed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """See `benchmarks.worker`.

    Returns:
        "title", "flops" of a step, the "gemm" peak in FLOP/s, and for each peer either "failed", or "median", quartiles
        ("low", "high") and the "least" in seconds, and "phases" of making it ready.
    """
    case = Case.of(suite_of(suite, quick, changed))
    steps: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    flops = None
    for name in peers:
        try:
            PEERS[name].load()
            prepared, phases = ready(name, case, threads)
        except Exception as error:  # whatever a library raises is its own result
            found[name] = {"failed": reason(error)}
            continue
        steps[name], found[name] = prepared.step, {"phases": phases}
        flops = prepared.flops or flops
    for name, taken in samples(steps, rounds).items():
        least, low, median, high = map(float, np.percentile(taken, [0, 25, 50, 75]))
        found[name] |= {"median": median, "low": low, "high": high, "least": least}
    return {"title": case.suite.title, "flops": flops, "gemm": gemm_peak(), "peers": found}
