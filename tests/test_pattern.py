"""Patterns, rules and their application."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.compare import graphs_equal
from irgrad.errors import PassError
from irgrad.graph import Graph, Node, Role, Value
from irgrad.pattern import OpPattern, Rule, Var, anything, constant, either, maybe, op, rule
from irgrad.rewrite import Miss, RewriteReport, rewrite
from irgrad.text import parse_text, to_text
from irgrad.types import TensorType
from irgrad.verify import verify


def body(text: str) -> Graph:
    """A graph with inputs x, y, z of two floats, and lines of its own."""
    inputs = " ".join(f"input %{name}: f32[2]" for name in "xyz")
    return parse_text(f"graph g {{ {inputs}\n{text} }}")


def nodes_of(graph: Graph) -> list[str]:
    """The lines of the nodes without their types."""
    return [repr(node) for node in graph.nodes()]


def apply(text: str, *rules: Rule, **options: Any) -> tuple[list[str], RewriteReport]:
    graph = body(text)
    report = rewrite(graph, rules, **options)
    verify(graph, types=True)
    return nodes_of(graph), report


@rule
def double_negation(x: Var) -> OpPattern:
    """−(−x) → x."""
    return op("Neg", op("Neg", x))


@double_negation.replace
def _(x: Value) -> Value:
    return x


# --- what patterns match ----------------------------------------------------------------------------------------------


def matched(text: str, pattern: OpPattern, *names: str) -> dict[str, Any] | None:
    """What the last node's match binds, values by their names."""

    found = Rule(lambda: pattern).match(body(text).nodes()[-1])
    if found is None:
        return None
    return {name: getattr(found[name], "name", found[name]) for name in names}


X, Y, Z = Var("x"), Var("y"), Var("z")


def test_a_variable_is_the_same_value_everywhere() -> None:
    assert matched("%a = Sub(%x, %x)", op("Sub", X, X), "x") == {"x": "x"}
    assert matched("%a = Sub(%x, %y)", op("Sub", X, X)) is None


def test_operands_are_counted() -> None:
    assert matched("%a = Sum(%x, %y)", op("Sum", X)) is None
    assert matched("%a = Sum(%x)", op("Sum", X), "x") == {"x": "x"}
    assert matched("%a = Sum(%x)", op("Sum", X, Y)) is None
    assert matched("%a = Sum(%x, %y, %z)", op("Sum", X, ...), "x") == {"x": "x"}
    assert matched("%a: f32[2] = Clip(%x, _, _)", op("Clip", X), "x") == {"x": "x"}


def test_absent_operands() -> None:
    assert matched("%a: f32[2] = Clip(%x, _, %y)", op("Clip", X, maybe(Y), maybe(Z)), "y", "z") == {"y": None, "z": "y"}
    assert matched("%a: f32[2] = Clip(%x, _, %y)", op("Clip", X, Y, Z)) is None
    assert matched("%a: f32[2] = Clip(%x, _, %y)", op("Clip", X, anything, Z), "z") == {"z": "y"}


def test_commutative_operations_match_in_either_order() -> None:
    pattern = op("Add", op("Neg", X), Y)
    assert matched("%n = Neg(%x) %a = Add(%y, %n)", pattern, "x", "y") == {"x": "x", "y": "y"}
    assert matched("%n = Neg(%x) %a = Sub(%y, %n)", op("Sub", op("Neg", X), Y)) is None
    assert matched("%n = Neg(%x) %a = Max(%y, %n)", op("Max", op("Neg", X), Y)) is None
    assert matched("%n = Neg(%x) %a = Max(%y, %n)", op("Max", op("Neg", X), Y, commutes=True), "y") == {"y": "y"}
    assert matched("%n = Neg(%x) %a = Add(%y, %n)", op("Add", op("Neg", X), Y, commutes=False)) is None


def test_commuting_inside_backtracks() -> None:
    text = "%m = Mul(%y, %x) %a = Add(%m, %x)"
    assert matched(text, op("Add", op("Mul", X, Y), X), "x", "y") == {"x": "x", "y": "y"}


