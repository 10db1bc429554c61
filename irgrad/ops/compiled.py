"""Kernels of single nodes that numba compiles, by the same generator as fused parts of a graph; see `irgrad.codegen`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Node, Value
from irgrad.op import Call, Kernel, WorkspaceKernel
from irgrad.runtime import fast
from irgrad.runtime.jit import reals
from irgrad.runtime.workspace import Plan
from irgrad.types import TensorType

__all__ = ["compiled"]

_WORTH = 1 << 13
"""Elements of the largest operand from which on numpy's form, a handful of passes over blocks, is worth replacing."""


def compiled(plan: Plan, *, along_last: bool = False) -> Plan:
    """The same plan, whose kernel gives way to a compiled one after a few runs, where that is wanted and possible.

    Args:
        plan: the plan.
        along_last: only where the attribute `axis` is the last one; along others numpy's form is the faster one.
    """

    def prepare(call: Call) -> Kernel:
        kernel = plan(call)
        if not fast.enabled() or not _fits(call) or (along_last and not _is_along_last(call)):
            return kernel
        if not isinstance(kernel, WorkspaceKernel):
            return fast.compiled(lambda: _built(call) or kernel, kernel)
        function, workspace = kernel.function, kernel.workspace

        def build() -> Callable[..., Any]:
            found = _built(call)
            if found is None:
                return function
            if isinstance(found, WorkspaceKernel) and found.workspace <= workspace:
                return found.function
            made = found
            return lambda *operands, out=None, work: made(*operands, out=out)

        return fast.compiled(build, kernel)

    return prepare


def _is_along_last(call: Call) -> bool:
    axis: int = call.attrs["axis"]
    return axis in (-1, len(call.tensor(0).shape or ()) - 1)


def _fits(call: Call) -> bool:
    """Whether all operands are numbers that compiled code knows, in shapes that are known, and many."""
    tensors = [type for type in (*call.inputs, *call.outputs) if isinstance(type, TensorType)]
    if len(tensors) < len(call.outputs) or any(type.static_shape is None for type in tensors):
        return False
    if not reals(*(type.dtype for k, type in enumerate(tensors) if k not in call.constants)):
        return False
    return max(prod(type.static_shape or ()) for type in tensors) >= _WORTH


def _built(call: Call) -> Kernel | None:
    """The compiled kernel, or None where the generator does not know the operation."""
    from irgrad.codegen import build_kernel, unsupported

    for expand in (False, True):
        if expand and not call.op.has_lowering:
            return None
        graph = _graph_of(call, expand)
        if unsupported(graph) is None:
            kernel = build_kernel(graph)
            present = [k for k, type in enumerate(call.inputs) if type is not None and k not in call.constants]
            return _of_present(kernel, present)
    return None


def _of_present(kernel: Kernel, present: list[int]) -> Kernel:
    """A kernel of a node out of one that takes its operands without absent ones and constants."""
    if isinstance(kernel, WorkspaceKernel):
        function = kernel.function

        def in_memory(*operands: Any, out: Any = None, work: np.ndarray) -> Any:
            return function(*[operands[k] for k in present], out=out, work=work)

        return WorkspaceKernel(in_memory, kernel.workspace)
    return lambda *operands, out=None: kernel(*[operands[k] for k in present], out=out)


def _graph_of(call: Call, expand: bool) -> Graph:
    """A graph of one node, or of what its operation's lowering emits for it."""
    graph = Graph("node")
    operands: list[Value | None] = []
    for k, type in enumerate(call.inputs):
        if type is None:
            operands.append(None)
        elif k in call.constants:
            operands.append(graph.add_constant(call.constants[k], f"c{k}"))
        else:
            operands.append(graph.add_input(f"x{k}", type))
    attrs = {name: value for name, value in call.attrs.items() if value is not None}
    with Builder(graph) as b:
        node: Node = b.node(call.op, operands, attrs, outputs=call.n_outputs)
        results = tuple(node.outputs)
        if expand:
            results = call.op.lowered(b, node)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(results)})
    if expand:
        graph.erase(node)
    return graph
