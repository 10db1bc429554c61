"""Rotary position embeddings (Su et al., RoFormer, 2021): pairs of elements of each head, turned by angles.

With c and s the cosine and sine of a pair's angle, (x₁, x₂) becomes (c x₁ − s x₂, s x₁ + c x₂). The cotangents of c and s
are dy₁ x₁ + dy₂ x₂ and dy₂ x₁ − dy₁ x₂, summed over heads; that of x is dy turned back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.kernels.shapes import shape_of
from irgrad.op import Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.attention_kernels import split_heads
from irgrad.ops.dims import Size, dim_of, join_sizes, quotient_of
from irgrad.runtime.workspace import Workspace, planned, widened
from irgrad.types import TensorType, Type, dims_differ, divide_dims

ops = OpTable()

# Exporters write caches for a batch of one, which serve every batch.
rotary_embedding = ops.define("RotaryEmbedding", broadcasts=(1, 2), cost=costs.per_element(3))


@rotary_embedding.prepare
@planned()
@widened
def _rotary_embedding(call: Call) -> Kernel:
    shape, dtype = shape_of(call, 0), call.tensor(0).dtype
    heads: int = call.attrs.get("num_heads") or 1
    batch, number, sequence, width = shape if len(shape) == 4 else (shape[0], heads, shape[1], shape[2] // heads)
    size = call.attrs["rotary_embedding_dim"] or width
    halves = (slice(0, size, 2), slice(1, size, 2))
    if not call.attrs["interleaved"]:
        halves = (slice(0, size // 2), slice(size // 2, size))
    space = Workspace()
    gathered = space.array((2, batch, sequence, size // 2), dtype) if call.has(3) else None
    product = space.array((batch, sequence, number, size // 2), dtype)

    def kernel(
        x: np.ndarray,
        cos: np.ndarray,
        sin: np.ndarray,
        positions: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
        work: np.ndarray,
    ) -> np.ndarray:
        y = np.empty(shape, dtype) if out is None else out
        # [batch, sequence, heads, size], as views
        before, after = (split_heads(v, heads).swapaxes(1, 2) for v in (x, y))
        if positions is not None and gathered is not None:
            cos, sin = (_rows_at(v, positions, place) for v, place in zip((cos, sin), gathered(work), strict=True))
        cos, sin, spare = cos[:, :, None], sin[:, :, None], product(work)
        first, second = (before[..., half] for half in halves)
        for target, (a, v), (c, w), combine in (
            (after[..., halves[0]], (cos, first), (sin, second), np.subtract),
            (after[..., halves[1]], (sin, first), (cos, second), np.add),
        ):
            np.multiply(a, v, out=target)
            combine(target, np.multiply(c, w, out=spare), out=target)
        np.copyto(after[..., size:], before[..., size:])
        return y

    return space.kernel(kernel)


def _rows_at(cache: np.ndarray, positions: np.ndarray, out: np.ndarray) -> np.ndarray:
    if positions.size and not -len(cache) <= positions.min() <= positions.max() < len(cache):
        raise IndexError(f"a position is outside of the cache's {len(cache)} rows")
    np.take(cache, positions, 0, out=out, mode="wrap")
    return out


@rotary_embedding.infer
def _rotary_embedding_type(call: Call) -> Sequence[Type]:
    """The type of X, of which onnx does not take float64."""
    x = call.tensor(0)
    if x.shape is not None:
        _check(call, x)
    return [x]


def _check(call: Call, x: TensorType) -> None:
    assert x.shape is not None
    heads = call.attrs.get("num_heads")
    if len(x.shape) not in (3, 4):
        raise TypeInferenceError(f"RotaryEmbedding takes an X with 3 or 4 axes, not {x}")
    if len(x.shape) == 3 and (heads is None or heads < 1):
        raise TypeInferenceError("RotaryEmbedding of an X with 3 axes needs the attribute num_heads, a positive number")
    batch, sequence, last = x.shape[0], x.shape[-2], x.shape[-1]
    head_size = last if len(x.shape) == 4 else divide_dims(last, heads)
    if isinstance(last, int) and head_size is None:
        raise TypeInferenceError(f"RotaryEmbedding cannot divide the last axis of {x} among {heads} heads")
    size = call.attrs["rotary_embedding_dim"] or head_size
    if isinstance(size, int) and (size < 0 or size % 2 or (isinstance(head_size, int) and size > head_size)):
        raise TypeInferenceError(f"RotaryEmbedding turns pairs of elements, but not {size} of each head of {x}")
    positions = call.tensor(3).shape if call.has(3) else None
    if positions is not None and (len(positions) != 2 or any(map(dims_differ, positions, (batch, sequence)))):
        raise TypeInferenceError(f"the position_ids of RotaryEmbedding are {call.tensor(3)}, which does not fit X, {x}")
    for name, index in (("cos_cache", 1), ("sin_cache", 2)):
        shape = call.tensor(index).shape
        rows = 1 if shape and shape[0] == 1 else batch
        expected = (None, divide_dims(size, 2)) if call.has(3) else (rows, sequence, divide_dims(size, 2))
        if shape is not None and (len(shape) != len(expected) or any(map(dims_differ, shape, expected))):
            raise TypeInferenceError(f"the {name} of RotaryEmbedding is {call.tensor(index)}, which does not fit X, {x}")


@rotary_embedding.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """See the top of this file. An X turned by a right angle, which is (−x₂, x₁), is what the sine's cotangent needs."""
    x, cos, sin, positions = node.operand(0), node.operand(1), node.operand(2), node.input(3)

    def turned(v: Value, c: Value, s: Value) -> Value:
        return b.node(node.op, [v, c, s, *node.inputs[3:]], node.attrs).outputs[0]

    def summed(products: Value, cache: Value) -> Value:
        of_tokens = _sum_over_heads(b, node, products, dim_of(b, cache, -1))
        if positions is None:
            return of_tokens
        return b.op("irgrad.GatherGrad", of_tokens, positions, b.shape_of(cache))

    dx = turned(dy, cos, -sin) if b.needs(x) else None
    dcos = summed(dy * x, cos) if b.needs(cos) else None
    dsin = None
    if b.needs(sin):
        ones = b.op("ConstantOfShape", b.shape_of(sin), value=np.ones(1, sin.dtype))
        dsin = summed(dy * turned(x, b.zeros_like(cos), ones), sin)
    return [dx, dcos, dsin]


def _sum_over_heads(b: Builder, node: Node, v: Value, pairs: Size) -> Value:
    """A value of the shape of X, summed over heads and the two elements of each pair: [batch, sequence, pairs]."""
    if v.rank is None:
        raise UnsupportedOpError("the gradient by a cache needs the rank of X at compile time; declare its shape")
    size, heads = node.attr("rotary_embedding_dim"), node.attr("num_heads")
    leading = [0, 0, 0] if v.rank == 4 else [0, 0, heads]
    if size:
        if v.rank == 3:
            v = b.op("Reshape", v, join_sizes(b, *leading, quotient_of(b, dim_of(b, v, 2), heads)))
        v = b.op("Slice", v, b.ints([0]), b.ints([size]), b.ints([3]))
        leading = [0, 0, 0]
    interleaved = bool(node.attr("interleaved"))
    sizes = join_sizes(b, *leading, *((pairs, 2) if interleaved else (2, pairs)))
    return b.reduce_sum(b.op("Reshape", v, sizes), [1 if node.operand(0).rank == 4 else 2, 4 if interleaved else 3])
