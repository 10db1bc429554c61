"""The classification losses and their adjoints; the formulae are those at the top of irgrad/ops/loss.py.

A label that is out of range picks some element, but then the check fails, unless it is to be ignored and weighs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from irgrad.codegen.composites import Composite, softmax_parts
from irgrad.codegen.elementary import Context
from irgrad.codegen.items import Item
from irgrad.codegen.layout import Aligned, Relation, shape_of
from irgrad.graph import Node, Value

__all__ = ["LOSSES"]


def _over_classes(scores: Value, labels: Value) -> Aligned:
    """Labels lie along all axes of the scores but 1, that of the classes."""
    rank = len(shape_of(scores))
    return Aligned(labels, scores, tuple(enumerate(k for k in range(rank) if k != 1)))


class _Samples:
    """Labels of samples and what follows from them.

    Attributes:
        over: the axes of the classes.
        label: the label; `hit`: whether a class is it, and that not to be ignored.
        weight: of a sample; None where all weigh 1.
    """

    def __init__(self, c: Context, scores: Value, labels: Item, weights: Item | None, dtype: np.dtype) -> None:
        ignored = c.node.attr("ignore_index")
        self.c, self.label = c, labels
        self.over = c.layouts.axes(scores, [1])
        classes = shape_of(scores)[1]
        narrow = np.dtype(np.int32)  # twice as many of these fit into a vector; labels beyond its range are refused below
        hit = c.op("equal", c.maker.cast(c.maker.index(self.over), narrow), c.maker.cast(labels, narrow))
        known = c.op("and", c.op("greater_equal", labels, 0), c.op("less", labels, classes))
        self.weight: Item | None = None
        if weights is not None:
            self.weight = c.maker.pick(c.maker.cast(weights, dtype), labels, self.over)
        if ignored is not None:
            out = c.op("equal", labels, ignored)
            kept = c.op("not", out)
            hit, known = c.op("and", hit, kept), c.op("or", known, out)
            one = self.weight or c.maker.number(1, dtype)
            self.weight = c.op("where", kept, one, c.maker.number(0, dtype))
        self.hit = hit
        message = f"a label is out of range: there are {classes} classes; ignore_index is {ignored}"
        c.checks.append((known, message))

    def at_label(self, v: Item) -> Item:
        """The element of each sample's own class."""
        return self.c.maker.pick(v, self.label, self.over)

    def weighted(self, v: Item) -> Item:
        """Losses of samples times their weights; a weight of 0 makes 0 of everything."""
        if self.weight is None:
            return v
        none = self.c.op("equal", self.weight, 0)
        return self.c.op("where", none, self.c.maker.number(0, v.dtype), self.c.op("mul", v, self.weight))

    def total_weight(self, labels: Value, dtype: np.dtype) -> Item:
        """The sum of the weights of all samples."""
        if self.weight is None:
            return self.c.maker.number(prod(shape_of(labels)), dtype)
        return self.c.maker.sum(self.weight, self.c.layouts.axes(labels))


def _loss(c: Context, scores: Item, log_total: Item | None = None) -> Item:
    """The loss, given logarithms of probabilities, or what they are but for a term that all classes of a sample share."""
    labels = c.node.operand(1)
    samples = _Samples(c, c.node.operand(0), c.arg(1), c.args[2] if len(c.args) > 2 else None, scores.dtype)
    found = samples.at_label(scores)
    losses = samples.weighted(c.op("neg", found) if log_total is None else c.op("sub", log_total, found))
    if c.node.attr("reduction") == "none":
        return losses
    total = c.maker.sum(losses, c.layouts.axes(labels))
    if c.node.attr("reduction") == "sum":
        return total
    return c.op("div", total, samples.total_weight(labels, total.dtype))


def _nll_loss(c: Context) -> Item:
    return _loss(c, c.arg(0))


def _cross_entropy_loss(c: Context) -> tuple[Item, ...]:
    shifted, _, total = softmax_parts(c, c.arg(0), c.layouts.axes(c.node.operand(0), [1]))
    log_total = c.op("log", total)
    return _loss(c, shifted, log_total), c.op("sub", shifted, log_total)


def _share(c: Context, samples: _Samples, labels: Value) -> Item:
    """The coefficient c of each sample."""
    share = c.arg(0)
    if c.node.attr("reduction") == "mean":
        share = c.op("div", share, samples.total_weight(labels, share.dtype))
    return share if samples.weight is None else c.op("mul", share, samples.weight)


def _cross_entropy_loss_grad(c: Context) -> Item:
    scores, labels = c.node.operand(1), c.node.operand(2)
    samples = _Samples(c, scores, c.arg(2), c.args[3] if len(c.args) > 3 else None, c.arg(1).dtype)
    _, powers, total = softmax_parts(c, c.arg(1), samples.over)
    softmax = c.op("mul", powers, c.op("reciprocal", total))
    less_one = c.op("where", samples.hit, c.op("sub", softmax, 1), softmax)
    return c.op("mul", less_one, _share(c, samples, labels))


def _nll_loss_grad(c: Context) -> Item:
    result, labels = c.node.outputs[0], c.node.operand(2)
    samples = _Samples(c, result, c.arg(2), c.args[3] if len(c.args) > 3 else None, result.dtype)
    share = c.op("neg", _share(c, samples, labels))
    return c.op("where", samples.hit, share, c.maker.number(0, share.dtype))


def _loss_relations(node: Node) -> list[Relation]:
    scores, labels, weights = node.operand(0), node.operand(1), node.input(2)
    found: list[Relation] = [_over_classes(scores, labels)]
    if weights is not None:
        found.append(Aligned(weights, scores, ((0, 1),)))
    if node.attr("reduction") == "none":
        found.append(Aligned.right(node.outputs[0], labels))
    return found + [Aligned.right(value, scores) for value in node.outputs[1:]]


def _grad_relations(node: Node) -> list[Relation]:
    (result,), dloss, labels, weights = node.outputs, node.operand(0), node.operand(2), node.input(3)
    found: list[Relation] = [_over_classes(result, labels)]
    if node.op.name == "SoftmaxCrossEntropyLossGrad":
        found.append(Aligned.right(node.operand(1), result))
    if weights is not None:
        found.append(Aligned(weights, result, ((0, 1),)))
    if node.attr("reduction") == "none":
        found.append(Aligned.right(dloss, labels))
    return found


LOSSES: Mapping[str, Composite] = {
    "SoftmaxCrossEntropyLoss": Composite(_cross_entropy_loss, _loss_relations),
    "NegativeLogLikelihoodLoss": Composite(_nll_loss, _loss_relations),
    "irgrad.SoftmaxCrossEntropyLossGrad": Composite(_cross_entropy_loss_grad, _grad_relations),
    "irgrad.NegativeLogLikelihoodLossGrad": Composite(_nll_loss_grad, _grad_relations, (0, 2, 3)),
}
"""Qualified name → how it is compiled."""
