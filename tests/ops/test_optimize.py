"""Optimizers: what does not fit each other is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph
from irgrad.runtime import compile
from irgrad.types import Shape, TensorType

MOMENTUM = {"alpha": 0.9, "beta": 0.8, "mode": "standard", "norm_coefficient": 0.0}


def stepping(shapes: Sequence[Shape], dtype: Any = np.float64, outputs: int = 2) -> Graph:
    """A Momentum of the tensor, gradient and momentum of some shapes, of which the last one has a dtype of its own."""
    graph = Graph("momentum")
    dtypes = [np.float64] * (len(shapes) - 1) + [dtype]
    operands = [
        graph.add_input(f"x{k}", TensorType(np.dtype(d), shape))
        for k, (shape, d) in enumerate(zip(shapes, dtypes, strict=True))
    ]
    name = "ai.onnx.preview.training.Momentum"
    results = Builder(graph).multi(name, np.array(0.1), np.array(1), *operands, outputs=outputs, **MOMENTUM)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(results)})
    return graph


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([(2, 3), (2, 3)], {}, "takes for each tensor its gradient, its momentum, but it has 2 operands"),
        ([(2, 3)] * 3, {"outputs": 4}, "Momentum of 1 tensors has 4 outputs"),
        ([(2, 3)] * 3, {"dtype": np.float32}, r"updates f64\[2,3\], but its momentum is f32\[2,3\]"),
        ([(2, 3), (3,), (2, 3)], {}, r"updates f64\[2,3\], but its gradient is f64\[3\]"),
        ([(3,), (3,), (1,)], {}, r"updates f64\[3\], but its momentum is f64\[1\]"),
    ],
)
def test_what_does_not_fit_is_refused(shapes: Sequence[Shape], options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        stepping(shapes, **options)


def test_a_gradient_is_not_broadcast() -> None:
    run = compile(stepping([(None,)] * 3))
    with pytest.raises(TypeInferenceError, match="but its gradient is"):
        run({"x0": np.ones(3), "x1": np.ones(1), "x2": np.ones(3)})
