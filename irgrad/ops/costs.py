"""What operations cost: the formulas that the families hand to `OpTable.define` as `cost`.

A multiplication and an addition count as two operations; a function of one element (a comparison, an exponential) as one.
Where a window hangs over the border of an image, the elements of the padding count as well, as everywhere in the literature.
What a chosen algorithm adds or saves (Winograd, im2col, half of the scores under a causal mask) does not count.

Every rule gets a call whose tensors have static shapes.
"""

from __future__ import annotations

from math import log2, prod

from irgrad.builder import typed_call
from irgrad.graph import Graph
from irgrad.op import Call, Cost, CostRule, elements_of

__all__ = [
    "attention",
    "attention_grad",
    "batch_norm",
    "batch_norm_grad",
    "causal_conv",
    "cofactors",
    "conv_input_grad",
    "conv_transpose",
    "conv_weight_grad",
    "convolution",
    "deform_conv",
    "determinant",
    "fourier",
    "gather",
    "gemm",
    "linear_attention",
    "matmul",
    "moves",
    "nothing",
    "of_graph",
    "per_element",
    "per_operand",
    "qlinear_conv",
    "qlinear_matmul",
    "recurrent",
    "recurrent_grad",
    "resize",
    "sampling",
    "scatter",
    "short_time_fourier",
    "sum_to",
    "variadic",
    "window",
    "window_grad",
]


def _static(call: Call, index: int) -> tuple[int, ...]:
    shape = call.tensor(index).static_shape
    assert shape is not None
    return shape


def _result(call: Call, index: int = 0) -> tuple[int, ...]:
    shape = getattr(call.outputs[index], "static_shape", None)
    assert shape is not None
    return tuple(shape)


def of_graph(graph: Graph, times: int = 1) -> Cost | None:
    """What all nodes of a graph take together, so many times; None where that of one is not known."""
    total = Cost(0, 0, 0)
    for node in graph.nodes():
        cost = node.op.cost_of(typed_call(node))
        if cost is None:
            return None
        total = Cost(*(a + times * b for a, b in zip(total, cost, strict=True)))
    return total


# --- by the number of elements ----------------------------------------------------------------------------------------


def nothing(call: Call) -> Cost:
    """Neither arithmetic nor a look at the elements: Shape."""
    return Cost(0, 0, 0)


def moves(call: Call) -> Cost:
    """No arithmetic; elements are copied."""
    return Cost.of(call, 0)


def gather(call: Call) -> Cost:
    """No arithmetic; of the first operand no more is read than the result has."""
    cost = Cost.of(call, 0)
    return cost._replace(read=cost.written + Cost.of(call, 0, operands=range(1, len(call.inputs))).read)


def per_element(count: int) -> CostRule:
    """So many operations for each element of the first output."""
    return lambda call: Cost.of(call, count * elements_of(call.outputs[0]))


def per_operand(count: int, index: int = 0) -> CostRule:
    """So many operations for each element of an operand: reductions, normalisations."""
    return lambda call: Cost.of(call, count * prod(_static(call, index)))


def sum_to(call: Call) -> Cost:
    """One operation for each element of the operand; nothing where there is nothing to sum."""
    elements = prod(_static(call, 0))
    return nothing(call) if elements == prod(_result(call)) else Cost.of(call, elements)


def variadic(call: Call) -> Cost:
    """One operation for each element and each operand but the first: Sum, Max."""
    return Cost.of(call, max(len(call.inputs) - 1, 0) * prod(_result(call)))


def scatter(call: Call) -> Cost:
    """One operation for each update that is added (or otherwise reduced) to what is there."""
    reduces = call.attrs.get("reduction", "none") != "none"
    return Cost.of(call, prod(_static(call, 2)) if reduces else 0)


# --- products of matrices ---------------------------------------------------------------------------------------------


def _products(x: tuple[int, ...], result: tuple[int, ...]) -> int:
    return 2 * prod(result) * (x[-1] if x else 1)


def matmul(call: Call) -> Cost:
    """``2 m n k`` for each product of matrices."""
    return Cost.of(call, _products(_static(call, 0), _result(call)))


def qlinear_matmul(call: Call) -> Cost:
    """As `matmul`, and one more for rescaling each element."""
    return Cost.of(call, _products(_static(call, 0), _result(call)) + prod(_result(call)))


def gemm(call: Call) -> Cost:
    """``2 m n k``, and one for each element to which C is added."""
    depth = _static(call, 0)[0 if call.attrs["transA"] else 1]
    return Cost.of(call, (2 * depth + call.has(2)) * prod(_result(call)))


# --- convolutions -----------------------------------------------------------------------------------------------------


