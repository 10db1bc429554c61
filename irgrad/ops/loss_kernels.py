"""Classification losses and their adjoints on arrays.

Scores are worked through in blocks that stay in the cache, so that each is read from memory once; threads share the blocks.
Besides a block for each thread, all that is kept are a few numbers for each sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.op import Call, Kernel
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Place, Workspace, shares

__all__ = ["cross_entropy", "cross_entropy_grad", "nll", "nll_grad"]

_BLOCK = 1 << 16  # scores at a time


class _Sizes(NamedTuple):
    """Scores are [images, classes, inner]; there is a sample for each image and inner position."""

    images: int
    classes: int
    inner: int

    @property
    def samples(self) -> tuple[int, int]:
        return self.images, self.inner


def _sizes(shape: tuple[int, ...]) -> _Sizes:
    return _Sizes(shape[0], shape[1], prod(shape[2:]))


class _Samples:
    """The labels of the samples and their weights, in a workspace.

    Args:
        space: where.
        call: has the attributes.
        sizes: of the scores.
        classes_weighted: whether there are weights of the classes.
        dtype: to compute in.
    """

    def __init__(self, space: Workspace, call: Call, sizes: _Sizes, classes_weighted: bool, dtype: np.dtype) -> None:
        self._ignored: int | None = call.attrs.get("ignore_index")
        self._sizes = sizes
        self._labels = space.array(sizes.samples, np.intp)
        self._mask = space.array(sizes.samples, np.bool_)
        self._classes = space.array((sizes.classes,), dtype) if classes_weighted else None
        weighted = classes_weighted or self._ignored is not None
        self._weights = space.array(sizes.samples, dtype) if weighted else None

    def __call__(
        self, labels: np.ndarray, of_classes: np.ndarray | None, work: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What the samples are labelled, 0 where that is to be ignored, and their weights, None where all are 1.

        Raises:
            ExecutionError: a label is out of range and not to be ignored.
        """
        safe, mask = self._labels(work), self._mask(work)
        np.copyto(safe, labels.reshape(safe.shape), casting="unsafe")
        if self._ignored is not None:
            np.putmask(safe, np.equal(safe, self._ignored, out=mask), 0)
        classes = self._sizes.classes
        if safe.size and safe.view(np.uintp).max() >= classes:  # negative ones count as huge
            wrong = int(safe[(safe < 0) | (safe >= classes)].flat[0])
            raise ExecutionError(
                f"there is a label {wrong}, but there are {classes} classes; ignore_index is {self._ignored}"
            )
        if self._weights is None:
            return safe, None
        weights = self._weights(work)
        if of_classes is None or self._classes is None:
            weights.fill(1)
        else:
            wide = self._classes(work)
            np.copyto(wide, of_classes)
            np.take(wide, safe, out=weights, mode="clip")
        if self._ignored is not None:
            np.putmask(weights, mask, 0)
        return safe, weights

    def reduce(self, losses: np.ndarray, weights: np.ndarray | None, reduction: str, work: np.ndarray) -> Any:
        """The loss of all samples, from those of single ones, which are changed."""
        if weights is not None:
            np.multiply(losses, weights, out=losses)
            np.putmask(losses, np.equal(weights, 0, out=self._mask(work)), 0)
        if reduction == "none":
            return losses
        total = np.add.reduce(losses, None)
        if reduction == "mean":
            total = total / (losses.dtype.type(losses.size) if weights is None else np.add.reduce(weights, None))
        return total


class _Coefficients:
    """How much of a sample's gradient counts: dloss times its weight, in the mean over the sum of the weights."""

    def __init__(self, space: Workspace, call: Call, sizes: _Sizes, dtype: np.dtype) -> None:
        self._reduction = call.attrs["reduction"]
        self._place = space.array(sizes.samples, dtype)

    def __call__(self, dloss: np.ndarray, weights: np.ndarray | None, work: np.ndarray) -> np.ndarray:
        c = self._place(work)
        np.copyto(c, dloss.reshape(c.shape) if self._reduction == "none" else dloss)
        if self._reduction == "mean":
            np.divide(c, c.dtype.type(c.size) if weights is None else np.add.reduce(weights, None), out=c)
        return c if weights is None else np.multiply(c, weights, out=c)


# --- from log-probabilities -------------------------------------------------------------------------------------------


def _starts(images: int, classes: int, inner: int) -> np.ndarray:
    """Where the scores of the class 0 are among all scores, flat: for each image and inner position."""
    return np.arange(images)[:, None] * (classes * inner) + np.arange(inner)


def _in_all(space: Workspace, sizes: _Sizes) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """``positions(labels, work)``: where the scores of the labels are among all scores, flat."""
    place = space.array(sizes.samples, np.intp)
    starts = _starts(*sizes)

    def positions(labels: np.ndarray, work: np.ndarray) -> np.ndarray:
        found = place(work)
        np.multiply(labels, sizes.inner, out=found)
        np.add(found, starts, out=found)
        return found.reshape(-1)

    return positions


