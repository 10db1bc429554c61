"""Properties of the simplifications: bits, truth, idempotence, cost."""

from __future__ import annotations

import cProfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, PassError, TypeInferenceError
from irgrad.graph import Graph, Role, Value
from irgrad.passes.simplify import Canonicalize, CommonSubexpressions, DeadCode, Fold, Simplify, arithmetic, branches, layout
from irgrad.passes.simplify.facts import broadcast, fits_into, same_shape, uniform
from irgrad.pipeline import Pass, Pipeline
from irgrad.rewrite import rewrite
from irgrad.runtime import compile
from irgrad.text import parse_text, to_text
from irgrad.types import Shape, TensorType, types_compatible
from irgrad.verify import verify

GOLDEN = Path(__file__).parent.parent.parent / "golden"
PASSES: list[Pass] = [Canonicalize(), Fold(), CommonSubexpressions(), DeadCode(), Simplify()]

# --- random graphs ----------------------------------------------------------------------------------------------------

UNARY = ("Abs", "Floor", "Identity", "Neg", "Relu", "Sum", "Tanh")
BINARY = ("Add", "Div", "Max", "Mul", "Sub")
Maker = Callable[[Builder, Value, Value], Value]

MAKERS: dict[str, Maker] = {
    **{
        name: (lambda b, x, y, name=name: b.op(name, x))
        for name in ("Abs", "Floor", "Identity", "Neg", "Relu", "Tanh", "Sum")
    },
    **{name: (lambda b, x, y, name=name: b.op(name, x, y)) for name in ("Add", "Div", "Max", "Mul", "Sub")},
    **{
        f"{name} {number}": (lambda b, x, y, name=name, number=number: b.op(name, x, np.float32(number).reshape(())))
        for name in ("Add", "Div", "Mul", "Sub")
        for number in ("0", "-0.0", "1", "-1", "2")
    },
    "Where": lambda b, x, y: b.op("Where", x > y, x, y),
    "Where not": lambda b, x, y: b.op("Where", b.op("Not", x > y), x, y),
    "Where true": lambda b, x, y: b.op("Where", b.constant(True), x, y),
    "Expand": lambda b, x, y: b.op("Expand", x, b.op("Shape", y)),
    "Reshape": lambda b, x, y: b.op("Reshape", x, b.op("Shape", y)),
    "Reshape flat": lambda b, x, y: b.op("Reshape", x, b.ints([-1])),
    "Reshape rows": lambda b, x, y: b.op("Reshape", x, b.ints([-1, 3])),
    "Flatten": lambda b, x, y: b.op("Flatten", x),
    "Transpose": lambda b, x, y: b.op("Transpose", x),
    "Transpose 10": lambda b, x, y: b.op("Transpose", x, perm=(1, 0)),
    "Unsqueeze 0": lambda b, x, y: b.op("Unsqueeze", x, b.ints([0])),
    "Unsqueeze -1": lambda b, x, y: b.op("Unsqueeze", x, b.ints([-1])),
    "Squeeze 0": lambda b, x, y: b.op("Squeeze", x, b.ints([0])),
    "Squeeze -1": lambda b, x, y: b.op("Squeeze", x, b.ints([-1])),
    "Slice": lambda b, x, y: b.op("Slice", x, b.ints([0]), b.ints([2**40]), b.ints([0])),
    "Slice backwards": lambda b, x, y: b.op("Slice", x, b.ints([-1]), b.ints([-(2**40)]), b.ints([0]), b.ints([-1])),
    "Pad": lambda b, x, y: b.op("Pad", x, b.ints([0, 0]), None, b.ints([0])),
    "Concat": lambda b, x, y: b.op("Concat", x, axis=0),
    "Concat two": lambda b, x, y: b.op("Concat", x, y, axis=0),
    "Cast": lambda b, x, y: b.cast(b.cast(x, np.dtype(np.float64)), np.dtype(np.float32)),
    "Cast narrow": lambda b, x, y: b.cast(b.cast(x, np.dtype(np.float16)), np.dtype(np.float32)),
    "ReduceSum": lambda b, x, y: b.reduce_sum(x, [0], keepdims=True),
    "ReduceMax": lambda b, x, y: b.op("ReduceMax", x, b.ints([0])),
    "MatMul": lambda b, x, y: b.op("MatMul", x, y),
    "MatMul transposed": lambda b, x, y: b.op("MatMul", x, b.op("Transpose", y)),
    "SumTo": lambda b, x, y: b.op("irgrad.SumTo", x, b.op("Shape", y)),
    "Filled": lambda b, x, y: x * b.op("ConstantOfShape", b.op("Shape", y), value=np.ones(1, np.float32)),
    "Constant": lambda b, x, y: b.op("Mul", b.constant(np.float32([0.5, -0.0, 2])), b.constant(np.float32([1, -1, 4]))),
}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph("random")
    rows: Any = draw(st.sampled_from(["N", 2, None]))
    f32 = np.dtype(np.float32)
    shapes: list[Shape] = [(rows, 3), (3,), (), (rows, 1)]
    values = [graph.add_input(f"x{k}", TensorType(f32, shape)) for k, shape in enumerate(shapes)]
    values.append(graph.add_constant(np.float32([[1, -0.0, 3]]), "w", parameter=True))
    b = Builder(graph)
    for maker in draw(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=12)):
        # The latest values more often, so that operations stand upon operations.
        index = st.integers(0, len(values) - 1)
        x, y = values[max(draw(index), draw(index))], values[draw(index)]
        with b.at(role=draw(st.sampled_from([Role.FORWARD, Role.FORWARD, Role.BACKWARD, Role.RECOMPUTE]))):
            try:
                values.append(MAKERS[maker](b, x, y))
            except TypeInferenceError:
                continue
    last = [value for value in values if value.producer is not None and not value.users]
    returned = [*last, *draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))]
    graph.set_outputs({f"y{k}": value for k, value in enumerate(returned)})
    for value in draw(st.lists(st.sampled_from(values), max_size=2)):
        if types_compatible(value.type, returned[0].type):
            graph.gradients[value.name] = "y0"
    return graph


