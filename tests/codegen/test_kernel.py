"""Compiled bodies as kernels: memory, strides, threads, errors, and what is not supported."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from irgrad.codegen import build_kernel, source, unsupported
from irgrad.errors import ExecutionError, UsageError
from irgrad.graph import Graph, Value
from irgrad.op import WorkspaceKernel
from irgrad.runtime.threads import limited
from irgrad.types import TensorType
from tests.codegen.bodies import agree, body, compare, normal, plain, results


def mixed(b: Any, x: Value, bias: Value) -> Any:
    """Rows, columns and everything: two nests, a buffer, sums."""
    y = b.op("Softmax", x + bias)
    total = b.op("ReduceSum", y * x, keepdims=0)
    return y, b.op("ReduceSum", b.op("Gelu", x), b.ints([0]), keepdims=0), x / total


@pytest.fixture(scope="module")
def large() -> tuple[Any, list[np.ndarray]]:
    arrays = [normal(700, 300), normal(300)]
    return build_kernel(body(arrays, mixed)), arrays


def test_the_number_of_threads_changes_no_bit(large: tuple[Any, list[np.ndarray]]) -> None:
    kernel, arrays = large
    with limited(1):
        one = results(kernel, arrays)
    for count in (2, 3, 5):
        with limited(count):
            for x, y in zip(one, results(kernel, arrays), strict=True):
                assert x.tobytes() == y.tobytes()


def test_several_threads_may_call_it(large: tuple[Any, list[np.ndarray]]) -> None:
    kernel, arrays = large
    inputs = [[arrays[0] * k, arrays[1]] for k in range(1, 5)]
    expected = [results(kernel, operands) for operands in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: results(kernel, inputs[k % 4]), range(16)))
    for k, arrays_found in enumerate(found):
        for x, y in zip(expected[k % 4], arrays_found, strict=True):
            assert x.tobytes() == y.tobytes()


def test_it_writes_where_it_is_told_to_and_allocates_nothing(large: tuple[Any, list[np.ndarray]]) -> None:
    kernel, arrays = large
    assert isinstance(kernel, WorkspaceKernel)
    expected = results(kernel, arrays)
    out, work = tuple(np.full_like(x, np.nan) for x in expected), np.full(kernel.workspace, 255, np.uint8)
    with limited(1):
        kernel.function(*arrays, out=out, work=work)
        tracemalloc.start()
        returned = kernel.function(*arrays, out=out, work=work)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert all(x is y for x, y in zip(returned, out, strict=True))
    compare(expected, out)
    assert peak < 4096  # views of what was handed over, no arrays
    (first, *_) = results(kernel, arrays, out=(None, out[1], None))
    assert first is not out[0]
    compare(expected, (first, *out[1:]))


def test_operands_of_any_strides() -> None:
    x, y, scale = normal(40, 12, 150), normal(40, 12, 150, seed=1), normal(150, seed=2)

    def emit(b: Any, x: Value, y: Value, scale: Value) -> Any:
        return b.op("Softmax", x * scale) + y, b.op("ReduceSum", y, b.ints([0, 1]))

    graph = body([x, y, scale], emit)
    kernel = build_kernel(graph)
    wide = normal(40, 12, 450)
    views = {
        "columns of a wider array": wide[..., 150:300],
        "rows backwards": y[:, ::-1],
        "transposed": np.ascontiguousarray(y.transpose(1, 0, 2)).transpose(1, 0, 2),
        "other order": np.asfortranarray(y),
        "every other column": normal(40, 12, 300)[..., ::2],
        "one row for all": np.broadcast_to(y[:1], y.shape),
        "read-only": np.frombuffer(y.tobytes(), np.float32).reshape(y.shape),
        "not aligned": np.frombuffer(b"x" + y.tobytes(), np.uint8)[1:].view(np.float32).reshape(y.shape),
    }
    for name, view in views.items():
        expected = plain(graph, [x, np.ascontiguousarray(view), scale])
        for found in (results(kernel, [x, view, scale]), results(kernel, [x, view, np.repeat(scale, 2)[::2]])):
            compare(expected, found, scale=1, name=name)


def test_wrong_operands_are_refused() -> None:
    x, labels = normal(6, 5), np.array([0, 1, 2, 3, 4, 0])
    kernel = build_kernel(body([x, labels], lambda b, x, labels: b.op("SoftmaxCrossEntropyLoss", x, labels)))
    for wrong, message in (
        ((x[:5], labels), "operand 0 .* has the shape"),
        ((x.astype(np.float64), labels), "operand 0 .* is of float64"),
        ((x, labels.astype(np.int32)), "operand 1 .* is of int32"),
        ((x,), "takes 2 operands"),
        ((x, labels + 1), "a label is out of range"),
        ((x, labels - 1), "a label is out of range"),
    ):
        with pytest.raises(ExecutionError, match=message):
            kernel(*wrong)
    for place in (np.empty(3, np.float32), np.empty((), np.float64)):
        with pytest.raises(ExecutionError, match="needs a contiguous place"):
            kernel(x, labels, out=place)


def test_an_operand_that_nothing_uses() -> None:
    arrays = [normal(3, 4), normal(2), normal(4)]
    agree(body(arrays, lambda b, x, unused, y: x + y), arrays)


def _of_type(dtype: Any, shape: Any, emit: Any) -> Graph:
    from irgrad.builder import Builder

    graph = Graph("body")
    b = Builder(graph)
    x = graph.add_input("x", TensorType(np.dtype(dtype), shape))
    with b:
        graph.set_outputs([emit(b, x)])
    return graph


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (lambda: _of_type(np.float16, (3,), lambda b, x: x + x), "is of f16"),
        (lambda: _of_type(np.float32, ("N",), lambda b, x: x + x), "is not static"),
        (lambda: _of_type(np.float32, (0, 3), lambda b, x: x + x), "is empty"),
        (lambda: _of_type(np.float32, (3, 3), lambda b, x: b.op("MatMul", x, x)), "MatMul is not an operation"),
        (lambda: _of_type(np.int32, (3,), lambda b, x: b.op("Div", x, x)), "Div of integers"),
        (lambda: _of_type(np.float32, (3, 4), lambda b, x: b.op("Reshape", x, b.ints([4, 3])) + 1.0), "reshaped"),
        (lambda: _of_type(np.float32, (64, 8, 4096), lambda b, x: b.op("Softmax", x, axis=1)), "between others"),
    ],
)
def test_what_is_not_supported(graph: Any, reason: str) -> None:
    found = unsupported(graph())
    assert found is not None and reason in found
    with pytest.raises(UsageError, match="cannot be compiled"):
        build_kernel(graph())


def test_the_source_can_be_read() -> None:
    arrays = [normal(6, 50), normal(50)]
    graph = body(arrays, mixed)
    text = source(graph)
    assert unsupported(graph) is None
    compile(text, "<source>", "exec")
    for name in ("%in0", "%in1", "%Softmax", "the output %out1"):
        assert name in text


def test_numba_is_needed_for_running_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from irgrad.runtime import fast

    graph = body([normal(3)], lambda b, x: x + x)
    monkeypatch.setattr(fast, "available", lambda: False)
    assert unsupported(graph) is None and source(graph)
    with pytest.raises(UsageError, match=r"irgrad\[fast\]"):
        build_kernel(graph)
