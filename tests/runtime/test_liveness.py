"""What lives when, foretold from types, against what the interpreter measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.graph import Graph
from irgrad.plausible import plausible_feeds
from irgrad.runtime.liveness import frees_after, liveness, needed_nodes
from irgrad.text import parse_text

EXPORTS = Path(__file__).parent.parent / "data" / "exports"


def chain(body: str, output: str = "y") -> Graph:
    return parse_text(f"graph g {{ input %x: f32[4,6] {body} output {output} }}")


def measured(graph: Graph) -> list[int]:
    run = ig.compile(graph, plan=False)
    run(plausible_feeds(graph))
    return [size for _, size in run.memory.timeline]


VIEWS = {
    "a Reshape of what lies in order": "%a = Exp(%x) %b: f32[24] = Reshape(%a, %s) %y = Neg(%b)",
    "a Reshape of a Transpose copies": "%a = Exp(%x) %t = Transpose(%a) %b: f32[24] = Reshape(%t, %s) %y = Neg(%b)",
    "a Transpose alone does not": "%a = Exp(%x) %t = Transpose(%a) %y = Neg(%t)",
    "twice transposed": "%a = Exp(%x) %t = Transpose(%a) %u = Transpose(%t) %b: f32[24] = Reshape(%u, %s) %y = Neg(%b)",
    "a view keeps the whole alive": "%a = Exp(%x) %c = Slice(%a, %zero, %one, %zero) %d = Exp(%a) %y = Add(%c, %d)",
    "rows lie in order": "%a = Exp(%x) %c = Slice(%a, %zero, %one, %zero) %b: f32[6] = Reshape(%c, %s) %y = Neg(%b)",
    "columns do not": "%a = Exp(%x) %c = Slice(%a, %zero, %one, %one) %b: f32[4] = Reshape(%c, %s) %y = Neg(%b)",
    "a view of an input takes nothing": "%t = Transpose(%x) %y = Exp(%t)",
    "a new axis of a Transpose": "%a = Exp(%x) %t = Transpose(%a) %b: f32[6,1,4] = Reshape(%t, %n) %y = Neg(%b)",
    "Split": "%a = Exp(%x) %b: f32[2,6], %c: f32[2,6] = Split(%a, num_outputs=2) %d = Exp(%b) %y = Add(%c, %d)",
    "Expand": "%a = Exp(%x) %b: f32[3,4,6] = Expand(%a, %e) %y = Neg(%b)",
    "what is returned stays": "%a = Exp(%x) %b = Neg(%a) %y = Exp(%b)",
}
CONSTANTS = (
    "const %s: i64[1]{-1} const %n: i64[3]{6,1,4} const %e: i64[3]{3,4,6} const %zero: i64[1]{0} const %one: i64[1]{1} "
)


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    graph = chain(CONSTANTS + VIEWS[name])
    assert liveness(graph).timeline() == measured(graph)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_whole_network(name: str) -> None:
    graph = ig.vjp(ig.load(bundled_model(name)), wrt="parameters")
    lives = liveness(graph)
    assert lives.timeline() == measured(graph)
    assert lives.peak == (max(measured(graph)), lives.timeline().index(max(lives.timeline())))
    assert not lives.unknown


def test_order_frees_and_lives() -> None:
    graph = chain("%a = Exp(%x) %unused = Tanh(%a) %b = Neg(%a) %c = Exp(%b) %y = Add(%c, %b)", "c output y")
    nodes = needed_nodes(graph)
    assert [node.name for node in nodes] == ["a", "b", "c", "y"]
    assert [[value.name for value in freed] for freed in frees_after(nodes)] == [[], ["a"], [], ["b"]]
    lives = liveness(graph)
    assert [(b.value.name, b.begin, b.end, b.returned) for b in lives.buffers] == [
        ("a", 0, 1, False),
        ("b", 1, 3, False),
        ("c", 2, 3, True),
        ("y", 3, 3, True),
    ]
    assert lives.timeline() == [96, 192, 192, 288]
    assert lives.timeline(lives.buffers[:1]) == [96, 96, 0, 0]
    assert lives.peak == (288, 3)


def test_unknown_sizes_are_told() -> None:
    lives = liveness(chain("%i: i64[2,?] = NonZero(%x) %y = Exp(%x)", "i output y"))
    assert [value.name for value in lives.unknown] == ["i"]
    assert lives.timeline() == [0, 96]


def test_nothing() -> None:
    graph = Graph()
    assert liveness(graph).peak == (0, 0)
    assert np.array(liveness(graph).timeline()).size == 0