@st.composite
def feeds(draw: st.DrawFn) -> dict[str, np.ndarray]:
    numbers = st.sampled_from([0.0, -0.0, -0.0, 1.0, -1.0, 0.5, -2.75, 1e30, float("inf"), float("-inf"), float("nan")])

    def array(*shape: int) -> np.ndarray:
        size = int(np.prod(shape, dtype=int))
        return np.float32(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)

    return {"x0": array(2, 3), "x1": array(3), "x2": array(), "x3": array(2, 1)}


def run(graph: Graph, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.where(np.isnan(y), np.float32(np.nan), y) for name, y in compile(graph)(arrays).items()}


@settings(max_examples=200, deadline=None)
@given(graphs(), feeds())
def test_no_bit_changes(graph: Graph, arrays: dict[str, np.ndarray]) -> None:
    try:
        before = run(graph, arrays)
    except (ExecutionError, TypeInferenceError):
        assume(False)
    for pass_ in PASSES:
        result = Pipeline([pass_], truthful=True).apply(graph)
        verify(result, types=True)
        after = run(result, arrays)
        assert list(before) == list(after)
        for name, array in before.items():
            assert array.tobytes() == after[name].tobytes(), f"{name}\n{graph}\n{result}\n{array}\n{after[name]}"
        assert set(graph.gradients) <= {value.name for value in result.values()}
        assert list(result.inputs) == list(graph.inputs)


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_again_changes_nothing(graph: Graph) -> None:
    for pass_ in PASSES:
        once = Pipeline([pass_]).apply(graph)
        again = once.copy()
        assert not pass_.run(again)
        assert to_text(again, "full") == to_text(once, "full")


# --- the rules --------------------------------------------------------------------------------------------------------

RULES = [*arithmetic.RULES, *arithmetic.SIGNED_ZERO_RULES, *layout.RULES, *branches.RULES]


