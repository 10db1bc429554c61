"""Cases of irgrad/ops/causal_conv.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

BATCH, CHANNELS, STEPS = 2, 3, 5


def operands(size: int, *, bias: bool = False, past: bool = False, steps: int = STEPS, dtype: Any = np.float64) -> list[Any]:
    generator = rng(8)
    shapes = (BATCH, CHANNELS, steps), (CHANNELS, 1, size), (CHANNELS,), (BATCH, CHANNELS, size - 1)
    x, weight, b, state = (generator.standard_normal(shape).astype(dtype) for shape in shapes)
    if past:
        return [x, weight, b if bias else None, state]
    return [x, weight, b] if bias else [x, weight]


# onnx.reference computes the activation in float32, and in 16 bits the convolution too.
def oracle(activation: str = "none") -> Any:
    def compute(x: np.ndarray, weight: np.ndarray, bias: Any = None, past: Any = None) -> tuple[np.ndarray, ...]:
        size, dtype = weight.shape[2], x.dtype
        padded = np.concatenate([np.zeros((*x.shape[:2], size - 1)) if past is None else past, x], 2).astype(np.float64)
        y = np.zeros(x.shape)
        for t in range(x.shape[2]):
            y[:, :, t] = (padded[:, :, t : t + size] * weight[:, 0]).sum(2) + (0 if bias is None else bias)
        y = y / (1 + np.exp(-y)) if activation != "none" else y
        return y.astype(dtype), padded[:, :, x.shape[2] :].astype(dtype)

    return compute


def case(id: str, inputs: list[Any], activation: str = "none", **options: Any) -> Case:
    attrs = {} if activation == "none" else {"activation": activation}
    return Case("CausalConvWithState", inputs, attrs, 2, id, oracle=oracle(activation), **options)


CASES: list[Case] = [
    case("plain", operands(3)),
    case("bias", operands(3, bias=True)),
    case("past", operands(3, past=True)),
    case("bias-past", operands(3, bias=True, past=True)),
    case("explicit-none", operands(2), "none"),
    case("silu", operands(3, bias=True, past=True), "silu"),
    case("swish", operands(2), "swish"),
    case("size-one", operands(1, bias=True)),
    case("size-one-past", operands(1, past=True)),
    case("size-one-silu", operands(1), "silu"),
    case("as-long", operands(5, past=True)),
    case("longer-than-the-input", operands(4, steps=2)),
    case("longer-than-the-input-past", operands(4, steps=2, bias=True, past=True), "silu"),
    case("one-step", operands(3, steps=1, past=True)),
    case("no-steps", operands(3, steps=0, bias=True, past=True), "silu"),
    case("no-steps-no-past", operands(2, steps=0)),
    case("no-batch", [operands(3)[0][:0], operands(3)[1]]),
    case("output-only", operands(3, bias=True, past=True), wanted=[0]),
    case("state-only", operands(3, bias=True, past=True), wanted=[1]),
    case("state-only-no-past", operands(3), wanted=[1]),
    case("by-weight", operands(3, bias=True, past=True), "silu", wrt=[1, 2]),
    case("by-past", operands(3, bias=True, past=True), "silu", wrt=[3]),
    case("single", operands(3, bias=True, past=True, dtype=np.float32), "silu"),
    case("half", operands(3, bias=True, past=True, dtype=np.float16), "silu", rtol=1e-3),
]
