"""The pass `fuse`: what each rule takes and leaves, results before and after, time; tests/golden/fuse has its text."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irgrad as ig
from irgrad.builder import Builder
from irgrad.cli import main
from irgrad.errors import PassError
from irgrad.graph import Graph, Node, Role
from irgrad.op import Op
from irgrad.passes.fusion import clusters
from irgrad.passes.fusion.fuse import Fuse, explain
from irgrad.passes.fusion.members import elementwise
from irgrad.passes.fusion.rules import RULES, FusionRule
from irgrad.runtime import tiles
from irgrad.testing import assert_same_results, random_graph
from irgrad.types import TensorType

EXPORTS = Path(__file__).parents[2] / "data" / "exports"


def fused_nodes(graph: Graph) -> list[Node]:
    return [node for inner in graph.walk() for node in inner.nodes() if node.op.name == "Fused"]


def members(graph: Graph) -> list[list[str]]:
    """The operations inside of each group."""
    return [[inner.op.name for inner in node.attrs["body"].nodes()] for node in fused_nodes(graph)]


def parsed(lines: str) -> Graph:
    return ig.parse_text(f"graph g {{\n{lines}\n}}")


def run(graph: Graph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return ig.compile(graph, fuse=False, fast=False)(feeds)


# --- each rule, with and without a match ------------------------------------------------------------------------------

TAKEN = {
    "map": "%b = Mul(%x, %row)\n%c = Where(%mask, %b, %x)\n%d = Cast(%c, to=11)\noutput d",
    "map: layouts": "%s = ReduceMax(%x, %one, keepdims=0)\n%t = Unsqueeze(%s, %one)\n%d = Sub(%x, %t)\noutput d",
    "rows: softmax": "%b = Mul(%x, %row)\n%c = Softmax(%b, axis=1)\noutput c",
    "rows: its adjoint": "%b = Mul(%x, %row)\n%c = irgrad.SoftmaxGrad(%x, %b, axis=1)\noutput c",
    "rows: layer norm": "%b = LayerNormalization(%x, %row, %row)\n%c = Relu(%b)\noutput c",
    "rows: its adjoint, sums": (
        "%b = Neg(%x)\n%c, %d, %e = irgrad.LayerNormalizationGrad(%b, %x, %row)\noutput c\noutput d\noutput e"
    ),
    "rows: RMS norm": "%b = RMSNormalization(%x, %row)\n%c = Relu(%b)\noutput c",
    "rows: group norm": "%b = GroupNormalization(%image, %few, %few, num_groups=2)\n%c = Relu(%b)\noutput c",
    "rows: instance norm": "%b = InstanceNormalization(%image, %few, %few)\n%c = Relu(%b)\noutput c",
    "rows: mean and variance": "%b = MeanVarianceNormalization(%image, axes=[2, 3])\n%c = Relu(%b)\noutput c",
    "reductions: rows": "%b = ReduceLogSumExp(%x, %one)\n%c = Sub(%x, %b)\noutput c",
    "reductions: sums": "%b = Neg(%x)\n%c = ReduceSum(%b, %nought, keepdims=0)\n%d = ReduceMean(%b)\noutput c\noutput d",
    "reductions: sum to": "%b = Neg(%x)\n%c = irgrad.SumTo(%b, %shape)\noutput c",
    "channels": "%b = BatchNormalization(%image, %few, %few, %few, %few)\n%c = Relu(%b)\noutput c",
    "channels: training": (
        "%b, %mean, %v = BatchNormalization(%image, %few, %few, %few, %few, training_mode=1)\n%c = Relu(%b)\n"
        "output c\noutput v"
    ),
    "channels: adjoint": (
        "%b = Neg(%image)\n%c, %d, %e = irgrad.BatchNormalizationGrad(%b, %image, %few, training_mode=1)\noutput c\noutput d"
    ),
    "losses": "%b = Mul(%x, %row)\n%l = SoftmaxCrossEntropyLoss(%b, %labels)\noutput l",
    "losses: each sample": '%b = Mul(%x, %row)\n%l = SoftmaxCrossEntropyLoss(%b, %labels, reduction="none")\noutput l',
    "losses: adjoint": (
        "%b = irgrad.SoftmaxCrossEntropyLossGrad(%half, %x, %labels)\n%c = ReduceSum(%b, %nought, keepdims=0)\noutput c"
    ),
}

LEFT = {
    "map: a shape that is not known": ("%b = Neg(%loose)\n%c = Abs(%b)\noutput c", "is not known"),
    "map: sizes that may differ": ("%b = Add(%n, %m)\n%c = Abs(%b)\noutput c", "is not known"),
    "map: strings": ("%b = Equal(%text, %text)\n%c = Not(%b)\noutput c", "no tensor of numbers"),
    "rows: of one row each": ("%b = Neg(%row)\n%c = Softmax(%b, axis=0)\n%d = Mul(%x, %c)\noutput d", "computed again"),
    "reductions: their axes are fed": ("%b = Neg(%x)\n%c = ReduceSum(%b, %axes)\noutput c", "axes are not known"),
    "reductions: what reads the sum": (
        "%b = Neg(%x)\n%c = ReduceSum(%b, %nought, keepdims=0)\n%d = Abs(%c)\noutput d",
        "summed over all",
    ),
    "reductions: 16 bits": ("%b = irgrad.SumTo(%h16, %shape)\noutput b", "no sum over leading axes"),
    "losses: weights": (
        "%b = Mul(%x, %row)\n%l = SoftmaxCrossEntropyLoss(%b, %labels, %row)\noutput l",
        "weights that depend on the labels",
    ),
    "losses: ignored labels": (
        "%b = Mul(%x, %row)\n%l = SoftmaxCrossEntropyLoss(%b, %labels, ignore_index=3)\noutput l",
        "weights that depend on the labels",
    ),
    "no rule": ("%b = Neg(%x)\n%c = Transpose(%b)\noutput c", "no rule fuses Transpose"),
    "random": ("%b = Neg(%x)\n%c = RandomNormalLike(%b)\noutput c", "no rule fuses RandomNormalLike"),
    "too small": ("%b = Neg(%few)\n%c = Abs(%b)\noutput c", "fewer than"),
}

HEAD = """
  input %x: f32[400,48]
  input %row: f32[48]
  input %mask: bool[400,48]
  input %labels: i64[400]
  input %image: f32[16,16,12,12]
  input %few: f32[16]
  input %loose: f32[?,3]
  input %n: f32[N]
  input %m: f32[M]
  input %h16: f16[400,48]
  input %text: str[5]
  input %axes: i64[1]
  const %half: f32[]{0.5}
  const %one: i64[1]{1}
  const %nought: i64[1]{0}
  const %shape: i64[2]{1,48}
