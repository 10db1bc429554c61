"""Matrix products: MatMul, Gemm, Einsum."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import ZERO, Call, Cost, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.einsum import contract, operations, output_dims, parse, spare_letters
from irgrad.runtime.kernels import deliver, widened
from irgrad.types import Dim, Type

ops = OpTable()


def _for_blas(a: np.ndarray) -> np.ndarray:
    """`a`, copied where BLAS could not step through its matrices (a broadcast row, say) and numpy would do without it."""
    if a.ndim < 2 or a.dtype.kind != "f" or a.flags.c_contiguous:
        return a
    (rows, columns), (down, across), item = a.shape[-2:], a.strides[-2:], a.itemsize
    if across == item and (down >= columns * item or rows == 1) and down % item == 0:
        return a
    if down == item and (across >= rows * item or columns == 1) and across % item == 0:
        return a
    return np.ascontiguousarray(a)


# --- MatMul -----------------------------------------------------------------------------------------------------------

matmul = ops.define("MatMul", broadcasts=True, cost=costs.matmul)


@matmul.kernel
@widened
def _(a: np.ndarray, b: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    a, b = _for_blas(a), _for_blas(b)
    if b.ndim == 2 < a.ndim and a.flags.c_contiguous:
        # One large product instead of one for each matrix of the batch.
        shape = (*a.shape[:-1], b.shape[1])
        flat = out.reshape(-1, b.shape[1]) if out is not None and out.flags.c_contiguous and out.size else None
        product = np.matmul(a.reshape(prod(a.shape[:-1]), a.shape[-1]), b, out=flat)
        return deliver(product.reshape(shape), out if flat is None else None)
    return np.asarray(np.matmul(a, b, out=out))


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


@gemm.kernel
@widened
def _(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    y = np.asarray(np.matmul(_for_blas(a.T if transA else a), _for_blas(b.T if transB else b), out=out))
    if alpha != 1:
        y = _scaled(y, alpha, y)
    if c is not None and beta != 0:
        np.add(y, c if beta == 1 else _scaled(c, beta), out=y)
    return y


def _scaled(v: np.ndarray, factor: float, out: np.ndarray | None = None) -> np.ndarray:
    if v.dtype.kind == "f":
        return np.asarray(np.multiply(v, v.dtype.type(factor), out=out))
    return deliver((v * factor).astype(v.dtype), out)


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


@einsum.kernel
@widened
def _(*arrays: np.ndarray, equation: str, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(contract(parse(equation, tuple(a.ndim for a in arrays)), arrays), out)


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
