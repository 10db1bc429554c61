"""What was measured, and what is told of it: ratios to the best of PyTorch and JAX, and their geometric mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from typing import Any

from benchmarks.peers import BEST_OF, PEERS
from benchmarks.suites import NINE

__all__ = ["Rows", "best_of", "compile_rows", "geometric_means", "overhead_rows", "scaling_rows", "step_rows"]

Rows = list[list[str]]
Suites = Mapping[str, Any]


def best_of(peers: Mapping[str, Any]) -> float | None:
    """The seconds of the best of PyTorch, compiled or not, and JAX."""
    return min((peers[name]["median"] for name in BEST_OF if "median" in peers.get(name, {})), default=None)


def geometric_means(suites: Suites) -> dict[str, tuple[float, float, int]]:
    """Who → the geometric mean of the ratios over the nine models, the worst of them, and how many there are."""
    found = {}
    for name in PEERS:
        ratios = [
            suites[suite]["peers"][name]["median"] / best
            for suite in NINE
            if "median" in suites.get(suite, {}).get("peers", {}).get(name, {})
            and (best := best_of(suites[suite]["peers"])) is not None
        ]
        if ratios:
            found[name] = exp(sum(map(log, ratios)) / len(ratios)), max(ratios), len(ratios)
    return found


def step_rows(suites: Suites) -> Iterator[tuple[str, Rows]]:
    """For each suite its title and rows of who, milliseconds, ratio, share of the GEMM peak, and memory."""
    for found in suites.values():
        best = best_of(found["peers"])
        rows = [_step_row(who, result, best, found) for who, result in found["peers"].items()]
        yield found["title"], [["", ">ms", ">quartiles", ">least", ">ratio", ">GFLOP/s", ">of peak", ">MB", ""], *rows]


def _step_row(who: str, result: Mapping[str, Any], best: float | None, suite: Mapping[str, Any]) -> list[str]:
    if "failed" in result:
        return [who, "", "", "", "", "", "", "", f"failed: {result['failed']}"]
    seconds = result["median"]
    rate = suite["flops"] / seconds if suite["flops"] else None
    memory = result.get("bytes")
    return [
        who,
        milliseconds(seconds),
        f"{milliseconds(result['low'])} to {milliseconds(result['high'])}",
        milliseconds(result["least"]),
        "" if best is None else f"{seconds / best:.2f}",
        "" if rate is None else f"{rate / 1e9:.1f}",
        "" if rate is None else f"{rate / suite['gemm']:.0%}",
        "" if memory is None else f"{memory / 1e6:,.0f}",
        "",
    ]


def compile_rows(suites: Suites) -> Rows:
    """Seconds from a file or a model to the first step, by suite and phase."""
    rows = [["", *(f">{phase}" for phase in ("load", "grad", "simplify", "plan")), *(f">{name}" for name in BEST_OF)]]
    for name, found in suites.items():
        peers = found.get("peers", {})
        own = peers.get("irgrad", {}).get("phases", {})
        cells = [f"{own[phase]:.3f}" if phase in own else "" for phase in ("load", "grad", "simplify", "plan")]
        others = [f"{sum(phases.values()):.2f}" if (phases := peers.get(peer, {}).get("phases")) else "" for peer in BEST_OF]
        rows.append([name, *cells, *others])
    return rows


def overhead_rows(overhead: Mapping[str, Any]) -> Rows:
    """Microseconds a node."""
    seconds = overhead["seconds"]
    bare = seconds.get("bare ufuncs")
    rows = [["", ">µs a node", ">beyond the bare ufunc"]]
    for who, taken in seconds.items():
        beyond = "" if bare is None or who == "bare ufuncs" else f"{1e6 * (taken - bare):+.2f}"
        rows.append([who, f"{1e6 * taken:.3f}", beyond])
    return rows + [[who, "", f"failed: {why}"] for who, why in overhead["failed"].items()]


def scaling_rows(sizes: Mapping[Any, Mapping[str, float]], what: str) -> Rows:
    """Milliseconds a step by size."""
    who: Sequence[str] = list(dict.fromkeys(name for taken in sizes.values() for name in taken))
    rows = [[what, *(f">{name}" for name in who)]]
    for size, taken in sizes.items():
        rows.append([str(size), *(milliseconds(taken[name]) if name in taken else "" for name in who)])
    return rows


def milliseconds(seconds: float) -> str:
    """Three digits."""
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:,.1f}"