"""


def with_head(lines: str) -> Graph:
    graph = parsed(HEAD + lines)
    for value in list(graph.inputs.values()):
        if not value.users:
            graph.erase(value)
    return graph


def feeds_for(graph: Graph) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    feeds = {}
    for name, value in graph.inputs.items():
        shape = value.tensor_type.static_shape
        if value.dtype.kind == "b":
            feeds[name] = generator.random(shape) < 0.5
        elif value.dtype.kind == "i":
            feeds[name] = generator.integers(0, 48, shape)
        else:
            feeds[name] = np.abs(generator.standard_normal(shape)).astype(value.dtype) + value.dtype.type(0.1)
    return feeds


@pytest.mark.parametrize("name", TAKEN)
def test_a_rule_that_matches(name: str) -> None:
    graph = with_head(TAKEN[name])
    result = ig.apply(graph, [Fuse(min_elements=0)], truthful=True)
    ig.verify(result, types=True)
    assert len(result) == len(fused_nodes(result)) == 1, explain(graph, Fuse(min_elements=0))
    feeds = feeds_for(graph)
    want, got = run(graph, feeds), run(result, feeds)
    for key, array in want.items():
        assert got[key].dtype == array.dtype
        np.testing.assert_allclose(got[key], array, rtol=2e-6, atol=2e-6 * np.abs(array).max())
    again = ig.parse_text(ig.to_text(result, "full"))
    assert ig.graphs_equal(again, result) is None
    assert_same_results(graph, ig.apply(result, "unfuse", truthful=True), rtol=1e-5, atol=1e-5, feeds=feeds)


@pytest.mark.parametrize("name", LEFT)
def test_a_rule_that_does_not_match_says_why(name: str) -> None:
    lines, why = LEFT[name]
    graph = with_head(lines)
    fuse = Fuse() if name == "too small" else Fuse(min_elements=0)
    reasons = [reason for _, reason in explain(graph, fuse)]
    assert any(why in reason for reason in reasons), reasons
    result = ig.apply(graph, [fuse])
    assert len(result) > 1 or not fused_nodes(result)


@pytest.mark.parametrize("rule", sorted({rule.name for rule in RULES}))
def test_each_rule_can_be_switched_off(rule: str) -> None:
    graph = with_head(next(lines for name, lines in TAKEN.items() if name.partition(":")[0] == rule))
    off = Fuse(min_elements=0, skip=[rule])
    assert any(f"the rule {rule!r} is switched off" in reason for _, reason in explain(graph, off))
    mine = {op for r in RULES if r.name == rule for op in r.ops}
    result = ig.apply(graph, [off])
    assert not any(node.op.qualified_name in mine for f in fused_nodes(result) for node in f.attrs["body"].nodes())


def test_a_rule_of_a_plugin() -> None:
    twice = Op("Twice", domain="mine", kernel=lambda x, out=None: np.multiply(x, 2, out=out))
    twice.infer(lambda call: [call.tensor(0)])
    graph = Graph("g")
    b = Builder(graph)
    x = graph.add_input("x", TensorType(np.dtype(np.float32), (300, 100)))
    with b:
        y = b.node(twice, [b.op("Neg", x)]).outputs[0] + 1
    graph.set_outputs({"y": y})
    assert not fused_nodes(ig.apply(graph, "fuse"))
    result = ig.apply(graph, [Fuse(more=[FusionRule("mine", frozenset(["mine.Twice"]), elementwise)])])
    assert members(result) == [["Neg", "Twice", "Add"]]
    array = np.ones((300, 100), np.float32)
    np.testing.assert_array_equal(run(result, {"x": array})["y"], -2 * array + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("fuse{max_nodes=0}", "max_nodes must be at least 1"),
        ("fuse{skip=[row]}", "no rule of fusion 'row'; did you mean 'rows'"),
    ],
)
def test_options_that_are_none(options: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        ig.apply(with_head(TAKEN["map"]), options)


def test_limits_hold() -> None:
    graph = Graph("g")
    b = Builder(graph)
    values = [graph.add_input(f"x{k}", TensorType(np.dtype(np.float32), (300, 100))) for k in range(40)]
    with b:
        total = values[0]
        for value in values[1:]:
            total = b.op("Tanh", total) + value
    graph.set_outputs({"y": total})
    result = ig.apply(graph, "fuse{max_operands=5,max_nodes=7}")
    assert fused_nodes(result)
    for node in fused_nodes(result):
        assert len(node.inputs) <= 5
        assert len(node.attrs["body"]) <= 7


def test_roles_origins_and_rules_of_members_are_kept() -> None:
    x = with_head("%b = Tanh(%x)\n%c = Gelu(%b)\n%l = ReduceSum(%c, keepdims=0)\noutput l")
    joint = ig.apply(ig.grad(x, wrt=["x"]), "simplify")
    before = {node.name: (node.role, node.origin, node.rule) for node in joint.nodes()}
    result = ig.apply(joint, "fuse")
    inside = [node for fused in fused_nodes(result) for node in fused.attrs["body"].nodes()]
    assert {node.name: (node.role, node.origin, node.rule) for node in inside}.items() <= before.items()
    for fused in fused_nodes(result):
        assert {node.role for node in fused.attrs["body"].nodes()} == {fused.role}
    backward = next(node for node in fused_nodes(result) if node.role is Role.BACKWARD)
    assert backward.origin == "c + b"
    assert result.gradients == joint.gradients
    taken_apart = ig.apply(result, "unfuse")
    assert {node.name: (node.role, node.origin, node.rule) for node in taken_apart.nodes()} == before


def test_the_same_graph_is_fused_in_the_same_way() -> None:
    joint = ig.apply(ig.vjp(random_graph(7, size=30)), "simplify")
    results = [ig.apply(joint, "fuse{min_elements=0}") for _ in range(3)]
    assert {ig.to_text(result) for result in results} == {ig.to_text(results[0])}


# --- results before and after -----------------------------------------------------------------------------------------


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small graphs are run tile by tile too, a few elements at a time."""
    monkeypatch.setattr(clusters, "WHOLE", 0)
    monkeypatch.setattr(clusters, "_ROWS", 2)
    monkeypatch.setattr(clusters, "_SUMS", 0)
    monkeypatch.setattr(tiles, "WHOLE", 0)
    monkeypatch.setattr(tiles, "_TILE", 5)
    monkeypatch.setattr(tiles, "_WORTH", 0)