def nll(call: Call) -> Kernel:
    """NegativeLogLikelihoodLoss."""
    log_prob, loss_shape = call.tensor(0), _loss_shape(call, 1)
    assert log_prob.static_shape is not None
    narrow, wide, sizes = log_prob.dtype, accumulation_dtype(log_prob.dtype), _sizes(log_prob.static_shape)
    reduction, space = call.attrs["reduction"], Workspace()
    samples = _Samples(space, call, sizes, call.has(2), wide)
    positions = _in_all(space, sizes)
    picked, losses = space.array((prod(sizes.samples),), narrow), space.array(sizes.samples, wide)

    def kernel(
        log_prob: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
        work: np.ndarray,
    ) -> np.ndarray:
        labels, weights = samples(target, weight, work)
        found, each = picked(work), losses(work)
        if found.size:
            np.take(log_prob.reshape(-1), positions(labels, work), out=found, mode="clip")
        np.copyto(each.reshape(-1), found)
        np.multiply(each, -1, out=each)
        result = np.empty(loss_shape, narrow) if out is None else out
        _put(result, samples.reduce(each, weights, reduction, work))
        return result

    return space.kernel(kernel)


def nll_grad(call: Call) -> Kernel:
    """``NegativeLogLikelihoodLossGrad(dloss, shape, target, weight)``; the plan knows the shape."""
    shape, narrow = tuple(call.constants[1].tolist()), call.tensor(0).dtype
    sizes, wide, space = _sizes(shape), accumulation_dtype(narrow), Workspace()
    samples, positions = _Samples(space, call, sizes, call.has(3), wide), _in_all(space, sizes)
    coefficients, narrowed = _Coefficients(space, call, sizes, wide), space.array(sizes.samples, narrow)

    def kernel(
        dloss: np.ndarray,
        _: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
        work: np.ndarray,
    ) -> np.ndarray:
        labels, weights = samples(target, weight, work)
        c, values = coefficients(dloss, weights, work), narrowed(work)
        np.copyto(values, np.multiply(c, -1, out=c), casting="same_kind")
        result = np.empty(shape, narrow) if out is None else out
        result.fill(0)
        np.put(result, positions(labels, work), values, mode="clip")
        return result

    return space.kernel(kernel)


# --- from scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Some scores: of some images at all inner positions, or of one image at some of those."""

    images: slice
    inner: slice


