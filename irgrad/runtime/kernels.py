"""The kernel of a node: the operation's own, else onnx's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator

from irgrad.errors import ExecutionError
from irgrad.graph import OPSET, Graph
from irgrad.op import Call, Kernel
from irgrad.proto import node_to_proto
from irgrad.runtime.failure import wrong_dtype
from irgrad.types import TensorType, Type, is_differentiable, type_to_proto

__all__ = [
    "accumulation_dtype",
    "bind",
    "deliver",
    "deliver_all",
    "evaluate",
    "put",
    "reference_kernel",
    "results_of",
    "widened",
]


def bind(call: Call) -> Kernel:
    """The kernel for one node.

    Raises:
        ExecutionError: neither irgrad nor onnx.reference can run the operation.
    """
    kernel = call.op.bind(call)
    if kernel is None:
        return reference_kernel(call)
    return _checking(kernel, call) if _depends_on_data(call) else kernel


def _depends_on_data(call: Call) -> bool:
    """Whether shapes that the operation's own type inference would check are not known before it runs."""
    if call.op.infer_rule is None or any(isinstance(a, Graph) for a in call.attrs.values()):
        return False
    operands = [type for type in call.inputs if type is not None]
    tensors = [type for type in operands if isinstance(type, TensorType)]
    return len(tensors) == len(operands) and any(type.static_shape is None for type in tensors)


def _checking(kernel: Kernel, call: Call) -> Kernel:
    """A kernel that has type inference check its operands first: numpy broadcasts much that does not fit."""
    check = call.op.infer_rule
    assert check is not None

    def run(*operands: Any, out: Any = None) -> Any:
        check(replace(call, inputs=tuple(None if a is None else TensorType.of(a) for a in operands), outputs=()))
        return kernel(*operands, out=out)

    return run


def evaluate(call: Call, operands: Sequence[Any]) -> tuple[Any, ...]:
    """Run one node at once on concrete operands; one result per output."""
    kernel = bind(call)
    with np.errstate(all="ignore"):
        return results_of(kernel(*operands), call.n_outputs)


def results_of(result: Any, count: int) -> tuple[Any, ...]:
    """What a kernel returned as a tuple of `count` arrays (numpy's scalars made 0-d arrays, lists left alone)."""
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < count:
        raise ExecutionError(f"its kernel returned {len(results)} results for {count} outputs")
    return tuple(r if isinstance(r, list) or r is None else np.asarray(r) for r in results[:count])


def deliver(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Put a result into `out` where there is one, for kernels that cannot compute in place."""
    if out is None:
        return result
    if result.ndim < 2 or result.size < _TURNED or abs(result.strides[-1]) < _LINE or result.shape[-1] <= _STRIP:
        np.copyto(out, result)
    else:
        # Turned round, with far apart what is to lie side by side: strip by strip a line of the cache is read once only.
        for start in range(0, result.shape[-1], _STRIP):
            np.copyto(out[..., start : start + _STRIP], result[..., start : start + _STRIP])
    return out


_TURNED = 1 << 14  # elements
_LINE = 64  # bytes of the processor's cache that are read together
_STRIP = 64  # elements


def put(result: Any, out: np.ndarray) -> None:
    """Put a result into its place where a kernel has delivered it elsewhere.

    Raises:
        TypeError, ValueError: it has not the dtype or the shape of its place.
    """
    result = np.asarray(result)
    if result.dtype != out.dtype:
        raise TypeError(wrong_dtype(result.dtype, out.dtype))
    if result.shape != out.shape:
        raise ValueError(f"its kernel returned the shape {list(result.shape)} where its type says {list(out.shape)}")
    np.copyto(out, result)


def deliver_all(results: Sequence[Any], out: Any) -> tuple[Any, ...]:
    """Put results into `out` where there is one: an array for one output, a tuple for several.

    There may be more results than outputs that were asked for; those at the end are left out.
    """
    if out is None:
        return tuple(results)
    places = out if isinstance(out, tuple) else (out,)
    return tuple(deliver(result, place) for result, place in zip(results, places, strict=False))


def accumulation_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which sums over elements of `dtype` are formed: float32 for float16 and bfloat16, else the same."""
    return np.dtype(np.float32) if dtype.itemsize == 2 and is_differentiable(dtype) else dtype


def widened(kernel: Kernel) -> Kernel:
    """The same kernel, which does its work in float32 where its first operand is float16 or bfloat16.

    BLAS knows neither of these, and sums of many products need the range and the digits.
    """

    @wraps(kernel)
    def run(*operands: Any, out: np.ndarray | None = None, **attrs: Any) -> Any:
        narrow = operands[0].dtype
        wide = accumulation_dtype(narrow)
        if wide == narrow:
            return kernel(*operands, out=out, **attrs)
        wider = [a.astype(wide) if a is not None and a.dtype == narrow else a for a in operands]
        result = kernel(*wider, **attrs)
        return deliver(np.asarray(result).astype(narrow), out)

    return run


def reference_kernel(call: Call) -> Kernel:
    """A kernel that runs onnx.reference on one node.

    Raises:
        ExecutionError: it cannot.
    """
    op = call.op
    if op.schema is None or any(isinstance(a, Graph) for a in call.attrs.values()):
        raise ExecutionError(f"no kernel is known for {op.qualified_name}; a plugin can bring one")
    inputs = ["" if t is None else f"i{k}" for k, t in enumerate(call.inputs)]
    outputs = [f"o{k}" for k in range(call.n_outputs)]
    node = node_to_proto(op.name, op.domain, _explicit(call), inputs, outputs)
    domains = {"": OPSET, op.domain: OPSET if op.domain == "" else op.schema.since_version}
    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [_value_info(n, t) for n, t in zip(inputs, call.inputs, strict=True) if t is not None],
            [_value_info(n, t) for n, t in zip(outputs, call.outputs, strict=True)],
        ),
        opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()],
    )
    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:  # the reference raises NotImplementedError, RuntimeContextError and others here
        raise ExecutionError(f"no kernel is known for {op.qualified_name}, and onnx.reference says: {error}") from None

    def kernel(*operands: Any, out: np.ndarray | None = None) -> Any:
        feeds = {name: operand for name, operand in zip(inputs, operands, strict=True) if name}
        results: Any = evaluator.run(None, feeds)
        return tuple(results) if len(results) != 1 else deliver(results[0], out)

    return kernel


def _explicit(call: Call) -> Mapping[str, Any]:
    return {name: value for name, value in call.attrs.items() if value is not None}


def _value_info(name: str, type: Type) -> Any:
    return helper.make_value_info(name, type_to_proto(type))