def test_attributes() -> None:
    text = "%a: f32[2] = LeakyRelu(%x, alpha=0.5)"
    assert matched(text, op("LeakyRelu", X, alpha=0.5)) == {}
    assert matched(text, op("LeakyRelu", X, alpha=0.25)) is None
    assert matched(text, op("LeakyRelu", X, alpha=Y), "y") == {"y": 0.5}
    assert matched("%a: f32[2] = LeakyRelu(%x)", op("LeakyRelu", X, alpha=float(np.float32(0.01)))) == {}
    assert matched("%a: f32[2] = Transpose(%x)", op("Transpose", X, perm=Y), "y") == {"y": None}
    assert matched("%a: f32[2] = Transpose(%x, perm=[0])", op("Transpose", X, perm=[0])) == {}


def test_an_attribute_variable_is_the_same_everywhere() -> None:
    pattern = op("LeakyRelu", op("LeakyRelu", X, alpha=Y), alpha=Y)
    assert matched("%a = LeakyRelu(%x, alpha=0.5) %b = LeakyRelu(%a, alpha=0.5)", pattern) == {}
    assert matched("%a = LeakyRelu(%x, alpha=0.5) %b = LeakyRelu(%a, alpha=1.0)", pattern) is None


def test_constants_are_no_parameters() -> None:
    pattern = op("Add", X, constant(Y))
    assert matched("const %c: f32[]{1.0} %a = Add(%x, %c)", pattern, "y") == {"y": "c"}
    assert matched("param %c: f32[]{1.0} %a = Add(%x, %c)", pattern) is None
    assert matched("%a = Add(%x, %y)", pattern) is None


def test_either_and_bind() -> None:
    pattern = op(("Add", "Sub"), either(op("Neg", X).bind(Var("n")), op("Abs", Y)), Z, commutes=False)
    assert matched("%n = Neg(%x) %a = Sub(%n, %z)", pattern, "x", "y", "n") == {"x": "x", "y": None, "n": "n"}
    assert matched("%n = Abs(%x) %a = Add(%n, %z)", pattern, "x", "y", "n") == {"x": None, "y": "x", "n": None}
    assert matched("%n = Exp(%x) %a = Add(%n, %z)", pattern) is None


def test_further_outputs() -> None:
    text = "%p, %q = Split(%x, num_outputs=2) %a = Neg(%q)"
    assert matched(text, op("Neg", op("Split", X).output(1)), "x") == {"x": "x"}
    assert matched(text, op("Neg", op("Split", X))) is None


def test_depth() -> None:
    assert op("Neg", X).depth == 1
    assert op("Add", op("Neg", either(X, op("Exp", X))), X).depth == 3


# --- rules ------------------------------------------------------------------------------------------------------------


def test_functions_may_ask_for_variables_only() -> None:
    @rule
    def some(x: Var) -> OpPattern:
        return op("Neg", x)

    with pytest.raises(PassError, match=r"rule 'some' asks for 'y'.*there are: b, match, root, x"):

        @some.replace
        def _(y: Value) -> Value:
            return y

    with pytest.raises(PassError, match="asks for 'b'"):

        @some.check
        def _(b: Builder) -> None:
            return None


def test_variables_must_stand_in_the_pattern() -> None:
    with pytest.raises(PassError, match="the variable 'y' of the rule 'some' does not stand in its pattern"):

        @rule
        def some(x: Var, y: Var) -> OpPattern:
            return op("Neg", x)


def test_operands_of_patterns_are_patterns() -> None:
    with pytest.raises(PassError, match="these are not"):
        op("Add", ..., X)
    with pytest.raises(PassError, match="these are not"):
        op("Add", 1, X)  # type: ignore[arg-type]


def test_a_rule_needs_a_replacement() -> None:
    @rule
    def incomplete(x: Var) -> OpPattern:
        return op("Neg", x)

    with pytest.raises(PassError, match="'incomplete' has no replacement"):
        apply("%a = Neg(%x) output a", incomplete)


# --- rewriting --------------------------------------------------------------------------------------------------------


