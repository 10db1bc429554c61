"""Random bodies: operations on elements over shapes that are broadcast, with reductions in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgrad.codegen import build_kernel, unsupported
from tests.codegen.bodies import body, compare, normal, plain, results

UNARY = ("Neg", "Tanh", "Sigmoid", "Relu", "Abs", "Softplus", "Erf", "Sign", "Floor", "Identity", "Gelu")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
REDUCTIONS = ("ReduceSum", "ReduceMax", "ReduceMean", "Softmax", "LogSoftmax")


@st.composite
def recipes(draw: Any) -> tuple[list[tuple[int, ...]], list[tuple[Any, ...]], list[int]]:
    """Shapes of inputs, then steps that name an operation and which of the values so far it takes, then outputs."""
    full = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 17]), min_size=1, max_size=4)))
    shapes = [full]
    for _ in range(draw(st.integers(0, 3))):
        shape = tuple(d if draw(st.booleans()) else 1 for d in full)
        shapes.append(shape[draw(st.integers(0, len(shape))) :])
    steps: list[tuple[Any, ...]] = []
    for k in range(draw(st.integers(1, 8))):
        count = len(shapes) + k
        name = draw(st.sampled_from((*UNARY, *BINARY, *BINARY, *REDUCTIONS, "Where")))
        operands = [draw(st.integers(0, count - 1)) for _ in range(3)]
        axes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
        steps.append((name, operands, axes))
    outputs = draw(st.lists(st.integers(0, len(steps) - 1), min_size=1, max_size=3, unique=True))
    return shapes, steps, outputs


def emit(recipe: Any, b: Any, *inputs: Any) -> Any:
    _, steps, outputs = recipe
    values = list(inputs)
    for name, operands, axes in steps:
        x, y, z = (values[k] for k in operands)
        if name in UNARY:
            values.append(b.op(name, x))
        elif name in BINARY:
            values.append(b.op(name, x, y))
        elif name == "Where":
            values.append(b.op("Where", x > y, y, z))
        elif not x.rank:
            values.append(x * 0.5)
        elif name in ("Softmax", "LogSoftmax"):
            values.append(b.op(name, x, axis=axes[0] % x.rank))
        else:
            values.append(b.op(name, x, b.ints(sorted({a % x.rank for a in axes}))))
    return [values[len(inputs) + k] for k in outputs]


@given(recipes())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_bodies(recipe: Any) -> None:
    arrays = [normal(*shape, seed=k) for k, shape in enumerate(recipe[0])]
    graph = body(arrays, lambda b, *vs: emit(recipe, b, *vs))
    if unsupported(graph) is None:
        compare(plain(graph, arrays), results(build_kernel(graph), arrays), scale=10, atol=1e-5)


@given(recipes())
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_most_bodies_are_supported(recipe: Any) -> None:
    """Or there is a reason; planning fails in no other way."""
    arrays = [np.zeros(shape, np.float32) for shape in recipe[0]]
    reason = unsupported(body(arrays, lambda b, *vs: emit(recipe, b, *vs)))
    assert reason is None or isinstance(reason, str)
