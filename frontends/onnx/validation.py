"""What onnx says of a model that is about to be written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import checker, defs, helper, shape_inference

from irgrad.errors import ExportError
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.storage import is_filled
from irgrad.literals import type_text
from irgrad.types import type_from_proto

__all__ = ["validate"]

_STAND_IN = "irgrad.unknown"


def validate(model: onnx.ModelProto) -> None:
    """Have onnx check a model and infer its types anew.

    Where onnx's inference comes to another shape than irgrad's (it is wrong about some modes of some operations), the model
    declares less, and a mark keeps the type. Where it stumbles over an attribute that is left out, the default is written.

    Args:
        model: large tensors may still be without their elements. It may be changed in the ways above.

    Raises:
        ExportError: onnx finds the model to be invalid.
    """
    problem = _problem(model)
    for remedy in (_spell_out, _loosen):
        if problem is not None and remedy(model):
            problem = _problem(model)
    if problem is not None:
        raise ExportError(f"onnx finds the model to be invalid: {problem}")


def _problem(model: onnx.ModelProto) -> str | None:
    try:
        checker.check_model(_skeleton(model), full_check=True)
    except Exception as error:  # onnx raises ValidationError, InferenceError and whatever its C++ part does
        return " ".join(str(error).split())
    return None


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as far as onnx can check it.

    Tensors whose elements are not there yet are inputs. The checker wants every input and output to have a rank, although a
    model need not know it: an input without one is the result of an unknown operation here, and such an output is none.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    graph = skeleton.graph
    for part in (graph.initializer, graph.input, graph.output, graph.node):
        del part[:]
    for tensor in model.graph.initializer:
        if is_filled(tensor):
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for info in model.graph.input:
        if _has_rank(info):
            graph.input.append(info)
        else:
            graph.node.append(helper.make_node("Unknown", [], [info.name], domain=_STAND_IN))
            graph.value_info.append(info)
    graph.node.extend(model.graph.node)
    graph.output.extend(info for info in model.graph.output if _has_rank(info))
    graph.value_info.extend(info for info in model.graph.output if not _has_rank(info))
    skeleton.opset_import.append(helper.make_opsetid(_STAND_IN, 1))
    return skeleton


def _has_rank(info: onnx.ValueInfoProto) -> bool:
    return not info.type.HasField("tensor_type") or info.type.tensor_type.HasField("shape")


def _spell_out(model: onnx.ModelProto) -> bool:
    """Write the defaults of what is defined by a function: onnx's inference does not fill them in there."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    spelt_out = False
    for node in model.graph.node:
        if not defs.has(node.op_type, node.domain):
            continue
        schema: Any = defs.get_schema(node.op_type, versions[node.domain], node.domain)
        given = {attribute.name for attribute in node.attribute}
        missing = [a.default_value for n, a in schema.attributes.items() if a.default_value.type and n not in given]
        if schema.has_function and missing:
            node.attribute.extend(missing)
            marks.mark_json(node, marks.DEFAULTS, [attribute.name for attribute in missing])
            spelt_out = True
    return spelt_out


def _loosen(model: onnx.ModelProto) -> bool:
    """Take back what onnx's inference contradicts of the declared shapes of results; whether there is anything."""
    skeleton = _skeleton(model)
    declared = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    del skeleton.graph.value_info[:]
    for info in skeleton.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(skeleton).graph
    except Exception:  # what it stumbles over, the check has reported
        return False
    found = [_take_back(declared[info.name], info) for info in _tensors((*inferred.value_info, *inferred.output), declared)]
    return any(found)


def _tensors(infos: Iterable[onnx.ValueInfoProto], declared: dict[str, onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    """Those that say a shape of a value that is declared with one."""
    return [
        info
        for info in infos
        if info.name in declared
        and all(i.type.HasField("tensor_type") and i.type.tensor_type.HasField("shape") for i in (info, declared[info.name]))
    ]


def _take_back(declared: onnx.ValueInfoProto, inferred: onnx.ValueInfoProto) -> bool:
    shape, other = declared.type.tensor_type.shape, inferred.type.tensor_type.shape
    wrong = [
        a for a, b in zip(shape.dim, other.dim, strict=False) if a.dim_value != b.dim_value and a.dim_value and b.dim_value
    ]
    if not wrong and len(shape.dim) == len(other.dim):
        return False
    type = type_from_proto(declared.type)
    if marks.TYPE not in marks.marks_of(declared) and type is not None:
        marks.mark(declared, marks.TYPE, type_text(type))
    for dim in wrong:
        dim.Clear()
    if len(shape.dim) != len(other.dim):
        declared.type.tensor_type.ClearField("shape")
    return True
