"""Cases of irgrad/ops/loop.py; models with control flow are in tests/frontends/test_control.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.types import OptionalType, Type
from tests.ops.bodies import CONDITION, F64, HEAD, I64, SEQUENCE, branch_on, floats, loop_over, subgraph
from tests.ops.harness import Case, rng

X = rng(0).standard_normal((3, 2))
W = rng(1).standard_normal((2,))
TABLE = rng(2).standard_normal((5, 2))
PARTS = [rng(3).standard_normal((2,)), rng(4).standard_normal((2,))]


def loop_body() -> Graph:
    """``s, t = s * w + i, concat(t, t[:1])``; scan outputs s and sum(s); goes on while s stays small."""

    def make(b: Builder, i: Value, c: Value, s: Value, t: Value, w: Value) -> Sequence[Value]:
        after = s * w + b.cast(i, w.dtype)
        longer = b.op("Concat", t, b.op("Slice", t, b.ints([0]), b.ints([1]), b.ints([0])), axis=0)
        total = b.op("ReduceSum", after, keepdims=0)
        small = b.op("ReduceMax", b.op("Abs", after), keepdims=0) < 30.0
        return [b.op("And", small, c), after, longer, after, total]

    return subgraph({**HEAD, **floats("s", "t", "w")}, make)


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


def loop(limit: Any, going: Any, id: str, outputs: int = 4) -> Case:
    operands = [None if v is None else np.array(v) for v in (limit, going)]
    return Case(
        "Loop",
        [*operands, X, X[:, :1], W],
        {"body": loop_body(), "captured": 1},
        outputs=outputs,
        id=id,
        oracle=lambda *operands: loop_oracle(*operands)[:outputs],
    )


def counted(
    id: str,
    step: Callable[..., Sequence[Value]],
    want: Callable[..., Any],
    states: dict[str, Any],
    captured: dict[str, Any],
    trips: int = 3,
    outputs: int = 1,
    types: dict[str, Type] | None = None,
    order: int = 2,
) -> Case:
    """A Loop of so many trips; ``step(b, i, *states, *captured)`` returns states and slices.

    What is expected is what ``want(i, *states, *captured)`` gives, likewise on arrays.
    """
    given = {**states, **captured}
    known: dict[str, Type] = {
        name: F64 if np.asarray(v).dtype == np.float64 else I64 for name, v in given.items() if not isinstance(v, list)
    }
    known = {name: known.get(name, SEQUENCE) for name in given} | (types or {})
    body = subgraph({**HEAD, **known}, lambda b, i, c, *values: [c, *step(b, i, *values)])

    def oracle(limit: Any, going: Any, *operands: Any) -> tuple[Any, ...]:
        now, fixed = list(operands[: len(states)]), operands[len(states) :]
        slices: list[list[Any]] = [[] for _ in range(outputs - len(states))]
        for i in range(trips):
            now_and_slices = want(i, *now, *fixed)
            now = list(now_and_slices[: len(states)])
            for collected, part in zip(slices, now_and_slices[len(states) :], strict=False):
                collected.append(part)
        return tuple([*now, *map(np.array, slices)][:outputs])

    positions = {
        2 + k: type for k, (name, type) in enumerate(known.items()) if isinstance(given[name], list) and not given[name]
    }
    return Case(
        "Loop",
        [np.array(trips), None, *given.values()],
        {"body": body, "captured": len(captured)},
        outputs=outputs,
        id=id,
        oracle=oracle,
        types=positions,
        order=order,
    )


def grown(b: Builder, i: Value, t: Value, w: Value) -> Sequence[Value]:
    """The state gets a row more in each iteration, and all of it is read: a stack of it would have no shape."""
    squares = b.op("Tanh", t * w)
    return [b.op("Concat", squares, b.op("ReduceSum", t * t, b.ints([0])), axis=0)]


def choosing(b: Builder, i: Value, s: Value, w: Value) -> Sequence[Value]:
    odd = b.op("Equal", b.op("Mod", i, 2), 1)
    return [branch_on(b, odd, [s, w], lambda b, s, w: b.op("Tanh", s) * w, lambda b, s, w: s * s)]


def nested(b: Builder, i: Value, s: Value, w: Value) -> Sequence[Value]:
    """A Loop of i + 1 trips that hands out slices, whose sum is the next state."""
    *_, slices = loop_over(b, i + 1, [s], [w], lambda b, j, c, v, w: [c, b.op("Tanh", v * w), v * w])
    return [b.op("ReduceSum", slices, b.ints([0]), keepdims=0)]


def nested_oracle(i: int, s: np.ndarray, w: np.ndarray) -> tuple[np.ndarray]:
    total = np.zeros_like(s)
    for _ in range(i + 1):
        total = total + s * w
        s = np.tanh(s * w)
    return (total,)


def maybe(b: Builder, i: Value, c: Value, o: Value, w: Value) -> Sequence[Value]:
    """The state is an optional: w where it holds nothing."""
    there = b.op("OptionalHasElement", o)
    held = branch_on(b, there, [o, w], lambda b, o, w: b.op("OptionalGetElement", o), lambda b, o, w: b.op("Identity", w))
    return [c, b.op("Optional", b.op("Tanh", held * w)), held]


def optional_state(start: Any, id: str) -> Case:
    optional = OptionalType(F64.with_shape((2,)))

    def oracle(m: Any, c: Any, o: Any, w: Any) -> tuple[Any, ...]:
        slices = []
        for _ in range(3):
            slices.append(w if o is None else o)
            o = np.tanh(slices[-1] * w)
        return o, np.array(slices)

    return Case(
        "Loop",
        [np.array(3), None, start, W],
        {"body": subgraph({**HEAD, "o": optional, **floats("w")}, maybe), "captured": 1},
        outputs=2,
        id=id,
        oracle=oracle,
        types={2: optional},
    )


def conditional(b: Builder, i: Value, c: Value, s: Value, w: Value) -> Sequence[Value]:
    """No state is read by the adjoint, nothing is handed out: the number of trips has to come from somewhere."""
    return [b.op("Less", i, 3), s * w]


CASES = [
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
    counted(
        "a row of a captured value",
        lambda b, i, s, x: [b.op("Tanh", s + b.op("Gather", x, i)), s * s],
        lambda i, s, x: (np.tanh(s + x[i]), s * s),
        {"s": W},
        {"x": TABLE},
        outputs=2,
    ),
    counted(
        "columns of a captured value",
        lambda b, i, s, x: [s * b.op("Gather", x, b.op("Concat", *[b.op("Reshape", i, b.ints([1]))] * 2, axis=0), axis=-1)],
        lambda i, s, x: (s * x[:, [i, i]],),
        {"s": X},
        {"x": rng(5).standard_normal((3, 4))},
    ),
    counted(
        "a row of a table that a state decides",
        lambda b, i, n, s, x: [b.op("Mod", n * 3 + 1, 5), s * b.op("Gather", x, n)],
        lambda i, n, s, x: ((n * 3 + 1) % 5, s * x[n]),
        {"n": np.array(2), "s": W},
        {"x": TABLE},
        outputs=2,
        trips=4,
    ),
    counted(
        "an integer state is read",
        lambda b, i, n, s: [n * 2, b.op("Sin", s * b.cast(n, s.dtype))],
        lambda i, n, s: (n * 2, np.sin(s * n)),
        {"n": np.array([1, 2]), "s": X},
        {},
        outputs=2,
    ),
    counted(
        "a state that grows",
        grown,
        lambda i, t, w: (np.r_[np.tanh(t * w), (t * t).sum(0, keepdims=True)],),
        {"t": X},
        {"w": W},
    ),
    counted(
        "states that change places",
        lambda b, i, s, t: [t * t, s, s + t],
        lambda i, s, t: (t * t, s, s + t),
        {"s": X, "t": W + np.zeros((3, 1))},
        {},
        outputs=3,
    ),
    counted(
        "a state that has no say",
        lambda b, i, s, t: [b.op("Tanh", t), t],
        lambda i, s, t: (np.tanh(t), t),
        {"s": X, "t": W},
        {},
        outputs=1,
    ),
    counted(
        "no states", lambda b, i, x: [b.op("Exp", b.op("Gather", x, i))], lambda i, x: (np.exp(x[i]),), {}, {"x": TABLE}
    ),
    counted("If in the body", choosing, lambda i, s, w: (np.tanh(s) * w if i % 2 else s * s,), {"s": X}, {"w": W}, trips=4),
    counted("Loop in the body", nested, nested_oracle, {"s": X}, {"w": W}),
    counted(
        "a sequence is filled",
        lambda b, i, q, s, w: [b.op("SequenceInsert", q, s * w), b.op("Tanh", s)],
        lambda i, q, s, w: ([*q, s * w], np.tanh(s)),
        {"q": [], "s": X},
        {"w": W},
        outputs=2,
    ),
    counted(
        "the last of a sequence that is filled",
        lambda b, i, q, w: [b.op("SequenceInsert", q, b.op("Tanh", b.op("SequenceAt", q, -1) * w))],
        lambda i, q, w: ([*q, np.tanh(q[-1] * w)],),
        {"q": PARTS},
        {"w": W},
    ),
    counted(
        "a sequence is filled from the front",
        lambda b, i, q, w: [b.op("SequenceInsert", q, b.op("SequenceAt", q, 1) * w, np.array(0))],
        lambda i, q, w: ([q[1] * w, *q],),
        {"q": PARTS},
        {"w": W},
    ),
    counted(
        "elements of a captured sequence",
        lambda b, i, s, q: [b.op("Tanh", s * b.op("SequenceAt", q, i))],
        lambda i, s, q: (np.tanh(s * q[i]),),
        {"s": X},
        {"q": PARTS},
        trips=2,
    ),
    optional_state(W + 1, "an optional state"),
    optional_state(None, "an optional state that holds nothing at first"),
    Case(
        "Loop",
        [np.array(100), np.array(True), X, W],
        {"body": subgraph({**HEAD, **floats("s", "w")}, conditional), "captured": 1},
        id="nothing to count by",
        oracle=lambda m, c, s, w: s * w**4,
        wrt=[2],
    ),
    Case(
        "Loop",
        [np.array([2]), np.array([True]), W],
        {
            "body": subgraph(
                {"i": I64.with_shape((1,)), "c": CONDITION.with_shape((1,)), **floats("s")},
                lambda b, i, c, s: [c, s * s * b.cast(i + 1, s.dtype)],
            ),
            "captured": 0,
        },
        id="iteration number of rank 1",
        oracle=lambda m, c, s: 2 * s**4,
    ),
]
