"""From a `Graph` to a ModelProto, and to a file: standard operations, the lowest opset that means the same, names kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from irgrad.errors import ExportError, UsageError
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.local_functions import Functions, is_callable
from irgrad.frontends.onnx.lowering import is_standard, lower, shown, told
from irgrad.frontends.onnx.naming import file_names
from irgrad.frontends.onnx.opsets import OLDEST, lowest_opset, misfit
from irgrad.frontends.onnx.protos import ModelParts, write_graph
from irgrad.frontends.onnx.remarks import put_model_remarks
from irgrad.frontends.onnx.storage import THRESHOLD, fill, is_filled, is_large, store
from irgrad.frontends.onnx.validation import validate
from irgrad.graph import OPSET, Graph, Node
from irgrad.types import OptionalType, SequenceType, TensorType

__all__ = ["graph_to_model", "write_model"]

_IR_VERSION = 10
"""The first version of the file format in which nodes have metadata; runtimes lag behind the newest."""

_LATER_TYPES = {
    TensorProto.FLOAT4E2M1: 11,
    TensorProto.FLOAT8E8M0: 12,
    TensorProto.UINT2: 13,
    TensorProto.INT2: 13,
    TensorProto.FLOAT6E2M3: 14,
    TensorProto.FLOAT6E3M2: 14,
}
"""Element type → the version of the file format that brought it."""


def graph_to_model(graph: Graph, *, opset: int | None = None, functions: bool = False) -> onnx.ModelProto:
    """A ModelProto of a graph; see `irgrad.to_onnx`.

    Raises:
        ExportError: a node has no form in ONNX, or none in the opset.
        UsageError: the opset is none.
    """
    written = _write(graph, opset, functions)
    for tensor, array in written.arrays:
        if not is_filled(tensor):
            fill(tensor, array)
    return written.model


def write_model(
    graph: Graph,
    path: str | Path,
    *,
    opset: int | None = None,
    functions: bool = False,
    external_data: bool | None = None,
    threshold: int = THRESHOLD,
) -> None:
    """Write a graph to a file; see `irgrad.save`.

    Raises:
        ExportError: a node has no form in ONNX, or none in the opset; the model is too large for one file.
        UsageError: the path cannot be written; an option is out of range.
    """
    if threshold < 0:
        raise UsageError(f"threshold={threshold} is no number of bytes")
    written = _write(graph, opset, functions)
    external = is_large(written.arrays) if external_data is None else external_data
    store(written.model, written.arrays, Path(path), external=external, threshold=threshold)


@dataclass(frozen=True)
class _Written:
    """A model whose large tensors are without their elements, and what belongs into its tensors."""

    model: onnx.ModelProto
    arrays: list[tuple[TensorProto, np.ndarray]]


def _write(graph: Graph, opset: int | None, functions: bool) -> _Written:
    if opset is not None and not OLDEST <= opset <= OPSET:
        raise UsageError(f"opset={opset}: models are written in opset {OLDEST} to {OPSET}")
    if graph.opset != OPSET:
        raise UsageError(f"the graph is written in opset {graph.opset}, not in {OPSET}; load it from a file to bring it up")
    graph = graph.copy()
    calls = Functions()
    lower(graph, (lambda node: is_standard(node) or is_callable(node)) if functions else is_standard)
    calls.add(node for node in _nodes([graph]) if not is_standard(node))
    names = file_names(graph)
    imports = [helper.make_opsetid(*pair) for pair in _opsets([graph, *calls.bodies.values()], opset).items()]
    model = onnx.ModelProto(ir_version=_ir_version(graph), producer_name="irgrad", producer_version=_version())
    model.functions.extend(calls.protos(imports))
    model.opset_import.extend(imports)
    model.opset_import.extend(helper.make_opsetid(d, 1) for d in sorted({domain for _, domain in calls.bodies}))
    parts = ModelParts(names, calls.calls)
    write_graph(model.graph, graph, parts)
    for tensor, array in parts.arrays:
        if array.nbytes < THRESHOLD or array.dtype == object:
            fill(tensor, array)
    put_model_remarks(graph.metadata, model)
    marks.mark(model, marks.FORMAT, marks.VERSION)
    validate(model)
    marks.mark(model, marks.FINGERPRINT, marks.fingerprint(model.graph))
    return _Written(model, parts.arrays)


def _nodes(graphs: Iterable[Graph]) -> Iterable[Node]:
    return (node for graph in graphs for inner in graph.walk() for node in inner.nodes())


def _version() -> str:
    try:
        return version("irgrad")
    except PackageNotFoundError:
        return ""


# --- versions ---------------------------------------------------------------------------------------------------------


def _opsets(graphs: Iterable[Graph], wanted: int | None) -> dict[str, int]:
    """Domain → the opset that a model of some graphs is written in."""
    needs = [(node, node.op.schema) for node in _nodes(graphs) if is_standard(node)]
    problems = [f"{shown(node)} {problem}" for node, schema in needs if (problem := misfit(node, schema)) is not None]
    if problems:
        raise ExportError(told("cannot be said in ONNX", problems), problems)
    found = {"": OLDEST}
    late: list[tuple[int, str]] = []
    for node, _ in needs:
        lowest, domain = lowest_opset(node), node.op.domain
        found[domain] = max(found.get(domain, 1), lowest)
        if wanted is not None and domain == "" and lowest > wanted:
            late.append((lowest, f"{shown(node)} needs {lowest}"))
    if late:
        nodes = [text for _, text in sorted(late, key=lambda pair: -pair[0])]
        raise ExportError(told(f"cannot be said in opset {wanted}, the graph needs {found['']}", nodes), nodes)
    return {**found, "": found[""] if wanted is None else wanted}


def _ir_version(graph: Graph) -> int:
    types = {value.type for inner in graph.walk() for value in inner.values()}
    needed = [_IR_VERSION]
    for type in types:
        while isinstance(type, (SequenceType, OptionalType)):
            type = type.element
        assert isinstance(type, TensorType)
        needed.append(_LATER_TYPES.get(helper.np_dtype_to_tensor_dtype(type.dtype), _IR_VERSION))
    return max(needed)
