"""``irgrad.Fused``: a part of a graph as one node, which runs tile by tile.

Its attribute `body` is a graph; the operands are the body's inputs, the outputs the body's outputs, in order. The attributes
`layout` and `tiled`, which the pass that made the node may give, say along which axes the body can be run piece by piece
(see `irgrad.runtime.tiles.Tiling`); without them it is run as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph, Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Cost, Kernel, OpTable, WorkspaceKernel
from irgrad.ops import costs
from irgrad.ops.subgraphs import Body, Known
from irgrad.runtime import fast
from irgrad.runtime.kernels import deliver_all
from irgrad.runtime.tiles import Tiling, tiled
from irgrad.types import TensorType, Type

__all__ = ["ops"]

ops = OpTable()

fused = ops.define("Fused", domain=IRGRAD_DOMAIN, defaults={"captured": 0, "layout": "", "tiled": ""})
"""``Fused(x0, x1, ..., body=graph)``: the outputs of a graph whose inputs are the operands."""


def _known(call: Call) -> list[Known]:
    known = []
    for k, type in enumerate(call.inputs):
        if type is None:
            raise TypeInferenceError(f"Fused lacks its operand {k}")
        known.append(Known(type, call.contents.get(k), call.constants.get(k)))
    return known


@fused.infer
def _fused_types(call: Call) -> Sequence[Type]:
    body = Body(call, "body")
    body.expect(len(call.inputs), call.n_outputs, exactly=True)
    types = [known.type for known in body.infer(_known(call))]
    if call.attrs["layout"]:
        Tiling.parse(call.attrs["layout"], call.attrs["tiled"]).check(call.inputs, types)
    return types


@fused.cost
def _fused_cost(call: Call) -> Cost | None:
    """The arithmetic of the body; but what is only computed in between is neither read from memory nor written to it."""
    inside = costs.of_graph(Body(call, "body").specialised(_known(call)))
    return None if inside is None else Cost.of(call, inside.flops)


@fused.lower
def _(b: Builder, node: Node) -> Sequence[Value]:
    """The nodes of the body, with the roles, origins and rules that they have there."""
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    mapped: dict[Value, Value] = {}
    for value, operand in zip(body.inputs.values(), node.inputs, strict=True):
        assert operand is not None
        mapped[value] = operand
    for value, array in body.constants.items():
        mapped[value] = b.graph.add_constant(array, b.graph.fresh_name(value.name))
    noted = b.role, b.origin, b.rule, b.expansion
    for member in body.nodes():
        b.role, b.origin, b.rule, b.expansion = member.role, member.origin, member.rule, member.expansion
        made = b.node(
            member.op,
            [None if v is None else mapped[v] for v in member.inputs],
            {key: a.copy() if isinstance(a, Graph) else a for key, a in member.attrs.items()},
            outputs=len(member.outputs),
            name=b.graph.fresh_name(member.name, node=True),
            output_names=[b.graph.fresh_name(v.name) for v in member.outputs],
        )
        mapped.update(zip(member.outputs, made.outputs, strict=True))
    b.role, b.origin, b.rule, b.expansion = noted
    return [mapped[value] for value in body.outputs.values()]


@fused.prepare
def _fused(call: Call) -> Kernel:
    body, known = Body(call, "body"), _known(call)
    if not all(isinstance(type, TensorType) and type.static_shape is not None for type in call.inputs):
        program = body.compiled(known)

        def late(*operands: Any, out: Any = None) -> Any:
            return deliver_all(program(*operands), out)

        return late
    layout = call.attrs["layout"]
    tiling = Tiling.parse(layout, call.attrs["tiled"]) if layout else None
    # What is known of the elements of an operand would make constants inside, which cannot be cut into tiles.
    graph = body.specialised(known if tiling is None else [Known(given.type) for given in known])
    kernel = tiled(graph, tiling)
    build = _compiler(graph)
    return kernel if build is None else fast.compiled(build, kernel)


def _compiler(graph: Graph) -> Callable[[], Kernel] | None:
    """What compiles the body to machine code, where that may be done and can."""
    if not fast.enabled():
        return None
    from irgrad.codegen import build_kernel, unsupported  # only where there is a compiler

    if unsupported(graph) is not None:
        return None

    def build() -> Kernel:
        kernel = build_kernel(graph)
        needed = kernel.workspace if isinstance(kernel, WorkspaceKernel) else 0
        function = kernel.function if isinstance(kernel, WorkspaceKernel) else kernel

        def run(*operands: Any, out: Any = None, work: np.ndarray) -> Any:
            if not needed:
                return function(*operands, out=out)
            return function(*operands, out=out, work=work if work.nbytes >= needed else np.empty(needed, np.uint8))

        return run

    return build
