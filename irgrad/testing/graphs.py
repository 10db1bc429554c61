"""Checking a graph: that it computes what another one does, and that it is what a text says."""

from __future__ import annotations

import difflib
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irgrad.errors import UsageError
from irgrad.files import replacing
from irgrad.graph import Graph, Value
from irgrad.plausible import plausible_feeds
from irgrad.runtime import compile
from irgrad.testing.case import leaves
from irgrad.testing.results import assert_close
from irgrad.text import Constants, to_text
from irgrad.types import TensorType

__all__ = ["UPDATE_GOLDEN", "assert_ir", "assert_same_results"]

UPDATE_GOLDEN = "IRGRAD_UPDATE_GOLDEN"
"""The environment variable that, set to 1, lets `assert_ir` write files anew instead of comparing."""


def assert_same_results(
    before: Graph,
    after: Graph,
    feeds: Mapping[str, Any] | None = None,
    *,
    rtol: float = 1e-6,
    atol: float = 0.0,
    outputs: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """Two graphs return the same: the same outputs, of the same dtypes and shapes, and elements within a tolerance.

    NaN equals NaN. With ``rtol=0`` elements are compared bit by bit, signs of zeros included.

    Args:
        before: what the results should be.
        after: the graph in question.
        feeds: what to run them on. By default random arrays that suit how each input is used, once for each seed; symbolic
            dimensions get sizes that differ from each other.
        rtol: relative tolerance.
        atol: absolute tolerance.
        outputs: names of the outputs to compare; by default all of them, and neither graph may have others.
        seeds: of the random feeds.

    Raises:
        AssertionError: something differs; the message names the output.
        UsageError: no random feeds can be made up; give feeds.
        IrgradError: a graph cannot be run.
    """
    if outputs is None:
        outputs = list(before.outputs)
        assert set(after.outputs) == set(outputs), (
            f"the outputs are {', '.join(after.outputs)}, but were {', '.join(outputs)}"
        )
    runs = [compile(graph) for graph in (before, after)]
    # What only the other graph asks for (a parameter that became an input) is an input too.
    inputs = {**after.inputs, **before.inputs}
    given = [feeds] if feeds is not None else [_random_feeds(before, after, seed) for seed in seeds]
    for arrays in given:
        missing = [name for name in inputs if name not in arrays]
        if missing:
            raise UsageError(f"there is no feed for the input {missing[0]!r}")
        results = [
            run({name: array for name, array in arrays.items() if _takes(graph, name)})
            for run, graph in zip(runs, (before, after), strict=True)
        ]
        for name in outputs:
            _assert_same(results[1][name], results[0][name], name, rtol, atol)


def _takes(graph: Graph, name: str) -> bool:
    return name in graph.inputs or name in graph.parameters


def _random_feeds(before: Graph, after: Graph, seed: int) -> dict[str, Any]:
    feeds: dict[str, Any] = {}
    for graph in (before, after):
        given = {name: array for name, array in feeds.items() if name in graph.inputs}
        feeds |= plausible_feeds(graph, given, _sizes([*before.inputs.values(), *after.inputs.values()]), seed)
    return feeds


def _sizes(inputs: Sequence[Value]) -> dict[str, int]:
    types = [value.type for value in inputs]
    symbols = dict.fromkeys(d for t in types if isinstance(t, TensorType) for d in t.shape or () if isinstance(d, str))
    return {symbol: 2 + position for position, symbol in enumerate(symbols)}


def _assert_same(result: Any, want: Any, name: str, rtol: float, atol: float) -> None:
    dtypes = [[leaf.dtype.name for leaf in leaves(value)] for value in (result, want)]
    assert dtypes[0] == dtypes[1], f"the output {name!r} is of dtype {dtypes[0]}, but was {dtypes[1]}"
    assert_close(result, want, f"the output {name!r}", rtol=rtol, atol=atol)
    if not rtol and not atol:
        for mine, other in zip(leaves(result), leaves(want), strict=True):
            if mine.dtype.kind == "f":
                signs = [np.signbit(array[~np.isnan(other)]) for array in (mine, other)]
                assert (signs[0] == signs[1]).all(), f"the output {name!r} has zeros of another sign"


def assert_ir(graph: Graph, golden: str | Path, *, constants: Constants = "full") -> None:
    """A graph, printed, is exactly an expected text.

    Args:
        graph: the graph.
        golden: the text (its indentation as a whole does not matter), or the path of a file that holds it. Such a file is
            written instead of compared where the environment variable IRGRAD_UPDATE_GOLDEN is 1; look at the difference
            before you commit it.
        constants: see `irgrad.to_text`.

    Raises:
        AssertionError: the texts differ; the message shows how. Or the file does not exist.
    """
    actual = to_text(graph, constants)
    if isinstance(golden, Path):
        if os.environ.get(UPDATE_GOLDEN) == "1":
            with replacing(golden) as file:
                file.write(actual.encode())
        assert golden.is_file(), f"there is no file {str(golden)!r}; {UPDATE_GOLDEN}=1 writes it"
        expected = golden.read_text(encoding="utf-8")
    else:
        expected = textwrap.dedent(golden).strip() + "\n"
    if actual != expected:
        lines = difflib.unified_diff(expected.splitlines(), actual.splitlines(), "expected", "actual", lineterm="")
        hint = f"\nWith {UPDATE_GOLDEN}=1 the file is written anew." if isinstance(golden, Path) else ""
        raise AssertionError("the graph is not what was expected:\n" + "\n".join(lines) + hint)
