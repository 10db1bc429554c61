"""Rules of arithmetic and logic that change no bit of any result.

That rules out much of school algebra: x·0 is not 0 where x may be infinite or nan, x + 0 is not x where x may be −0, and
sums and products of floating-point numbers are not associative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.passes.simplify.facts import (
    broadcast,
    fits_into,
    is_negative_zero,
    is_positive_zero,
    is_unused,
    same_shape,
    uniform,
)
from irgrad.pattern import OpPattern, Rule, Var, maybe, op, rule
from irgrad.types import is_differentiable

__all__ = ["RULES", "SIGNED_ZERO_RULES"]


# --- neutral elements -------------------------------------------------------------------------------------------------


def _float(dtype: np.dtype) -> bool:
    return is_differentiable(dtype) or dtype.kind == "c"


def _neutral_sum(c: np.ndarray) -> bool:
    # x + 0 turns −0 into 0; x + (−0) is x for every x.
    return c.dtype.kind != "c" and (is_negative_zero(c) if _float(c.dtype) else bool(c == 0))


def _neutral_difference(c: np.ndarray) -> bool:
    return c.dtype.kind != "c" and (is_positive_zero(c) if _float(c.dtype) else bool(c == 0))


_NEUTRAL: dict[str, Callable[[np.ndarray], bool]] = {
    "Add": _neutral_sum,
    "And": lambda c: bool(c),
    "BitShift": lambda c: not c,
    "BitwiseAnd": lambda c: bool(c == ~np.zeros((), c.dtype)),
    "BitwiseOr": lambda c: not c,
    "BitwiseXor": lambda c: not c,
    "Div": lambda c: bool(c == 1),
    "Mul": lambda c: bool(c == 1),
    "Or": lambda c: not c,
    "Pow": lambda c: bool(c == 1),
    "Sub": _neutral_difference,
    "Xor": lambda c: not c,
}
"""Operation → whether an element is neutral on the right (and on the left where the operation commutes)."""


def _changes(x: Value, c: Value, neutral: Callable[[np.ndarray], bool]) -> str | None:
    """Why an operation on x and c is more than x, or None."""
    element = uniform(c)
    if element is None:
        return f"the elements of {c!r} are not known to be all the same"
    if not neutral(element):
        return f"{element} is not neutral"
    return None if fits_into(c, x) else f"{c!r} may widen {x!r}"


@rule
def neutral_element(x: Var, c: Var) -> OpPattern:
    """x·1, x/1, x + (−0), x − 0, x ∧ true, ... → x."""
    return op(tuple(_NEUTRAL), x, c)


@neutral_element.check
def _(x: Value, c: Value, root: Node) -> str | None:
    if root.op.name == "Pow" and not _float(x.dtype):
        return "a power of integers may be computed in floating point"
    return _changes(x, c, _NEUTRAL[root.op.name])


@neutral_element.replace
def _(x: Value) -> Value:
    return x


@rule
def zero_of_either_sign(x: Var, c: Var) -> OpPattern:
    """X + 0, x − (−0) → x, which may be off by the sign of a zero."""
    return op(("Add", "Sub"), x, c)


@zero_of_either_sign.check
def _(x: Value, c: Value) -> str | None:
    return _changes(x, c, lambda element: bool(element == 0))


@zero_of_either_sign.replace
def _(x: Value) -> Value:
    return x


# --- negation and other functions of one operand ----------------------------------------------------------------------


@rule
def involution(x: Var, inner: Var) -> OpPattern:
    """f(f(x)) → x for functions that are their own inverse to the last bit."""
    return op(("BitwiseNot", "Neg", "Not"), op(("BitwiseNot", "Neg", "Not"), x).bind(inner))


@involution.check
def _(root: Node, inner: Node) -> str | None:
    return None if root.op is inner.op else f"{inner.op.name} is not the inverse of {root.op.name}"


@involution.replace
def _(x: Value) -> Value:
    return x


_IDEMPOTENT = ("Abs", "Ceil", "Floor", "Relu", "Round", "Sign")


@rule
def idempotent(x: Var, inner: Var) -> OpPattern:
    """f(f(x)) → f(x)."""
    return op(_IDEMPOTENT, op(_IDEMPOTENT, x).bind(inner))


@idempotent.check
def _(root: Node, inner: Node) -> str | None:
    return None if root.op is inner.op else f"{root.op.name} of {inner.op.name} does something"


@idempotent.replace
def _(inner: Node) -> Value:
    return inner.outputs[0]


@rule
def sign_dropped(x: Var) -> OpPattern:
    """|−x| → |x|."""
    return op("Abs", op("Neg", x))


@sign_dropped.replace
def _(b: Builder, x: Value) -> Value:
    return b.op("Abs", x)


@rule
def sum_with_negated(x: Var, y: Var) -> OpPattern:
    """X + (−y) → x − y."""
    return op("Add", x, op("Neg", y))


@sum_with_negated.replace
def _(x: Value, y: Value) -> Value:
    return x - y


@rule
def difference_with_negated(x: Var, y: Var) -> OpPattern:
    """X − (−y) → x + y."""
    return op("Sub", x, op("Neg", y))


@difference_with_negated.replace
def _(x: Value, y: Value) -> Value:
    return x + y


@rule
def both_negated(x: Var, y: Var) -> OpPattern:
    """(−x)·(−y) → x·y, (−x)/(−y) → x/y."""
    return op(("Div", "Mul"), op("Neg", x), op("Neg", y))


@both_negated.check
def _(root: Node) -> str | None:
    # The smallest integer has no negative; its quotient with −1 overflows.
    return None if root.op.name == "Mul" or _float(root.outputs[0].dtype) else "integer division overflows"


@both_negated.replace
def _(b: Builder, root: Node, x: Value, y: Value) -> Value:
    return b.op(root.op.name, x, y)


@rule
def times_minus_one(x: Var, c: Var) -> OpPattern:
    """x·(−1) → −x."""
    return op("Mul", x, c)


@times_minus_one.check
def _(x: Value, c: Value) -> str | None:
    if x.dtype.kind in "ub":
        return f"{x!r} has no negative"
    return _changes(x, c, lambda element: bool(element == -1))


@times_minus_one.replace
def _(x: Value) -> Value:
    return -x


# --- operations that do nothing ---------------------------------------------------------------------------------------


@rule
def identity(x: Var) -> OpPattern:
    """Identity, Clip without bounds, and sums, extremes, means and concatenations of one operand → the operand."""
    return op(("Clip", "Concat", "Identity", "Max", "Mean", "Min", "Sum"), x)


@identity.replace
def _(x: Value) -> Value:
    return x


@rule
def dropout_at_inference(x: Var, ratio: Var, training: Var) -> OpPattern:
    """Dropout that drops nothing, and of which nobody wants the mask → its operand."""
    return op("Dropout", x, maybe(ratio), maybe(training))


@dropout_at_inference.check
def _(root: Node, ratio: Value | None, training: Value | None) -> str | None:
    element = uniform(training)
    off = training is None or (element is not None and not element)
    fraction = uniform(ratio)
    if not off and (fraction is None or fraction != 0):
        return "it is not known to be switched off"
    return None if all(map(is_unused, root.outputs[1:])) else "its mask is used"


@dropout_at_inference.replace
def _(root: Node, x: Value) -> tuple[Value | None, ...]:
    return (x, *[None] * (len(root.outputs) - 1))


# --- choices ----------------------------------------------------------------------------------------------------------


@rule
def constant_choice(condition: Var, x: Var, y: Var) -> OpPattern:
    """Where(true, x, y) → x, Where(false, x, y) → y."""
    return op("Where", condition, x, y)


@constant_choice.check
def _(condition: Value, root: Node) -> str | None:
    element = uniform(condition)
    if element is None:
        return f"{condition!r} is not known"
    chosen = root.operand(1 if element else 2)
    return None if same_shape(chosen, root.outputs[0]) else f"{chosen!r} may be widened"


@constant_choice.replace
def _(condition: Value, x: Value, y: Value) -> Value:
    return x if uniform(condition) else y


@rule
def no_choice(condition: Var, x: Var) -> OpPattern:
    """Where(c, x, x) → x."""
    return op("Where", condition, x, x)


@no_choice.check
def _(condition: Value, x: Value) -> str | None:
    return None if fits_into(condition, x) else f"{condition!r} may widen {x!r}"


@no_choice.replace
def _(x: Value) -> Value:
    return x


@rule
def negated_choice(condition: Var, x: Var, y: Var) -> OpPattern:
    """Where(¬c, x, y) → Where(c, y, x)."""
    return op("Where", op("Not", condition), x, y)


@negated_choice.replace
def _(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    return b.op("Where", condition, y, x)


# --- casts ------------------------------------------------------------------------------------------------------------


def _cast_options(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.attrs.items() if key != "to"}


@rule
def cast_to_itself(x: Var) -> OpPattern:
    """Cast to the dtype that it has already → the operand."""
    return op("Cast", x)


@cast_to_itself.check
def _(x: Value, root: Node) -> str | None:
    return None if x.dtype == root.outputs[0].dtype else f"{x!r} has another dtype"


@cast_to_itself.replace
def _(x: Value) -> Value:
    return x


_DIGITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}  # of the significand, the implicit one counted


def _holds(wide: np.dtype, narrow: np.dtype) -> bool:
    """Whether each number of one dtype is one of the other: unlike numpy's idea of it, not those of int64 in float64."""
    if narrow.kind in "iu" and np.iinfo(narrow).bits - (narrow.kind == "i") > _DIGITS.get(wide.name, 64):
        return False
    return np.can_cast(narrow, wide, "safe")


