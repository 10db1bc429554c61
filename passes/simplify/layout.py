"""Rules on shapes and order of elements: what moves nothing goes away, what moves twice moves once."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.passes.simplify.facts import ints_of, parsed_axes, permutation, same_shape
from irgrad.pattern import OpPattern, Rule, Var, maybe, op, rule
from irgrad.types import TensorType

__all__ = ["RULES"]

# --- to the shape that it has already ---------------------------------------------------------------------------------

_RESHAPING = (
    *("Expand", "Flatten", "Pad", "ReduceMax", "ReduceMin", "ReduceProd", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
    *("Unsqueeze", "irgrad.SumTo"),
)


@rule
def to_the_same_shape(x: Var) -> OpPattern:
    """What changes nothing but the shape, and leaves that as it is → its operand."""
    return op(_RESHAPING, x, ...)


@to_the_same_shape.check
def _(x: Value, root: Node) -> str | None:
    if len(root.outputs) > 1:
        return "it has other results"
    if not same_shape(x, root.outputs[0]):
        return f"{x!r} may have another shape than {root.outputs[0]!r}"
    if root.op.name == "Slice" and root.input(4) is not None and set(ints_of(root.input(4)) or (0,)) != {1}:
        return "it may reverse an axis"
    if root.op.name == "Pad" and set(ints_of(root.input(1)) or (1,)) != {0}:
        return "it may pad one end and cut the other"
    return None


@to_the_same_shape.replace
def _(x: Value) -> Value:
    return x


@rule
def to_its_own_shape(x: Var, start: Var, end: Var) -> OpPattern:
    """Reshape(x, Shape(x)) → x, whatever the shape is."""
    return op(("Expand", "Reshape", "irgrad.SumTo"), x, op("Shape", x, start=start, end=end))


@to_its_own_shape.check
def _(start: int | None, end: int | None) -> str | None:
    return "a part of the shape is taken" if start or end is not None else None


@to_its_own_shape.replace
def _(x: Value) -> Value:
    return x


@rule
def padded_by_nothing(x: Var, pads: Var) -> OpPattern:
    """Pad by zero elements everywhere → its operand."""
    return op("Pad", x, pads, ...)


@padded_by_nothing.check
def _(pads: Value) -> str | None:
    return None if set(ints_of(pads) or (1,)) == {0} else f"{pads!r} is not known to be zero"


@padded_by_nothing.replace
def _(x: Value) -> Value:
    return x


@rule
def reduced_over_nothing(x: Var, axes: Var) -> OpPattern:
    """A reduction over no axes → its operand."""
    return op(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"), x, maybe(axes), noop_with_empty_axes=1)


@reduced_over_nothing.check
def _(axes: Value | None) -> str | None:
    return None if axes is None or ints_of(axes) == () else "there are axes"


@reduced_over_nothing.replace
def _(x: Value) -> Value:
    return x


# --- transposition ----------------------------------------------------------------------------------------------------


@rule
def transposed_to_the_same_order(x: Var) -> OpPattern:
    """Transpose that leaves every axis where it is → its operand."""
    return op("Transpose", x)


@transposed_to_the_same_order.check
def _(root: Node) -> str | None:
    perm = permutation(root)
    return None if perm is not None and perm == tuple(range(len(perm))) else "it moves an axis"


@transposed_to_the_same_order.replace
def _(x: Value) -> Value:
    return x


@rule
def transposed_twice(x: Var, inner: Var) -> OpPattern:
    """Transpose(Transpose(x)) → Transpose(x)."""
    return op("Transpose", op("Transpose", x).bind(inner))


@transposed_twice.check
def _(root: Node, inner: Node) -> str | None:
    known = permutation(inner) is not None and permutation(root) is not None
    return None if known else "a permutation is left to its default, and the rank is not known"


@transposed_twice.replace
def _(b: Builder, x: Value, root: Node, inner: Node) -> Value:
    first, second = permutation(inner), permutation(root)
    assert first is not None and second is not None
    return b.op("Transpose", x, perm=tuple(first[axis] for axis in second))


# A product takes its operands transposed as they lie: numpy hands the transposition on to the same call of BLAS.


@rule
def product_of_transposed_left(x: Var, y: Var) -> OpPattern:
    """MatMul(xᵀ, y) of matrices → Gemm(x, y, transA=1)."""
    return op("MatMul", op("Transpose", x), y)


@product_of_transposed_left.check
def _(x: Value, y: Value, root: Node) -> str | None:
    return _no_matrices(x, y, root.operand(0).producer)


@product_of_transposed_left.replace
def _(b: Builder, x: Value, y: Value) -> Value:
    return b.op("Gemm", x, y, transA=1)


@rule
def product_of_transposed_right(x: Var, y: Var) -> OpPattern:
    """MatMul(x, yᵀ) of matrices → Gemm(x, y, transB=1)."""
    return op("MatMul", x, op("Transpose", y))


@product_of_transposed_right.check
def _(x: Value, y: Value, root: Node) -> str | None:
    return _no_matrices(x, y, root.operand(1).producer)


@product_of_transposed_right.replace
def _(b: Builder, x: Value, y: Value) -> Value:
    return b.op("Gemm", x, y, transB=1)


def _no_matrices(x: Value, y: Value, transpose: Node | None) -> str | None:
    if x.rank != 2 or y.rank != 2:
        return f"{x!r} and {y!r} are not known to be matrices"
    return None if transpose is not None and permutation(transpose) == (1, 0) else "nothing is transposed"


@rule
def gemm_of_transposed_left(x: Var, inner: Var, flag: Var) -> OpPattern:
    """Gemm(xᵀ, y, c) → Gemm(x, y, c) with the other transA."""
    return op("Gemm", op("Transpose", x).bind(inner), ..., transA=flag)


@gemm_of_transposed_left.check
def _(inner: Node) -> str | None:
    return None if permutation(inner) == (1, 0) else "nothing is transposed"


@gemm_of_transposed_left.replace
def _(b: Builder, root: Node, x: Value, flag: int) -> Value:
    return b.op("Gemm", x, *root.inputs[1:], **{**root.attrs, "transA": 0 if flag else 1})


@rule
def gemm_of_transposed_right(x: Var, y: Var, inner: Var, flag: Var) -> OpPattern:
    """Gemm(x, yᵀ, c) → Gemm(x, y, c) with the other transB."""
    return op("Gemm", x, op("Transpose", y).bind(inner), ..., transB=flag)


@gemm_of_transposed_right.check
def _(inner: Node) -> str | None:
    return None if permutation(inner) == (1, 0) else "nothing is transposed"


@gemm_of_transposed_right.replace
def _(b: Builder, root: Node, x: Value, y: Value, flag: int) -> Value:
    return b.op("Gemm", x, y, *root.inputs[2:], **{**root.attrs, "transB": 0 if flag else 1})


# --- reshaping twice --------------------------------------------------------------------------------------------------

_SAME_ORDER = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


@rule
def reshaped_twice(x: Var, shape: Var) -> OpPattern:
    """Reshape(Reshape(x)) → Reshape(x), and likewise for what else keeps the order of the elements."""
    return op("Reshape", op(_SAME_ORDER, x, ...), shape)


@reshaped_twice.check
def _(root: Node, shape: Value) -> str | None:
    if root.attr("allowzero") or (shape.producer is not None and shape.producer.op.qualified_name == "Shape"):
        return None
    if shape.contents is None or not all(shape.contents):
        return f"{shape!r} may take a dimension over from what is reshaped (0 means that)"
    return None


@reshaped_twice.replace
def _(b: Builder, root: Node, x: Value, shape: Value) -> Value:
    return b.op("Reshape", x, shape, **root.attrs)


@rule
def reshaped_to_a_static_shape(x: Var, inner: Var) -> OpPattern:
    """Squeeze(Reshape(x)), Flatten(Unsqueeze(x)), ... → Reshape(x) where the shape is known."""
    return op(("Flatten", "Squeeze", "Unsqueeze"), op(_SAME_ORDER, x, ...).bind(inner), ...)


@reshaped_to_a_static_shape.check
def _(root: Node, inner: Node) -> str | None:
    if root.op is inner.op and root.op.name != "Flatten":
        return "the axes are merged instead"
    shape = root.outputs[0].tensor_type.static_shape
    return None if shape is not None and 0 not in shape else f"the shape of {root.outputs[0]!r} is not known"


@reshaped_to_a_static_shape.replace
def _(b: Builder, root: Node, x: Value) -> Value:
    return b.op("Reshape", x, b.ints(root.outputs[0].tensor_type.static_shape or ()))


@rule
def axes_put_in_and_taken_out(x: Var, inner: Var) -> OpPattern:
    """Squeeze(Unsqueeze(x, axes), axes) → x, and the other way round."""
    return op(("Squeeze", "Unsqueeze"), op(("Squeeze", "Unsqueeze"), x, ...).bind(inner), ...)


@axes_put_in_and_taken_out.check
def _(root: Node, inner: Node) -> str | None:
    if root.op is inner.op:
        return "both go the same way"
    first, second = ints_of(inner.input(1)), ints_of(root.input(1))
    if first is None or second is None:
        return "axes are not known"
    # Both count axes of the longer of the two shapes.
    if sorted(first) == sorted(second):
        return None
    rank = _rank(inner.outputs[0] if root.op.name == "Squeeze" else root.outputs[0])
    same = rank is not None and parsed_axes(first, rank) == parsed_axes(second, rank)
    return None if same else "the axes differ"


@axes_put_in_and_taken_out.replace
def _(x: Value) -> Value:
    return x


@rule
def axes_put_in_twice(x: Var, inner: Var) -> OpPattern:
    """Unsqueeze(Unsqueeze(x)) → Unsqueeze(x)."""
    return op("Unsqueeze", op("Unsqueeze", x, ...).bind(inner), ...)


@axes_put_in_twice.check
def _(root: Node, inner: Node) -> str | None:
    return None if _merged_axes(outer=root, inner=inner) is not None else "axes or ranks are not known"


@axes_put_in_twice.replace
def _(b: Builder, x: Value, root: Node, inner: Node) -> Value:
    return b.op("Unsqueeze", x, b.ints(_merged_axes(outer=root, inner=inner) or ()))


@rule
def axes_taken_out_twice(x: Var, inner: Var) -> OpPattern:
    """Squeeze(Squeeze(x)) → Squeeze(x)."""
    return op("Squeeze", op("Squeeze", x, ...).bind(inner), ...)


@axes_taken_out_twice.check
def _(root: Node, inner: Node) -> str | None:
    return None if _merged_axes(outer=inner, inner=root) is not None else "axes or ranks are not known"


@axes_taken_out_twice.replace
def _(b: Builder, x: Value, root: Node, inner: Node) -> Value:
    return b.op("Squeeze", x, b.ints(_merged_axes(outer=inner, inner=root) or ()))


def _merged_axes(*, outer: Node, inner: Node) -> tuple[int, ...] | None:
    """All axes of two Unsqueezes (or Squeezes), counted in the longest shape; None where something is not known.

    Args:
        outer: the one whose axes are counted in the longest shape: the second Unsqueeze, the first Squeeze.
        inner: the other one.
    """
    outer_axes, inner_axes = ints_of(outer.input(1)), ints_of(inner.input(1))
    longest = outer.outputs[0] if outer.op.name == "Unsqueeze" else outer.operand(0)
    rank = _rank(longest)
    if outer_axes is None or inner_axes is None or rank is None:
        return None
    outermost = parsed_axes(outer_axes, rank)
    rest = [axis for axis in range(rank) if axis not in outermost]
    return tuple(sorted((*outermost, *(rest[axis] for axis in inner_axes))))


def _rank(value: Value) -> int | None:
    return value.type.rank if isinstance(value.type, TensorType) else None


# --- expanding twice --------------------------------------------------------------------------------------------------


@rule
def expanded_twice(x: Var, shape: Var) -> OpPattern:
    """Expand(Expand(x), shape) → Expand(x, shape), where that is the whole shape of the result."""
    return op("Expand", op("Expand", x, ...), shape)


@expanded_twice.check
def _(root: Node, shape: Value) -> str | None:
    known = shape.contents
    whole = known is not None and None not in known and known == root.outputs[0].shape
    return None if whole else f"the result may be larger than {shape!r}"


@expanded_twice.replace
def _(b: Builder, x: Value, shape: Value) -> Value:
    return b.op("Expand", x, shape)


RULES: tuple[Rule, ...] = (
    to_the_same_shape,
    to_its_own_shape,
    padded_by_nothing,
    reduced_over_nothing,
    transposed_to_the_same_order,
    transposed_twice,
    product_of_transposed_left,
    product_of_transposed_right,
    gemm_of_transposed_left,
    gemm_of_transposed_right,
    reshaped_twice,
    axes_put_in_and_taken_out,
    axes_put_in_twice,
    axes_taken_out_twice,
    reshaped_to_a_static_shape,
    expanded_twice,
)
