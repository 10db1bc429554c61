"""Rules that take sequences apart whose elements are known, and optionals that are known to hold something or nothing.

What is left are tensors: a SplitToSequence becomes a Split, a ConcatFromSequence a Concat, and what is between them goes.
"""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.passes.simplify.facts import ints_of, is_positive_zero, uniform
from irgrad.pattern import OpPattern, Rule, Var, maybe, op, rule
from irgrad.types import OptionalType

__all__ = ["RULES"]

_MOST = 64  # parts: a longer sequence stays one

# --- making them ------------------------------------------------------------------------------------------------------


@rule
def split_into_known_parts(x: Var, sizes: Var, axis: Var) -> OpPattern:
    """SplitToSequence(x) into parts of known sizes → SequenceConstruct(Split(x))."""
    return op("SplitToSequence", x, maybe(sizes), axis=axis)


@split_into_known_parts.check
def _(root: Node) -> str | None:
    known = _part_sizes(root)
    if known is None:
        return "the sizes of the parts are not known"
    return None if 0 < len(known) <= _MOST else f"there are {len(known)} parts"


@split_into_known_parts.replace
def _(b: Builder, root: Node, x: Value, sizes: Value | None, axis: int) -> Value:
    known = _part_sizes(root)
    assert known is not None
    parts = b.multi("Split", x, b.ints(known), outputs=len(known), axis=axis)
    if sizes is None and not root.attr("keepdims"):
        parts = tuple(b.op("Squeeze", part, b.ints([axis])) for part in parts)
    return b.op("SequenceConstruct", *parts)


def _part_sizes(node: Node) -> tuple[int, ...] | None:
    """The sizes of the parts of a SplitToSequence where they are known and add up."""
    x, sizes = node.operand(0), node.input(1)
    length = None if x.shape is None else x.shape[node.attr("axis")]
    given = (1,) if sizes is None else ints_of(sizes)
    if not isinstance(length, int) or given is None:
        return None
    if sizes is None or sizes.rank == 0:
        (chunk,) = given
        if chunk < 1 or length > chunk * _MOST:
            return None
        return tuple(min(chunk, length - start) for start in range(0, length, chunk))
    return given if sum(given) == length and min(given, default=0) >= 0 else None


@rule
def insertion_into_known_elements(elements: Var, x: Var, position: Var) -> OpPattern:
    """SequenceInsert(SequenceConstruct(...), x) → SequenceConstruct(..., x, ...)."""
    return op("SequenceInsert", op(("SequenceConstruct", "SequenceEmpty"), ...).bind(elements), x, maybe(position))


@insertion_into_known_elements.check
def _(elements: Node, position: Value | None) -> str | None:
    return _no_place(position, len(elements.inputs) + 1, first=-len(elements.inputs))


@insertion_into_known_elements.replace
def _(b: Builder, elements: Node, x: Value, position: Value | None) -> Value:
    others = list(elements.inputs)
    others.insert(_number(position, len(others)), x)
    return b.op("SequenceConstruct", *others)


@rule
def erasure_from_known_elements(elements: Var, position: Var) -> OpPattern:
    """SequenceErase(SequenceConstruct(x, y, ...)) → SequenceConstruct(y, ...)."""
    return op("SequenceErase", op("SequenceConstruct", ...).bind(elements), maybe(position))


@erasure_from_known_elements.check
def _(elements: Node, position: Value | None) -> str | None:
    if len(elements.inputs) == 1:
        return "nothing would be left, and an empty sequence has a type that says less"
    return _no_place(position, len(elements.inputs))


@erasure_from_known_elements.replace
def _(b: Builder, elements: Node, position: Value | None) -> Value:
    others = list(elements.inputs)
    del others[_number(position, -1)]
    return b.op("SequenceConstruct", *others)


@rule
def zeros_of_known_elements(elements: Var) -> OpPattern:
    """SequenceZeros(SequenceConstruct(x, y)) → SequenceConstruct of zeros."""
    return op("irgrad.SequenceZeros", op("SequenceConstruct", ...).bind(elements))


@zeros_of_known_elements.replace
def _(b: Builder, elements: Node) -> Value:
    return b.op("SequenceConstruct", *map(b.zeros_like, _elements(elements)))


@rule
def sum_of_known_elements() -> OpPattern:
    """SequenceSum(SequenceConstruct(x, y), SequenceConstruct(z, w)) → SequenceConstruct(x + z, y + w)."""
    return op("irgrad.SequenceSum", ...)


@sum_of_known_elements.check
def _(root: Node) -> str | None:
    makers = [value.producer for value in root.inputs if value is not None]
    if any(maker is None or maker.op.qualified_name != "SequenceConstruct" for maker in makers):
        return "not all elements are known"
    counts = {len(maker.inputs) for maker in makers if maker is not None}
    return None if len(counts) == 1 else "the sequences have different lengths"


@sum_of_known_elements.replace
def _(b: Builder, root: Node) -> Value:
    makers = [value.producer for value in root.inputs if value is not None]
    rows = zip(*(_elements(maker) for maker in makers if maker is not None), strict=True)
    return b.op("SequenceConstruct", *(b.total(_without_zeros(row)) for row in rows))


