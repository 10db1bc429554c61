"""Batch normalisation on arrays and its adjoint, see irgrad/ops/batch_norm.py: a few passes over blocks that fit into cache.

With m the mean and i = 1 / sqrt(var + ε) of a channel, the sums of its adjoint are s = Σ dy (x − m) and t = Σ dy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from irgrad.kernels.channels import ChannelBlock, Channels
from irgrad.kernels.shapes import shape_of
from irgrad.kernels.wide import Wide
from irgrad.op import Call, WorkspaceKernel
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import Workspace
from irgrad.types import TensorType

__all__ = ["normalise_by_given", "normalise_in_training", "pull_back_by_given", "pull_back_in_training"]

_Compute: TypeAlias = "Callable[[Sequence[Any], Sequence[np.ndarray], np.ndarray], None]"
"""``compute(operands, results, work)``."""


class _Setting:
    """What the four kernels have in common: the dtype to compute in, operands and results in it, and the blocks."""

    def __init__(self, call: Call) -> None:
        tensors = [type for type in call.inputs if isinstance(type, TensorType)]
        self.wide = np.result_type(*(accumulation_dtype(type.dtype) for type in tensors))
        self.space = Workspace()
        self._operands = [
            None if type is None else Wide(self.space, shape_of(call, k), call.tensor(k).dtype, self.wide)
            for k, type in enumerate(call.inputs)
        ]
        self._results = [
            Wide(self.space, type.static_shape or (), type.dtype, self.wide)
            for type in call.outputs
            if isinstance(type, TensorType)
        ]
        self.channels = Channels(self.space, shape_of(call, 0), self.wide)
        self.count = self.wide.type(self.channels.count)
        self.epsilon = self.wide.type(call.attrs["epsilon"])
        self.numbers = self.space.array((6, self.channels.shape[1]), self.wide)

    def kernel(self, compute: _Compute) -> WorkspaceKernel:
        """A kernel of ``compute(operands, results, work)``."""

        def run(*arrays: np.ndarray | None, out: Any = None, work: np.ndarray) -> Any:
            operands = [
                None if way is None or array is None else way.of(array, work)
                for way, array in zip(self._operands, arrays, strict=False)
            ]
            places = out if isinstance(out, tuple) else (out,) * len(self._results)
            results = [way.place(place, work) for way, place in zip(self._results, places, strict=True)]
            compute(operands, results, work)
            return tuple(w.done(r, p) for w, r, p in zip(self._results, results, places, strict=True))

        return self.space.kernel(run)

    def invert(self, variance: np.ndarray, out: np.ndarray) -> np.ndarray:
        """1 / sqrt(variance + ε) into `out`."""
        np.add(variance, self.epsilon, out=out)
        np.sqrt(out, out=out)
        np.reciprocal(out, out=out)
        return out


def normalise_by_given(call: Call) -> WorkspaceKernel:
    """BatchNormalization by a given mean and variance."""
    setting = _Setting(call)

    def compute(operands: Sequence[Any], results: Sequence[np.ndarray], work: np.ndarray) -> None:
        x, scale, bias, mean, var = operands
        factor, shift = setting.numbers(work)[:2]
        np.multiply(scale, setting.invert(var, factor), out=factor)
        np.subtract(bias, np.multiply(mean, factor, out=shift), out=shift)
        setting.channels.linear(x, factor, shift, results[0])

    return setting.kernel(compute)


def normalise_in_training(call: Call) -> WorkspaceKernel:
    """BatchNormalization by the batch's own mean and variance, and the running averages of these."""
    setting = _Setting(call)
    channels, momentum = setting.channels, setting.wide.type(call.attrs["momentum"])
    total, squares = channels.sum(), channels.partial()

    def compute(operands: Sequence[Any], results: Sequence[np.ndarray], work: np.ndarray) -> None:
        x, scale, bias, old_mean, old_var = operands
        mean, var, factor, shift = setting.numbers(work)[:4]
        np.divide(total(channels.of(x), out=mean, work=work), setting.count, out=mean)
        operand, parts, average = channels.of(x), squares(work), mean.reshape(-1, 1)

        def block(at: ChannelBlock) -> None:
            v = at.of(operand)
            difference = np.subtract(v, average[at.channels], out=channels.spare(at, v, work))
            channels.dot(at, difference, difference, parts)

        channels.run(block)
        np.divide(channels.total(parts, var), setting.count, out=var)
        # Not x · factor + (bias − mean · factor), in which digits are lost where the mean is large.
        np.multiply(scale, setting.invert(var, factor), out=factor)
        target, column, row = channels.of(results[0]), factor.reshape(-1, 1), bias.reshape(-1, 1)

        def apply(at: ChannelBlock) -> None:
            y = at.of(target)
            np.subtract(at.of(operand), average[at.channels], out=y)
            np.multiply(y, column[at.channels], out=y)
            np.add(y, row[at.channels], out=y)

        channels.run(apply)
        for result, old, new in zip(results[1:], (old_mean, old_var), (mean, var), strict=False):
            np.multiply(old, momentum, out=result)
            np.add(result, np.multiply(new, setting.wide.type(1) - momentum, out=shift), out=result)

    return setting.kernel(compute)


