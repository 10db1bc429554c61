"""Models with If, Loop and Scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.frontends.build import array, graph, model, node, scalar, value

F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
GO_ON = node("Identity", ["c"], ["go"])


def untyped(*names: str) -> list[onnx.ValueInfoProto]:
    return [onnx.ValueInfoProto(name=name) for name in names]


def integer(number: int) -> np.ndarray:
    return np.array(number, np.int64)


def loop_body(nodes: list[onnx.NodeProto], states: Any, outputs: list[str], weights: Any = ()) -> onnx.GraphProto:
    """A body with the inputs "i", "c" and the states; the first of its outputs is the condition."""
    return graph(nodes, [scalar("i", I64), scalar("c", BOOL), *states], untyped(*outputs), weights)


def one(made: onnx.NodeProto, *inputs: onnx.ValueInfoProto, weights: Any = (), before: Any = ()) -> onnx.ModelProto:
    """A model with a node of control flow, whose outputs are the model's."""
    return model([*before, made], inputs, untyped(*made.output), weights, opsets=21)


def choice(shape: Any = (2, 3)) -> onnx.ModelProto:
    yes = graph([node("Transpose", ["h"], ["r"], perm=[1, 0]), node("Shape", ["x"], ["s"])], [], untyped("r", "s"))
    no = graph([node("Relu", ["h"], ["r"]), node("Shape", ["h"], ["s"])], [], untyped("r", "s"))
    return one(
        node("If", ["c"], ["y", "s"], then_branch=yes, else_branch=no),
        value("x", shape),
        scalar("c", BOOL),
        before=[node("Tanh", ["x"], ["h"])],
    )


def decay(limit: Any = "m", condition: str = "go0") -> onnx.ModelProto:
    """Halve x until its largest element is below the bound; the scan output is each of the steps."""
    body = loop_body(
        [
            node("Mul", ["s", "half"], ["t"]),
            node("Abs", ["t"], ["a"]),
            node("ReduceMax", ["a"], ["top"], keepdims=0),
            node("Greater", ["top", "bound"], ["go"]),
            node("ReduceSum", ["t"], ["total"], keepdims=0),
        ],
        [value("s")],
        ["go", "t", "t", "total"],
    )
    return one(
        node("Loop", [limit, condition, "x"], ["y", "steps", "totals"], body=body),
        value("x"),
        scalar("bound"),
        scalar("m", I64),
        scalar("go0", BOOL),
        weights=[array("half", 0.5)],
    )


def growing(declared: Any = None) -> onnx.ModelProto:
    """Append the iteration number to a list; the other state does not change its shape."""
    body = loop_body(
        [
            GO_ON,
            node("Unsqueeze", ["i", "zero"], ["row"]),
            node("Concat", ["list", "row"], ["longer"], axis=0),
            node("Add", ["s", "x"], ["t"]),
        ],
        [value("list", declared, I64), value("s", declared)],
        ["go", "longer", "t"],
    )
    return one(
        node("Loop", ["m", "", "start", "x"], ["list", "sum"], body=body),
        value("x", ("N", 3)),
        scalar("m", I64),
        value("start", (1,), I64),
        weights=[array("zero", [0], np.int64)],
    )


def nested() -> onnx.ModelProto:
    """An If in a Loop in a Loop: every level captures from all those around it."""
    yes = graph([node("Add", ["v", "x"], ["r"])], [], untyped("r"))
    no = graph([node("Mul", ["v", "w"], ["r"]), node("Identity", ["h"], ["unused"])], [], untyped("r"))
    inner = graph(
        [
            node("Mod", ["j", "two"], ["odd"]),
            node("Equal", ["odd", "zero"], ["even"]),
            node("If", ["even"], ["u"], then_branch=yes, else_branch=no),
            node("Identity", ["d"], ["go"]),
        ],
        [scalar("j", I64), scalar("d", BOOL), value("v")],
        untyped("go", "u"),
        [array("two", 2, np.int64), array("zero", 0, np.int64)],
    )
    outer = loop_body(
        [
            GO_ON,
            node("Add", ["s", "x"], ["h"]),
            node("Add", ["i", "m"], ["n"]),
            node("Loop", ["n", "", "h"], ["t"], body=inner),
        ],
        [value("s")],
        ["go", "t"],
        [array("w", [0.5, 0.25, 2.0])],
    )
    return one(node("Loop", ["m", "", "x"], ["y"], body=outer), value("x", ("N", 3)), scalar("m", I64))


def cumulative(**attrs: Any) -> onnx.ModelProto:
    """The running sum of x plus w, and the slices themselves."""
    body = graph([node("Add", ["s", "e"], ["t"]), node("Add", ["t", "w"], ["o"])], untyped("s", "e"), untyped("t", "o", "e"))
    scan = node("Scan", ["start", "x"], ["last", "sums", "slices"], body=body, num_scan_inputs=1, **attrs)
    return one(scan, value("start", (None,)), value("x", ("T", "F")), value("w", None))


def two_sequences(a: Any = (None, 2), b: Any = (None, 2), **attrs: Any) -> onnx.ModelProto:
    body = graph([node("Mul", ["p", "q"], ["o"])], untyped("p", "q"), untyped("o"))
    scan = node("Scan", ["a", "b"], ["y"], body=body, num_scan_inputs=2, **attrs)
    return one(scan, value("a", a), value("b", b))