def test_names_of_rules_are_unique() -> None:
    assert max(Counter(rule.name for rule in RULES).values()) == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_has_a_golden_case_where_it_applies_and_one_where_it_does_not(rule: Any) -> None:
    applied, misses = 0, 0
    for path in (GOLDEN / "canonicalize").glob("*.ir"):
        report = rewrite(parse_text(path.read_text(encoding="utf-8")), [rule], explain=True)
        applied += report.applied[rule.name]
        misses += len(report.misses)
    assert applied
    assert misses or (rule._check is None and rule.pattern.depth == 1)


def test_rules_say_what_they_do() -> None:
    assert all(rule.__doc__ and "→" in rule.__doc__ for rule in RULES)


# --- facts ------------------------------------------------------------------------------------------------------------


def values_of(*shapes: Shape) -> list[Value]:
    graph = Graph()
    return [graph.add_input(f"x{k}", TensorType(np.dtype(np.float32), shape)) for k, shape in enumerate(shapes)]


def test_same_shape() -> None:
    for a, b, same in (
        ((2, "N"), (2, "N"), True),
        ((2, "N"), (2, "M"), False),
        ((2, None), (2, None), False),
        (None, None, False),
        ((), (), True),
    ):
        assert same_shape(*values_of(a, b)) == same


def test_fits_into() -> None:
    for small, large, fits in (
        ((), (None, 3), True),
        ((1, 1), (None, 3), True),
        (("N", 3), ("N", 3), True),
        ((None, 3), (None, 3), False),
        ((1, 1, 3), (2, 3), False),
        ((2,), (1,), False),
        (None, (2,), False),
        ((), None, False),
    ):
        assert fits_into(*values_of(small, large)) == fits


def test_broadcast() -> None:
    assert broadcast([(2, 1), (3,), ()]) == (2, 3)
    assert broadcast([("N", 1), ("N", 3)]) == ("N", 3)
    assert broadcast([(1,), (0,)]) == (0,)
    assert broadcast([("N",), ("M",)]) is None
    assert broadcast([("N",), (3,)]) is None
    assert broadcast([(None,), (1,)]) is None
    assert broadcast([None, (1,)]) is None
    assert broadcast([]) == ()


def test_uniform() -> None:
    graph = parse_text(
        """graph g {
          input %shape: i64[2]
          const %c: f32[3]{2.0}
          const %d: f32[2]{1.0,2.0}
          const %e: f32[0]{}
          const %z: f32[2]{0.0,-0.0}
          param %p: f32[3]{2.0}
          %filled = ConstantOfShape(%shape)
          %wide = Expand(%c, %shape)
          %turned = Transpose(%wide)
          output turned output filled
        }"""
    )
    assert uniform(graph.value("c")) == 2
    assert uniform(graph.value("turned")) == 2
    assert uniform(graph.value("filled")) == 0
    for name in ("d", "e", "z", "p", "shape"):
        assert uniform(graph.value(name)) is None
    assert uniform(None) is None


# --- options, names, cost ---------------------------------------------------------------------------------------------


def test_rounds_are_bounded() -> None:
    with pytest.raises(PassError, match="rounds must be at least 1, not 0"):
        Pipeline("simplify{rounds=0}").run(Graph())
    # Only when the two Tanh are one is there no choice left.
    graph = parse_text(
        """graph g { input %x: f32[2] input %c: bool[2]
           %a = Tanh(%x) %b = Tanh(%x) %d = Where(%c, %a, %b) output d }"""
    )
    assert len(Pipeline("simplify{rounds=1}").apply(graph)) == 2
    assert len(Pipeline("simplify").apply(graph)) == 1


def test_the_limit_of_folding_is_an_option() -> None:
    text = "graph g { const %n: i64[1]{100} %y = ConstantOfShape(%n) output y }"
    assert len(Pipeline("simplify{limit=99}").apply(parse_text(text))) == 1
    assert len(Pipeline("simplify{limit=100}").apply(parse_text(text))) == 0