def _without_zeros(values: tuple[Value, ...]) -> list[Value]:
    """Those that are not known to be zero, which SequenceSum leaves out; one where all are."""
    numbers = [uniform(value) for value in values]
    filled = [v for v, number in zip(values, numbers, strict=True) if number is None or not is_positive_zero(number)]
    return filled or [values[0]]


# --- reading them -----------------------------------------------------------------------------------------------------


@rule
def known_element(elements: Var, position: Var) -> OpPattern:
    """SequenceAt(SequenceConstruct(x, y), 1) → y."""
    return op("SequenceAt", op("SequenceConstruct", ...).bind(elements), position)


@known_element.check
def _(elements: Node, position: Value) -> str | None:
    return _no_place(position, len(elements.inputs))


@known_element.replace
def _(elements: Node, position: Value) -> Value | None:
    return elements.inputs[_number(position, -1)]


@rule
def known_length(elements: Var) -> OpPattern:
    """SequenceLength(SequenceConstruct(x, y)) → 2."""
    return op("SequenceLength", op(("SequenceConstruct", "SequenceEmpty"), ...).bind(elements))


@known_length.replace
def _(b: Builder, elements: Node) -> Value:
    return b.constant(np.array(len(elements.inputs), np.int64))


@rule
def known_sizes(elements: Var, axis: Var) -> OpPattern:
    """SequenceSizes(SequenceConstruct(x, y)) → their sizes along an axis."""
    return op("irgrad.SequenceSizes", op("SequenceConstruct", ...).bind(elements), axis=axis)


@known_sizes.replace
def _(b: Builder, elements: Node, axis: int) -> Value:
    end = None if axis == -1 else axis + 1
    sizes = [b.op("Shape", x, start=axis, end=end) for x in _elements(elements)]
    return sizes[0] if len(sizes) == 1 else b.op("Concat", *sizes, axis=0)


@rule
def join_of_known_elements(elements: Var, axis: Var) -> OpPattern:
    """ConcatFromSequence(SequenceConstruct(x, y)) → Concat(x, y)."""
    return op("ConcatFromSequence", op("SequenceConstruct", ...).bind(elements), axis=axis)


@join_of_known_elements.replace
def _(b: Builder, root: Node, elements: Node, axis: int) -> Value:
    parts = _elements(elements)
    if root.attr("new_axis"):
        parts = [b.op("Unsqueeze", part, b.ints([axis])) for part in parts]
    return parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=axis)


def _elements(node: Node) -> list[Value]:
    return [node.operand(k) for k in range(len(node.inputs))]


def _number(position: Value | None, default: int) -> int:
    known = ints_of(position)
    return default if known is None else known[0]


def _no_place(position: Value | None, count: int, first: int | None = None) -> str | None:
    """Why a position is not known to be one of so many places."""
    if position is None:
        return None if count else "there is no element"
    known = ints_of(position)
    if known is None:
        return f"{position!r} is not known"
    return None if (-count if first is None else first) <= known[0] < count else f"there is no element {known[0]}"


# --- optionals --------------------------------------------------------------------------------------------------------


@rule
def element_of_what_is_there(x: Var) -> OpPattern:
    """OptionalGetElement(Optional(x)) → x."""
    return op("OptionalGetElement", op("Optional", x))


@element_of_what_is_there.check
def _(x: Value) -> str | None:
    return _maybe_nothing(x)


@element_of_what_is_there.replace
def _(x: Value) -> Value:
    return x


@rule
def element_of_no_optional(x: Var) -> OpPattern:
    """OptionalGetElement(x) of a tensor or a sequence → x."""
    return op("OptionalGetElement", x)


@element_of_no_optional.check
def _(x: Value) -> str | None:
    return _maybe_nothing(x)


@element_of_no_optional.replace
def _(x: Value) -> Value:
    return x


def _maybe_nothing(x: Value) -> str | None:
    return f"{x!r} may hold nothing" if isinstance(x.type, OptionalType) else None


@rule
def presence_of_what_is_known(x: Var) -> OpPattern:
    """OptionalHasElement(Optional(x)) → true, OptionalHasElement(Optional()) → false."""
    return op("OptionalHasElement", op("Optional", maybe(x)))


@presence_of_what_is_known.check
def _(x: Value | None) -> str | None:
    return None if x is None else _maybe_nothing(x)


@presence_of_what_is_known.replace
def _(b: Builder, x: Value | None) -> Value:
    return b.constant(np.array(x is not None))


@rule
def presence_of_no_optional(x: Var) -> OpPattern:
    """OptionalHasElement(x) of a tensor or a sequence → true, of an absent operand → false."""
    return op("OptionalHasElement", maybe(x))


@presence_of_no_optional.check
def _(x: Value | None) -> str | None:
    return None if x is None else _maybe_nothing(x)


@presence_of_no_optional.replace
def _(b: Builder, x: Value | None) -> Value:
    return b.constant(np.array(x is not None))


RULES: tuple[Rule, ...] = (
    split_into_known_parts,
    insertion_into_known_elements,
    erasure_from_known_elements,
    zeros_of_known_elements,
    sum_of_known_elements,
    known_element,
    known_length,
    known_sizes,
    join_of_known_elements,
    element_of_what_is_there,
    element_of_no_optional,
    presence_of_what_is_known,
    presence_of_no_optional,
)
