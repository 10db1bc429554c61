"""Cases of irgrad/ops/unpool.py.

The oracle is that of the specification's own example: indices count in the tensor that the attributes tell the size of, and
output_shape then gives it room at its end (onnxruntime counts in output_shape).
"""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((1, 2, 2, 2))
PLACES = np.array([[[[5, 7], [13, 10]], [[16, 18], [31, 27]]]])
ATTRS = {"kernel_shape": (2, 2), "strides": (2, 2)}

CASES = [
    Case("MaxUnpool", [X, PLACES], ATTRS),
    Case("MaxUnpool", [X, PLACES, np.array([1, 2, 5, 6])], ATTRS, id="output_shape"),
    Case("MaxUnpool", [X, PLACES % 18], {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}, id="overlap"),
    Case("MaxUnpool", [X, np.full((1, 2, 2, 2), 3)], {"kernel_shape": (2, 2)}, id="one_place"),
    Case(
        "MaxUnpool",
        [rng(0).standard_normal((2, 1, 3)), np.array([[[0, 3, 5]], [[6, 8, 11]]])],
        {"kernel_shape": (2,), "strides": (2,)},
        id="1d",
    ),
    Case("MaxUnpool", [X.astype(np.float32), PLACES], ATTRS, id="f32"),
]
