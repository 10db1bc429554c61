"""Training steps in irgrad side by side with other libraries.

    python -m benchmarks                                  all suites, and then overhead and scaling
    python -m benchmarks mlp_tiny bert --rounds 30        some of them
    python -m benchmarks --quick                          small models and few rounds: shows that all of it works
    python -m benchmarks lenet --only irgrad --only jax   some libraries only
    python -m benchmarks --write docs/performance.md      with the page and its plots

Each suite runs in a process of its own. Needs the extra irgrad[bench]; libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import page, processes
from benchmarks.machine import described
from benchmarks.peers import BEST_OF, PEERS
from benchmarks.results import compile_rows, geometric_means, overhead_rows, scaling_rows, step_rows
from benchmarks.suites import SUITES
from benchmarks.tables import show, show_title

__all__ = ["main"]

_FURTHER = ("overhead", "scaling")
_IN_SCALING = ("irgrad", "irgrad[fast]", *BEST_OF)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what is asked for."""
    options = _parser().parse_args(arguments)
    missing = [name for name in ("torch", *(["matplotlib"] if options.write else [])) if find_spec(name) is None]
    if missing:
        print(f"the benchmarks need {' and '.join(missing)}: pip install 'irgrad[bench]'", file=sys.stderr)
        return 2
    peers = [name for name in PEERS if name in options.only] if options.only else list(PEERS)
    for name in [name for name in peers if PEERS[name].missing]:
        _tell(f"{name} is left out: not installed: {', '.join(PEERS[name].missing)}")
        peers.remove(name)
    rounds = options.rounds or (3 if options.quick else 15)
    result: dict[str, Any] = {"machine": described(options.threads), "suites": {}}
    for name in options.suites or [*SUITES, *_FURTHER]:
        _tell(name)
        if name in SUITES:
            _attempt(result["suites"], name, partial(_suite, name, peers, rounds, options))
        elif name == "overhead":
            _attempt(result, name, partial(processes.run, name, options.threads, rounds=rounds))
        else:
            chosen = [peer for peer in peers if peer in _IN_SCALING]
            scaling = partial(processes.run, name, options.threads, peers=chosen, rounds=rounds, quick=options.quick)
            _attempt(result, name, scaling)
    _show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.write:
        for path in page.write(options.write, result):
            _tell(f"wrote {path}")
    return 0


def _suite(name: str, peers: Sequence[str], rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    """The times of a suite, and the memory of each library that runs it."""
    given = {"suite": name, "quick": options.quick}
    processes.run("prepare", options.threads, **given)
    found: dict[str, Any] = processes.run("time", options.threads, **given, peers=list(peers), rounds=rounds)
    if options.memory:
        for peer, measured in found["peers"].items():
            if "median" in measured:
                memory = processes.run("memory", options.threads, **given, peer=peer)
                measured["bytes"] = memory.get("bytes")
    return found


def _attempt(into: dict[str, Any], name: str, measure: Callable[[], Any]) -> None:
    """What is measured, or why it could not be: one process that dies must not cost the others' results."""
    try:
        into[name] = measure()
    except processes.FailedError as error:
        into[name] = {"failed": str(error)}
        _tell(f"{name} failed: {error}")


def _show(result: Mapping[str, Any]) -> None:
    """Print all tables."""
    suites = {name: found for name, found in result["suites"].items() if "failed" not in found}
    for title, rows in step_rows(suites):
        show_title(title)
        show(rows)
    if suites:
        show_title("seconds from a file or a model to the first step")
        show(compile_rows(suites))
    for name, (mean, worst, count) in geometric_means(suites).items():
        print(f"{name}: geometric mean of {count} ratios {mean:.2f}, worst {worst:.2f}")
    if "seconds" in result.get("overhead", {}):
        show_title("microseconds a node, 8 elements")
        show(overhead_rows(result["overhead"]))
    for what in ("batch", "depth"):
        if what in result.get("scaling", {}):
            show_title(f"milliseconds a step by {what}")
            show(scaling_rows(result["scaling"][what], what))


def _tell(line: str) -> None:
    """Progress, on the error stream."""
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join([*SUITES, *_FURTHER])
    add = parser.add_argument
    add("suites", nargs="*", metavar="suite", type=_suite_name, help=f"of {names}; all by default")
    add("--rounds", type=int, help="turns of each library; 15, or 3 with --quick")
    add("--threads", type=int, default=2, help="threads of everyone; 2")
    add("--quick", action="store_true", help="small models and few rounds")
    add("--only", action="append", choices=list(PEERS), metavar="PEER", help=f"of {', '.join(PEERS)}; may be repeated")
    add("--no-memory", dest="memory", action="store_false", help="leave memory out: it takes a process for each library")
    add("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    add("--write", type=Path, metavar="FILE.md", help="write a page with tables and plots")
    return parser


def _suite_name(name: str) -> str:
    if name not in SUITES and name not in _FURTHER:
        raise argparse.ArgumentTypeError(f"there is no suite {name!r}")
    return name


if __name__ == "__main__":
    sys.exit(main())
