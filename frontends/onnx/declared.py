"""What a model file declares about itself: opsets, types, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper

from irgrad.errors import DuplicateNameError, ModelTypeError, UnsupportedOpsetError
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.calls import domain_of
from irgrad.frontends.onnx.check import check_text
from irgrad.graph import OPSET, Graph, Value
from irgrad.types import (
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    as_known_to_be_there,
    same_dtypes,
    type_from_proto,
    types_compatible,
    without_symbols,
)

__all__ = [
    "LoopInputs",
    "check_default",
    "check_ir_version",
    "complete_type",
    "declared_types",
    "input_type",
    "loop_inputs",
    "loosened",
    "metadata_of",
    "note_node",
    "versions_of",
]

_FIRST_WITH_IMPORTS = 3  # the IR version since which models say which opsets they are written in
_NEWEST = {"": OPSET, **dict(zip(("ai.onnx.ml", "ai.onnx.preview.training"), helper.VERSION_TABLE[-1][3:], strict=False))}


# --- versions ---------------------------------------------------------------------------------------------------------


def check_ir_version(model: onnx.ModelProto) -> None:
    """Refuse models of a file format that is newer than the installed onnx: it may say things that would go unread.

    Raises:
        UnsupportedOpsetError: it is, or it is no version at all.
    """
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise UnsupportedOpsetError(
            f"the model has the IR version {model.ir_version}; the installed onnx knows versions 1 to {onnx.IR_VERSION}"
        )


def versions_of(imports: Iterable[onnx.OperatorSetIdProto], what: str, ir_version: int) -> dict[str, int]:
    """Domain → version of the opsets that a model or a function imports.

    Raises:
        UnsupportedOpsetError: there are none, or one is unknown.
        DuplicateNameError: a domain is imported twice, in different versions.
    """
    versions: dict[str, int] = {}
    for entry in imports:
        check_text(what, entry.domain)
        domain = domain_of(entry.domain)
        newest = _NEWEST.get(domain)
        if entry.version < 1 or (newest is not None and entry.version > newest):
            known = f"opsets 1 to {newest} are known" if newest is not None else "opsets start at 1"
            raise UnsupportedOpsetError(f"{what} imports {domain or 'ai.onnx'} opset {entry.version}; {known}")
        if versions.setdefault(domain, entry.version) != entry.version:
            raise DuplicateNameError(
                f"{what} imports {domain or 'ai.onnx'} twice, as opset {versions[domain]} and {entry.version}"
            )
    if versions or ir_version >= _FIRST_WITH_IMPORTS:
        return versions
    return {"": 1}


# --- metadata ---------------------------------------------------------------------------------------------------------


def metadata_of(model: onnx.ModelProto, *, own: bool = False) -> dict[str, str]:
    """What a graph's metadata keeps of a model: everything in it that is text and not structure.

    The keys are producer, domain, model_version, doc, graph_doc, ``property:<key>``, ``graph_property:<key>`` and
    ``value_doc:<name>``; `note_node` adds those of nodes.

    Args:
        model: the model.
        own: irgrad wrote it; then the producer is that of the file that its graph came from.
    """
    graph = model.graph
    producer = " ".join(_text(t) for t in (model.producer_name, model.producer_version) if t)
    found = {
        "producer": marks.marks_of(model).get(marks.PRODUCER, "") if own else producer,
        "domain": _text(model.domain),
        "model_version": str(model.model_version) if model.model_version else "",
        "doc": _text(model.doc_string),
        "graph_doc": _text(graph.doc_string),
        **{f"property:{key}": text for key, text in _properties(model, own)},
        **{f"graph_property:{key}": text for key, text in _properties(graph, own)},
        **{f"value_doc:{v.name}": _text(v.doc_string) for v in (*graph.input, *graph.output, *graph.initializer)},
    }
    return {key: value for key, value in found.items() if value}


def note_node(graph: Graph, proto: NodeProto, name: str, *, own: bool = False) -> None:
    """Keep what a file says about a node: ``node_doc:<name>`` and ``node_property:<name>:<key>``."""
    if proto.doc_string:
        graph.metadata[f"node_doc:{name}"] = _text(proto.doc_string)
    for key, text in _properties(proto, own):
        graph.metadata[f"node_property:{name}:{key}"] = text


def _properties(proto: Any, own: bool) -> list[tuple[str, str]]:
    """The free properties of a message; irgrad's marks are none in a file that it wrote."""
    found = [(_text(entry.key), _text(entry.value)) for entry in proto.metadata_props]
    return [(key, text) for key, text in found if not (own and key.startswith(marks.PREFIX))]