def test_a_chain_collapses() -> None:
    chain = "%n0 = Neg(%x)\n" + "".join(f"%n{k} = Neg(%n{k - 1})\n" for k in range(1, 7)) + "output y = %n6"
    lines, report = apply(chain, double_negation)
    assert len(lines) == 1
    assert report.applied == {"double_negation": 3}
    assert report.changed


def test_nothing_to_do() -> None:
    lines, report = apply("%a = Neg(%x) output a", double_negation)
    assert lines == ["%a = Neg(%x)"]
    assert not report.changed


def test_outputs_keep_their_names() -> None:
    graph = body("%a = Neg(%x) %b = Neg(%a) output b output again = %b output a")
    rewrite(graph, [double_negation])
    assert {name: value.name for name, value in graph.outputs.items()} == {"b": "x", "again": "x", "a": "a"}
    assert nodes_of(graph) == ["%a = Neg(%x)"]


@rule
def tanh_of_sum(x: Var, y: Var) -> OpPattern:
    return op("Tanh", op("Add", x, y))


@tanh_of_sum.replace
def _(b: Builder, x: Value, y: Value) -> Value:
    return b.op("Sigmoid", b.op("Mul", x, y))


def test_the_replacement_takes_the_roots_place() -> None:
    graph = body(
        """%s = Add(%x, %y)
        %t = Tanh(%s) @theTanh backward of layer
        %e = Exp(%x)
        %f = Add(%t, %e)
        output f"""
    )
    rewrite(graph, [tanh_of_sum])
    verify(graph, types=True)
    assert nodes_of(graph) == ["%Mul = Mul(%x, %y)", "%t = Sigmoid(%Mul)", "%e = Exp(%x)", "%f = Add(%t, %e)"]
    made = graph.value("t").producer
    assert made is not None
    assert (made.name, made.role, made.origin) == ("theTanh", Role.BACKWARD, "layer")
    inner = graph.node("Mul")
    assert (inner.role, inner.origin) == (Role.BACKWARD, "layer")
    assert graph.node("e").role is Role.FORWARD


def test_values_inside_with_other_uses_stay() -> None:
    lines, _ = apply("%s = Add(%x, %y) %t = Tanh(%s) %f = Mul(%t, %s) output f", tanh_of_sum)
    assert lines == ["%s = Add(%x, %y)", "%Mul = Mul(%x, %y)", "%t = Sigmoid(%Mul)", "%f = Mul(%t, %s)"]


@rule(exclusive=True)
def exclusively(x: Var, y: Var) -> OpPattern:
    return op("Tanh", op("Add", x, y))


@exclusively.replace
def _(b: Builder, x: Value, y: Value) -> Value:
    return b.op("Sub", x, y)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("%s = Add(%x, %y) %t = Tanh(%s) %f = Mul(%t, %s) output f", "%s: f32[2] inside the pattern is also used by 'f'"),
        ("%s = Add(%x, %y) %t = Tanh(%s) output t output s", "%s: f32[2] inside the pattern is an output of the graph"),
        ("%s = Add(%x, %y) %t = Tanh(%s) output t gradient s = t", "%s: f32[2] inside the pattern has a gradient"),
    ],
)
def test_exclusive_rules_want_them_unused(text: str, reason: str) -> None:
    _, report = apply(text, exclusively, explain=True)
    assert report.misses == [Miss("exclusively", "t", reason)]
    assert not report.changed


@rule
def exp_of_negated(x: Var) -> OpPattern:
    return op("Exp", op("Neg", x))


@exp_of_negated.replace
def _(b: Builder) -> Value:
    return b.op("Sqrt", b.graph.value("z"))


def test_exclusive_rules_are_tried_again_when_uses_go_away() -> None:
    lines, report = apply(
        "%s = Add(%x, %y) %t = Tanh(%s) %n = Neg(%s) %e = Exp(%n) %f = Mul(%t, %e) output f", exclusively, exp_of_negated
    )
    assert report.applied == {"exclusively": 1, "exp_of_negated": 1}
    assert lines == ["%t = Sub(%x, %y)", "%e = Sqrt(%z)", "%f = Mul(%t, %e)"]


