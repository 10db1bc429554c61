"""Cases of irgrad/ops/scan.py; models with control flow are in tests/frontends/test_control.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from tests.ops.bodies import F64, NUMBER, branch_on, floats, loop_over, subgraph
from tests.ops.harness import Case, rng

W = rng(1).standard_normal((2,))
SEQUENCE = rng(2).standard_normal((4, 2))


def scan_body(with_state: bool = True) -> Graph:
    """``s = tanh(s + a * w)``; scan outputs s and a + b."""

    def make(b: Builder, *values: Value) -> Sequence[Value]:
        *states, x, y, w = values
        after = b.op("Tanh", states[0] + x * w if states else x * w)
        return [*(after for _ in states), after, x + y]

    return subgraph(floats(*("sabw" if with_state else "abw")), make)


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


def scan(id: str, a: Any, c: Any, axes: Any = (0, 0), reverse: Any = (0, 0), out: Any = (0, 0), back: Any = (0, 0)) -> Case:
    names = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
    given = {name: tuple(v) for name, v in zip(names, (axes, reverse, out, back), strict=True) if tuple(v) != (0, 0)}
    return Case(
        "Scan",
        [np.zeros(2), a, c, W],
        {"body": scan_body(), "captured": 1, "num_scan_inputs": 2, **given},
        outputs=3,
        id=id,
        order=2,
        oracle=scan_oracle(axes, reverse, out, back),
    )


def stepwise(
    id: str,
    step: Callable[..., Sequence[Value]],
    want: Callable[..., Sequence[Any]],
    states: dict[str, Any],
    scanned: dict[str, Any],
    captured: dict[str, Any],
    outputs: int = 1,
) -> Case:
    """A Scan along axis 0; ``step(b, *states, *slices, *captured)`` returns states and slices, `want` the same on arrays."""
    given = {**states, **scanned, **captured}
    types = {name: F64 if np.asarray(v).dtype == np.float64 else NUMBER for name, v in given.items()}

    def oracle(*operands: Any) -> tuple[Any, ...]:
        now, fixed = list(operands[: len(states)]), operands[len(states) + len(scanned) :]
        slices: list[list[Any]] = [[] for _ in range(outputs - len(states))]
        for parts in zip(*operands[len(states) : len(states) + len(scanned)], strict=True):
            results = want(*now, *parts, *fixed)
            now = list(results[: len(states)])
            for collected, part in zip(slices, results[len(states) :], strict=False):
                collected.append(part)
        return tuple([*now, *map(np.array, slices)][:outputs])

    body = subgraph(types, step)
    attrs = {"body": body, "captured": len(captured), "num_scan_inputs": len(scanned)}
    return Case("Scan", list(given.values()), attrs, outputs=outputs, id=id, oracle=oracle)


def chosen(b: Builder, s: Value, x: Value, w: Value) -> Sequence[Value]:
    large = b.op("ReduceSum", x, keepdims=0) > 0.0
    after = branch_on(b, large, [s, x, w], lambda b, s, x, w: b.op("Tanh", s * x), lambda b, s, x, w: s * w + x)
    return [after, after * x]


def chosen_oracle(s: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    after = np.tanh(s * x) if x.sum() > 0 else s * w + x
    return after, after * x


def looped(b: Builder, s: Value, x: Value, w: Value) -> Sequence[Value]:
    return [loop_over(b, 2, [s], [x, w], lambda b, i, c, s, x, w: [c, b.op("Sin", s * w + x)])[0]]


def looped_oracle(s: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray]:
    for _ in range(2):
        s = np.sin(s * w + x)
    return (s,)


CASES = [
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
        order=2,
        oracle=lambda a, c, w: (np.tanh(a * w), a + c),
    ),
    stepwise("If in the body", chosen, chosen_oracle, {"s": W}, {"x": SEQUENCE}, {"w": W}, outputs=2),
    stepwise("Loop in the body", looped, looped_oracle, {"s": W}, {"x": SEQUENCE}, {"w": W}),
    stepwise(
        "rows that scanned integers pick",
        lambda b, s, n, table: [b.op("Tanh", s + b.op("Gather", table, n))],
        lambda s, n, table: (np.tanh(s + table[n]),),
        {"s": W},
        {"n": np.array([2, 0, 2])},
        {"table": SEQUENCE},
    ),
    stepwise(
        "an operand that counts the steps only",
        lambda b, s, x, w: [s * w],
        lambda s, x, w: (s * w,),
        {"s": W},
        {"x": SEQUENCE},
        {"w": W},
    ),
    stepwise(
        "a state that has no say",
        lambda b, s, t, x: [b.op("Exp", t), t * x],
        lambda s, t, x: (np.exp(t), t * x),
        {"s": W, "t": W + 0.5},
        {"x": SEQUENCE / 4},
        {},
        outputs=2,
    ),
]
