"""Cases of irgrad/ops/signal.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.ops.harness import Case

WINDOWS = [
    *(
        Case(name, [np.array(size)], {"periodic": periodic}, id=f"{size}-{id}", order=0)
        for name in ("BlackmanWindow", "HammingWindow", "HannWindow")
        for size in (2, 7)
        for periodic, id in ((1, "periodic"), (0, "symmetric"))
    ),
    Case("HannWindow", [np.array(1)], id="one", order=0),
    Case("HannWindow", [np.array(1)], {"periodic": 0}, id="one-symmetric", order=0),
    Case("HannWindow", [np.array(0)], id="none", order=0),
    Case("HammingWindow", [np.array(6, np.int32)], {"output_datatype": TensorProto.DOUBLE}, id="f64", order=0, rtol=1e-5),
    Case("HammingWindow", [np.array(6)], {"output_datatype": TensorProto.FLOAT16}, id="f16", order=0, rtol=1e-2),
    Case("HannWindow", [np.array(4)], {"output_datatype": TensorProto.INT32}, id="i32", order=0),
]


def mel(id: str, bands: int, length: int, rate: int, low: float, high: float, **attrs: Any) -> Case:
    edges = [np.array(edge, np.float32) for edge in (low, high)]
    return Case("MelWeightMatrix", [np.array(bands), np.array(length), np.array(rate), *edges], attrs, id=id, order=0)


MELS = [
    mel("usual", 8, 64, 8192, 0, 4096),
    mel("narrow", 4, 32, 16000, 300, 5000),
    mel("edges-in-one-bin", 8, 16, 8192, 0, 1000),
    mel("f64", 8, 64, 8192, 0, 4096, output_datatype=TensorProto.DOUBLE),
    mel("odd-length", 3, 33, 8192, 20, 4000),
]

CASES = [*WINDOWS, *MELS]
