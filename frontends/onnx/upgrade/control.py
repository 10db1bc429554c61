"""Control flow: the batches of the first Scan."""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.types import TensorType

__all__: list[str] = []


@adapter("Scan", since=9)
def scan_9(b: Builder, node: OldNode) -> Sequence[Value]:
    """Batches and `sequence_lens` are gone; `directions` is called `scan_input_directions`.

    All operands had the batch in axis 0, and the scanned ones the sequence in axis 1. That is a scan over the batch, whose
    body scans one sequence: its first `sequence_lens` elements, where that operand is there. What comes after the
    corresponding results was undefined, and is 0 here.
    """
    count = node.attrs["captured"]
    lengths, *operands = node.inputs[: len(node.inputs) - count]
    captured = node.inputs[len(node.inputs) - count :]
    scanned = node.take("num_scan_inputs")
    over_batch = [*operands, *([] if lengths is None else [lengths])]

    body = Graph("sequence")
    elements = [body.add_input(body.fresh_name("element"), _element_type(node, v)) for v in over_batch]
    outer = [_captured(body, v) for v in captured]
    one = Builder(body)
    states, sequences = elements[: len(operands) - scanned], elements[len(operands) - scanned : len(operands)]
    length = None if lengths is None else one.op("Reshape", elements[-1], one.ints([1]))
    if length is not None:
        full, first = one.op("Shape", sequences[0], end=1), one.ints([0])
        sequences = [one.op("Slice", v, first, length, first) for v in sequences]
    attrs = {"body": node.take("body"), "num_scan_inputs": scanned, "captured": count}
    attrs["scan_input_directions"] = node.attrs.get("directions")
    results = one.node(find_op("Scan"), [*states, *sequences, *outer], attrs, outputs=node.n_outputs).outputs
    if length is not None:
        pads = one.op("Concat", one.ints([0]), one.op("Sub", full, length), axis=0)
        padded = [one.op("Pad", v, pads, None, one.ints([0])) for v in results[len(states) :]]
        results = (*results[: len(states)], *padded)
    body.set_outputs(results)

    attrs = {"body": body, "num_scan_inputs": len(over_batch), "captured": count}
    return b.node(find_op("Scan"), [*over_batch, *captured], attrs, outputs=node.n_outputs).outputs


def _element_type(node: OldNode, value: Value | None) -> TensorType:
    if value is None or value.rank == 0:
        raise node.error("has an operand without a batch axis")
    shape = value.shape
    return TensorType(value.dtype, None if shape is None else shape[1:])


def _captured(body: Graph, value: Value | None) -> Value:
    assert value is not None
    inner = body.add_input(body.fresh_name(value.name), value.type)
    inner.contents = value.contents
    return inner