def test_parameters_are_no_constants() -> None:
    text = "graph g { param %w: f32[2]{0.0} input %x: f32[2] %n = Neg(%w) %y = Mul(%x, %n) %z = Add(%y, %w) output z }"
    assert len(Pipeline("simplify").apply(parse_text(text))) == 3


def test_roles_and_origins_stay() -> None:
    text = """graph g { input %x: f32[2] %n = Neg(%x) %a = Add(%x, %n) backward of layer %t = Tanh(%a) @t recompute of t
              output t }"""
    result = Pipeline("simplify").apply(parse_text(text))
    node = result.node("a")
    assert (node.op.name, node.role, node.origin) == ("Sub", Role.BACKWARD, "layer")
    assert result.node("t").role is Role.RECOMPUTE


def chain(length: int) -> Graph:
    """Some of it folds, some is neutral, some repeats, some is dead."""
    graph = Graph()
    x = graph.add_input("x", TensorType(np.dtype(np.float32), ("N", 3)))
    value = x
    with Builder(graph) as b:
        for k in range(length):
            step = k % 5
            if step == 0:
                value = b.op("Tanh", value * 1)
            elif step == 1:
                value = b.op("Neg", b.op("Neg", value)) + b.op("Neg", x)
            elif step == 2:
                value = b.op("Reshape", value, b.op("Shape", value))
            elif step == 3:
                value = b.op("Tanh", value) * b.op("Tanh", value)
            else:
                b.op("Exp", value)
                value = value + b.op("Mul", b.constant(np.float32([1, 2, 3])), b.constant(np.float32([k, k, k])))
    graph.set_outputs({"y": value})
    return graph


@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
def test_cost_is_linear(pass_: Pass) -> None:
    pass_.run(chain(50))
    counts = []
    for length in (500, 1000, 2000):
        graph = chain(length)
        profile = cProfile.Profile()
        assert profile.runcall(pass_.run, graph)
        counts.append(sum(entry.callcount for entry in profile.getstats()))
        assert not pass_.run(graph)
    assert counts[1] < 2.1 * counts[0]
    assert counts[2] < 2.1 * counts[1]


def test_a_chain_of_100_000_nodes_is_simplified() -> None:
    lines = ["graph deep { input %v0: f32[2]"]
    lines += [f"%v{k + 1}: f32[2] = Neg(%v{k})" for k in range(100_000)]
    graph = parse_text("\n".join([*lines, "output v100000 }"]))
    assert Simplify().run(graph)
    assert len(graph) == 0
    assert graph.outputs["v100000"] is graph.inputs["v0"]


def test_many_equal_nodes_are_merged_at_once() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(np.dtype(np.float32), (2,)))
    b = Builder(graph)
    values = [b.op("Tanh", x) for _ in range(3000)]
    graph.set_outputs({f"y{k}": b.op("Neg", value) for k, value in enumerate(values)})
    assert CommonSubexpressions().run(graph)
    assert len(graph) == 2
    assert len(graph.outputs) == 3000


def test_casts_through_a_format_that_does_not_hold_all_numbers_stay() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(np.dtype(np.int64), (2,)))
    b = Builder(graph)
    middle = b.cast(x, np.dtype(np.float64))
    graph.set_outputs({"back": b.cast(middle, x.dtype), "on": b.cast(middle, np.dtype(np.float32))})
    simple = graph.copy()
    Simplify().run(simple)
    feeds = {"x": np.array([2**53 + 1, 2**61 + 2**37 + 1])}
    before, after = compile(graph)(feeds), compile(simple)(feeds)
    assert {name: array.tobytes() for name, array in before.items()} == {n: a.tobytes() for n, a in after.items()}


def test_a_split_with_an_empty_part_stays() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(np.dtype(np.float32), (3,)))
    b = Builder(graph)
    whole, empty = b.multi("Split", x, b.ints([3, 0]), outputs=2)
    graph.set_outputs({"whole": whole, "empty": empty})
    Simplify().run(graph)
    results = compile(graph)({"x": np.ones(3, np.float32)})
    assert (results["whole"].shape, results["empty"].shape) == ((3,), (0,))
