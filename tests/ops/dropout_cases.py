"""Cases of irgrad/ops/dropout.py. With a seed, the mask is the one that onnx.reference draws."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from tests.ops.harness import Case, rng

X = rng(510).standard_normal((3, 4))
RATIO, YES, NO = np.array(0.3), np.array(True), np.array(False)


def dropped(ratio: float, seed: int = 7) -> Callable[..., np.ndarray]:
    """For dtypes whose products onnx.reference returns in another dtype."""

    def run(x: np.ndarray, *others: object) -> np.ndarray:
        mask = np.random.RandomState(seed).random_sample(x.shape) >= ratio
        return np.where(mask, x.astype(np.float64) / (1 - ratio), 0)

    return run


CASES = [
    Case("Dropout", [X], id="bare"),
    Case("Dropout", [X, RATIO, NO], id="inference"),
    Case("Dropout", [X, None, NO], id="inference-without-ratio"),
    Case("Dropout", [X, RATIO], {"seed": 7}, outputs=2, id="mask", wrt=[0]),
    Case("Dropout", [X.astype(np.float32), RATIO, NO], outputs=2, id="mask-inference", wrt=[0]),
    Case("Dropout", [X.astype(np.float16)], outputs=2, id="mask-float16"),
    Case("Dropout", [X, RATIO, YES], {"seed": 7}, id="training"),
    Case("Dropout", [X, RATIO, YES], {"seed": 7}, outputs=2, id="training-mask"),
    Case("Dropout", [X, None, YES], {"seed": 8}, id="training-without-ratio", oracle=dropped(0.5, 8)),
    Case("Dropout", [X[0, 0], RATIO, YES], {"seed": 2}, id="scalar", oracle=dropped(0.3, 2)),
    Case("Dropout", [X, np.array(0.0), YES], id="training-that-drops-nothing", order=0),
    Case("Dropout", [X, np.array(0.0), YES], outputs=2, id="training-that-drops-nothing-mask", order=0),
    Case("Dropout", [X, np.array(1.0), YES], {"seed": 7}, id="everything", wrt=[0], oracle=lambda x, *_: 0 * x),
    Case("Dropout", [X.astype(np.float32), RATIO.astype(np.float32), YES], {"seed": 7}, id="float32", oracle=dropped(0.3)),
    Case("Dropout", [X, RATIO.astype(np.float32), YES], {"seed": 7}, id="ratio-of-float32"),
    Case("Dropout", [X.astype(np.float16), RATIO, YES], {"seed": 7}, id="float16", oracle=dropped(0.3), rtol=2e-3, order=1),
    Case(
        "Dropout",
        [X.astype(ml_dtypes.bfloat16), RATIO, YES],
        {"seed": 7},
        id="bfloat16",
        oracle=dropped(0.3),
        rtol=2e-2,
        order=1,
    ),
    Case(
        "Dropout",
        [np.array([1.0, -2.0, 4.0, 0.5]).astype(ml_dtypes.float8_e4m3fn), None, YES],
        {"seed": 7},
        id="float8",
        order=0,
        oracle=dropped(0.5),
    ),
]
