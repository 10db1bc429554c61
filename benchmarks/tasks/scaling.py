"""The time of a training step of a perceptron against its batch and its depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.cases import Case, prepare
from benchmarks.suites import SUITES, Suite
from benchmarks.tasks.given import ready, reason
from benchmarks.timing import interleaved

__all__ = ["run"]

_WIDTH = 256
_CLASSES = 10
_BATCHES = (1, 4, 16, 64, 256, 1024)
_DEPTHS = (1, 2, 4, 8, 16, 32, 64)


def run(peers: Sequence[str], rounds: int, quick: bool, threads: int) -> dict[str, Any]:
    """See `benchmarks.worker`.

    Returns:
        "batch" and "depth": each size → who → seconds; "failed": who → why.
    """
    found: dict[str, Any] = {"batch": {}, "depth": {}, "failed": {}}
    for batch in _BATCHES[::3] if quick else _BATCHES:
        found["batch"][batch] = _measured(_suite(batch, 2), peers, rounds, threads, found["failed"])
    for depth in _DEPTHS[::3] if quick else _DEPTHS:
        found["depth"][depth] = _measured(_suite(32, depth), peers, rounds, threads, found["failed"])
    return found


def _suite(batch: int, depth: int) -> Suite:
    sizes = (_WIDTH,) * (depth + 1) + (_CLASSES,)
    return replace(SUITES["mlp_tiny"], name=f"mlp-{batch}-{depth}", batch=batch, settings={"sizes": sizes})


def _measured(suite: Suite, peers: Sequence[str], rounds: int, threads: int, failed: dict[str, str]) -> dict[str, float]:
    prepare(suite)
    case = Case.of(suite)
    steps = {}
    for peer in peers:
        try:
            steps[peer] = ready(peer, case, threads)[0].step
        except Exception as error:  # see benchmarks.tasks.time
            failed[peer] = reason(error)
    return interleaved(steps, rounds)
