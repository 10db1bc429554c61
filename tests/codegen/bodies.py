"""Making bodies, and comparing what is compiled of them with what irgrad's own kernels compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import Builder, typed_call
from irgrad.codegen import build_kernel
from irgrad.graph import Graph, Value
from irgrad.runtime import fast
from irgrad.runtime.kernels import evaluate
from irgrad.types import TensorType

RTOL = {"float32": 1e-5, "float64": 1e-12}


def body(arrays: Sequence[np.ndarray], emit: Callable[..., Any]) -> Graph:
    """A graph with inputs of the types of some arrays, and as outputs what ``emit(b, *inputs)`` returns."""
    graph = Graph("body")
    b = Builder(graph)
    inputs = [graph.add_input(f"in{k}", TensorType(a.dtype, a.shape)) for k, a in enumerate(arrays)]
    with b:
        found = emit(b, *inputs)
    results = found if isinstance(found, (tuple, list)) else (found,)
    graph.set_outputs({f"out{k}": value for k, value in enumerate(results)})
    return graph


def plain(graph: Graph, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """What irgrad's numpy kernels make of the body, node by node."""
    known: dict[Value | None, Any] = {None: None, **graph.constants}
    known.update(zip(graph.inputs.values(), arrays, strict=True))
    with fast.using(False):
        for node in graph.nodes():
            found = evaluate(typed_call(node), [known[v] for v in node.inputs])
            known.update(zip(node.outputs, found, strict=True))
    return tuple(known[v] for v in graph.outputs.values())


def results(kernel: Any, arrays: Sequence[np.ndarray], **options: Any) -> tuple[np.ndarray, ...]:
    found = kernel(*arrays, **options)
    return found if isinstance(found, tuple) else (found,)


def agree(graph: Graph, arrays: Sequence[np.ndarray], *, scale: float = 0, atol: float = 0) -> Any:
    """Compile a body and compare its results with those of the numpy kernels; the compiled one.

    Errors are measured against each element, or, where terms cancel, against the largest one times `scale`.
    """
    kernel = build_kernel(graph)
    compare(plain(graph, arrays), results(kernel, arrays), scale=scale, atol=atol)
    return kernel


def compare(
    expected: Sequence[np.ndarray], found: Sequence[np.ndarray], *, scale: float = 0, atol: float = 0, name: str = ""
) -> None:
    assert len(expected) == len(found)
    for k, (x, y) in enumerate(zip(expected, found, strict=True)):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), f"output {k}"
        rtol = RTOL.get(x.dtype.name, 0)
        finite = np.abs(x[np.isfinite(x)]) if x.dtype.kind == "f" else np.zeros(0)
        largest = float(finite.max()) if finite.size and scale else 0.0
        np.testing.assert_allclose(y, x, rtol=rtol, atol=atol + scale * rtol * largest, err_msg=f"{name} output {k}")


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).normal(size=shape)).astype(dtype)
