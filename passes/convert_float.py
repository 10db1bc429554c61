"""Changing the floating-point precision of a whole graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from onnx import TensorProto, helper

from irgrad.builder import call_of
from irgrad.errors import PassError
from irgrad.graph import Graph
from irgrad.infer import infer_types
from irgrad.pipeline import Pass
from irgrad.types import OptionalType, SequenceType, TensorType, Type, dtype_from_name, dtype_name, is_differentiable

__all__ = ["ConvertFloat"]


@dataclass(frozen=True)
class ConvertFloat(Pass):
    """Turn every value of one floating-point dtype into another: inputs, constants, casts and fills alike.

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
        for value, array in list(graph.constants.items()):
            if self._applies(array.dtype):
                graph.set_constant(value, array.astype(dtype_from_name(self.to)))
                changed = True
        for node in graph.nodes():
            for key, attribute in list(node.attrs.items()):
                node.attrs[key] = self._attribute(key, attribute)
            if len(node.outputs) > 1 and "stash_type" in node.op.defaults:
                # LayerNormalization returns its statistics in a dtype of their own: float64 in a float64 graph.
                node.attrs["stash_type"] = int(TensorProto.DOUBLE if self.to == "f64" else TensorProto.FLOAT)
            call = call_of(node.op, node.attrs, node.inputs, len(node.outputs))
            for value, type in zip(node.outputs, infer_types(call), strict=True):
                changed |= type != value.type
                graph.set_type(value, type)
        return changed

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

    def _attribute(self, key: str, value: Any) -> Any:
        if isinstance(value, np.ndarray) and self._applies(value.dtype):
            return value.astype(dtype_from_name(self.to))
        if key in ("to", "dtype") and isinstance(value, int):
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value))
            return int(helper.np_dtype_to_tensor_dtype(dtype_from_name(self.to))) if self._applies(dtype) else value
        if isinstance(value, Graph):
            self.run(value)
        return value
