"""Matrix products: MatMul, Gemm, Einsum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.kernels import products
from irgrad.kernels.elementwise import add_rows
from irgrad.kernels.shapes import shape_of
from irgrad.op import ZERO, Call, Cost, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.einsum import contraction, operations, output_dims, parse, spare_letters
from irgrad.runtime.workspace import Workspace, planned, widened
from irgrad.types import Dim, Type

ops = OpTable()


# --- MatMul -----------------------------------------------------------------------------------------------------------

matmul = ops.define("MatMul", broadcasts=True, cost=costs.matmul)


@matmul.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    return products.matmul(shape_of(call, 0), shape_of(call, 1))


def _ranks(node: Node) -> list[int]:
    ranks = [v.rank for v in node.inputs if v is not None]
    known = [rank for rank in ranks if rank is not None]
    if len(known) != len(ranks):
        raise UnsupportedOpError("the ranks of its operands must be known at compile time; declare their shapes")
    return known


@matmul.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """``dx = dy wᵀ`` and ``dw = xᵀ dy``; a vector is a matrix of one row (x) or of one column (w) whose axis is left out."""
    x, w = node.operand(0), node.operand(1)
    ranks = _ranks(node)
    return [
        _left_adjoint(b, w, dy, *ranks) if b.needs(x) else None,
        _right_adjoint(b, x, dy, *ranks) if b.needs(w) else None,
    ]


def _left_adjoint(b: Builder, w: Value, dy: Value, rank_x: int, rank_w: int) -> Value:
    if rank_w == 1:
        return w * (dy if rank_x == 1 else b.op("Unsqueeze", dy, b.ints([-1])))
    if rank_x == 1:
        if rank_w == 2:
            return w @ dy
        columns = w @ b.op("Unsqueeze", dy, b.ints([-1]))
        return b.reduce_sum(columns, [*range(rank_w - 2), rank_w - 1])
    if rank_x == rank_w == 2:
        return b.op("Gemm", dy, w, transB=1)
    return dy @ _transposed(b, w, rank_w)


def _right_adjoint(b: Builder, x: Value, dy: Value, rank_x: int, rank_w: int) -> Value:
    if rank_x == 1:
        if rank_w == 1:
            return x * dy
        return b.op("Unsqueeze", x, b.ints([1])) * (dy if rank_w == 2 else b.op("Unsqueeze", dy, b.ints([-2])))
    if rank_w > 2:
        return _transposed(b, x, rank_x) @ dy
    # A matrix that all of the batch is multiplied by: one product over the rows of the whole batch.
    if rank_x > 2:
        x = b.op("Flatten", x, axis=rank_x - 1)
        dy = b.op("Reshape", dy, b.ints([-1])) if rank_w == 1 else b.op("Flatten", dy, axis=rank_x - 1)
    return dy @ x if rank_w == 1 else b.op("Gemm", x, dy, transA=1)


def _transposed(b: Builder, v: Value, rank: int) -> Value:
    return b.op("Transpose", v, perm=(*range(rank - 2), rank - 1, rank - 2))


# --- Gemm -------------------------------------------------------------------------------------------------------------

gemm = ops.define("Gemm", broadcasts=(2,), cost=costs.gemm)


@gemm.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    alpha, beta, tx, tw = (call.attrs[name] for name in ("alpha", "beta", "transA", "transB"))
    dtype = call.tensor(0).dtype
    space = Workspace()
    has_c = call.has(2) and beta != 0
    scaled_c = space.array(shape_of(call, 2), dtype) if has_c and beta != 1 else None

    def run(
        a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        y = products.multiply(a.T if tx else a, b.T if tw else b, out)
        if alpha != 1:
            _scale(y, alpha, y)
        if c is not None and has_c:
            if scaled_c is not None:
                c = _scale(c, beta, scaled_c(work))
            add_rows(y, c)
        return y

    return space.kernel(run)


def _scale(v: np.ndarray, factor: float, out: np.ndarray) -> np.ndarray:
    """Into `out` a factor times v; of integers, the exact product is rounded towards zero."""
    if v.dtype.kind == "f":
        np.multiply(v, v.dtype.type(factor), out=out)
    else:
        np.copyto(out, v * factor, casting="unsafe")
    return out


@gemm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | Zero | None]:
    """The adjoints of a product of matrices, each transposed as its operand is."""
    x, w, c = node.operand(0), node.operand(1), node.input(2)
    alpha, beta, tx, tw = (node.attr(name) for name in ("alpha", "beta", "transA", "transB"))
    dx = dw = None
    if b.needs(x):
        dx = _gemm(b, w, dy, alpha, tw, 1) if tx else _gemm(b, dy, w, alpha, 0, 1 - tw)
    if b.needs(w):
        dw = _gemm(b, dy, x, alpha, 1, tx) if tw else _gemm(b, x, dy, alpha, 1 - tx, 0)
    if c is None:
        return [dx, dw]
    if beta == 0 or not b.needs(c):
        return [dx, dw, ZERO]
    return [dx, dw, dy if beta == 1 else dy * beta]


def _gemm(b: Builder, x: Value, w: Value, alpha: float, tx: int, tw: int) -> Value:
    return b.op("Gemm", x, w, alpha=None if alpha == 1 else alpha, transA=tx or None, transB=tw or None)


# --- Einsum -----------------------------------------------------------------------------------------------------------

einsum = ops.define("Einsum")


@einsum.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    shapes = [shape_of(call, k) for k in range(len(call.inputs))]
    return contraction(parse(call.attrs["equation"], tuple(map(len, shapes))), shapes, call.tensor(0).dtype)


@einsum.cost
def _(call: Call) -> Cost:
    shapes = [shape for k in range(len(call.inputs)) if (shape := call.tensor(k).static_shape) is not None]
    return Cost.of(call, operations(parse(call.attrs["equation"], tuple(map(len, shapes))), shapes))


@einsum.infer
def _(call: Call) -> Sequence[Type]:
    shapes = [call.tensor(k).shape for k in range(len(call.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return [call.tensor(0).with_shape(None)]
    equation = parse(call.attrs["equation"], tuple(map(len, known)))
    return [call.tensor(0).with_shape(output_dims(equation, known))]


@einsum.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """For each operand an Einsum of dy and the other operands, whose result has the letters of its term.

    The diagonal of a repeated letter is filled by a factor of one identity matrix for each repetition; a letter that only
    this operand has was summed over, and its axis is filled by Expand.
    """
    equation = parse(node.attr("equation"), tuple(_ranks(node)))
    operands = [node.operand(k) for k in range(len(node.inputs))]
    cotangents: list[Value | None] = []
    for k, x in enumerate(operands):
        factors = [dy, *(v for j, v in enumerate(operands) if j != k)]
        terms = [equation.output, *(term for j, term in enumerate(equation.terms) if j != k)]
        cotangents.append(_einsum_adjoint(b, x, equation.terms[k], factors, terms) if b.needs(x) else None)
    return cotangents


def _einsum_adjoint(b: Builder, x: Value, term: str, factors: list[Value], terms: list[str]) -> Value:
    dims = x.shape
    assert dims is not None
    spare = iter(spare_letters("".join((term, *terms)), len(term) - len(set(term))))
    target = ""
    for axis, letter in enumerate(term):
        if letter in target:
            twin = next(spare)
            factors, terms = [*factors, _identity(b, x, axis)], [*terms, letter + twin]
            letter = twin
        target += letter
    present = "".join(letter for letter in target if any(letter in other for other in terms))
    dx = factors[0]
    if terms != [present]:
        dx = b.op("Einsum", *factors, equation=",".join(terms) + "->" + present)
    absent = [axis for axis, letter in enumerate(target) if letter not in present]
    if absent:
        dx = b.op("Unsqueeze", dx, b.ints(absent))
    narrow, wide = _mismatches(target, dims, factors, terms)
    if absent or narrow:
        dx = b.op("Expand", dx, b.shape_of(x))
    return b.op("irgrad.SumTo", dx, b.shape_of(x)) if wide else dx


def _mismatches(target: str, dims: Sequence[Dim], factors: Sequence[Value], terms: Sequence[str]) -> tuple[bool, bool]:
    """Whether an axis of the product may come out with size 1 where the operand is larger, and the other way round."""
    narrow = wide = False
    for letter, dim in zip(target, dims, strict=True):
        others = [
            None if v.shape is None else v.shape[term.index(letter)]
            for v, term in zip(factors, terms, strict=True)
            if letter in term
        ]
        if others:
            narrow |= dim != 1 and (dim is None or dim not in others)
            wide |= (dim == 1 or not isinstance(dim, int)) and any(d is None or d not in (1, dim) for d in others)
    return narrow, wide


def _identity(b: Builder, x: Value, axis: int) -> Value:
    """The identity matrix of the size of an axis of x."""
    size = x.shape[axis] if x.shape is not None else None
    if isinstance(size, int):
        return b.constant(np.eye(size, dtype=x.dtype))
    side = b.op("Shape", x, start=axis, end=axis + 1)
    square = b.op("ConstantOfShape", b.op("Concat", side, side, axis=0), value=np.zeros(1, x.dtype))
    return b.op("EyeLike", square)