def test_values_with_a_gradient_keep_existing() -> None:
    graph = body("%a = Neg(%x) %b = Neg(%a) %c = Tanh(%b) output c gradient b = c gradient a = c")
    assert rewrite(graph, [double_negation]).changed
    verify(graph)
    assert nodes_of(graph) == ["%a = Neg(%x)", "%b = Neg(%a)", "%c = Tanh(%x)"]
    assert not rewrite(graph, [double_negation]).changed


def test_new_values_take_over_names_that_have_a_gradient() -> None:
    graph = body("%s = Add(%x, %y) %t = Tanh(%s) %f = Exp(%t) output f gradient t = f")
    rewrite(graph, [tanh_of_sum])
    assert nodes_of(graph) == ["%Mul = Mul(%x, %y)", "%t = Sigmoid(%Mul)", "%f = Exp(%t)"]


@rule
def split_in_halves(x: Var) -> OpPattern:
    return op("Split", x)


@split_in_halves.check
def _(root: Node) -> str | None:
    return None if len(root.outputs) == 2 else "it has not two outputs"


@split_in_halves.replace
def _(b: Builder, x: Value, root: Node) -> tuple[Value | None, ...]:
    first = b.op("Slice", x, b.ints([0]), b.ints([1]))
    second = b.op("Slice", x, b.ints([1]), b.ints([2])) if root.outputs[1].users else None
    return first, second


def test_roots_of_several_outputs() -> None:
    lines, _ = apply("%p, %q = Split(%x, num_outputs=2) %s = Add(%p, %q) output s", split_in_halves)
    assert lines == ["%p = Slice(%x, %const, %const_1)", "%q = Slice(%x, %const_1, %const_2)", "%s = Add(%p, %q)"]
    lines, _ = apply("%p, %q = Split(%x, num_outputs=2) output p", split_in_halves)
    assert lines == ["%p = Slice(%x, %const, %const_1)"]


def test_nothing_in_place_of_a_used_output_is_an_error() -> None:
    with pytest.raises(PassError, match=r"'split_in_halves' failed at the node 'p': it returned nothing in place of %q"):
        apply("%p, %q = Split(%x, num_outputs=2) output p output q", split_in_halves)


def failing(results: Any) -> Rule:
    @rule
    def wrong(x: Var) -> OpPattern:
        return op("Neg", x)

    @wrong.replace
    def _(b: Builder, root: Node, x: Value) -> Any:
        return results(b, root, x)

    return wrong


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (lambda b, root, x: (x, x), "it returned 2 results for 1 outputs"),
        (lambda b, root, x: root.outputs[0], "it returned %a: f32"),
        (lambda b, root, x: 3, "it returned 3 in place of %a"),
        (lambda b, root, x: b.op("ReduceSum", x, keepdims=0), r"it would put %ReduceSum: f32\[\] in place of %a: f32\[2\]"),
        (lambda b, root, x: {}["key"], "KeyError"),
    ],
)
def test_wrong_replacements_are_errors(results: Any, message: str) -> None:
    with pytest.raises(PassError, match=f"the rule 'wrong' failed at the node 'a': .*{message}"):
        apply("%a = Neg(%x) output a", failing(results))


def test_replacements_without_a_type_are_taken_back() -> None:
    graph = body("%a = Neg(%x) output a")
    before = graph.copy()
    untyped = failing(lambda b, root, x: b.op("MatMul", b.op("Exp", x), b.ints([1, 2, 3, 4, 5])))
    report = rewrite(graph, [untyped], explain=True)
    assert not report.changed
    assert [miss.reason.split(":")[0] for miss in report.misses] == ["its replacement has no type"]
    assert graphs_equal(graph, before) is None


def test_rules_without_an_end_are_stopped() -> None:
    endless = failing(lambda b, root, x: b.op("Neg", b.op("Abs", x)))
    with pytest.raises(PassError, match=r"do not come to an end; applied were wrong \(21 times\)"):
        apply("%a = Neg(%x) output a", endless, limit=20)
    with pytest.raises(PassError, match="do not come to an end"):
        apply("%a = Neg(%x) output a", endless)


