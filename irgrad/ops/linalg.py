"""Linear algebra: determinants, and the cofactors that are their derivatives.

Nothing here divides by a determinant or inverts a matrix, so that singular matrices are nothing special.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import Size, as_scalar, dim_of
from irgrad.runtime.kernels import deliver, widened
from irgrad.types import Type

ops = OpTable()

# --- Det --------------------------------------------------------------------------------------------------------------

det = ops.define("Det", cost=costs.determinant)


@det.kernel
@widened
def _det(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.asarray(np.linalg.det(x)), out)


@det.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The derivative by an element is its cofactor.

    Source: Magnus and Neudecker, Matrix Differential Calculus, 3rd edition, Wiley 2019, chapter 8, section 3.
    """
    return b.op("Unsqueeze", dy, b.ints([-2, -1])) * b.op("irgrad.Cofactor", node.operand(0))


# --- cofactors --------------------------------------------------------------------------------------------------------

cofactor = ops.define("Cofactor", domain=IRGRAD_DOMAIN, cost=costs.cofactors)
"""``Cofactor(x)`` of square matrices → y with y[i, j] = (−1)^(i+j) det(x without row i and column j)."""

cofactor_derivative = ops.define("CofactorDerivative", domain=IRGRAD_DOMAIN, cost=costs.cofactors)
"""``CofactorDerivative(x, v)``: the derivative of Cofactor at x in the direction v.

As a second derivative, that of the determinant, it is symmetric: it is its own adjoint.
"""