def pull_back_in_training(call: Call) -> WorkspaceKernel:
    """BatchNormalizationGrad where the statistics are the batch's own."""
    setting, wrt = _Setting(call), call.attrs["wrt"]
    channels = setting.channels
    total, squares, products = channels.sum(), channels.partial(), channels.partial()

    def compute(operands: Sequence[Any], results: Sequence[np.ndarray], work: np.ndarray) -> None:
        dy, x, scale = (*operands, None, None)[:3]
        found = dict(zip(wrt, results, strict=True))
        mean, inverse, dscale, dbias, by_x, shift = setting.numbers(work)
        total(channels.of(dy), out=dbias, work=work)
        if 2 in found:
            np.copyto(found[2], dbias.reshape(found[2].shape))
        if x is None:
            return
        np.divide(total(channels.of(x), out=mean, work=work), setting.count, out=mean)
        cotangent, operand, average = channels.of(dy), channels.of(x), mean.reshape(-1, 1)
        parts = squares(work), products(work)

        def block(at: ChannelBlock) -> None:
            v = at.of(operand)
            difference = np.subtract(v, average[at.channels], out=channels.spare(at, v, work))
            channels.dot(at, difference, difference, parts[0])
            channels.dot(at, difference, at.of(cotangent), parts[1])

        channels.run(block)
        np.divide(channels.total(parts[0], inverse), setting.count, out=inverse)
        setting.invert(inverse, inverse)
        np.multiply(channels.total(parts[1], dscale), inverse, out=dscale)
        if 1 in found:
            np.copyto(found[1], dscale.reshape(found[1].shape))
        if 0 not in found:
            return
        # dx = f (dy − t / n) − f i dscale / n (x − m) with f = scale i
        factor = np.multiply(scale, inverse, out=shift)
        np.multiply(dscale, inverse, out=by_x)
        np.divide(by_x, setting.count, out=by_x)
        np.divide(dbias, setting.count, out=dbias)
        columns = [v.reshape(-1, 1) for v in (factor, by_x, dbias)]
        target = channels.of(found[0])

        def apply(at: ChannelBlock) -> None:
            scaled, common, constant = (column[at.channels] for column in columns)
            v, y = at.of(operand), at.of(target)
            spare = np.subtract(v, average[at.channels], out=channels.spare(at, v, work))
            np.multiply(spare, common, out=spare)
            np.add(spare, constant, out=spare)
            np.subtract(at.of(cotangent), spare, out=y)
            np.multiply(y, scaled, out=y)

        channels.run(apply)

    return setting.kernel(compute)


def pull_back_by_given(call: Call) -> WorkspaceKernel:
    """BatchNormalizationGrad where mean and variance are given."""
    setting, wrt = _Setting(call), call.attrs["wrt"]
    channels = setting.channels
    total, products = channels.sum(), channels.partial()

    def compute(operands: Sequence[Any], results: Sequence[np.ndarray], work: np.ndarray) -> None:
        dy, x, scale, mean, var = operands
        found = dict(zip(wrt, results, strict=True))
        inverse, factor, sums, spare = setting.numbers(work)[:4]
        np.multiply(scale, setting.invert(var, inverse), out=factor)
        if 1 in found or 4 in found:
            cotangent, operand, average, parts = channels.of(dy), channels.of(x), mean.reshape(-1, 1), products(work)

            def block(at: ChannelBlock) -> None:
                v = at.of(operand)
                difference = np.subtract(v, average[at.channels], out=channels.spare(at, v, work))
                channels.dot(at, difference, at.of(cotangent), parts)

            channels.run(block)
            np.multiply(channels.total(parts, sums), inverse, out=sums)
            if 1 in found:
                np.copyto(found[1], sums)
            if 4 in found:
                np.multiply(np.multiply(sums, inverse, out=spare), factor, out=spare)
                np.multiply(spare, setting.wide.type(-0.5), out=found[4])
        if 2 in found or 3 in found:
            total(channels.of(dy), out=sums, work=work)
            if 2 in found:
                np.copyto(found[2], sums)
            if 3 in found:
                np.multiply(np.multiply(sums, factor, out=spare), setting.wide.type(-1), out=found[3])
        if 0 in found:
            channels.linear(dy, factor, None, found[0])

    return setting.kernel(compute)
