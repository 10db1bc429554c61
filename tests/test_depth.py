"""Deep graphs: cost grows linearly, told by counts of calls, and nothing recurses over depth."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import irgrad as ig


def chain(length: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Neg", [f"v{k}"], [f"v{k + 1}"]) for k in range(length)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(f"v{length}", TensorProto.FLOAT, ["N", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the Python calls of irgrad's own functions (all of them: a hidden inner loop over helpers shows as well)."""
    calls: Counter[str] = Counter()

    def profile(frame: object, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code  # type: ignore[attr-defined]
            if "irgrad" in code.co_filename or "passes" in code.co_filename or "frontends" in code.co_filename:
                calls["irgrad"] += 1
            elif "networkx" in code.co_filename:
                calls["networkx"] += 1

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def everything(proto: onnx.ModelProto, length: int) -> np.ndarray:
    graph = ig.load(proto)
    joint = ig.vjp(graph)
    copy = joint.copy()
    ig.verify(copy)
    x = np.ones((3, 2), np.float32)
    return ig.compile(copy)({"v0": x, f"v{length}_cotangent": 2 * x})["v0_grad"]


def test_calls_grow_linearly() -> None:
    totals = {}
    for length in (1000, 10_000):
        proto = chain(length)
        everything(chain(100), 100)  # what is imported and cached once is no cost of a graph
        with counted() as calls:
            everything(proto, length)
        totals[length] = sum(calls.values())
    assert totals[10_000] <= 10.1 * totals[1000], totals


def test_a_chain_of_100_000_nodes() -> None:
    length = 100_000
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        gradient = everything(chain(length), length)
    finally:
        sys.setrecursionlimit(limit)
    np.testing.assert_array_equal(gradient, np.full((3, 2), 2, np.float32))


@pytest.mark.parametrize("length", [10_000])
def test_text_of_a_deep_graph(length: int) -> None:
    graph = ig.load(chain(length))
    assert ig.graphs_equal(ig.parse_text(ig.to_text(graph)), graph) is None
