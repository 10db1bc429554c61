"""Cases of irgrad/ops/control.py; models with control flow are in tests/frontends/test_control.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.types import TensorType
from tests.ops.harness import Case, rng

F64, I64, BOOL = np.dtype(np.float64), np.dtype(np.int64), np.dtype(bool)

X = rng(0).standard_normal((3, 2))
W = rng(1).standard_normal((2,))
SEQUENCE = rng(2).standard_normal((4, 2))


def branch(op: str, *operands: str) -> Graph:
    """A branch of an If that captures x and w."""
    graph = Graph(op)
    values = {"x": graph.add_input("x", TensorType(F64)), "w": graph.add_input("w", TensorType(F64))}
    graph.set_outputs([Builder(graph).op(op, *(values[name] for name in operands))])
    return graph


def passing() -> Graph:
    """A branch of an If that returns what it captures."""
    graph = Graph("passing")
    graph.set_outputs([graph.add_input("x", TensorType(F64))])
    return graph


def loop_body() -> Graph:
    """``s, t = s * w + i, concat(t, t[:1])``; scan outputs s and sum(s); goes on while s stays small."""
    graph = Graph("body")
    number, condition = graph.add_input("i", TensorType(I64, ())), graph.add_input("c", TensorType(BOOL, ()))
    s, t, w = (graph.add_input(name, TensorType(F64)) for name in "stw")
    b = Builder(graph)
    after = b.op("Add", b.op("Mul", s, w), b.cast(number, F64))
    longer = b.op("Concat", t, b.op("Slice", t, b.ints([0]), b.ints([1]), b.ints([0])), axis=0)
    total = b.op("ReduceSum", after, keepdims=0)
    small = b.op("Less", b.op("ReduceMax", b.op("Abs", after), keepdims=0), b.constant(30.0))
    graph.set_outputs(
        {"c_out": b.op("And", small, condition), "s_out": after, "t_out": longer, "s_scan": after, "sum": total}
    )
    return graph


def loop_oracle(limit: np.ndarray | None, going: np.ndarray | None, s: Any, t: Any, w: Any) -> tuple[Any, ...]:
    states, sums = [], []
    count, go = 0, True if going is None else bool(going)
    while go and (limit is None or count < limit):
        s, t = s * w + count, np.concatenate([t, t[:1]])
        states.append(s)
        sums.append(s.sum())
        go = going is None or bool(np.abs(s).max() < 30)
        count += 1
    return s, t, np.array(states).reshape(-1, *s.shape), np.array(sums)


def scan_body(with_state: bool = True) -> Graph:
    """``s = tanh(s + a * w)``; scan outputs s and a + b."""
    graph = Graph("body")
    s = graph.add_input("s", TensorType(F64)) if with_state else None
    a, c, w = (graph.add_input(name, TensorType(F64)) for name in "abw")
    b = Builder(graph)
    step = b.op("Mul", a, w)
    after = b.op("Tanh", step if s is None else b.op("Add", s, step))
    outputs: dict[str, Value] = {} if s is None else {"s_out": after}
    graph.set_outputs({**outputs, "s_scan": after, "sum": b.op("Add", a, c)})
    return graph


def scan_oracle(
    axes: tuple[int, int],
    reverse: tuple[int, int],
    out_axes: tuple[int, int],
    out_reverse: tuple[int, int],
    with_state: bool = True,
) -> Any:
    def oracle(*operands: Any) -> tuple[Any, ...]:
        s, a, c, w = operands if with_state else (np.zeros(()), *operands)
        a, c = (np.moveaxis(x, axis, 0)[:: -1 if r else 1] for x, axis, r in zip((a, c), axes, reverse, strict=True))
        states, sums = [], []
        for x, y in zip(a, c, strict=True):
            after = np.tanh((s if with_state else 0) + x * w)
            s = after
            states.append(after)
            sums.append(x + y)
        stacked = [np.stack(p[:: -1 if r else 1], o) for p, o, r in zip((states, sums), out_axes, out_reverse, strict=True)]
        return (s, *stacked) if with_state else tuple(stacked)

    return oracle


def choice(condition: Any, then: Graph, other: Graph, want: Any, id: str) -> Case:
    attrs = {"then_branch": then, "else_branch": other, "captured": 2}
    return Case("If", [np.array(condition), X, W], attrs, id=id, order=0, oracle=lambda c, x, w: want)


def loop(limit: Any, going: Any, id: str, outputs: int = 4) -> Case:
    operands = [None if v is None else np.array(v) for v in (limit, going)]
    return Case(
        "Loop",
        [*operands, X, X[:, :1], W],
        {"body": loop_body(), "captured": 1},
        outputs=outputs,
        id=id,
        order=0,
        oracle=lambda *operands: loop_oracle(*operands)[:outputs],
    )


def scan(id: str, a: Any, c: Any, axes: Any = (0, 0), reverse: Any = (0, 0), out: Any = (0, 0), back: Any = (0, 0)) -> Case:
    names = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
    given = {name: tuple(v) for name, v in zip(names, (axes, reverse, out, back), strict=True) if tuple(v) != (0, 0)}
    return Case(
        "Scan",
        [np.zeros(2), a, c, W],
        {"body": scan_body(), "captured": 1, "num_scan_inputs": 2, **given},
        outputs=3,
        id=id,
        order=0,
        oracle=scan_oracle(axes, reverse, out, back),
    )


CASES = [
    choice(True, branch("Mul", "x", "w"), branch("Neg", "x"), X * W, "then"),
    choice(False, branch("Mul", "x", "w"), branch("Neg", "x"), -X, "else"),
    choice([[True]], branch("Mul", "x", "w"), branch("Neg", "x"), X * W, "condition of rank 2"),
    choice(True, branch("Identity", "w"), branch("Identity", "x"), W, "ranks that differ"),
    Case(
        "If",
        [np.array(True), X],
        {"then_branch": passing(), "else_branch": passing(), "captured": 1},
        id="captured value as the result",
        order=0,
        oracle=lambda c, x: x,
    ),
    loop(3, True, "both"),
    loop(3, None, "count"),
    loop(None, True, "condition"),
    loop(100, True, "ended by the condition"),
    loop(0, True, "no trips"),
    loop(-5, True, "negative count"),
    loop(3, False, "condition false at first"),
    loop([2], [True], "count and condition of rank 1"),
    loop(3, True, "states only", outputs=2),
    loop(3, True, "one output", outputs=1),
    scan("plain", SEQUENCE, SEQUENCE + 1),
    scan("input axes", np.stack([SEQUENCE, SEQUENCE], 1)[:, 0].T, SEQUENCE + 1, axes=(1, 0)),
    scan("negative axes", SEQUENCE.T, SEQUENCE + 1, axes=(-1, -2), out=(-1, -2)),
    scan("input directions", SEQUENCE, SEQUENCE + 1, reverse=(1, 0)),
    scan("output axes", SEQUENCE, SEQUENCE + 1, out=(1, 0)),
    scan("output directions", SEQUENCE, SEQUENCE + 1, back=(0, 1)),
    scan("everything", SEQUENCE.T, SEQUENCE + 1, axes=(1, 0), reverse=(1, 1), out=(1, 1), back=(1, 0)),
    Case(
        "Scan",
        [SEQUENCE, SEQUENCE + 1, W],
        {"body": scan_body(with_state=False), "captured": 1, "num_scan_inputs": 2},
        outputs=2,
        id="no states",
        order=0,
        oracle=lambda a, c, w: (np.tanh(a * w), a + c),
    ),
]
