"""Every pass on graphs as text, against what it made of them before.

``tests/golden/<pass>/<case>.ir`` is the input, ``<case>.out.ir`` the result. Comments in the input may say

    # pipeline: cse,dce      what to run; the pass that the folder is named after by default
    # run: no                the graphs cannot be run (random, unknown or failing operations)
    # same: value            results agree in value, not to the last bit (the sign of a zero)
    # again: no              the pass adds something each time that it runs
    # feed: s=4,6            the elements of an integer input that random ones would not do for

IRGRAD_UPDATE_GOLDEN=1 writes the results anew; look at the difference before you commit it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from irgrad.graph import Graph
from irgrad.pipeline import Pipeline
from irgrad.plausible import plausible_feeds
from irgrad.runtime import compile
from irgrad.testing import assert_ir
from irgrad.text import parse_text
from irgrad.verify import verify

FOLDER = Path(__file__).parent.parent / "golden"
CASES = sorted(path for path in FOLDER.rglob("*.ir") if not path.name.endswith(".out.ir"))
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan]


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def option(text: str, key: str, default: str) -> str:
    found = re.search(rf"^# {key}: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else default


def expected(path: Path) -> Path:
    return path.with_name(f"{path.stem}.out.ir")


def pipeline(path: Path, text: str) -> Pipeline:
    return Pipeline(option(text, "pipeline", path.parent.name), truthful=True)


@pytest.mark.parametrize("path", CASES, ids=map(name, CASES))
def test_result(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    graph = parse_text(text)
    verify(graph, types=True)
    result = pipeline(path, text).apply(graph)
    verify(result, types=True)
    assert_ir(result, expected(path))


IDEMPOTENT = [path for path in CASES if option(path.read_text(encoding="utf-8"), "again", "yes") == "yes"]


@pytest.mark.parametrize("path", IDEMPOTENT, ids=map(name, IDEMPOTENT))
def test_doing_it_again_changes_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    again = Pipeline(pipeline(path, text).passes[-1:], truthful=True)
    graph = pipeline(path, text).apply(parse_text(text))
    assert not again.run(graph)


def feeds_for(graph: Graph, seed: int, fixed: str) -> dict[str, np.ndarray]:
    """Random feeds; in every second of them, numbers that break careless algebra."""
    given = {key: np.array(elements.split(","), np.int64) for key, elements in re.findall(r"(\w+)=([\d,]+)", fixed)}
    for key, value in graph.inputs.items():
        if value.shape is None:
            given[key] = np.ones((2, 3), value.dtype)
    feeds = plausible_feeds(graph, given, dims={"N": 4, "M": 3}, seed=seed)
    generator = np.random.default_rng(seed)
    for key, array in feeds.items():
        if array.dtype.kind == "f" and seed % 2:
            feeds[key] = generator.choice(np.array(SPECIAL), array.shape).astype(array.dtype)
        elif array.dtype.kind == "b":
            feeds[key] = generator.random(array.shape) < 0.5
        elif array.dtype.kind in "iu" and key not in given:
            feeds[key] = generator.integers(0, 100, array.shape).astype(array.dtype)
    return feeds


def assert_same(got: np.ndarray, want: np.ndarray, what: str, *, bits: bool) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    got, want = (a.astype(np.float64) if a.dtype.name == "bfloat16" else a for a in (got, want))
    np.testing.assert_array_equal(got, want, err_msg=what)
    if bits and got.dtype.kind == "f":
        numbers = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]), err_msg=f"sign of {what}")


def runs(path: Path) -> bool:
    return option(path.read_text(encoding="utf-8"), "run", "yes") == "yes"


RUNNING = [path for path in CASES if runs(path)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("path", RUNNING, ids=map(name, RUNNING))
def test_results_are_the_same_to_the_last_bit(path: Path, seed: int) -> None:
    text = path.read_text(encoding="utf-8")
    # Passes that add something to the graph come first and are no simplifications.
    first, last = pipeline(path, text).passes[:-1], pipeline(path, text).passes[-1:]
    graph = Pipeline(first).apply(parse_text(text))
    result = Pipeline(last).apply(graph)
    feeds = feeds_for(graph, seed, option(text, "feed", ""))
    before, after = compile(graph)(feeds), compile(result)(feeds)
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert_same(after[key], array, key, bits=option(text, "same", "bits") == "bits")


def test_every_result_has_its_input() -> None:
    assert {expected(path) for path in CASES} == set(FOLDER.rglob("*.out.ir"))