def _text(text: str | bytes) -> str:
    # Text that is not UTF-8 comes as bytes; in remarks that is no reason to refuse a model.
    return text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text


# --- types ------------------------------------------------------------------------------------------------------------


def _type_of(info: onnx.ValueInfoProto) -> Type | None:
    try:
        return type_from_proto(info.type)
    except ModelTypeError as error:
        raise ModelTypeError(f"the value {info.name!r} is declared with a type that cannot be: {error}") from None


def declared_types(infos: Iterable[onnx.ValueInfoProto], *, symbols: bool) -> dict[str, Type]:
    """Name → type of the values that a graph or function declares.

    Args:
        infos: the declarations.
        symbols: whether symbolic dimensions mean anything: in the body of a loop, or of a function that is called in several
            places, one name stands for several sizes.
    """
    found: dict[str, Type] = {}
    for info in infos:
        type = _type_of(info)
        if type is not None:
            found[info.name] = type if symbols else without_symbols(type)
    return found


def loosened(type: Type) -> Type:
    """The type with nothing known of its shape."""
    return type.with_shape(None) if isinstance(type, TensorType) else type


def input_type(info: onnx.ValueInfoProto, given: Type | None, *, symbols: bool, exact: bool = False) -> Type:
    """The type of a graph's input.

    Args:
        info: the declaration.
        given: the type that it has by what is known from outside, which then counts (see `body_input_types`).
        symbols: see `declared_types`.
        exact: the declaration is right in all that it says.

    Raises:
        ModelTypeError: there is no type, or the two disagree.
    """
    declared = _type_of(info)
    if given is None:
        if declared is None:
            raise ModelTypeError(f"the input {info.name!r} declares no element type")
        if exact:
            return declared
        # Under one symbol, the elements of a sequence may have a size each.
        element = declared.element if isinstance(declared, OptionalType) else declared
        return declared if symbols and isinstance(element, TensorType) else without_symbols(declared)
    if declared is not None and not same_dtypes(declared, given):
        raise ModelTypeError(f"the input {info.name!r} is declared as {declared}, but what it receives is {given}")
    return given


@dataclass(frozen=True)
class LoopInputs:
    """What is known of the inputs of a loop's body.

    Attributes:
        types: of the inputs that are not captured.
        first: the position of the first state among the inputs.
        states: how many states there are.
        at: the position of the first state among the outputs.
    """

    types: tuple[Type | None, ...]
    first: int
    states: int
    at: int

    def corrected(self, outputs: Sequence[Type]) -> LoopInputs:
        """The same, without what the outputs of the body contradict: a dimension that changes from trip to trip.

        Files declare the shape of a state as it is at the beginning, whether it grows or not.
        """
        types = list(self.types)
        for k, after in enumerate(outputs[self.at : self.at + self.states]):
            types[self.first + k] = _uncontradicted(types[self.first + k], after)
        return replace(self, types=tuple(types))


def loop_inputs(
    op: str, version: int, inputs: Sequence[Value | None], scanned: int, infos: Sequence[onnx.ValueInfoProto]
) -> LoopInputs:
    """The types of the inputs of a loop's body, by its declarations and by the operands of the node.

    Args:
        op: "Loop" or "Scan"; for any other operation nothing is known.
        version: the opset.
        inputs: the operands of the node.
        scanned: how many operands of a Scan are scanned.
        infos: the declared inputs of the body.
    """
    operands = [None if v is None else v.type for v in inputs]
    head: list[Type] = []
    states, rest = operands[: len(operands) - scanned], operands[len(operands) - scanned :]
    if op == "Loop":
        head, states, rest = [_NUMBER, _CONDITION], operands[2:], []
    elif op != "Scan" or version < 9:
        return LoopInputs((), 0, 0, 0)
    declared = [_type_of(info) for info in infos]
    declared += [None] * (len(operands) + 2 - len(declared))
    types = [
        *(d if d is not None else t for d, t in zip(declared, head, strict=False)),
        *(_agreed(d, t) for d, t in zip(declared[len(head) :], states, strict=False)),
        # Which axis is scanned does not matter here, only that the slices have one less.
        *(_agreed(d, _slice_of(t)) for d, t in zip(declared[len(head) + len(states) :], rest, strict=False)),
    ]
    return LoopInputs(tuple(types), len(head), len(states), 1 if op == "Loop" else 0)


