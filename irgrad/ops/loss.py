"""Classification losses: negative log-likelihood, and softmax with cross-entropy.

With l the label of a sample, w its weight (that of its class or 1; 0 where the label is ignored) and p the softmax of
the scores, a sample's loss is −w · log p[l]; the mean is over the sum of the weights. The adjoints are one node each,

    d log p = −c · onehot(l),    d scores = c · (p − onehot(l)),    c = dloss · w (of the mean: over the sum of w),

which as standard operations would hold several arrays of the size of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import per_channel, rank_of
from irgrad.ops.loss_kernels import cross_entropy, cross_entropy_grad, nll, nll_grad
from irgrad.ops.reduce import element_count
from irgrad.ops.softmax import log_softmax_pulled_back
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import planned
from irgrad.types import Type

ops = OpTable()

nll_loss = ops.define("NegativeLogLikelihoodLoss", cost=costs.per_operand(1, 1))
cross_entropy_loss = ops.define("SoftmaxCrossEntropyLoss", cost=costs.per_operand(5))


nll_loss.prepare(planned()(nll))
cross_entropy_loss.prepare(planned()(cross_entropy))

# --- adjoints ---------------------------------------------------------------------------------------------------------


@nll_loss.adjoint
def _(b: AdjointBuilder, node: Node, dloss: Value) -> list[Value | None]:
    log_prob, target, weight = node.operand(0), node.operand(1), node.input(2)
    dlog_prob = None
    if b.needs(log_prob):
        shape = b.shape_of(log_prob)
        dlog_prob = b.op("irgrad.NegativeLogLikelihoodLossGrad", dloss, shape, target, weight, **_options(node))
    dweight = _weights_cotangent(b, node, dloss) if b.needs(weight) else None
    return [dlog_prob, None, dweight][: len(node.inputs)]


@cross_entropy_loss.adjoint
def _(b: AdjointBuilder, node: Node, dloss: Value | None, dlog_prob: Value | None = None) -> list[Value | None]:
    scores, labels, weights = node.operand(0), node.operand(1), node.input(2)
    dscores = dweights = None
    if dloss is not None and b.needs(scores):
        dscores = b.op("irgrad.SoftmaxCrossEntropyLossGrad", dloss, scores, labels, weights, **_options(node))
    if dlog_prob is not None:
        through = log_softmax_pulled_back(b, scores, node.outputs[1], dlog_prob, 1)
        dscores = through if dscores is None else dscores + through
    if dloss is not None and b.needs(weights):
        dweights = _weights_cotangent(b, node, dloss)
    return [dscores, None, dweights][: len(node.inputs)]


def _options(node: Node) -> dict[str, Any]:
    return {"ignore_index": node.attr("ignore_index"), "reduction": node.attr("reduction")}


def _weights_cotangent(b: Builder, node: Node, dloss: Value) -> Value:
    """For each class the sum over its samples of dloss · loss of the sample, in the mean (loss − mean) over the sum of w.

    That difference nearly cancels, so of 16 bits neither the losses nor their mean will do.
    """
    scores, labels, weights = node.operand(0), node.operand(1), node.operand(2)
    wide, options = accumulation_dtype(scores.dtype), _options(node)
    hits = _one_hot(b, labels, b.shape_of(scores), options["ignore_index"], wide, axis=-1)
    losses = b.op(node.op.qualified_name, b.cast(scores, wide), labels, **{**options, "reduction": "none"})
    dloss = b.cast(dloss, wide)
    samples = list(range(rank_of(labels)))
    if options["reduction"] == "mean":
        total = b.reduce_sum(b.reduce_sum(hits, samples) * b.cast(weights, wide), None)
        mean = node.outputs[0]
        if mean.dtype != wide:
            of_samples = b.reduce_sum(hits * b.cast(weights, wide), [-1])
            mean = b.reduce_sum(of_samples * losses, None) / total
        losses, dloss = losses - mean, dloss / total
    shares = b.op("Unsqueeze", losses * dloss, b.ints([-1]))
    return b.cast(b.reduce_sum(hits * shares, samples), weights.dtype)


def _one_hot(b: Builder, labels: Value, shape: Value, ignore_index: int | None, dtype: np.dtype, *, axis: int) -> Value:
    """Emit the labels one-hot along a new axis, for scores of a given shape; all zeros where they are to be ignored."""
    known = shape.contents[1] if shape.contents else None
    one = b.constant(np.array(1, np.int64))
    classes = b.constant(np.array(known, np.int64)) if isinstance(known, int) else b.op("Gather", shape, one)
    labels = b.cast(labels, np.dtype(np.int64))
    if ignore_index is not None:
        # The number of classes is no class, whereas a negative label would count from the end.
        labels = b.op("Where", b.op("Equal", labels, ignore_index), classes, labels)
    # In float32 and from int64 labels, as runtimes have it.
    return b.cast(b.op("OneHot", labels, classes, b.constant([0, 1], np.float32), axis=axis), dtype)


nll_loss_grad = ops.define(
    "NegativeLogLikelihoodLossGrad", domain=IRGRAD_DOMAIN, defaults={"reduction": "mean"}, cost=costs.moves
)
"""``NegativeLogLikelihoodLossGrad(dloss, shape, target, weight)`` → the cotangent of log-probabilities of that shape; the
attributes are those of NegativeLogLikelihoodLoss, weight is optional."""

cross_entropy_loss_grad = ops.define(
    "SoftmaxCrossEntropyLossGrad", domain=IRGRAD_DOMAIN, defaults={"reduction": "mean"}, cost=costs.per_element(6)
)
"""``SoftmaxCrossEntropyLossGrad(dloss, scores, labels, weights)`` → the cotangent of the scores; the attributes are those of
SoftmaxCrossEntropyLoss, weights is optional."""


nll_loss_grad.prepare(planned(1)(nll_grad))
cross_entropy_loss_grad.prepare(planned()(cross_entropy_grad))


@nll_loss_grad.infer
def _nll_loss_grad_type(call: Call) -> Sequence[Type]:
    rank = call.tensor(2).rank
    return [call.tensor(0).with_shape(call.contents.get(1, None if rank is None else (None,) * (rank + 1)))]


@cross_entropy_loss_grad.infer
def _cross_entropy_loss_grad_type(call: Call) -> Sequence[Type]:
    return [call.tensor(1)]


@nll_loss_grad.lower
def _(b: Builder, node: Node) -> Value:
    target, weight, (result,) = node.operand(2), node.input(3), node.outputs
    wide = accumulation_dtype(result.dtype)
    hits = _one_hot(b, target, node.operand(1), node.attr("ignore_index"), wide, axis=1)
    if weight is not None:
        hits = hits * per_channel(b, b.cast(weight, wide), result)
    share = _emitted_share(b, node, target, hits)
    return b.cast(-hits * share, result.dtype)


@cross_entropy_loss_grad.lower
def _(b: Builder, node: Node) -> Value:
    scores, labels, weights = node.operand(1), node.operand(2), node.input(3)
    wide = accumulation_dtype(scores.dtype)
    hits = _one_hot(b, labels, b.shape_of(scores), node.attr("ignore_index"), wide, axis=1)
    result = b.op("Softmax", b.cast(scores, wide), axis=1) - hits
    if weights is not None:
        hits = hits * per_channel(b, b.cast(weights, wide), scores)
    share = _emitted_share(b, node, labels, hits)
    if weights is not None or node.attr("ignore_index") is not None:
        result = result * b.reduce_sum(hits, [1], keepdims=True)
    return b.cast(result * share, scores.dtype)


def _emitted_share(b: Builder, node: Node, labels: Value, weighted: Value) -> Value:
    """Emit dloss, of the mean over the sum of the weights, so that it broadcasts to the scores.

    Args:
        b: where to.
        node: one of the two adjoints.
        labels: the labels of the samples.
        weighted: their weights, one-hot.
    """
    dloss = b.cast(node.operand(0), weighted.dtype)
    if node.attr("reduction") == "none":
        return b.op("Unsqueeze", dloss, b.ints([1]))
    if node.attr("reduction") == "sum":
        return dloss
    if node.input(3) is None and node.attr("ignore_index") is None:
        return dloss / element_count(b, labels, None, dloss.dtype)
    return dloss / b.reduce_sum(weighted, None)