def _convolution(call: Call, positions: tuple[int, ...], weights: tuple[int, ...], bias: int | None = None) -> Cost:
    """Each element of `positions` (of shape [N, M, ...]) takes part in as many products as one filter has weights."""
    added = prod(_result(call)) if bias is not None and call.has(bias) else 0
    return Cost.of(call, 2 * prod(positions) * prod(weights[1:]) + added)


def convolution(call: Call) -> Cost:
    """``2 N M OH OW (C/group) KH KW``, and one for each element that a bias is added to."""
    return _convolution(call, _result(call), _static(call, 1), bias=2)


def qlinear_conv(call: Call) -> Cost:
    """As `convolution`; the weights are the fourth operand, the bias the ninth."""
    return _convolution(call, _result(call), _static(call, 3), bias=8)


def conv_input_grad(call: Call) -> Cost:
    """As the convolution whose adjoint it is; the operands are dy and w."""
    return _convolution(call, _static(call, 0), _static(call, 1))


def conv_weight_grad(call: Call) -> Cost:
    """As the convolution whose adjoint it is; the operands are x and dy, the result has the shape of w."""
    return _convolution(call, _static(call, 1), _result(call))


def conv_transpose(call: Call) -> Cost:
    """As the convolution of which it is the adjoint, and one for each element that a bias is added to."""
    return _convolution(call, _static(call, 0), _static(call, 1), bias=2)


def causal_conv(call: Call) -> Cost:
    """A depthwise convolution along the last axis: ``2 k`` for each element."""
    return Cost.of(call, (2 * _static(call, 1)[-1] + call.has(2)) * prod(_result(call)))


def deform_conv(call: Call) -> Cost:
    """A convolution, and for each element that it reads an interpolation between neighbours, two for each."""
    weights, y = _static(call, 1), _result(call)
    sampled = y[0] * _static(call, 0)[1] * prod(weights[2:]) * prod(y[2:])
    return Cost.of(call, 2 * prod(y) * prod(weights[1:]) + 2 * 2 ** (len(y) - 2) * sampled)


def window(call: Call) -> Cost:
    """One operation for each element of each window."""
    return Cost.of(call, prod(_result(call)) * prod(call.attrs["kernel_shape"]))


def window_grad(call: Call) -> Cost:
    """One operation for each element of each window; there is a window for each element of the first operand."""
    return Cost.of(call, prod(_static(call, 0)) * prod(call.attrs["kernel_shape"]))


# --- normalisations ---------------------------------------------------------------------------------------------------

_STANDARDISE = 7  # for each element: the mean 1, centring 1, the variance 2, dividing 1, scale 1, shift 1


def batch_norm(call: Call) -> Cost:
    """A scale and a shift for each element; in training mode the statistics too."""
    return Cost.of(call, (_STANDARDISE if call.attrs["training_mode"] else 2) * prod(_static(call, 0)))


def batch_norm_grad(call: Call) -> Cost:
    """For each element: of dx 1 (8 in training mode, sums included), of dscale 4, of dbias 1, of dmean 1, of dvar 3."""
    each = {0: 8 if call.attrs["training_mode"] else 1, 1: 4, 2: 1, 3: 1, 4: 3}
    wanted = sum(each[k] for k in call.attrs["wrt"])
    return Cost.of(call, wanted * prod(_static(call, 0)))


# --- attention and recurrences ----------------------------------------------------------------------------------------

_SOFTMAX = 5  # for each element: the maximum 1, its subtraction 1, the exponential 1, the sum 1, the division 1


def attention(call: Call) -> Cost:
    """Two products of matrices and a softmax for each head, keys that a mask hides included."""
    scores, size, v_size = _scores(call)
    return Cost.of(call, scores * (2 * size + 2 * v_size + _SOFTMAX))