_NUMBER = TensorType(np.dtype(np.int64), ())
_CONDITION = TensorType(np.dtype(bool), ())


def _slice_of(type: Type | None) -> Type | None:
    if isinstance(type, TensorType):
        return type.with_shape((None,) * (len(type.shape) - 1) if type.shape else None)
    return type


def _agreed(declared: Type | None, operand: Type | None) -> Type | None:
    """The declared type with what it leaves open filled from the operand's rank, and without what that contradicts."""
    if declared is None or not isinstance(operand, TensorType):
        declared = declared or operand
    elif isinstance(declared, TensorType) and declared.shape is None and operand.shape is not None:
        declared = declared.with_shape((None,) * len(operand.shape))
    elif isinstance(declared, TensorType):
        declared = _uncontradicted(declared, operand)
    if isinstance(declared, TensorType) and declared is operand and operand.shape is not None:
        return operand.with_shape((None,) * len(operand.shape))
    return None if declared is None else without_symbols(declared)


def _uncontradicted(type: Type | None, other: Type) -> Type | None:
    if not isinstance(type, TensorType) or not isinstance(other, TensorType) or type.shape is None or other.shape is None:
        return type
    if len(type.shape) != len(other.shape):
        return type.with_shape(None)
    differ = [isinstance(t, int) and isinstance(o, int) and t != o for t, o in zip(type.shape, other.shape, strict=True)]
    return type.with_shape(tuple(None if no else t for no, t in zip(differ, type.shape, strict=True)))


def check_default(info: onnx.ValueInfoProto, array: np.ndarray) -> None:
    """Check an initializer against the input of the same name whose default it is.

    Raises:
        ModelTypeError: they have other element types or other shapes.
    """
    declared = _type_of(info)
    if declared is None:
        return
    have = TensorType.of(array)
    fits = isinstance(declared, TensorType) and declared.dtype == have.dtype
    if fits and isinstance(declared, TensorType) and declared.shape is not None:
        fits = len(declared.shape) == array.ndim and all(
            d == size for d, size in zip(declared.shape, array.shape, strict=True) if isinstance(d, int)
        )
    if not fits:
        raise ModelTypeError(
            f"the initializer {info.name!r} is {have}, but the input of that name is declared as {declared}"
        )


def complete_type(value: Value, declared: Type | None, *, guessed: bool, exact: bool = False) -> None:
    """Fill what inference left open with what the file declares.

    Where inference left a dimension open, a declared number is taken, a symbol is not: exporters write the name of the batch
    dimension on results of another size (a slice of it, say), and two dimensions of one name count as equal everywhere.

    Args:
        value: the result of a node.
        declared: what the file says of it, if anything.
        guessed: the type that it has is a guess, so that the declaration is all there is.
        exact: the declaration is right in all that it says, so that it counts where it is possible.

    Raises:
        ModelTypeError: the file declares another element type than the node makes.
    """
    if declared is None:
        return
    have = as_known_to_be_there(value.type, declared)
    unknown = isinstance(have, TensorType) and have.shape is None and not same_dtypes(have, declared)
    if guessed or unknown or (exact and types_compatible(have, declared)):
        value.graph.set_type(value, declared)
    elif not same_dtypes(have, declared):
        raise ModelTypeError(f"the value {value.name!r} is declared as {declared}, but what makes it gives {have}")
    else:
        value.graph.set_type(value, _filled(have, without_symbols(declared)))


def _filled(have: Type, other: Type) -> Type:
    """The first of two types of one kind, its unknown dimensions taken from the second."""
    if isinstance(have, TensorType) and isinstance(other, TensorType):
        if have.shape is None:
            return other
        if None not in have.shape or other.shape is None or len(have.shape) != len(other.shape):
            return have
        return have.with_shape(tuple(o if h is None else h for h, o in zip(have.shape, other.shape, strict=True)))
    if isinstance(have, SequenceType) and isinstance(other, SequenceType):
        return SequenceType(_filled(have.element, other.element))
    if isinstance(have, OptionalType) and isinstance(other, OptionalType):
        return OptionalType(_filled(have.element, other.element))
    return have
