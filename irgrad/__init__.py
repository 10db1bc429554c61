"""irgrad: an autodiff compiler for ONNX models.

import irgrad as ig

graph = ig.load("model.onnx")
joint = ig.grad(graph, wrt="parameters", loss="cross_entropy")
run = ig.compile(joint)
results = run({"x": x, "target": y})       # {"loss": ..., "fc.weight_grad": ..., ...}
"""

from __future__ import annotations

from irgrad.api import apply, grad, hvp, jvp, load, vjp
from irgrad.builder import AdjointBuilder, Builder
from irgrad.builtin import plugin as _plugin
from irgrad.compare import graphs_equal
from irgrad.errors import IrgradError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Node, Role, Value
from irgrad.op import ZERO, Op, OpTable, find_op
from irgrad.pipeline import Pass, Pipeline
from irgrad.plugin import Plugin, registry
from irgrad.runtime import Executable, compile
from irgrad.text import parse_text, to_text
from irgrad.types import OptionalType, SequenceType, TensorType
from irgrad.verify import verify

__all__ = [
    "ZERO",
    "AdjointBuilder",
    "Builder",
    "Executable",
    "Graph",
    "IrgradError",
    "Node",
    "Op",
    "OpTable",
    "OptionalType",
    "Pass",
    "Pipeline",
    "Plugin",
    "Role",
    "SequenceType",
    "TensorType",
    "Value",
    "apply",
    "check_grads",
    "compile",
    "find_op",
    "grad",
    "graphs_equal",
    "hvp",
    "jvp",
    "load",
    "parse_text",
    "registry",
    "to_text",
    "verify",
    "vjp",
]

registry.register(_plugin)