def check_random(seed: int, size: int) -> None:
    graph = random_graph(seed, size=size)
    for current in (graph, ig.apply(ig.vjp(graph), "simplify")):
        result = ig.apply(current, "fuse{min_elements=0}", truthful=True)
        ig.verify(result, types=True)
        assert not Fuse(min_elements=0).run(result)
        assert_same_results(current, result, rtol=1e-9, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 25))
def test_random_graphs(seed: int, size: int) -> None:
    check_random(seed, size)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("tiny_tiles")
def test_random_graphs_in_tiny_tiles(seed: int) -> None:
    check_random(seed, 12)


@pytest.mark.parametrize("name", ["llama-traced", "vit-optimised", "resnet-train"])
@pytest.mark.usefixtures("tiny_tiles")
def test_exported_models(name: str) -> None:
    graph = ig.load(EXPORTS / f"{name}.onnx")
    wrt = [key for key, array in graph.parameters.items() if array.size > 1]
    joint = ig.apply(ig.vjp(graph, wrt=wrt), "simplify")
    result = ig.apply(joint, "fuse{min_elements=0}")
    ig.verify(result, types=True)
    assert len(fused_nodes(result)) > 5
    assert_same_results(joint, result, rtol=1e-3, atol=1e-4)


# --- time -------------------------------------------------------------------------------------------------------------


