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
from irgrad.errors import ExecutionError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import per_channel, rank_of
from irgrad.ops.reduce import element_count
from irgrad.ops.softmax import log_softmax_of, log_softmax_pulled_back, softmax_of
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import Type

ops = OpTable()

# --- kernels ----------------------------------------------------------------------------------------------------------


def _samples(
    labels: np.ndarray, weights: np.ndarray | None, ignore_index: int | None, classes: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the samples are labelled, 0 where that is to be ignored, and their weights, None where all are 1.

    Raises:
        ExecutionError: a label is out of range and not to be ignored.
    """
    ignored = None if ignore_index is None else labels == ignore_index
    safe = labels if ignored is None else np.where(ignored, 0, labels)
    if safe.size and (safe.min() < 0 or safe.max() >= classes):
        wrong = int(safe[(safe < 0) | (safe >= classes)].flat[0])
        raise ExecutionError(f"there is a label {wrong}, but there are {classes} classes; ignore_index is {ignore_index}")
    if weights is None and ignored is None:
        return safe, None
    found = np.ones(labels.shape, dtype) if weights is None else weights.astype(dtype, copy=False)[safe]
    return safe, found if ignored is None else np.where(ignored, dtype.type(0), found)


def _loss(
    log_prob: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, ignore_index: int | None, reduction: str
) -> np.ndarray:
    """The loss, given log-probabilities in the dtype to compute in."""
    safe, weight = _samples(labels, weights, ignore_index, log_prob.shape[1], log_prob.dtype)
    losses = -np.take_along_axis(log_prob, safe[:, None], 1)[:, 0]
    if weight is not None:
        losses = np.where(weight == 0, log_prob.dtype.type(0), losses * weight)
    if reduction == "none":
        return losses
    total = np.add.reduce(losses, None)
    if reduction == "mean":
        total = total / (losses.size if weight is None else np.add.reduce(weight, None))
    return np.asarray(total, log_prob.dtype)


def _coefficients(
    dloss: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    ignore_index: int | None,
    reduction: str,
    classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The labels and the coefficient c of each sample, both with an axis of size 1 for the classes."""
    wide = dloss.astype(accumulation_dtype(dloss.dtype), copy=False)
    safe, weight = _samples(labels, weights, ignore_index, classes, wide.dtype)
    if reduction == "mean":
        wide = wide / wide.dtype.type(labels.size if weight is None else np.add.reduce(weight, None))
    return safe[:, None], np.broadcast_to(wide if weight is None else wide * weight, labels.shape)[:, None]


nll_loss = ops.define("NegativeLogLikelihoodLoss", cost=costs.per_operand(1, 1))
cross_entropy_loss = ops.define("SoftmaxCrossEntropyLoss", cost=costs.per_operand(5))


@nll_loss.kernel
def _nll_loss(
    log_prob: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    out: np.ndarray | None = None,
) -> np.ndarray:
    wide = log_prob.astype(accumulation_dtype(log_prob.dtype), copy=False)
    return deliver(_loss(wide, target, weight, ignore_index, reduction).astype(log_prob.dtype, copy=False), out)


@cross_entropy_loss.kernel
def _cross_entropy_loss(
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    out: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    log_prob = log_softmax_of(scores, 1)
    loss = _loss(log_prob, labels, weights, ignore_index, reduction).astype(scores.dtype, copy=False)
    target = out[0] if isinstance(out, tuple) else out
    return deliver(loss, target), log_prob.astype(scores.dtype, copy=False)


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


@nll_loss_grad.kernel
def _nll_loss_grad(
    dloss: np.ndarray,
    shape: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    reduction: str,
    ignore_index: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    safe, c = _coefficients(dloss, target, weight, ignore_index, reduction, int(shape[1]))
    result = np.empty(tuple(int(d) for d in shape), dloss.dtype) if out is None else out
    result.fill(0)
    np.put_along_axis(result, safe, -c.astype(result.dtype, copy=False), 1)
    return result


@cross_entropy_loss_grad.kernel
def _cross_entropy_loss_grad(
    dloss: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    reduction: str,
    ignore_index: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    safe, c = _coefficients(dloss, labels, weights, ignore_index, reduction, scores.shape[1])
    result = softmax_of(scores, 1, out)
    np.put_along_axis(result, safe, np.take_along_axis(result, safe, 1) - 1, 1)
    np.multiply(result, c, out=result)
    return result if result is out else deliver(result.astype(scores.dtype, copy=False), out)


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
