"""Cases of irgrad/ops/shape.py."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((2, 3, 4))
ONES = rng(1).standard_normal((1, 3, 1, 2, 1))
EMPTY = np.zeros((0, 3, 2))
NO_AXES = np.zeros(0, np.int64)

RESHAPE = [
    Case("Reshape", [X, np.array([4, 6])]),
    Case("Reshape", [X, np.array([-1, 2])], id="rest"),
    Case("Reshape", [X, np.array([0, -1])], id="kept-and-rest"),
    Case("Reshape", [X, np.array([0, 0, 2, -1])], id="kept-twice"),
    Case("Reshape", [X, np.array([2, 12])], {"allowzero": 1}, id="allowzero"),
    Case("Reshape", [EMPTY, np.array([3, 0])], {"allowzero": 1}, id="allowzero-empty"),
    Case("Reshape", [EMPTY, np.array([0, 6])], id="kept-empty"),
    Case("Reshape", [X[:1, :1, :1], NO_AXES], id="to-scalar"),
    Case("Reshape", [np.array(2.5), np.array([1, -1])], id="scalar"),
    Case("Reshape", [X.astype(np.float32), np.array([4, 6])], id="f32"),
    Case("Reshape", [np.array([[True, False]]), np.array([-1])], id="bool", order=0),
    *(Case("Flatten", [X], {"axis": axis}, id=f"axis-{axis}") for axis in (0, 2, 3, -1)),
    Case("Flatten", [X], id="default-axis"),
    Case("Flatten", [np.array(2.5)], {"axis": 0}, id="scalar"),
    Case("Squeeze", [ONES], id="all"),
    Case("Squeeze", [ONES, np.array([0, -1])], id="some"),
    Case("Squeeze", [ONES, np.array([4, 2])], id="unsorted"),
    Case("Squeeze", [X, np.zeros(0, np.int64)], id="none"),
    Case("Squeeze", [ONES.astype(np.float32)], id="f32"),
    Case("Unsqueeze", [X, np.array([1])], id="one"),
    Case("Unsqueeze", [X, np.array([-1, 0, 2])], id="several"),
    Case("Unsqueeze", [X, NO_AXES], id="none"),
    Case("Unsqueeze", [np.array(2.5), np.array([0])], id="scalar"),
    Case("Unsqueeze", [X.astype(np.float32), np.array([0])], id="f32"),
]

EXPAND = [
    Case("Expand", [X[:, :1], np.array([2, 3, 4])], id="inner"),
    Case("Expand", [X[:1, 0], np.array([2, 3, 4])], id="outer-and-inner"),
    Case("Expand", [X[0, 0], np.array([2, 1, 4])], id="outer"),
    Case("Expand", [X, np.array([1, 1])], id="by-ones"),
    Case("Expand", [X[0, :, :1], np.array([2, 1, 4])], id="both-ways"),
    Case("Expand", [X[0, 0, :1], np.array([5])], id="one-axis"),
    Case("Expand", [np.array(2.5), np.array([3])], id="scalar"),
    Case("Expand", [np.array(2.5), NO_AXES], id="scalar-to-scalar"),
    Case("Expand", [X[:, :1], np.array([2, 0, 4])], id="to-nothing"),
    Case("Expand", [X[:, :1].astype(np.float32), np.array([3, 1])], id="f32"),
    Case("irgrad.SumTo", [X, np.array([3, 1])], oracle=lambda x, shape: x.sum((0, 2))[:, None]),
    Case("irgrad.SumTo", [X, np.array([2, 3, 4])], id="nothing", oracle=lambda x, shape: x),
    Case("irgrad.SumTo", [X, np.array([2, 1, 4])], id="inner", oracle=lambda x, shape: x.sum(1, keepdims=True)),
    Case("irgrad.SumTo", [X, NO_AXES], id="scalar", oracle=lambda x, shape: x.sum()),
    Case("irgrad.SumTo", [X[:, :1], np.array([1, 4])], id="one-to-one", oracle=lambda x, shape: x.sum(0)),
    Case(
        "irgrad.SumTo",
        [np.ones(3000, np.float16), np.array([1])],
        id="f16",
        order=0,
        oracle=lambda x, shape: np.array([3000], np.float16),
    ),
]


def range_gradient(start: float, limit: float, delta: float) -> Case:
    # The step and the start must not change how many elements there are.
    return Case("Range", [np.array(start), np.array(limit), np.array(delta)], id=f"{start}-{limit}-{delta}", wrt=[0, 2])


MADE = [
    *(
        Case("Shape", [X], attrs, id=id, order=0)
        for id, attrs in {
            "all": {},
            "from": {"start": 1},
            "to": {"end": -1},
            "part": {"start": -2, "end": 2},
            "beyond": {"start": -7, "end": 9},
        }.items()
    ),
    Case("Shape", [np.array(2.5)], id="scalar", order=0),
    Case("Size", [X], order=0),
    Case("Size", [np.array(2.5)], id="scalar", order=0),
    Case("Constant", [], {"value": X}, id="tensor", order=0),
    Case("Constant", [], {"value_floats": (1.5, 2.5)}, id="numbers", order=0),
    Case("Constant", [], {"value_int": 3}, id="number", order=0),
    Case("ConstantOfShape", [np.array([2, 3])], id="default", order=0),
    Case("ConstantOfShape", [np.array([2, 3])], {"value": np.array([1.5])}, id="f64", order=0),
    Case("ConstantOfShape", [NO_AXES], {"value": np.array([7])}, id="scalar", order=0),
    Case("ConstantOfShape", [np.array([2, 0])], {"value": np.array([True])}, id="nothing", order=0),
    *(
        Case("EyeLike", [X[0]], {"k": k, "dtype": dtype}, id=f"{k}-{dtype}", order=0)
        for k, dtype in ((0, TensorProto.FLOAT), (1, TensorProto.INT64), (-2, TensorProto.BOOL))
    ),
    Case("EyeLike", [np.ones((2, 2), np.int32)], id="own-type", order=0),
    Case("Range", [np.array(3), np.array(9), np.array(2)], id="i64", order=0),
    Case("Range", [np.array(9, np.int32), np.array(3, np.int32), np.array(-4, np.int32)], id="down", order=0),
    Case("Range", [np.array(3), np.array(3), np.array(2)], id="nothing", order=0),
    Case("Range", [np.array(3), np.array(0), np.array(2)], id="the-wrong-way", order=0),
    Case("Range", [np.float32(0.5), np.float32(2), np.float32(0.25)], id="f32", order=0),
    range_gradient(0.5, 3.2, 0.75),
    range_gradient(2.0, -1.1, -0.5),
]

CASES = [*RESHAPE, *EXPAND, *MADE]
