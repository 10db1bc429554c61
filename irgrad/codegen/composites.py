"""Operations with reductions inside: reductions themselves, softmax, normalisation. Those of losses are in losses.py.

The formulae are those of the kernels in irgrad/ops, so that compiled and plain results differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from irgrad.codegen.elementary import Context, Meaning
from irgrad.codegen.items import Item, Unsupported
from irgrad.codegen.layout import Aligned, Relation, Reshaped, shape_of
from irgrad.graph import Node
from irgrad.types import dtype_of_element

__all__ = ["COMPOSITES", "Composite", "channels", "like_first"]


class Composite(NamedTuple):
    """How an operation that is not elementwise is compiled.

    Attributes:
        meaning: what it computes.
        relations: how its tensors meet.
        data: the positions of the operands that are tensors of elements, not axes or shapes; None: all.
        cuts: shapes that the largest tensors have to be seen in.
    """

    meaning: Meaning
    relations: Callable[[Node], Sequence[Relation]]
    data: tuple[int, ...] | None = None
    cuts: Callable[[Node], Sequence[tuple[int, ...]]] = lambda node: ()


def like_first(node: Node) -> list[Relation]:
    """All operands are broadcast to the first one, of whose shape the first result is."""
    x = node.operand(0)
    others = [v for v in (*node.inputs[1:], node.outputs[0]) if v is not None]
    return [Aligned.right(other, x) for other in others]


def channels(node: Node, *parameters: int, x: int = 0) -> list[Relation]:
    """Operands of shape [C] (or results, counted on behind the operands), which lie along axis 1 of operand x."""
    data = node.operand(x)
    values = [*node.inputs, *node.outputs]
    axis = 1 if len(shape_of(data)) > 1 else 0
    return [Aligned(value, data, ((0, axis),)) for k in parameters if (value := values[k]) is not None]


def _reshaped(node: Node) -> list[Relation]:
    return [Reshaped(node.operand(0), node.outputs[0])]


# --- reductions ---------------------------------------------------------------------------------------------------------


def reduced_dims(node: Node) -> tuple[int, ...]:
    """The axes of its operand that a reduction of ONNX reduces."""
    rank, axes = len(shape_of(node.operand(0))), node.input(1)
    if axes is None or axes.tensor_type.static_shape == (0,):
        return () if node.attr("noop_with_empty_axes") else tuple(range(rank))
    known = [a % rank for a in axes.contents or () if isinstance(a, int)]
    if axes.contents is None or len(known) != len(axes.contents):
        raise Unsupported(f"the axes of {node.op.name} are not known")
    return tuple(sorted(known))


def _kept(node: Node) -> list[Relation]:
    x, y, over = node.operand(0), node.outputs[0], reduced_dims(node)
    rank = len(shape_of(x))
    if node.attr("keepdims"):
        pairs = [(k, k) for k in range(rank) if k not in over]
    else:
        pairs = list(enumerate(k for k in range(rank) if k not in over))
    return [Aligned(y, x, tuple(pairs))]


def _reduction(name: str, before: str | None = None, after: str | None = None) -> Composite:
    def meaning(c: Context) -> Item:
        over = c.layouts.axes(c.node.operand(0), reduced_dims(c.node))
        x = c.arg(0)
        if x.dtype.kind != "f" and (name == "mean" or before or after):
            raise Unsupported(f"{c.node.op.name} of integers")
        if before == "square":
            x = c.op("mul", x, x)
        elif before:
            x = c.op(before, x)
        if name == "mean":
            return c.maker.mean(x, _with_repeats(c, x, over))
        y = c.maker.reduce(name, x, over)
        return c.op(after, y) if after else y

    return Composite(meaning, _kept, (0,))


def _with_repeats(c: Context, x: Item, over: Sequence[int]) -> list[int]:
    """The axes along which x varies: the mean over others is x itself."""
    return [axis for axis in over if axis in x.axes]


def _log_sum_exp(c: Context) -> Item:
    over = c.layouts.axes(c.node.operand(0), reduced_dims(c.node))
    x = c.arg(0)
    top = c.maker.reduce("max", x, over)
    # An infinite maximum would make NaN of x - max.
    finite = c.op("where", c.op("less", c.op("fabs", top), np.inf), top, 0)
    return c.op("add", c.op("log", c.maker.sum(c.op("exp", c.op("sub", x, finite)), over)), finite)


def _sum_to(c: Context) -> Item:
    x, y = c.node.operand(0), c.node.outputs[0]
    extra = len(shape_of(x)) - len(shape_of(y))
    kept = [k for k in range(extra, len(shape_of(x))) if shape_of(y)[k - extra] != 1]
    over = set(c.layouts.axes(x)) - set(c.layouts.axes(x, kept))
    return c.maker.sum(c.arg(0), over)


# --- softmax ------------------------------------------------------------------------------------------------------------


def _softmax_axes(c: Context) -> tuple[int, ...]:
    x = c.node.operand(0)
    return c.layouts.axes(x, [c.node.attr("axis") % len(shape_of(x))])


def softmax_parts(c: Context, x: Item, over: Sequence[int]) -> tuple[Item, Item, Item]:
    """What remains of x without its maximum, the exponentials of that, and their sum."""
    shifted = c.op("sub", x, c.maker.reduce("max", x, over))
    powers = c.op("exp", shifted)
    return shifted, powers, c.maker.sum(powers, over)


def _softmax(c: Context) -> Item:
    _, powers, total = softmax_parts(c, c.arg(0), _softmax_axes(c))
    return c.op("mul", powers, c.op("reciprocal", total))


def _log_softmax(c: Context) -> Item:
    shifted, _, total = softmax_parts(c, c.arg(0), _softmax_axes(c))
    return c.op("sub", shifted, c.op("log", total))


def _product_or_zero(c: Context, y: Item, factor: Item) -> Item:
    """The product, 0 where the factor is."""
    return c.op("where", c.op("equal", factor, 0), c.maker.number(0, y.dtype), c.op("mul", y, factor))


def _softmax_grad(c: Context) -> Item:
    y, dy = c.arg(0), c.arg(1)
    total = c.maker.sum(_product_or_zero(c, y, dy), _softmax_axes(c))
    return _product_or_zero(c, y, c.op("sub", dy, total))


# --- normalisation ------------------------------------------------------------------------------------------------------


def standardised(c: Context, x: Item, over: Sequence[int], epsilon: float) -> tuple[Item, Item, Item, Item]:
    """(x - mean) / sqrt(var + ε), the mean, the variance, and 1 / sqrt(var + ε)."""
    mean = c.maker.mean(x, over)
    difference = c.op("sub", x, mean)
    variance = c.maker.mean(c.op("mul", difference, difference), over)
    inverse = _inverse_root(c, variance, epsilon)
    return c.op("mul", difference, inverse), mean, variance, inverse


def _inverse_root(c: Context, variance: Item, epsilon: float) -> Item:
    return c.op("reciprocal", c.op("sqrt", c.op("add", variance, epsilon)))


def _affine(c: Context, y: Item, scale: int, bias: int) -> Item:
    y = c.op("mul", y, c.maker.cast(c.arg(scale), y.dtype))
    shift = c.args[bias] if bias < len(c.args) else None
    return y if shift is None else c.op("add", y, c.maker.cast(shift, y.dtype))


def _from_axis(c: Context) -> tuple[int, ...]:
    x = c.node.operand(0)
    rank = len(shape_of(x))
    return c.layouts.axes(x, range(c.node.attr("axis") % rank, rank))


def _layer_norm(c: Context) -> tuple[Item, ...]:
    y, mean, _, inverse = standardised(c, c.arg(0), _from_axis(c), c.node.attr("epsilon"))
    stash = dtype_of_element(c.node.attr("stash_type"))
    return _affine(c, y, 1, 2), c.maker.cast(mean, stash), c.maker.cast(inverse, stash)


def _statistics_like_x(node: Node) -> list[Relation]:
    x = node.operand(0)
    statistics = [Aligned(value, x, tuple((k, k) for k in range(len(shape_of(x))))) for value in node.outputs[1:]]
    return [*like_first(node), *statistics]


def _rms_norm(c: Context) -> Item:
    x, scale = c.arg(0), c.arg(1)
    mean_square = c.maker.mean(c.op("mul", x, x), _from_axis(c))
    y = c.op("mul", x, _inverse_root(c, mean_square, c.node.attr("epsilon")))
    return c.op("mul", c.maker.cast(y, scale.dtype), scale)


def _instance_norm(c: Context) -> Item:
    x = c.node.operand(0)
    over = c.layouts.axes(x, range(2, len(shape_of(x))))
    return _affine(c, standardised(c, c.arg(0), over, c.node.attr("epsilon"))[0], 1, 2)


def _grouped(node: Node) -> list[tuple[int, ...]]:
    batch, channel, *rest = shape_of(node.operand(0))
    groups = node.attr("num_groups")
    return [(batch, groups, channel // groups, *rest)]


def _group_norm(c: Context) -> Item:
    x, maker = c.node.operand(0), c.maker
    inside = list(c.layouts.axes(x, [1]))
    while inside and prod(maker.sizes[a] for a in inside) > shape_of(x)[1] // c.node.attr("num_groups"):
        inside.pop(0)
    over = (*inside, *c.layouts.axes(x, range(2, len(shape_of(x)))))
    return _affine(c, standardised(c, c.arg(0), over, c.node.attr("epsilon"))[0], 1, 2)


def _mean_variance_norm(c: Context) -> Item:
    x = c.arg(0)
    over = c.layouts.axes(c.node.operand(0), c.node.attr("axes", (0, 2, 3)))
    difference = c.op("sub", x, c.maker.mean(x, over))
    deviation = c.op("sqrt", c.maker.mean(c.op("mul", difference, difference), over))
    return c.op("div", difference, c.op("add", deviation, 1e-9))


def _lp_norm(c: Context) -> Item:
    x, over = c.arg(0), _softmax_axes(c)
    if c.node.attr("p") == 2:
        norm = c.op("sqrt", c.maker.sum(c.op("mul", x, x), over))
    else:
        norm = c.maker.sum(c.op("fabs", x), over)
    return c.op("where", c.op("equal", norm, 0), c.maker.number(0, x.dtype), c.op("div", x, norm))


# --- batch normalisation ------------------------------------------------------------------------------------------------


def _across_channels(c: Context) -> tuple[int, ...]:
    x = c.node.operand(0)
    return c.layouts.axes(x, [k for k in range(len(shape_of(x))) if k != 1])


def _batch_norm(c: Context) -> tuple[Item, ...]:
    x, scale, bias, old_mean, old_var = (c.arg(k) for k in range(5))
    epsilon = c.node.attr("epsilon")
    if not c.node.attr("training_mode"):
        factor = c.op("div", scale, c.op("sqrt", c.op("add", old_var, epsilon)))
        shift = c.op("sub", bias, c.op("mul", old_mean, factor))
        return (c.op("add", c.op("mul", x, factor), shift),)
    y, mean, variance, _ = standardised(c, x, _across_channels(c), epsilon)
    running = []
    for old, new in ((old_mean, mean), (old_var, variance)):
        momentum = c.node.attr("momentum")
        kept = c.op("mul", old, momentum)
        running.append(c.op("add", kept, c.maker.cast(c.op("mul", new, 1 - momentum), kept.dtype)))
    return _affine(c, y, 1, 2), *running


def _batch_norm_grad(c: Context) -> tuple[Item, ...]:
    """As the kernel of irgrad/ops/batch_norm.py has it."""
    dy, scale, wrt, epsilon = c.arg(0), c.arg(2), c.node.attr("wrt"), c.node.attr("epsilon")
    over, results = _across_channels(c), dict[int, Item]()
    if set(wrt) - {0, 1} or c.node.attr("training_mode"):
        results[2] = c.maker.sum(dy, over)
    if c.node.attr("training_mode"):
        if 0 in wrt or 1 in wrt:
            normalised, _, _, inverse = standardised(c, c.arg(1), over, epsilon)
            results[1] = c.maker.sum(c.op("mul", dy, normalised), over)
        if 0 in wrt:
            count = prod(c.maker.sizes[a] for a in over)
            common = c.op("mul", normalised, c.op("div", results[1], count))
            rest = c.op("sub", c.op("sub", dy, common), c.op("div", results[2], count))
            results[0] = c.op("mul", rest, c.op("mul", scale, inverse))
    else:
        inverse = _inverse_root(c, c.arg(4), epsilon)
        factor = c.op("mul", scale, inverse)
        if 1 in wrt or 4 in wrt:
            difference = c.op("sub", c.arg(1), c.arg(3))
            results[1] = c.op("mul", c.maker.sum(c.op("mul", difference, dy), over), inverse)
            results[4] = c.op("mul", c.op("mul", c.op("mul", factor, inverse), results[1]), -0.5)
        if 2 in results:
            results[3] = c.op("mul", c.op("neg", factor), results[2])
        if 0 in wrt:
            results[0] = c.op("mul", dy, factor)
    return tuple(c.maker.cast(results[k], value.dtype) for k, value in zip(wrt, c.node.outputs, strict=True))


def _batch_norm_grad_relations(node: Node) -> list[Relation]:
    found = channels(node, *range(2, len(node.inputs)))
    dy, x = node.operand(0), node.input(1)
    like: list[Relation] = [] if x is None else [Aligned.right(x, dy)]
    for k, value in zip(node.attr("wrt"), node.outputs, strict=True):
        like += [Aligned.right(value, dy)] if k == 0 else channels(node, len(node.inputs) + node.attr("wrt").index(k))
    return [*found, *like]


def _batch_norm_relations(node: Node) -> list[Relation]:
    running = [len(node.inputs) + k for k in range(1, len(node.outputs))]
    return [*channels(node, 1, 2, 3, 4, *running), Aligned.right(node.outputs[0], node.operand(0))]


def _channel_norm_relations(node: Node) -> list[Relation]:
    return [*channels(node, 1, 2), Aligned.right(node.outputs[0], node.operand(0))]


_MOVE = Composite(lambda c: c.arg(0), _reshaped, (0,))

COMPOSITES: Mapping[str, Composite] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _MOVE),
    "ReduceSum": _reduction("sum"),
    "ReduceMean": _reduction("mean"),
    "ReduceProd": _reduction("prod"),
    "ReduceMax": _reduction("max"),
    "ReduceMin": _reduction("min"),
    "ReduceL1": _reduction("sum", before="fabs"),
    "ReduceL2": _reduction("sum", before="square", after="sqrt"),
    "ReduceSumSquare": _reduction("sum", before="square"),
    "ReduceLogSum": _reduction("sum", after="log"),
    "ReduceLogSumExp": Composite(_log_sum_exp, _kept, (0,)),
    "irgrad.SumTo": Composite(_sum_to, lambda node: [Aligned.right(node.outputs[0], node.operand(0))], (0,)),
    "Softmax": Composite(_softmax, like_first),
    "LogSoftmax": Composite(_log_softmax, like_first),
    "irgrad.SoftmaxGrad": Composite(_softmax_grad, like_first),
    "LayerNormalization": Composite(_layer_norm, _statistics_like_x),
    "RMSNormalization": Composite(_rms_norm, like_first),
    "InstanceNormalization": Composite(_instance_norm, _channel_norm_relations),
    "GroupNormalization": Composite(_group_norm, _channel_norm_relations, cuts=_grouped),
    "MeanVarianceNormalization": Composite(_mean_variance_norm, like_first),
    "LpNormalization": Composite(_lp_norm, like_first),
    "BatchNormalization": Composite(_batch_norm, _batch_norm_relations),
    "irgrad.BatchNormalizationGrad": Composite(_batch_norm_grad, _batch_norm_grad_relations),
}
"""Qualified name → how it is compiled."""