def _scores(call: Call) -> tuple[int, int, int]:
    """How many scores there are, and the sizes of heads of keys and of values."""
    q, k, v = (_static(call, index) for index in range(3))
    packed = len(q) == 3
    heads = call.attrs["q_num_heads"] if packed else q[1]
    kv_heads = call.attrs["kv_num_heads"] if packed else k[1]
    size, v_size = (q[-1] // heads, v[-1] // kv_heads) if packed else (q[-1], v[-1])
    keys = k[-2] + (_static(call, 4)[-2] if call.has(4) else 0)
    return q[0] * heads * q[-2] * keys, size, v_size


def attention_grad(call: Call) -> Cost:
    """The scores and their softmax once more, 4 operations for each of their cotangents, the products that are wanted."""
    (scores, size, v_size), wrt = _scores(call), call.attrs["wrt"]
    each = 2 * size + _SOFTMAX + 2 * v_size * (2 in wrt)
    if 0 in wrt or 1 in wrt:
        each += 2 * v_size + 4 + 2 * size * ((0 in wrt) + (1 in wrt))
    return Cost.of(call, scores * each)


def linear_attention(passes: int) -> CostRule:
    """For each step and head, ``4 k v`` for the outer product and the query; a decay adds 1, the delta rule 4.

    Args:
        passes: how often that is done: once forward, three times by an adjoint that computes the states again.
    """

    def rule(call: Call) -> Cost:
        query, value = _static(call, 0), _static(call, 2)
        heads, kv_heads, name = call.attrs["q_num_heads"], call.attrs["kv_num_heads"], call.attrs["update_rule"]
        each = 4 + ("gated" in name) + 4 * ("delta" in name)
        matrices = query[0] * query[1] * kv_heads * (query[2] // heads) * (value[2] // kv_heads)
        return Cost.of(call, passes * each * matrices)

    return rule


_GATE = 4  # for each element of a gate: two sums, the activation, the product with a state


def recurrent(call: Call) -> Cost:
    """For each step, the products with W and R and the arithmetic of the gates."""
    x, w, r = (_static(call, index) for index in range(3))
    return Cost.of(call, x[0] * x[1] * (2 * prod(w) + 2 * prod(r) + _GATE * w[0] * w[1]))


def recurrent_grad(call: Call, gates: int, first: int) -> Cost:
    """The products with R that carry the cotangents of the states, and one for each cotangent of X, W and R that is wanted.

    Args:
        call: an adjoint.
        gates: the position of the saved gates, of shape [directions, steps, batch, ...].
        first: the position of X, which W and R follow.
    """
    rows, r = prod(_static(call, gates)[1:3]), _static(call, first + 2)
    size = next((_static(call, k)[-1] for k in (first, first + 1) if call.has(k)), 0)
    wanted = call.attrs["wrt"]
    states, inputs = 1 + (2 in wanted), (0 in wanted) + (1 in wanted)
    return Cost.of(call, rows * r[0] * r[1] * (2 * r[2] * states + 2 * size * inputs + _GATE))


# --- others -----------------------------------------------------------------------------------------------------------


def determinant(call: Call) -> Cost:
    """``2/3 n³`` for each matrix, by elimination."""
    shape = _static(call, 0)
    return Cost.of(call, prod(shape[:-1]) * 2 * shape[-1] ** 2 // 3)


def cofactors(call: Call) -> Cost:
    """``2 n³`` for each matrix, as for an inverse."""
    shape = _static(call, 0)
    return Cost.of(call, 2 * prod(shape) * shape[-1])


def _transforms(count: int, length: int) -> int:
    return int(5 * count * length * log2(max(length, 2)))


def fourier(call: Call) -> Cost:
    """``5 n log2 n`` for each transform of n numbers (Cooley and Tukey's count)."""
    x, known = _static(call, 0), call.contents.get(2)
    axis = int(known[0]) if known and isinstance(known[0], int) else -2
    return Cost.of(call, _transforms(prod(x[:-1]) // max(x[axis], 1), x[axis]))


def short_time_fourier(call: Call) -> Cost:
    """``5 n log2 n`` for each frame of n numbers, and its product with the window."""
    y = _result(call)
    length = _static(call, 2)[0] if call.has(2) else y[2] * (2 if call.attrs["onesided"] else 1)
    return Cost.of(call, _transforms(y[0] * y[1], length) + y[0] * y[1] * length * call.has(2))


_TAPS = {"nearest": 0, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}


def resize(index: int | None = None) -> CostRule:
    """Twice the taps of the interpolation along each axis that changes its size, for each element of the result.

    Args:
        index: the operand that is in the place of the result in an adjoint.
    """

    def rule(call: Call) -> Cost:
        small, large = _static(call, 0), _result(call)
        axes = sum(a != b for a, b in zip(small, large, strict=True))
        elements = prod(large if index is None else _static(call, index))
        return Cost.of(call, elements * 2 * _TAPS.get(call.attrs["mode"], 1) * axes)

    return rule


def sampling(index: int | None = None) -> CostRule:
    """Two operations for each of the ``2^d`` neighbours (``4^d`` for cubic) that an interpolation between pixels reads.

    Args:
        index: the operand that is in the place of the result in an adjoint.
    """

    def rule(call: Call) -> Cost:
        y = _result(call) if index is None else _static(call, index)
        taps = max(_TAPS.get(call.attrs["mode"], 2), 1) ** (len(y) - 2)
        samples = max(call.attrs.get("sampling_ratio", 0), 1) ** 2  # of a RoiAlign; 0 leaves their number to the data
        return Cost.of(call, 2 * taps * samples * prod(y))

    return rule
