"""Windows and the mel scale: what they do not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.graph import Graph
from irgrad.runtime import compile
from irgrad.types import TensorType

EDGES = (np.array(0, np.float32), np.array(4000, np.float32))
MEL = (np.array(16), np.array(8000), *EDGES)


@pytest.mark.parametrize(("op", "more"), [("HannWindow", ()), ("MelWeightMatrix", MEL)])
@pytest.mark.parametrize(
    ("size", "attrs", "message"),
    [
        (-3, {}, "operand 0 of .* is a size, but -3"),
        (4, {"output_datatype": 99}, "99 is the number of no element type"),
        (4, {"output_datatype": TensorProto.STRING}, "not output_datatype str"),
        (4, {"output_datatype": TensorProto.BOOL}, "not output_datatype bool"),
    ],
)
def test_what_they_do_not_take_is_refused(op: str, more: Any, size: int, attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        Builder(Graph("window")).op(op, np.array(size), *more, **attrs)


@pytest.mark.parametrize(("op", "more"), [("HannWindow", ()), ("MelWeightMatrix", MEL)])
def test_a_negative_size_is_refused_at_run_time(op: str, more: Any) -> None:
    graph = Graph("window")
    size = graph.add_input("size", TensorType(np.dtype(np.int64), ()))
    graph.set_outputs({"y": Builder(graph).op(op, size, *more)})
    with pytest.raises(ExecutionError, match="-3 is no number of elements"):
        compile(graph)({"size": np.array(-3)})