class _Blocks:
    """How scores are cut into blocks, with the memory that a thread needs for one.

    Args:
        space: where that is.
        sizes: of the scores.
        dtype: to compute in.
        buffers: how many arrays of the size of a block each thread needs.
    """

    def __init__(self, space: Workspace, sizes: _Sizes, dtype: np.dtype, buffers: int) -> None:
        images, classes, inner = sizes
        together = max(1, min(images, _BLOCK // max(1, classes * inner)))
        across = inner if classes * inner <= _BLOCK else max(1, min(inner, _BLOCK // max(classes, 1)))
        blocks = [
            _Block(slice(n, min(n + together, images)), slice(i, min(i + across, inner)))
            for n in range(0, images, together)
            for i in range(0, inner, across)
        ]
        self.sizes = sizes
        counts = {self._counts(block) for block in blocks}
        self._starts = {count: _starts(*count) for count in counts}
        self.todo = shares(blocks, prod(sizes))
        size = together * across
        self._scores = [[space.array((size * classes,), dtype) for _ in range(buffers)] for _ in self.todo]
        self._numbers = [space.array((3 * size,), dtype) for _ in self.todo]
        self._positions = [space.array((size,), np.intp) for _ in self.todo]

    def scores(self, share: int, buffer: int, block: _Block, work: np.ndarray) -> np.ndarray:
        """An array for the scores of a block, contiguous."""
        return _cut(self._scores[share][buffer], work, self._counts(block))

    def numbers(self, share: int, block: _Block, work: np.ndarray) -> np.ndarray:
        """Three arrays [images, 1, inner] for a number for each sample of a block."""
        images, _, inner = self._counts(block)
        return _cut(self._numbers[share], work, (3, images, 1, inner))

    def positions(self, share: int, block: _Block, labels: np.ndarray, work: np.ndarray) -> np.ndarray:
        """Where the scores of the labels are in a contiguous block, flat."""
        counts = images, _, inner = self._counts(block)
        found = _cut(self._positions[share], work, (images, inner))
        np.multiply(labels[block.images, block.inner], inner, out=found)
        np.add(found, self._starts[counts], out=found)
        return found.reshape(-1)

    def _counts(self, block: _Block) -> tuple[int, int, int]:
        return (block.images.stop - block.images.start, self.sizes.classes, block.inner.stop - block.inner.start)


def _cut(place: Place, work: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return place(work)[: prod(shape)].reshape(shape)


def _shift(x: np.ndarray, top: np.ndarray, out: np.ndarray) -> None:
    """The scores of a block minus the largest of each sample."""
    if x.dtype != out.dtype:
        np.copyto(out, x)
        x = out
    np.maximum.reduce(x, 1, out=top, keepdims=True, initial=-np.inf)
    np.subtract(x, top, out=out)


def cross_entropy(call: Call) -> Kernel:
    """SoftmaxCrossEntropyLoss, with the log-probabilities where the node has two outputs."""
    scores, loss_shape, both = call.tensor(0), _loss_shape(call, 1), call.n_outputs > 1
    assert scores.static_shape is not None
    shape, narrow, wide = scores.static_shape, scores.dtype, accumulation_dtype(scores.dtype)
    sizes, reduction, space = _sizes(shape), call.attrs["reduction"], Workspace()
    samples, blocks = _Samples(space, call, sizes, call.has(2), wide), _Blocks(space, sizes, wide, 2 if both else 1)
    losses = space.array(sizes.samples, wide)

    def kernel(
        scores: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        out: Any = None,
        work: np.ndarray,
    ) -> Any:
        which, of_samples = samples(labels, weights, work)
        x, each = scores.reshape(sizes), losses(work)
        loss, log_prob = np.empty(loss_shape, narrow) if out is None else out, None
        if both:
            loss, log_prob = (loss, np.empty(shape, narrow)) if out is None else out
        target = None if log_prob is None else log_prob.reshape(sizes)

        def run(share: int) -> None:
            for block in blocks.todo[share]:
                top, total, chosen = blocks.numbers(share, block, work)
                shifted = blocks.scores(share, 0, block, work)
                _shift(x[block.images, :, block.inner], top, shifted)
                np.take(
                    shifted.reshape(-1), blocks.positions(share, block, which, work), out=chosen.reshape(-1), mode="clip"
                )
                powers = blocks.scores(share, 1, block, work) if both else shifted
                np.add.reduce(np.exp(shifted, out=powers), 1, out=total, keepdims=True)
                np.log(total, out=total)
                np.subtract(total, chosen, out=each[block.images, None, block.inner])
                if target is not None:
                    place = target[block.images, :, block.inner]
                    _put(place, np.subtract(shifted, total, out=place if narrow == wide else shifted))

        parallel(run, range(len(blocks.todo)))
        _put(loss, samples.reduce(each, of_samples, reduction, work))
        return loss if log_prob is None else (loss, log_prob)

    return space.kernel(kernel)


def cross_entropy_grad(call: Call) -> Kernel:
    """``SoftmaxCrossEntropyLossGrad(dloss, scores, labels, weights)``."""
    scores, space = call.tensor(1), Workspace()
    assert scores.static_shape is not None
    shape, narrow, wide = scores.static_shape, scores.dtype, accumulation_dtype(scores.dtype)
    sizes = _sizes(shape)
    samples, coefficients = _Samples(space, call, sizes, call.has(3), wide), _Coefficients(space, call, sizes, wide)
    blocks = _Blocks(space, sizes, wide, 1)

    def kernel(
        dloss: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
        work: np.ndarray,
    ) -> np.ndarray:
        which, of_samples = samples(labels, weights, work)
        c, x = coefficients(dloss, of_samples, work), scores.reshape(sizes)
        result = np.empty(shape, narrow) if out is None else out
        target = result.reshape(sizes)

        def run(share: int) -> None:
            for block in blocks.todo[share]:
                top, total, chosen = blocks.numbers(share, block, work)
                place = target[block.images, :, block.inner]
                direct = narrow == wide and place.flags.c_contiguous
                y = place if direct else blocks.scores(share, 0, block, work)
                factor = c[block.images, None, block.inner]
                _shift(x[block.images, :, block.inner], top, y)
                np.add.reduce(np.exp(y, out=y), 1, out=total, keepdims=True)
                positions, flat = blocks.positions(share, block, which, work), y.reshape(-1)
                np.take(flat, positions, out=chosen.reshape(-1), mode="clip")
                np.divide(chosen, total, out=chosen)
                np.multiply(np.subtract(chosen, 1, out=chosen), factor, out=chosen)
                np.multiply(y, np.divide(factor, total, out=total), out=y)
                np.put(flat, positions, chosen, mode="clip")
                if not direct:
                    _put(place, y)

        parallel(run, range(len(blocks.todo)))
        return result

    return space.kernel(kernel)


def _loss_shape(call: Call, labels: int) -> tuple[int, ...]:
    shape = call.tensor(labels).static_shape if call.attrs["reduction"] == "none" else ()
    assert shape is not None
    return shape


def _put(target: np.ndarray, values: Any) -> None:
    if values is not target:
        np.copyto(target, np.reshape(values, target.shape), casting="same_kind")
