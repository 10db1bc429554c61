"""How the operations that are no elementwise ones run over a space; see `irgrad.passes.fusion.members`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.passes.fusion.members import Layout, Member, NotFusible, aligned, along, is_embedded, known_shape
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.types import Dim

__all__ = [
    "batch_norm",
    "batch_norm_grad",
    "cross_entropy",
    "cross_entropy_grad",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "layer_norm_grad",
    "mean_variance_norm",
    "one_axis",
    "reduction",
    "sum_to",
    "unsqueeze",
]


def _identity(value: Value) -> Layout:
    return along(value, range(len(known_shape(value))))


def _row(node: Node, whole: Sequence[int], parameters: Sequence[Layout | None] = ()) -> Member:
    """A node whose operands and results have the shape of the first one, but for parameters of layouts of their own."""
    space = known_shape(node.operand(0))
    operands = [_identity(v) for v in node.inputs[: len(node.inputs) - len(parameters)] if v is not None]
    return Member(space, (*operands, *parameters), tuple(map(_identity, node.outputs)), frozenset(whole))


def one_axis(default: int = -1) -> Callable[[Node], Member]:
    """An operation along its attribute `axis`: Softmax."""

    def member(node: Node) -> Member:
        rank = len(known_shape(node.operand(0)))
        if not rank:
            raise NotFusible("its operand has no axes")
        if any(known_shape(v) != known_shape(node.operand(0)) for v in node.inputs if v is not None):
            raise NotFusible("its operands are not of one shape")
        return _row(node, [node.attr("axis", default) % rank])

    return member


_ROUNDED = "partial sums of 16 bits would be rounded again and again"


# --- normalisations ---------------------------------------------------------------------------------------------------


def layer_norm(node: Node) -> Member:
    """LayerNormalization and RMSNormalization: the axes from `axis` on."""
    x = node.operand(0)
    space = known_shape(x)
    whole = range(node.attr("axis") % len(space), len(space))
    parameters = [None if v is None else aligned(v, space) for v in node.inputs[1:]]
    return _row(node, whole, parameters)


def layer_norm_grad(node: Node) -> Member:
    """Their adjoint: the cotangents of scale and bias are sums over the rows."""
    dy, x, scale = (node.operand(k) for k in range(3))
    space = known_shape(x)
    rows = frozenset(range(node.attr("axis") % len(space)))
    operands = (aligned(dy, space), _identity(x), aligned(scale, space))
    results = tuple(aligned(v, space) for v in node.outputs)
    if set(node.attr("wrt")) != {0} and not _sums(x):
        raise NotFusible(_ROUNDED)
    return Member(space, operands, results, frozenset(range(len(space))) - rows, rows)


def instance_norm(node: Node) -> Member:
    """InstanceNormalization: all axes behind the channels."""
    return _row(node, range(2, len(known_shape(node.operand(0)))), [_channels(node, k) for k in (1, 2)])


def group_norm(node: Node) -> Member:
    """GroupNormalization: all axes but the samples, since the groups cut the channels."""
    return _row(node, range(1, len(known_shape(node.operand(0)))), [_channels(node, k) for k in (1, 2)])


def mean_variance_norm(node: Node) -> Member:
    """MeanVarianceNormalization: its attribute `axes`."""
    rank = len(known_shape(node.operand(0)))
    return _row(node, [axis % rank for axis in node.attr("axes")])


def _channels(node: Node, index: int) -> Layout | None:
    value = node.input(index)
    return None if value is None else along(value, (1,))


def _with_channels(x: Value) -> int:
    rank = len(known_shape(x))
    if rank < 2:
        raise NotFusible("its operand has no channels")
    return rank


def batch_norm(node: Node) -> Member:
    """BatchNormalization: in training mode all axes but the channels."""
    x = node.operand(0)
    rank = _with_channels(x)
    whole = [k for k in range(rank) if k != 1] if node.attr("training_mode") else []
    operands = (_identity(x), *(_channels(node, k) for k in range(1, len(node.inputs))))
    results = (_identity(node.outputs[0]), *(along(v, (1,)) for v in node.outputs[1:]))
    return Member(known_shape(x), operands, results, frozenset(whole))


def batch_norm_grad(node: Node) -> Member:
    """The adjoint of BatchNormalization: all axes but the channels, unless it forms only that of x, at inference."""
    dy, wrt = node.operand(0), node.attr("wrt")
    rank = _with_channels(dy)
    whole = [k for k in range(rank) if k != 1] if node.attr("training_mode") or tuple(wrt) != (0,) else []
    x = node.input(1)
    operands = (
        _identity(dy),
        None if x is None else _identity(x),
        *(_channels(node, k) for k in range(2, len(node.inputs))),
    )
    results = tuple(_identity(v) if k == 0 else along(v, (1,)) for k, v in zip(wrt, node.outputs, strict=True))
    return Member(known_shape(dy), operands, results, frozenset(whole))


# --- reductions -------------------------------------------------------------------------------------------------------

_ADDITIVE = ("ReduceSum", "ReduceL1", "ReduceSumSquare")


def reduction(node: Node) -> Member:
    """A reduction: sums are formed of partial sums where they are no sums along the last axes, and so are means."""
    x = node.operand(0)
    space = known_shape(x)
    axes = _axes(node, len(space))
    if not axes:
        raise NotFusible("it reduces nothing")
    kept = [axis for axis in range(len(space)) if axis not in axes]
    places = [None if k in axes else k for k in range(len(space))] if node.attr("keepdims") else kept
    results = (along(node.outputs[0], places),)
    operands = (_identity(x), None)[: len(node.inputs)]
    rows = axes == set(range(len(space) - len(axes), len(space))) and len(axes) < len(space)
    if node.op.name in _ADDITIVE and _sums(x):
        return Member(space, operands, results, summed=frozenset(axes))
    if node.op.name == "ReduceMean" and not rows and _sums(x):
        count = _count(space, axes)
        return Member(space, operands, results, summed=frozenset(axes), emit=_mean_as_sum(count))
    return Member(space, operands, results, frozenset(axes))


def _sums(x: Value) -> bool:
    """Whether partial sums are as good as the whole one: of 16 bits they would be rounded again and again."""
    return bool(x.dtype.kind == "f" and accumulation_dtype(x.dtype) == x.dtype)


def _mean_as_sum(count: int) -> Callable[..., Sequence[Value]]:
    def emit(b: Builder, node: Node, operands: Sequence[Value | None]) -> Sequence[Value]:
        x, *rest = operands
        assert x is not None
        share = b.op("Div", x, b.constant(count, x.dtype))
        return [b.op("ReduceSum", share, *rest, keepdims=node.attr("keepdims"))]

    return emit


def _count(space: tuple[Dim, ...], axes: set[int]) -> int:
    total = 1
    for axis in axes:
        dim = space[axis]
        if not isinstance(dim, int):
            raise NotFusible("how many elements it takes the mean of is not known before it runs")
        total *= dim
    return total


def _axes(node: Node, rank: int) -> set[int]:
    given = node.input(1)
    if given is None or (given.constant is not None and not given.constant.size):
        return set() if node.attr("noop_with_empty_axes") else set(range(rank))
    if given.constant is None or given.is_parameter:
        raise NotFusible("its axes are not known before it runs")
    return {int(axis) % rank for axis in given.constant.reshape(-1)}


def sum_to(node: Node) -> Member:
    """SumTo a shape: of leading axes that are taken out, or of others that keep the size 1."""
    x, (y,) = node.operand(0), node.outputs
    space, target = known_shape(x), known_shape(y)
    extra = len(space) - len(target)
    inner = [k for k in range(max(extra, 0), len(space)) if target[k - extra] == 1 != space[k]]
    outer = [k for k in range(extra) if space[k] != 1]
    if extra < 0 or not (inner or outer) or (inner and extra) or not _sums(x):
        raise NotFusible("it is no sum over leading axes, nor one that keeps all axes")
    if any(d != space[k + extra] for k, d in enumerate(target) if k + extra not in inner):
        raise NotFusible("what it sums over is not known before it runs")

    def emit(b: Builder, node: Node, operands: Sequence[Value | None]) -> Sequence[Value]:
        assert operands[0] is not None
        return [b.reduce_sum(operands[0], inner if inner else list(range(extra)), keepdims=bool(inner))]

    summed = frozenset(inner or outer)
    return Member(space, (_identity(x), None), (along(y, range(extra, len(space))),), summed=summed, emit=emit)


def unsqueeze(node: Node) -> Member:
    """Unsqueeze and Squeeze by known axes."""
    x, (y,) = node.operand(0), node.outputs
    space, shape = known_shape(x), known_shape(y)
    axes = node.input(1)
    if axes is None or axes.constant is None or axes.is_parameter:
        raise NotFusible("its axes are not known before it runs")
    longer = max(len(space), len(shape))
    ones = {int(axis) % longer for axis in axes.constant.reshape(-1)}
    rest = [k for k in range(longer) if k not in ones]
    if node.op.name == "Unsqueeze":
        places = iter(range(len(space)))
        return Member(space, (_identity(x), None), (along(y, [None if k in ones else next(places) for k in range(longer)]),))
    return Member(space, (_identity(x), None), (along(y, rest),))


# --- losses -----------------------------------------------------------------------------------------------------------


def cross_entropy(node: Node) -> Member:
    """SoftmaxCrossEntropyLoss along the classes; the loss of all samples is a sum over those of each."""
    scores, labels = node.operand(0), node.operand(1)
    space = known_shape(scores)
    samples = [k for k in range(len(space)) if k != 1]
    loss = node.outputs[0]
    reduced = node.attr("reduction") != "none"
    results = (along(loss, [] if reduced else samples), *(_identity(v) for v in node.outputs[1:]))
    operands = (_identity(scores), along(labels, samples), _channels(node, 2))[: len(node.inputs)]
    if not reduced:
        return Member(space, operands, results, frozenset([1]))
    if node.outputs[1:]:
        raise NotFusible("it returns the logarithms of the probabilities beside a loss of all samples")
    share = _share(node, 2, loss)
    options = {"ignore_index": node.attr("ignore_index"), "reduction": "none"}

    def emit(b: Builder, node: Node, operands: Sequence[Value | None]) -> Sequence[Value]:
        losses = b.op(node.op.qualified_name, *operands, **options)
        return [b.reduce_sum(losses if share == 1 else losses / share, None)]

    return Member(space, operands, results, frozenset([1]), frozenset(samples), emit)


def cross_entropy_grad(node: Node) -> Member:
    """Its adjoint: the mean's is that of the sum, with the cotangent of the loss divided by the number of samples."""
    dloss, scores, labels = (node.operand(k) for k in range(3))
    space = known_shape(scores)
    samples = [k for k in range(len(space)) if k != 1]
    known = along(dloss, [] if not known_shape(dloss) else samples)
    operands = (
        None if is_embedded(dloss) else known,
        _identity(scores),
        along(labels, samples),
        *(_channels(node, k) for k in range(3, len(node.inputs))),
    )
    results = (_identity(node.outputs[0]),)
    if node.attr("reduction") != "mean":
        return Member(space, operands, results, frozenset([1]))
    share = _share(node, 3, dloss)

    def emit(b: Builder, node: Node, operands: Sequence[Value | None]) -> Sequence[Value]:
        options = {"ignore_index": node.attr("ignore_index"), "reduction": "sum"}
        first = operands[0]
        assert first is not None
        return [b.op(node.op.qualified_name, first / share, *operands[1:], **options)]

    return Member(space, operands, results, frozenset([1]), emit=emit)


def _share(node: Node, weights: int, loss: Value) -> int:
    """What the loss of all samples is divided by: their number for a mean, 1 for a sum.

    Raises:
        NotFusible: that depends on the labels, or is not known before it runs.
    """
    if loss.dtype not in (np.float32, np.float64):
        raise NotFusible(_ROUNDED)
    if node.attr("reduction") == "sum":
        return 1
    if node.input(weights) is not None or node.attr("ignore_index") is not None:
        raise NotFusible("its mean is over weights that depend on the labels")
    labels = known_shape(node.operand(weights - 1))
    return _count(labels, set(range(len(labels))))