@cofactor.kernel
@widened
def _cofactor(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    size = x.shape[-1]
    if size < 2:
        return deliver(np.ones_like(x), out)
    if size == 2:
        return deliver(_cofactors_of_two(x), out)
    if size == 3:
        return deliver(np.cross(_rolled(x, 1), _rolled(x, 2)), out)
    return deliver(_cofactors_of_many(x), out)


@cofactor_derivative.kernel
@widened
def _cofactor_derivative(x: np.ndarray, v: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    size = x.shape[-1]
    if size < 2:
        return deliver(np.zeros_like(x), out)
    if size == 2:
        return deliver(_cofactors_of_two(v), out)
    if size == 3:
        return deliver(np.cross(_rolled(v, 1), _rolled(x, 2)) + np.cross(_rolled(x, 1), _rolled(v, 2)), out)
    return deliver(_derivative_by_svd(x, v), out)


def _cofactors_of_two(x: np.ndarray) -> np.ndarray:
    return np.asarray(x[..., ::-1, ::-1] * np.array([[1, -1], [-1, 1]], x.dtype))


def _rolled(x: np.ndarray, count: int) -> np.ndarray:
    """Rows i + count in the place of rows i: the cofactors of three rows are the cross products of the other two."""
    return np.roll(x, -count, -2)


def _cofactors_of_many(x: np.ndarray) -> np.ndarray:
    """The determinant times the transposed inverse where that is accurate to two thirds of the digits, which is cheaper."""
    limits = np.finfo(x.dtype)
    det = np.linalg.det(x)
    regular = np.isfinite(det) & (np.abs(det) > limits.tiny)
    inverse = np.linalg.inv(np.where(regular[..., None, None], x, np.eye(x.shape[-1], dtype=x.dtype)))
    regular &= _norm(x) * _norm(inverse) < limits.eps ** (-1 / 3)
    result = np.asarray(det)[..., None, None] * inverse.swapaxes(-1, -2)
    if not regular.all():
        result[~regular] = _cofactors_by_svd(x[~regular])
    return np.asarray(result)


def _norm(x: np.ndarray) -> np.ndarray:
    """The norm of matrices that the sum of absolute values makes of vectors."""
    return np.asarray(np.abs(x).sum(-2).max(-1))


def _singular_values(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The factors u, s, vh of x = u diag(s) vh, and the sign det(u) det(vh); NaN where x is not finite."""
    finite = np.isfinite(x).all((-2, -1))
    u, s, vh = np.linalg.svd(np.where(finite[..., None, None], x, 0))
    s[~finite] = np.nan
    return u, s, vh, np.linalg.det(u) * np.linalg.det(vh)


def _products_of_others(v: np.ndarray) -> np.ndarray:
    """For each element the product of all others along the last axis; nothing is divided by."""
    before, behind = np.ones_like(v), np.ones_like(v)
    np.cumprod(v[..., :-1], -1, out=before[..., 1:])
    np.cumprod(v[..., :0:-1], -1, out=behind[..., -2::-1])
    return np.asarray(before * behind)


def _cofactors_by_svd(x: np.ndarray) -> np.ndarray:
    """Cofactors are multiplicative, those of an orthogonal u are det(u) u, and those of a diagonal matrix are products.

    Source: Stewart, On the adjugate matrix, Linear Algebra and its Applications 283, 1998.
    """
    u, s, vh, sign = _singular_values(x)
    return np.asarray((u * (sign[..., None] * _products_of_others(s))[..., None, :]) @ vh)


def _derivative_by_svd(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The derivative in the basis of the singular vectors, where x is diagonal.

    There the cofactors of x + t v are, up to t², those of the 2 x 2 blocks of v times the product of the singular values
    of the other rows.
    """
    u, s, vh, sign = _singular_values(x)
    w = u.swapaxes(-1, -2) @ v @ vh.swapaxes(-1, -2)
    size = s.shape[-1]
    diagonal = np.eye(size, dtype=bool)
    pairs = _products_of_others(np.where(diagonal, s.dtype.type(1), s[..., None, :])) * sign[..., None, None]
    pairs = np.where(diagonal, 0, pairs)
    turned = -w.swapaxes(-1, -2) * pairs
    turned[..., diagonal] = np.einsum("...ii,...ij->...j", w, pairs)
    return np.asarray(u @ turned @ vh)


@cofactor.infer
@cofactor_derivative.infer
def _same_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0)]


@cofactor.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return b.op("irgrad.CofactorDerivative", node.operand(0), dy)


# --- in standard operations -------------------------------------------------------------------------------------------


@cofactor.lower
def _(b: Builder, node: Node) -> Value:
    """All minors at once, shape [..., n, n, n - 1, n - 1], and their determinants."""
    x = node.operand(0)
    row, column, count = _indices(b, x)
    others = _without(b, _range(b, count - 1), row)
    return b.op("Det", _selected(b, x, others)) * b.cast(_signs(b, row, column), x.dtype)


@cofactor_derivative.lower
def _(b: Builder, node: Node) -> Value:
    """The determinants without rows i, k and columns j, l, shape [..., n, n, n, n]; those of i = k or j = l count 0."""
    x, v = node.operand(0), node.operand(1)
    row, column, count = _indices(b, x)
    low, high = (b.op("Unsqueeze", b.op(op, row, column), b.ints([2])) for op in ("Min", "Max"))
    others = _without(b, _without(b, _range(b, count - 2), low), high)
    signs = b.cast(b.op("Sign", column - row) * _signs(b, row, column), x.dtype)
    minors = b.op("Det", _selected(b, x, others))
    return b.op("Einsum", v, signs, signs, minors, equation="...ij,ik,jl,...ikjl->...kl")


def _indices(b: Builder, x: Value) -> tuple[Value, Value, Size]:
    """The indices of the rows of square matrices, shape [n, 1], and of the columns, shape [n]; and how many there are."""
    count = dim_of(b, x, -1)
    column = _range(b, count)
    return b.op("Unsqueeze", column, b.ints([1])), column, count


def _range(b: Builder, count: Size) -> Value:
    return b.ints(range(count)) if isinstance(count, int) else b.op("Range", 0, as_scalar(b, count), 1)


def _without(b: Builder, k: Value, gap: Value) -> Value:
    """The numbers k with those from `gap` on moved up by one."""
    return k + b.cast(k >= gap, k.dtype)


def _signs(b: Builder, row: Value, column: Value) -> Value:
    """(−1)^(i + j)"""
    return 1 - 2 * b.op("Mod", row + column, 2)


def _selected(b: Builder, x: Value, chosen: Value) -> Value:
    """The submatrices of x of all pairs of chosen rows and chosen columns.

    Args:
        b: where the nodes go.
        x: of shape [..., n, n].
        chosen: of shape [*choices, m], the m rows or columns of each choice.

    Returns:
        Of shape [..., *choices, *choices, m, m].
    """
    picked = b.op("Gather", b.op("Gather", x, chosen, axis=-2), chosen, axis=-1)
    choices = rank_of(chosen) - 1
    rank = rank_of(x) + 2 * choices
    rows = rank - choices - 2
    perm = (*range(rows), *range(rows + 1, rank - 1), rows, rank - 1)
    return b.op("Transpose", picked, perm=perm)
