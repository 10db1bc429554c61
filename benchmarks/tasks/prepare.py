"""Write a suite's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.cases import prepare
from benchmarks.tasks.given import suite_of

__all__ = ["run"]


def run(suite: str, quick: bool, threads: int, changed: Mapping[str, Any] | None = None) -> dict[str, str]:
    """See `benchmarks.worker`."""
    prepare(suite_of(suite, quick, changed))
    return {}
