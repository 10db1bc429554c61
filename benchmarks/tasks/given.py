"""What several tasks do with what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

from benchmarks.cases import Case
from benchmarks.peers import PEERS, Prepared
from benchmarks.suites import SUITES, Suite

__all__ = ["ready", "reason", "suite_of"]

_LONGEST = 200  # characters of a reason: libraries tell whole graphs


def suite_of(name: str, quick: bool, changed: Mapping[str, Any] | None = None) -> Suite:
    """The suite of a name, or its quick form, with "batch" and other settings changed."""
    suite = SUITES[name].small() if quick else SUITES[name]
    if not changed:
        return suite
    settings = {key: value for key, value in changed.items() if key != "batch"}
    told = ", ".join(f"{key} {value}" for key, value in settings.items())
    return replace(suite, batch=changed.get("batch", suite.batch), settings={**suite.settings, **settings}, what=told)


def ready(peer: str, case: Case, threads: int) -> tuple[Prepared, dict[str, float]]:
    """A peer whose result has been found right and which has settled, and what that took.

    Raises:
        Exception: whatever the library raises, or ValueError where its result is wrong.
    """
    began = perf_counter()
    prepared = PEERS[peer].start(case, threads)
    started = perf_counter() - began
    seconds: dict[str, float] = {}
    case.check(*prepared.read(_call(prepared, seconds)))
    first = seconds["call"]
    for _ in range(3):  # compilers in the background start after some runs
        _call(prepared, seconds)
    prepared.settle()
    case.check(*prepared.read(_call(prepared, seconds)))
    known = dict(prepared.seconds) or {"start": started}
    return prepared, {**known, "plan": max(0.0, first - seconds["call"])}


def _call(prepared: Prepared, seconds: dict[str, float]) -> Any:
    began = perf_counter()
    result = prepared.step()
    seconds["call"] = perf_counter() - began
    return result


def reason(error: BaseException) -> str:
    """Why something failed, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
