"""irgrad: an autodiff compiler for ONNX models.

import irgrad as ig

graph = ig.load("model.onnx")
joint = ig.grad(graph, wrt="parameters", loss="cross_entropy")
run = ig.compile(joint)
results = run({"x": x, "target": y})       # {"loss": ..., "fc.weight_grad": ..., ...}
"""

from __future__ import annotations

from irgrad.api import apply, grad, hvp, jvp, load, load_training, save, to_onnx, updates, vjp
from irgrad.artifacts import save_artifacts
from irgrad.builder import AdjointBuilder, Builder
from irgrad.builtin import plugin as _plugin
from irgrad.compare import graphs_equal
from irgrad.cost import cost
from irgrad.diff import diff_graphs
from irgrad.drawing import draw
from irgrad.errors import IrgradError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Node, Role, Value
from irgrad.op import ZERO, Call, Op, OpTable, find_op
from irgrad.parameters import with_parameters
from irgrad.passes.training.updates import initial_state
from irgrad.pipeline import Pass, Pipeline
from irgrad.plugin import Plugin, registry
from irgrad.profiling import Profile, profile
from irgrad.report import report
from irgrad.runtime import Executable, compile
from irgrad.text import parse_text, to_text
from irgrad.tracing import Trace, trace
from irgrad.training import Training
from irgrad.types import OptionalType, SequenceType, TensorType, Type
from irgrad.verify import verify

__all__ = [
    "ZERO",
    "AdjointBuilder",
    "Builder",
    "Call",
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
    "Profile",
    "Role",
    "SequenceType",
    "TensorType",
    "Trace",
    "Training",
    "Type",
    "Value",
    "apply",
    "check_grads",
    "compile",
    "cost",
    "diff_graphs",
    "draw",
    "find_op",
    "grad",
    "graphs_equal",
    "hvp",
    "initial_state",
    "jvp",
    "load",
    "load_training",
    "parse_text",
    "profile",
    "registry",
    "report",
    "save",
    "save_artifacts",
    "to_onnx",
    "to_text",
    "trace",
    "updates",
    "verify",
    "vjp",
    "with_parameters",
]

registry.register(_plugin)
