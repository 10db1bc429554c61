"""A node against the schema of the opset that it is written in: its attributes, and how many operands of which types.

onnx infers types without checking them (``MatMul`` of strings is a tensor of strings to it), and an attribute that an
operation does not have would be ignored without a word, so both are checked when a file is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, defs, helper

from irgrad.errors import ModelParseError, ModelTypeError, UnsupportedOpsetError
from irgrad.frontends.onnx.upgrade.registry import adapters_of
from irgrad.graph import OPSET, Value
from irgrad.types import OptionalType, SequenceType, TensorType, Type

__all__ = [
    "Rules",
    "check_attributes",
    "check_operands",
    "check_text",
    "checked_attribute",
    "rules_of",
    "shown",
    "type_string",
]

_CONTENT = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
_KIND = {field: kind for kind, field in _CONTENT.items()}
_KINDS = {getattr(defs.OpSchema.AttrType, name): kind for name, kind in AttributeProto.AttributeType.items() if kind}
_MESSAGES = ("t", "g", "sparse_tensor", "tp")  # their absence cannot mean 0
_LIKELY = ("tensor(float)", "tensor(int64)", "tensor(bool)")  # the first that fits is the guess for an unknown type
_MANY = 2**31 - 1  # what onnx gives as the largest count where there is no limit


@dataclass(frozen=True)
class _Formal:
    """One operand that an operation takes: its type variable (None where it may differ from the others), and its types."""

    name: str
    variable: str | None
    types: frozenset[str]
    required: bool


@dataclass(frozen=True)
class Rules:
    """What an operation takes at one opset.

    Attributes:
        label: "Conv-11": the operation and the opset that last changed it.
        attributes: name → kind.
        required: the attributes that have to be there.
        operands: the formal operands; the last one stands for all further ones where `variadic`.
        fewest, outputs: the least number of operands; the least and the largest number of outputs.
    """

    label: str
    attributes: Mapping[str, int]
    required: tuple[str, ...]
    operands: tuple[_Formal, ...]
    variadic: bool
    fewest: int
    outputs: tuple[int, int]


def shown(proto: NodeProto) -> str:
    """How messages call a node."""
    op = f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type
    if proto.name:
        return f"the node {proto.name!r} ({op})"
    made = next((name for name in proto.output if name), None)
    return f"a node without name and outputs ({op})" if made is None else f"the node that makes {made!r} ({op})"


def check_text(what: str, *texts: object) -> None:
    """Refuse names that are not UTF-8, which protobuf hands out as bytes.

    Raises:
        ModelParseError: one is none.
    """
    for text in texts:
        if isinstance(text, bytes):
            raise ModelParseError(f"{what} carries the name {text!r}, which is not UTF-8")


# --- attributes -------------------------------------------------------------------------------------------------------


def checked_attribute(attribute: AttributeProto, node: NodeProto) -> AttributeProto:
    """The attribute itself, or a copy with its kind filled in where the file (IR version 1) leaves that out.

    Raises:
        ModelTypeError: what it holds is not what its kind says.
    """
    found = [field.name for field, _ in attribute.ListFields() if field.name in _KIND]
    kind = attribute.type
    if kind == AttributeProto.UNDEFINED and len(found) == 1:
        attribute = _copied(attribute)
        kind = attribute.type = _KIND[found[0]]
    field = _CONTENT.get(kind)
    if field is None:
        raise ModelTypeError(f"{shown(node)} has the attribute {attribute.name!r}, which holds nothing")
    if found != [field] and (found or field in _MESSAGES):
        raise ModelTypeError(
            f"{shown(node)} has the attribute {attribute.name!r} of the kind {_kind_name(kind)}, but it holds "
            f"{', '.join(_kind_name(_KIND[f]) for f in found) or 'nothing'}"
        )
    return attribute


def check_attributes(node: NodeProto, attributes: Mapping[str, AttributeProto], rules: Rules) -> None:
    """Check the attributes of a node and how many outputs it has.

    Raises:
        ModelTypeError: an attribute is unknown, of the wrong kind or missing, or there are too few or too many outputs.
    """
    for name, attribute in attributes.items():
        kind = rules.attributes.get(name)
        if kind is None:
            raise ModelTypeError(f"{shown(node)} has the attribute {name!r}, which {rules.label} does not have")
        if kind != attribute.type:
            raise ModelTypeError(
                f"{shown(node)} has the attribute {name!r} of the kind {_kind_name(attribute.type)}, but {rules.label} "
                f"takes {_kind_name(kind)}"
            )
    for name in rules.required:
        if name not in attributes:
            raise ModelTypeError(f"{shown(node)} lacks the attribute {name!r}, which {rules.label} requires")
    fewest, most = rules.outputs
    if not fewest <= len(node.output) <= most:
        raise ModelTypeError(f"{shown(node)} has {len(node.output)} outputs, but {rules.label} has {_range(fewest, most)}")


def _copied(attribute: AttributeProto) -> AttributeProto:
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    return copy


def _kind_name(kind: int) -> str:
    return str(AttributeProto.AttributeType.Name(kind))


# --- operands ---------------------------------------------------------------------------------------------------------


def check_operands(node: NodeProto, inputs: Sequence[Value | None], rules: Rules) -> None:
    """Check the number of a node's operands and their types.

    Args:
        node: where they belong.
        inputs: the operands without those that are absent at the end.
        rules: of the operation.

    Raises:
        ModelTypeError: there are too few or too many, one that is required is absent, or one has a type that the operation
            does not take there or that does not agree with another one's.
    """
    formals = rules.operands
    most = _MANY if rules.variadic else len(formals)
    given = len(node.input) if rules.variadic else len(inputs)  # a Loop's first two may both be absent, but said to be
    if given > most or given < rules.fewest:
        raise ModelTypeError(f"{shown(node)} has {given} operands, but {rules.label} takes {_range(rules.fewest, most)}")
    bound: dict[str, tuple[str, str]] = {}
    for position, value in enumerate(inputs):
        formal = formals[min(position, len(formals) - 1)]
        if value is None:
            if formal.required and position < len(formals):
                raise ModelTypeError(f"{shown(node)} lacks the operand {formal.name!r}, which {rules.label} requires")
            continue
        kind = type_string(value.type)
        if kind not in formal.types:
            raise ModelTypeError(
                f"{shown(node)} has the operand {value.name!r} of type {value.type}, which {rules.label} does not take for "
                f"{formal.name!r}"
            )
        if formal.variable is not None:
            expected, other = bound.setdefault(formal.variable, (kind, value.name))
            if expected != kind:
                raise ModelTypeError(
                    f"{shown(node)} has the operands {other!r} and {value.name!r} of the types {expected} and {kind}, but "
                    f"{rules.label} takes them only of one type"
                )


def adopt_types(inputs: Sequence[Value | None], rules: Rules, guessed: Collection[Value | None]) -> None:
    """Give operands whose type is a guess, and one that the operation does not take, a type that it takes.

    Args:
        inputs: the operands.
        rules: of the operation.
        guessed: the values whose type is a guess.
    """
    if not guessed:
        return
    formals = [rules.operands[min(k, len(rules.operands) - 1)] for k in range(len(inputs))] if rules.operands else []
    known = {
        formal.variable: type_string(value.type)
        for formal, value in zip(formals, inputs, strict=False)
        if formal.variable is not None and value is not None and value not in guessed
    }
    for formal, value in zip(formals, inputs, strict=False):
        if value is None or value not in guessed:
            continue
        wanted = {known[formal.variable]} if formal.variable in known else formal.types
        if wanted and type_string(value.type) not in wanted:
            likely = next((kind for kind in _LIKELY if kind in wanted), min(wanted))
            value.graph.set_type(value, _type_of_string(likely))


@lru_cache(maxsize=1024)
def rules_of(name: str, domain: str, version: int) -> Rules | None:
    """What an operation takes at one opset of its domain; None where onnx does not know (a custom operation).

    Operand types and omissions that today's schema allows are allowed at every opset, since models are run by today's
    meaning; attributes are taken as the opset had them.

    Raises:
        UnsupportedOpsetError: a standard operation that does not exist at this opset.
    """
    schema = _schema(name, domain, version)
    if schema is None:
        if domain != "" or adapters_of(domain, name):
            return None
        newest = _schema(name, domain, OPSET)
        since = (
            ""
            if newest is None
            else f"; it exists only from a later opset on (irgrad knows it as {name}-{newest.since_version})"
        )
        raise UnsupportedOpsetError(f"ai.onnx opset {version} has no operation {name!r}{since}")
    newest = _schema(name, domain, OPSET) if domain == "" else None
    now = list(newest.inputs) if newest is not None else []
    formals = []
    for position, formal in enumerate(schema.inputs):
        types, required = set(formal.types), formal.option == defs.OpSchema.FormalParameterOption.Single
        if position < len(now):
            types |= set(now[position].types)
            required &= now[position].option == defs.OpSchema.FormalParameterOption.Single
        variables = {c.type_param_str for c in schema.type_constraints}
        variable = formal.type_str if formal.is_homogeneous and formal.type_str in variables else None
        formals.append(_Formal(formal.name, variable, frozenset(types), required))
    variadic = bool(schema.inputs) and schema.inputs[-1].option == defs.OpSchema.FormalParameterOption.Variadic
    required_count = max((k + 1 for k, f in enumerate(formals) if f.required), default=0)
    return Rules(
        label=f"{name}-{schema.since_version}",
        attributes={n: _KINDS[a.type] for n, a in schema.attributes.items()},
        required=tuple(n for n, a in schema.attributes.items() if a.required),
        operands=tuple(formals),
        variadic=variadic,
        fewest=max(required_count, schema.min_input if variadic else 0),
        outputs=(schema.min_output, schema.max_output),
    )


def _schema(name: str, domain: str, version: int) -> defs.OpSchema | None:
    """The schema at an opset; where the operation is deprecated there, the last one that was not."""
    try:
        schema = defs.get_schema(name, min(version, _MANY), domain)
        while schema.deprecated:
            schema = defs.get_schema(name, schema.since_version - 1, domain)
    except defs.SchemaError:
        return None
    return schema


@cache
def _element(dtype: np.dtype) -> str:
    return helper.tensor_dtype_to_string(helper.np_dtype_to_tensor_dtype(dtype)).rpartition(".")[2].lower()


def type_string(type: Type) -> str:
    """A type without its shape as schemas write it: ``tensor(float)``, ``seq(tensor(int64))``."""
    if isinstance(type, TensorType):
        return f"tensor({_element(type.dtype)})"
    kind = {SequenceType: "seq", OptionalType: "optional"}[type.__class__]
    return f"{kind}({type_string(type.element)})"


def _type_of_string(text: str) -> Type:
    kind, _, rest = text.removesuffix(")").partition("(")
    if kind == "seq":
        return SequenceType(_type_of_string(rest))
    if kind == "optional":
        return OptionalType(_type_of_string(rest))
    return TensorType(np.dtype(helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(rest.upper()))))


def _range(fewest: int, most: int) -> str:
    if most >= _MANY:
        return f"at least {fewest}"
    return str(fewest) if fewest == most else f"{fewest} to {most}"