@rule
def cast_of_cast(x: Var, inner: Var, to: Var) -> OpPattern:
    """Cast(Cast(x)) → Cast(x), where the first one loses nothing."""
    return op("Cast", op("Cast", x).bind(inner), to=to)


@cast_of_cast.check
def _(x: Value, inner: Node, root: Node) -> str | None:
    middle, last = inner.outputs[0].dtype, root.outputs[0].dtype
    if _cast_options(inner) or _cast_options(root):
        return "the casts say how to round"
    if any(d.kind not in "biuf" and d.name != "bfloat16" for d in (x.dtype, middle, last)):
        return "strings and small formats have rules of their own"
    if not _holds(middle, x.dtype):
        return f"{middle} does not hold all of {x.dtype}"
    # What a float out of range becomes as an integer is nobody's promise, and not what an integer out of range becomes.
    through_float = is_differentiable(middle) and last.kind in "iu" and not np.can_cast(x.dtype, last, "safe")
    return f"numbers of {x.dtype} may not fit {last}" if through_float else None


@cast_of_cast.replace
def _(b: Builder, x: Value, to: int) -> Value:
    return b.cast(x, np.dtype(helper.tensor_dtype_to_np_dtype(to)))


# --- broadcasting that happens anyway ---------------------------------------------------------------------------------

