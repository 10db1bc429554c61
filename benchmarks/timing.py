"""Times of several things in one process, taken in turns so that whatever else the machine does hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

__all__ = ["interleaved", "samples", "timed"]

_TURN = 0.02  # seconds of measured calls a turn: short calls are repeated, so that one turn is not one stray interrupt
_MOST = 200  # calls a turn


def timed(function: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    start = perf_counter()
    function()
    return perf_counter() - start


def samples(
    functions: Mapping[str, Callable[[], Any]], rounds: int = 15, warmup: int = 2, discard: int = 1
) -> dict[str, list[float]]:
    """Seconds of every measured call of each function.

    Args:
        functions: name → what to call; what it returns is dropped.
        rounds: how often each has its turn. The order is turned by one place each round, so that nobody always follows the
            same neighbour.
        warmup: calls of each before the first round.
        discard: calls at the beginning of each turn that are not counted: the spinning threads of the library that ran
            before slow them down.
    """
    repeats = {}
    for name, function in functions.items():
        for _ in range(warmup):
            function()
        repeats[name] = max(1, min(_MOST, int(_TURN / max(timed(function), 1e-9))))
    taken: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds):
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            function = functions[name]
            for _ in range(discard):
                function()
            taken[name].extend(timed(function) for _ in range(repeats[name]))
    return taken


def interleaved(
    functions: Mapping[str, Callable[[], Any]], rounds: int = 15, warmup: int = 2, discard: int = 1
) -> dict[str, float]:
    """The median seconds of a call of each function; the arguments are those of `samples`."""
    return {name: median(taken) for name, taken in samples(functions, rounds, warmup, discard).items()}
