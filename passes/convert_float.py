"""Changing the floating-point precision of a whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from onnx import TensorProto, helper

from irgrad.builder import Builder, call_of
from irgrad.errors import PassError
from irgrad.graph import Graph, Node, Value
from irgrad.infer import infer_types
from irgrad.op import Op
from irgrad.pipeline import Pass
from irgrad.types import (
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    dtype_from_name,
    dtype_name,
    is_differentiable,
    same_dtypes,
)

__all__ = ["ConvertFloat"]


@dataclass(frozen=True)
class ConvertFloat(Pass):
    """Turn every value of one floating-point dtype into another: inputs, constants, casts and fills alike.

    Operands and results for which an operation has one dtype only (the scales of a Resize) stay; casts connect them.

    Attributes:
        to: the short name of the new dtype, such as "f64".
        source: the short name of the old one; "" for all floating-point dtypes.
    """

    name: ClassVar[str] = "convert_float"
    to: str = "f64"
    source: str = ""

    def requires(self, graph: Graph) -> None:
        for name in (self.to, self.source):
            if name and not is_differentiable(dtype_from_name(name)):
                raise PassError(f"{name!r} is no floating-point dtype")

    def run(self, graph: Graph) -> bool:
        changed = False
        for value in graph.inputs.values():
            type = self._type(value.type)
            changed |= type != value.type
            graph.set_type(value, type)
        originals = dict(graph.constants)
        for value, array in originals.items():
            if self._applies(array.dtype) and not _only_in_fixed_places(value):
                graph.set_constant(value, self._converted(array))
                changed = True
        for node in graph.nodes():
            if node.op.qualified_name != "Cast" or not _only_in_fixed_places(node.outputs[0]):
                for key, attribute in [*node.op.defaults.items(), *node.attrs.items()]:
                    if key in node.attrs or key in _DTYPES:
                        node.attrs[key] = self._attribute(key, attribute)
            if node.op.qualified_name == "ConstantOfShape" and "value" not in node.attrs and self._applies(_FILL.dtype):
                node.attrs["value"] = _FILL.astype(dtype_from_name(self.to))
            for position, operand in enumerate(node.inputs):
                self._keep_fixed(node, position, operand, originals)
            if len(node.outputs) > 1 and "stash_type" in node.op.defaults:
                # LayerNormalization returns its statistics in a dtype of their own: float64 in a float64 graph.
                node.attrs["stash_type"] = int(TensorProto.DOUBLE if self.to == "f64" else TensorProto.FLOAT)
            call = call_of(node.op, node.attrs, node.inputs, len(node.outputs))
            for value, inferred in zip(node.outputs, infer_types(call), strict=True):
                type = self._result_type(value, inferred)
                changed |= type != value.type
                graph.set_type(value, type)
            for position, value in enumerate(node.outputs):
                self._convert_fixed(node, position, value)
        return changed

    def _keep_fixed(self, node: Node, position: int, value: Value | None, originals: Mapping[Value, np.ndarray]) -> None:
        """Let a node have an operand in the one floating-point dtype that its operation takes there."""
        fixed = _fixed_dtype(node.op, position)
        if (
            value is None
            or fixed is None
            or value.type.differentiable is False
            or value.dtype == fixed
            or not self._applies(fixed)
        ):
            return
        b, array = Builder(node.graph, role=node.role, origin=node.origin, near=node), originals.get(value)
        kept = b.constant(array) if array is not None and not value.is_parameter else b.cast(value, fixed)
        node.graph.set_input(node, position, kept)

    def _convert_fixed(self, node: Node, position: int, value: Value) -> None:
        """Convert a result that an operation gives in one floating-point dtype only."""
        fixed = _fixed_dtype(node.op, position, result=True)
        readers = [user for user in value.users if user.op.qualified_name != "Cast"]
        if fixed is None or not self._applies(fixed) or not (readers or value.is_output):
            return
        converted = Builder(node.graph, role=node.role, origin=node.origin, near=node).cast(value, dtype_from_name(self.to))
        converter = converted.producer
        node.graph.replace_all_uses(value, converted)
        assert converter is not None
        node.graph.set_input(converter, 0, value)

    def _converted(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what is out of range becomes infinite
            return array.astype(dtype_from_name(self.to))

    def _applies(self, dtype: np.dtype) -> bool:
        if dtype == dtype_from_name(self.to):
            return False
        return dtype_name(dtype) == self.source if self.source else is_differentiable(dtype)

    def _type(self, type: Type) -> Type:
        if isinstance(type, SequenceType):
            return SequenceType(self._type(type.element))
        if isinstance(type, OptionalType):
            return OptionalType(self._type(type.element))
        return TensorType(dtype_from_name(self.to), type.shape) if self._applies(type.dtype) else type

    def _result_type(self, value: Value, inferred: Type) -> Type:
        """The type of a result: as it was but for the dtype, since more may be known of it than is inferred."""
        known = self._type(value.type)
        element = inferred.element if isinstance(inferred, OptionalType) else inferred
        return known if same_dtypes(known, inferred) or same_dtypes(known, element) else inferred

    def _attribute(self, key: str, value: Any) -> Any:
        if isinstance(value, np.ndarray) and self._applies(value.dtype):
            return self._converted(value)
        if key in _DTYPES and isinstance(value, int) and value != TensorProto.UNDEFINED:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value))
            return int(helper.np_dtype_to_tensor_dtype(dtype_from_name(self.to))) if self._applies(dtype) else value
        if isinstance(value, Graph):
            self.run(value)
        return value


_DTYPES = ("to", "dtype", "output_datatype", "output_dtype", "precision", "softmax_precision")
"""The attributes that tell the dtype of a result, or of what it is computed in; a default of one tells it too."""

_FILL = np.zeros(1, np.float32)
"""What ConstantOfShape fills with where it does not say."""

_FIXED = {
    f"tensor({name})": dtype_from_name(short) for name, short in (("float", "f32"), ("double", "f64"), ("float16", "f16"))
}


def _fixed_dtype(op: Op, position: int, *, result: bool = False) -> np.dtype | None:
    """The floating-point dtype that an operation's operand (or result) always has, as the scales of a Resize do."""
    if op.schema is None:
        return None
    formal = op.schema.outputs if result else op.schema.inputs
    text = formal[min(position, len(formal) - 1)].type_str
    allowed = next((c.allowed_type_strs for c in op.schema.type_constraints if c.type_param_str == text), [text])
    return _FIXED.get(allowed[0]) if len(allowed) == 1 else None


def _only_in_fixed_places(value: Value) -> bool:
    fixed = [_fixed_dtype(user.op, k) for user in value.users for k, operand in enumerate(user.inputs) if operand is value]
    # numpy takes None for float64 when it compares dtypes.
    return bool(fixed) and not value.is_output and all(dtype is not None and dtype == value.dtype for dtype in fixed)
