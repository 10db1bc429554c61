"""Static shapes of the operands and results of a call that a kernel is planned for."""

from __future__ import annotations

from irgrad.op import Call
from irgrad.types import TensorType

__all__ = ["result_of", "shape_of"]


def shape_of(call: Call, index: int) -> tuple[int, ...]:
    """The shape of an operand, which is static, as in all plans (see `irgrad.runtime.workspace.planned`)."""
    shape = call.tensor(index).static_shape
    assert shape is not None, f"operand {index} of {call.op.qualified_name} has no static shape"
    return shape


def result_of(call: Call, index: int = 0) -> TensorType | None:
    """The type of a result; None where its shape is not static."""
    type = call.outputs[index] if index < len(call.outputs) else None
    return type if isinstance(type, TensorType) and type.static_shape is not None else None
