"""Cases of irgrad/ops/control.py; models with control flow are in tests/frontends/test_control.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Value
from irgrad.types import Type
from tests.ops.bodies import I64, SEQUENCE, branch_on, floats, loop_over, subgraph
from tests.ops.harness import Case, rng

X = rng(0).standard_normal((3, 2))
W = rng(1).standard_normal((2,))
PARTS = [rng(2).standard_normal((2,)), rng(3).standard_normal((2,))]

Branch = Callable[..., Value | Sequence[Value]]


def times(b: Builder, x: Value, w: Value) -> Value:
    return x * w


def negated(b: Builder, x: Value, w: Value) -> Value:
    return -x


def choice(
    condition: Any,
    then: Branch,
    other: Branch,
    want: Callable[..., Any],
    id: str,
    inputs: Sequence[Any] = (X, W),
    types: dict[str, Type] | None = None,
    outputs: int = 1,
    order: int = 2,
) -> Case:
    """An If that captures `inputs`: `then` and `other` are its branches as functions of them, `want` is what is expected."""
    captured = types or floats("x", "w")

    def made(branch: Branch) -> Callable[..., Sequence[Value]]:
        def results(b: Builder, *values: Value) -> Sequence[Value]:
            found = branch(b, *values)
            return [found] if isinstance(found, Value) else found

        return results

    attrs = {
        "then_branch": subgraph(captured, made(then), "then"),
        "else_branch": subgraph(captured, made(other), "else"),
        "captured": len(captured),
    }
    oracle = lambda c, *values: want(*values)  # noqa: E731
    return Case("If", [np.array(condition), *inputs], attrs, id=id, outputs=outputs, order=order, oracle=oracle)


def inner(b: Builder, x: Value, w: Value) -> Value:
    """An If in a branch: tanh(x) w where the sum of x is large, x² otherwise."""
    large = b.op("Greater", b.op("ReduceSum", x, keepdims=0), 100.0)
    return branch_on(b, large, [x, w], lambda b, x, w: b.op("Tanh", x) * w, lambda b, x, w: x * x)


def powers(b: Builder, x: Value, w: Value) -> Value:
    """A Loop in a branch: tanh(x w) w ..., three times."""
    return loop_over(b, 3, [x], [w], lambda b, i, c, s, w: [c, b.op("Tanh", s * w)])[0]


def tanh_powers(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    for _ in range(3):
        x = np.tanh(x * w)
    return x


CASES = [
    choice(True, times, negated, lambda x, w: x * w, "then"),
    choice(False, times, negated, lambda x, w: -x, "else"),
    choice([[True]], times, negated, lambda x, w: x * w, "condition of rank 2"),
    choice(True, lambda b, x, w: w, lambda b, x, w: x, lambda x, w: w, "ranks that differ"),
    choice(
        False,
        lambda b, x, w: [x, b.op("Exp", w)],
        lambda b, x, w: [b.op("Tanh", b.op("Transpose", x)), w * w * w],
        lambda x, w: (np.tanh(x.T), w**3),
        "two results, shapes that differ",
        outputs=2,
    ),
    choice(True, lambda b, x, w: x, lambda b, x, w: x, lambda x, w: x, "captured value as the result"),
    choice(True, lambda b, x, w: x * x, lambda b, x, w: x * w, lambda x, w: x * x, "captured for the other branch"),
    choice(True, times, lambda b, x, w: b.op("Floor", x), lambda x, w: x * w, "no gradient in the other branch"),
    choice(True, inner, negated, lambda x, w: x * x, "If in a branch"),
    choice(False, negated, powers, tanh_powers, "Loop in a branch"),
    choice(
        True,
        lambda b, x, n: b.op("Gather", x, n) * b.cast(n, x.dtype),
        lambda b, x, n: x,
        lambda x, n: x[n] * n,
        "captured integer",
        inputs=[X, np.array(2)],
        types={**floats("x"), "n": I64.with_shape(())},
    ),
    choice(
        True,
        lambda b, parts, w: b.op("SequenceInsert", parts, w * w),
        lambda b, parts, w: parts,
        lambda parts, w: [*parts, w * w],
        "sequences",
        inputs=[PARTS, W],
        types={"parts": SEQUENCE, **floats("w")},
    ),
    choice(
        False,
        lambda b, parts, w: b.op("SequenceAt", parts, 1),
        lambda b, parts, w: b.op("SequenceAt", parts, -1) * w,
        lambda parts, w: parts[-1] * w,
        "out of a captured sequence",
        inputs=[PARTS, W],
        types={"parts": SEQUENCE, **floats("w")},
    ),
]
