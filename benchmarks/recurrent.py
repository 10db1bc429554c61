"""A training step of LSTM layers of a size of your own, in all libraries.

    python -m benchmarks.recurrent --batch 32 --steps 64 --size 256 --layers 2 --bidirectional

It is the suite `lstm` of `python -m benchmarks` with other settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import processes
from benchmarks.peers import PEERS
from benchmarks.results import step_rows
from benchmarks.tables import show, show_title

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="of the inputs and of the hidden state")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--bidirectional", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = vars(parser.parse_args(arguments))
    threads, rounds = options.pop("threads"), options.pop("rounds")
    peers = [name for name, peer in PEERS.items() if not peer.missing]
    given = {"suite": "lstm", "quick": False, "changed": options}
    try:
        processes.run("prepare", threads, **given)
        found = processes.run("time", threads, **given, peers=peers, rounds=rounds)
    except processes.FailedError as error:
        print(f"the measurement failed: {error}", file=sys.stderr)
        return 1
    for title, rows in step_rows({"lstm": found}):
        show_title(title)
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