_BROADCASTING = (
    *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor"),
)


def _without_expands(node: Node) -> list[Value]:
    """The operands, an Expand among them replaced by its own operand wherever the others still give the same shape."""
    operands = [node.operand(k) for k in range(len(node.inputs))]
    wanted = node.outputs[0].shape
    for position, value in enumerate(operands):
        maker = value.producer
        if maker is not None and maker.op.qualified_name == "Expand":
            fewer = [*operands[:position], maker.operand(0), *operands[position + 1 :]]
            if wanted is not None and broadcast([v.shape for v in fewer]) == wanted:
                operands = fewer
    return operands


@rule
def expanded_operand() -> OpPattern:
    """f(Expand(x), y) → f(x, y), where f broadcasts its operands to the same shape by itself."""
    return op(_BROADCASTING, ...)


@expanded_operand.check
def _(root: Node) -> str | None:
    return None if tuple(_without_expands(root)) != root.inputs else "no operand is expanded in vain"


@expanded_operand.replace
def _(b: Builder, root: Node) -> Value:
    return b.node(root.op, _without_expands(root), root.attrs).outputs[0]


RULES: tuple[Rule, ...] = (
    identity,
    neutral_element,
    involution,
    idempotent,
    sign_dropped,
    sum_with_negated,
    difference_with_negated,
    both_negated,
    times_minus_one,
    dropout_at_inference,
    constant_choice,
    no_choice,
    negated_choice,
    cast_to_itself,
    cast_of_cast,
    expanded_operand,
)
SIGNED_ZERO_RULES: tuple[Rule, ...] = (zero_of_either_sign,)
"""Rules that may turn −0 into 0 or the other way round, for those who do not mind."""