def calls_to_fuse(graph: Graph) -> int:
    """How many functions of Python are called."""
    count = 0

    def watch(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(watch)
    try:
        Fuse().groups(graph)
    finally:
        sys.setprofile(None)
    return count


def chain(length: int) -> Graph:
    graph = Graph("chain")
    x = value = graph.add_input("x", TensorType(np.dtype(np.float32), (256, 256)))
    with Builder(graph) as b:
        for k in range(length):
            value = b.op("MatMul", value, x) if k % 7 == 6 else b.op("Tanh", value) if k % 2 else value + x
    graph.set_outputs({"y": value})
    return graph


def star(length: int) -> Graph:
    graph = Graph("star")
    x = graph.add_input("x", TensorType(np.dtype(np.float32), (256, 256)))
    with Builder(graph) as b:
        graph.set_outputs({f"y{k}": b.op("Tanh" if k % 2 else "Sin", x) for k in range(length)})
    return graph


@pytest.mark.parametrize("make", [chain, star])
def test_the_time_grows_with_the_number_of_nodes(make) -> None:
    few, many = make(2_000), make(20_000)
    assert calls_to_fuse(many) < 13 * calls_to_fuse(few)


# --- what else is done with graphs ------------------------------------------------------------------------------------


def small_step() -> Graph:
    """A perceptron with its gradients, fused."""
    graph = parsed(
        """
        input %x: f32[6,5]
        input %labels: i64[6]
        param %w: f32[5,4]{0.3}
        param %b: f32[4]{0.1}
        %m = MatMul(%x, %w)
        %h = Add(%m, %b)
        %g = Gelu(%h, approximate="tanh")
        %loss = SoftmaxCrossEntropyLoss(%g, %labels)
        output loss
        """
    )
    return ig.apply(ig.grad(graph, wrt="parameters"), "simplify")


def test_a_fused_graph_is_written_in_standard_operations_or_with_functions() -> None:
    joint = small_step()
    result = ig.apply(joint, "fuse{min_elements=0}")
    assert len(fused_nodes(result)) == 2
    plain, functions = ig.to_onnx(result), ig.to_onnx(result, functions=True)
    assert not plain.functions
    assert {f.name for f in functions.functions} == {node.attrs["body"].name for node in fused_nodes(result)}
    for model in (plain, functions):
        again = ig.load(model)
        assert_same_results(joint, again, rtol=1e-5, atol=1e-6)
        assert {node.role for node in again.nodes()} == {node.role for node in joint.nodes()}
        assert again.gradients == joint.gradients


def test_the_gradient_of_a_fused_graph_is_that_of_its_nodes() -> None:
    graph = with_head("%b = Mul(%x, %row)\n%c = Tanh(%b)\n%d = Softmax(%c)\noutput d")
    fused = ig.apply(graph, "fuse")
    assert len(fused) == 1
    assert_same_results(ig.vjp(graph), ig.vjp(fused), rtol=1e-5, atol=1e-6)


def test_costs_count_the_arithmetic_inside_and_the_bytes_outside() -> None:
    graph = with_head("%b = Mul(%x, %row)\n%c = Neg(%b)\n%d = Abs(%c)\noutput d")
    apart, together = ig.cost(graph).total(), ig.cost(ig.apply(graph, "fuse")).total()
    assert together.flops == apart.flops == 3 * 400 * 48
    assert together.written * 3 == apart.written
    assert together.read == 4 * (400 * 48 + 48)


def test_the_command_says_what_is_not_fused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.ir"
    path.write_text(str(with_head("%b = Neg(%x)\n%c = Transpose(%b)\noutput c")), encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["opt", str(path), "-p", "simplify,fuse", "--explain-fusion"])
    printed = capsys.readouterr()
    assert "not fused: c (Transpose): no rule fuses Transpose" in printed.out + printed.err
