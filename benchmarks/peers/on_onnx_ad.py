"""onnx-ad's reverse model on onnxruntime; it differentiates by inputs, so that the parameters become such."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ad
import onnxruntime
from onnx import helper

from benchmarks.cases import Case
from benchmarks.peers import Prepared

__all__ = ["start"]


def start(case: Case, threads: int) -> Prepared:
    """See `benchmarks.peers.Peer`."""
    model = onnx.load(case.path)
    parameters = [tensor for tensor in model.graph.initializer if tensor.name in case.parameters]
    for tensor in parameters:
        model.graph.initializer.remove(tensor)
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    reverse = onnx_ad.reverse(model, inputs=list(case.parameters), outputs=["loss"], layout="onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(reverse.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seed = next(i.name for i in session.get_inputs() if i.name not in case.inputs and i.name not in case.parameters)
    feeds = {**case.inputs, **case.parameters, seed: np.ones(1, np.float32)}
    outputs = ["loss", *(f"adj_{name}" for name in case.parameters)]

    def read(results: Any) -> Any:
        loss, *gradients = results
        return float(loss), {
            name: g.reshape(case.parameters[name].shape) for name, g in zip(case.parameters, gradients, strict=True)
        }

    return Prepared(lambda: session.run(outputs, feeds), read)