def test_what_was_known_of_a_value_is_kept() -> None:
    graph = parse_text(
        """graph g { input %x: i64[?] %n: i64[?] = Neg(%x) %t: i64[2]{3,4} = Abs(%n) output t }""",
    )

    @rule
    def abs_of_negated(x: Var) -> OpPattern:
        return op("Abs", op("Neg", x))

    @abs_of_negated.replace
    def _(b: Builder, x: Value) -> Value:
        return b.op("Abs", x)

    rewrite(graph, [abs_of_negated])
    value = graph.value("t")
    assert value.type == TensorType(np.dtype(np.int64), (2,))
    assert value.contents == (3, 4)
    assert graph.value("x").shape == (None,)


def test_unused_emissions_are_removed() -> None:
    wasteful = failing(lambda b, root, x: (b.op("Exp", b.op("Tanh", x)), b.op("Abs", x))[1])
    lines, _ = apply("%a = Neg(%x) output a", wasteful)
    assert lines == ["%a = Abs(%x)"]


def test_dead_nodes_are_not_rewritten() -> None:
    _, report = apply("%a = Neg(%x) %b = Neg(%a) output x", double_negation)
    assert not report.changed


# --- near misses ------------------------------------------------------------------------------------------------------


@rule
def explained(x: Var, c: Var) -> OpPattern:
    return op("Add", op("Neg", x), constant(c))


@explained.check
def _(c: Value) -> str | None:
    return None if c.constant is not None and c.constant.size == 1 else f"{c!r} is no scalar"


@explained.replace
def _(x: Value) -> Value:
    return x


def test_near_misses_are_explained_on_request() -> None:
    text = """const %c: f32[2]{1.0}
      %n = Neg(%x) %a = Add(%n, %c) %b = Add(%n, %y) %d = Add(%x, %y) %e = Sub(%n, %c)
      output a output b output d output e"""
    _, report = apply(text, explained, explain=True)
    assert report.misses == [
        Miss("explained", "a", "%c: f32[2] is no scalar; %c is made by no node, not by Neg"),
        Miss("explained", "b", "%y is no constant; %y is made by no node, not by Neg"),
        Miss("explained", "d", "%x is made by no node, not by Neg; %y is made by no node, not by Neg"),
    ]
    _, report = apply(text, explained)
    assert report.misses == []


def test_misses_of_nodes_that_were_rewritten_later_are_gone() -> None:
    _, report = apply("%a = Neg(%x) %b = Neg(%a) output b", double_negation, explain=True)
    assert report.misses == []


# --- cost -------------------------------------------------------------------------------------------------------------


def test_attempts_grow_linearly() -> None:
    def attempts(length: int, pattern: str) -> int:
        lines = [f"%v0 = {pattern}(%x)"] + [f"%v{k} = {pattern}(%v{k - 1})" for k in range(1, length)]
        graph = body("\n".join(lines) + f"\noutput v{length - 1}")
        return rewrite(graph, [double_negation, tanh_of_sum]).attempts

    for op_name, each in (("Neg", 3), ("Abs", 0), ("Tanh", 1)):
        for length in (100, 200, 1000):
            assert attempts(length, op_name) <= each * length


def test_a_value_of_many_users_costs_no_more_for_each() -> None:
    @rule
    def no_identity(x: Var) -> OpPattern:
        return op("Identity", x)

    @no_identity.replace
    def _(x: Value) -> Value:
        return x

    def attempts(count: int) -> int:
        lines = [f"%i{k} = Identity(%x) %n{k} = Neg(%i{k}) output n{k}" for k in range(count)]
        return rewrite(body("\n".join(lines)), [no_identity, double_negation]).attempts

    assert attempts(200) <= 2 * attempts(100)
    assert attempts(400) <= 4 * attempts(100)


def test_the_result_does_not_depend_on_the_process() -> None:
    texts = set()
    for _ in range(5):
        graph = body("%s = Add(%x, %y) %t = Tanh(%s) %u = Tanh(%s) %n = Neg(%t) %m = Neg(%n) %f = Mul(%m, %u) output f")
        rewrite(graph, [tanh_of_sum, double_negation])
        texts.add(to_text(graph))
    assert len(texts) == 1
