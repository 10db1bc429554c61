"""Dropout: y = x · mask / (1 − ratio), where each element of the mask is 1 with probability 1 − ratio; y = x at inference.

Reference: Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 15 (2014).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops.elementwise import keep_where
from irgrad.ops.random import below, source_of
from irgrad.ops.special import bits_of
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import Workspace, planned
from irgrad.types import is_differentiable

__all__ = ["DATA", "RATIO", "TRAINING", "drops", "ops", "scale_of"]

DATA, RATIO, TRAINING = range(3)  # the operands
_DEFAULT_RATIO = 0.5

ops = OpTable()

dropout = ops.define("Dropout", random=True)


def drops(node: Node) -> bool:
    """Whether a Dropout node may drop anything: it is not known to be at inference, nor to have the ratio 0."""
    ratio = node.input(RATIO)
    known = None if ratio is None or ratio.is_parameter else ratio.constant
    return _trains(node) and (known is None or bool(known.astype(np.float32).any()))


def _trains(node: Node) -> bool:
    """Whether a Dropout node may be in training mode."""
    training = node.input(TRAINING)
    return training is not None and (training.constant is None or bool(training.constant.any()))


_CHUNK = 1 << 14  # random numbers at a time


@dropout.prepare
@planned()
def _dropout(call: Call) -> Kernel:
    data, seed, space = call.tensor(DATA), call.attrs.get("seed"), Workspace()
    shape, dtype = data.static_shape, data.dtype
    assert shape is not None
    # float8 has no arithmetic of its own.
    wide = accumulation_dtype(dtype) if is_differentiable(dtype) else np.dtype(np.float32)
    size = prod(shape)
    room = shape if call.has(TRAINING) else (0,)
    numbers, kept = space.array((min(size, _CHUNK),), np.float64), space.array(room, np.bool_)
    scaled = None if wide == dtype else space.array(room, wide)
    factors = space.array(room, f"i{wide.itemsize}")

    def draw(mask: np.ndarray, share: float, work: np.ndarray) -> None:
        source, flat = _generator(seed), mask.reshape(-1)
        for first in range(0, size, _CHUNK):
            part = flat[first : first + _CHUNK]
            np.greater_equal(source.random(out=numbers(work)[: len(part)]), share, out=part)

    def kernel(
        x: np.ndarray,
        ratio: np.ndarray | None = None,
        training: np.ndarray | None = None,
        *,
        out: Any = None,
        work: np.ndarray,
    ) -> Any:
        share = np.full((), _DEFAULT_RATIO, wide) if ratio is None else ratio.astype(wide)
        if call.n_outputs == 1:
            y, mask = np.empty(shape, dtype) if out is None else out, kept(work)
        else:
            y, mask = (np.empty(shape, dtype), np.empty(shape, np.bool_)) if out is None else out
        if training is None or not training.any() or not share:
            np.copyto(y, x)
            mask.fill(True)
        else:
            draw(mask, float(share), work)
            target = y if scaled is None else scaled(work)
            np.copyto(target, x)
            np.multiply(target, 1 / (1 - share), out=target)
            # The bits of what is dropped times 0: unlike the number, infinity is 0 then too.
            bits, factor = bits_of(target), factors(work)
            np.copyto(factor, mask)
            np.multiply(bits, factor, out=bits)
            if target is not y:
                np.copyto(y, target, casting="unsafe")
        return y if call.n_outputs == 1 else (y, mask)

    return space.kernel(kernel)


def _generator(seed: float | None) -> np.random.Generator:
    """What draws the numbers of `source_of` into memory that is there."""
    source = source_of(seed)
    if isinstance(source, np.random.Generator):
        return source
    bits = np.random.MT19937()
    bits.state = source.get_state(legacy=False)  # type: ignore[assignment]
    return np.random.Generator(bits)


def scale_of(b: Builder, node: Node, dtype: np.dtype, *, differentiable: bool = False) -> Value:
    """1 / (1 − ratio) where the node is in training mode, otherwise 1: a scalar.

    A ratio that is a constant, but no parameter, is taken for a number, unless the scale has to be differentiable by it.
    At the ratio 1, which drops everything, it is a large number and not infinite, since 0 times infinity is no 0.
    """
    ratio, training = node.input(RATIO), node.operand(TRAINING)
    least = (1 - float(below(1, 0, dtype))) / 2  # no ratio but 1 is as close to 1
    if ratio is None or (ratio.constant is not None and not ratio.is_parameter and not differentiable):
        known = _DEFAULT_RATIO if ratio is None or ratio.constant is None else float(ratio.constant.item())
        scale = b.constant(1 / max(1 - known, least), dtype)
    else:
        scale = b.op("Reciprocal", b.op("Max", 1 - b.cast(ratio, dtype), least))
    return scale if training.constant is not None else b.op("Where", training, scale, b.scalar(1, scale))


@dropout.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value, dmask: None = None) -> list[Value | Zero | None]:
    """The cotangent of what was kept, scaled as that was, by the mask that the node returns.

    For the mask that was drawn, y depends on the ratio through its scale: dy/dratio = x · mask / (1 − ratio)², which is the
    product of the two factors that x and its cotangent are multiplied by, so that nothing is divided here.
    """
    ratio = node.input(RATIO)
    wanted = ratio is not None and b.needs(ratio)
    if not _trains(node) or not (wanted or drops(node)):
        return [dy] if ratio is None else [dy, ZERO]
    training = node.operand(TRAINING)
    dx = keep_where(b, b.further_output(node, 1), dy * scale_of(b, node, dy.dtype, differentiable=wanted))
    if ratio is None or not wanted:
        return [dx]
    dratio = b.op("ReduceSum", dx * node.outputs[0], keepdims=0)
    if training.constant is None:
        dratio = keep_where(b, training, dratio)
    return [dx, b.cast(dratio, ratio.dtype)]
