"""Drawings as text, and what must hold of every one of them.

IRGRAD_UPDATE_GOLDEN=1 writes the golden texts anew; look at the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import irgrad as ig
from irgrad.bundled import BUNDLED, bundled_model
from irgrad.drawing import Options, html_of, svg_of, to_dot, to_mermaid
from irgrad.drawing.diagram import Column, Diagram, EdgeKind, Kind
from irgrad.drawing.graphviz import dot_program
from irgrad.drawing.labels import cut, elements_text, shortened
from irgrad.drawing.layout import diagram_of
from irgrad.drawing.options import AUTO_BOXES
from irgrad.drawing.scopes import common_stem, scopes
from irgrad.errors import UsageError
from irgrad.graph import Graph
from irgrad.text import parse_text
from tests.drawing.graphs import CHOICE, JOINT, scoped

GOLDEN = Path(__file__).parent / "golden"
needs_dot = pytest.mark.skipif(dot_program() is None, reason="Graphviz is not installed")

CASES: dict[str, tuple[str, Options]] = {
    "joint": (JOINT, Options(origins=True)),
    "choice": (CHOICE, Options()),
    "around": (JOINT, Options(around="slope", radius=1, shapes=False)),
    "collapsed": (JOINT, Options(collapse=0)),
}


@pytest.mark.parametrize("format", ["dot", "mmd"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, format: str) -> None:
    text, options = CASES[case]
    drawn = (to_dot if format == "dot" else to_mermaid)(parse_text(text), options)
    path = GOLDEN / f"{case}.{format}"
    if os.environ.get("IRGRAD_UPDATE_GOLDEN"):
        path.write_text(drawn, encoding="utf-8")
    assert drawn == path.read_text(encoding="utf-8")


# --- what is drawn ----------------------------------------------------------------------------------------------------


def told_nodes(diagram: Diagram) -> int:
    """The number of nodes that the boxes of a drawing stand for."""
    groups = [int(box.lines[0].split()[0].replace(",", "")) for box in diagram.boxes if box.kind is Kind.GROUP]
    return sum(groups) + sum(box.kind is Kind.NODE for box in diagram.boxes)


def check(diagram: Diagram) -> None:
    for part in diagram.walk():
        ids = {box.id for box in part.boxes}
        assert len(ids) == len(part.boxes)
        for edge in part.edges:
            assert edge.source in ids
            assert edge.target in ids or edge.kind is EdgeKind.BODY
            assert edge.source != edge.target
        assert len({(edge.source, edge.target, edge.kind) for edge in part.edges}) == len(part.edges)
        for left, right in part.aligned:
            assert left in ids
            assert right in ids
        for box in part.boxes:
            assert max(map(len, (box.title, *box.lines))) <= 64


@pytest.mark.parametrize("model", BUNDLED)
@pytest.mark.parametrize(
    "options", [Options(), Options(collapse="none"), Options(collapse=1), Options(roles="backward")], ids=str
)
def test_every_node_is_in_a_box(model: str, options: Options) -> None:
    graph = ig.vjp(ig.load(bundled_model(model)))
    diagram = diagram_of(graph, options)
    check(diagram)
    wanted = [node for node in graph.nodes() if options.roles is None or node.role.value == options.roles]
    assert told_nodes(diagram) == len(wanted)
    if options.collapse == "auto":
        assert len(diagram.boxes) <= AUTO_BOXES + 5


@pytest.mark.parametrize("separator", ["/", "_"])
@pytest.mark.parametrize(("layers", "per_layer"), [(3, 4), (12, 20), (200, 10), (1, 1500)])
def test_long_chains_are_drawn_with_few_boxes(layers: int, per_layer: int, separator: str) -> None:
    graph = scoped(layers, per_layer, separator)
    diagram = diagram_of(graph, Options())
    check(diagram)
    assert told_nodes(diagram) == len(graph) == 2 * layers * per_layer
    assert 16 < len(diagram.boxes) <= AUTO_BOXES
    columns = diagram.columns()
    assert list(columns) == [Column.FORWARD, Column.BACKWARD]
    # A ladder: each forward box has its backward one beside it.
    assert len(diagram.aligned) == sum(box.kind in (Kind.NODE, Kind.GROUP) for box in columns[Column.FORWARD])


def test_layers_that_are_alike_are_opened_together() -> None:
    diagram = diagram_of(scoped(12, 20), Options())
    titles = [box.title for box in diagram.columns()[Column.FORWARD] if box.kind is Kind.GROUP]
    assert titles == [f"model/layer.{layer}/mlp" for layer in range(12)]


def test_collapse_by_depth() -> None:
    graph = scoped(3, 4)
    assert [box.title for box in diagram_of(graph, Options(collapse=0)).boxes if box.kind is Kind.GROUP] == [
        "model",
        "model",
    ]
    assert sum(box.kind is Kind.GROUP for box in diagram_of(graph, Options(collapse=1)).boxes) == 6
    assert sum(box.kind is Kind.NODE for box in diagram_of(graph, Options(collapse="none")).boxes) == 24


def test_the_same_graph_gives_the_same_text() -> None:
    texts = {to_dot(ig.vjp(ig.load(bundled_model("squeezenet")))) for _ in range(2)}
    assert len(texts) == 1


def test_around_goes_through_values_but_not_through_constants() -> None:
    graph = parse_text(JOINT)
    options = Options(around=graph.value("slope"), radius=1)
    names = [box.lines[0] for box in diagram_of(graph, options).boxes if box.kind is Kind.NODE]
    assert names == ["square", "slope", "dh"]
    one = diagram_of(graph, Options(around="fc.weight", radius=0))
    assert [box.lines[0] for box in one.boxes if box.kind is Kind.NODE] == ["fc/MatMul", "w_next"]


def test_only_takes_the_nodes_made_for_those_too() -> None:
    diagram = diagram_of(parse_text(JOINT), Options(only="fc/*"))
    assert [box.title for box in diagram.boxes if box.kind is Kind.NODE] == ["MatMul", "Gemm"]
    assert {box.title for box in diagram.boxes if box.kind is Kind.ELSEWHERE} == {"2 nodes", "Mul", "Sub"}


def test_depth_of_subgraphs() -> None:
    assert [body.title for body in diagram_of(parse_text(CHOICE), Options()).bodies] == [
        "then_branch of y",
        "else_branch of y",
    ]
    assert diagram_of(parse_text(CHOICE), Options(depth=0)).bodies == []


def test_scopes_of_parameters_where_nodes_have_none() -> None:
    graph = parse_text(
        """graph g opset 28 {
          input %x: f32[2,2]
          param %enc.layer.0.q.weight: f32[2,2]{0.5}
          param %enc.layer.0.k.weight: f32[2,2]{0.5}
          param %enc.layer.1.q.weight: f32[2,2]{0.5}
          %a: f32[2,2] = MatMul(%x, %enc.layer.0.q.weight)
          %b: f32[2,2] = Relu(%a)
          %c: f32[2,2] = MatMul(%b, %enc.layer.0.k.weight)
          %d: f32[2,2] = Relu(%c)
          %e: f32[2,2] = MatMul(%d, %enc.layer.1.q.weight)
          %f: f32[2,2] = Relu(%e)
          output f
        }"""
    )
    q, k, other = ("enc", "layer.0", "q"), ("enc", "layer.0", "k"), ("enc", "layer.1", "q")
    assert list(scopes(graph.nodes()).values()) == [q, ("enc", "layer.0"), k, ("enc",), other, other]


def test_an_empty_graph_can_be_drawn(tmp_path: Path) -> None:
    graph = Graph("empty")
    graph.draw(tmp_path / "empty.md")
    assert (tmp_path / "empty.md").read_text() == "```mermaid\nflowchart TB\n```\n"
    assert to_dot(graph).endswith("}\n")
    assert "0 nodes" in html_of(graph) or "<svg" in html_of(graph)


def test_names() -> None:
    assert shortened("short") == "short"
    long = "/model/bert/encoder/layer.11/attention/self/MatMul_1"
    assert shortened(long) == "…/layer.11/attention/self/MatMul_1"
    assert len(shortened("x" * 100)) == 34
    assert shortened("a\nb\0") == "a�b�"
    assert common_stem(["res2_0_branch2a_w", "res2_0_branch2b_b"]) == "res2_0"
    assert common_stem([]) == ""
    assert [elements_text(n) for n in (7, 999, 25_557_032, 7_000_000_000)] == ["7", "999", "25.6M", "7G"]
    assert cut("x" * 500).endswith("x…")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".dot", ".gv", ".mmd", ".md", ".MD"])
def test_formats_that_need_nothing(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    path = tmp_path / f"joint{ending}"
    ig.draw(parse_text(JOINT), path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith({".dot": "digraph", ".gv": "digraph", ".mmd": "flowchart"}.get(ending, "```mermaid"))


def test_without_graphviz_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"needs the program dot of Graphviz \(apt install graphviz.*\.dot, \.mmd or \.md"):
        parse_text(JOINT).draw(tmp_path / "joint.svg")
    assert list(tmp_path.iterdir()) == []
    assert "<table>" in html_of(parse_text(JOINT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "joint.jpeg"}, r"'joint.jpeg' does not say a format"),
        ({"path": "joint"}, r"does not say a format"),
        ({"collapse": "all"}, r'collapse is "auto", "none" or the depth'),
        ({"collapse": -1}, r"collapse is"),
        ({"collapse": True}, r"collapse is"),
        ({"depth": -1}, r"depth is a number from 0 on"),
        ({"radius": -1}, r"radius is a number from 0 on"),
        ({"roles": "sideways"}, r"no role 'sideways'; the roles are forward, backward"),
        ({"around": "slop"}, r"neither a node nor a value 'slop'; did you mean 'slope'"),
        ({"around": [3]}, r"3 is neither a node nor a value"),
        ({"only": "nobody*"}, r"nothing to draw: no node of the graph 'joint' passes only='nobody\*'"),
        ({"path": "nowhere/joint.dot"}, r"cannot be written"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        ig.draw(parse_text(JOINT), **{"path": "joint.dot", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_node_of_another_graph_is_refused() -> None:
    with pytest.raises(UsageError, match="neither a node nor a value of the graph"):
        to_dot(parse_text(JOINT), Options(around=parse_text(JOINT).node("slope")))


# --- pictures ---------------------------------------------------------------------------------------------------------


@needs_dot
@pytest.mark.parametrize(("ending", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
@pytest.mark.parametrize("text", [JOINT, CHOICE], ids=["joint", "choice"])
def test_pictures(ending: str, magic: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"drawn{ending}"
    parse_text(text).draw(path)
    assert path.read_bytes().startswith(magic)


def left_edges(svg: str) -> dict[str, float]:
    """Where the columns of a picture begin."""
    found = {}
    for cluster in svg.split('class="cluster"')[1:]:
        title = cluster.split("<title>")[1].split("</title>")[0].removeprefix("cluster_")
        path = cluster.split(' d="')[1].split('"')[0]
        found[title] = min(float(point.split(",")[0]) for point in path.replace("M", " ").replace("C", " ").split())
    return found


@needs_dot
@pytest.mark.parametrize("model", ["resnet50", "squeezenet", "vgg19", "alexnet"])
def test_forward_is_to_the_left(model: str) -> None:
    edges = left_edges(svg_of(ig.vjp(ig.load(bundled_model(model)), "parameters")))
    assert edges["forward"] < edges["backward"]


@needs_dot
def test_graphviz_has_limited_time() -> None:
    with pytest.raises(UsageError, match="has not laid the graph out within"):
        svg_of(parse_text(JOINT), timeout=1e-4)


@needs_dot
def test_names_of_all_kinds_reach_the_picture() -> None:
    graph = Graph('a\\b "c" ü \u2028')
    graph.set_outputs({'o"<br/>&\\N\nx': graph.add_input("<i>|{}é\x00\\", parse_text(CHOICE).value("y").type)})
    assert "&lt;i&gt;" in svg_of(graph)


# --- notebooks --------------------------------------------------------------------------------------------------------


@needs_dot
def test_a_notebook_shows_a_small_graph() -> None:
    html = parse_text(JOINT)._repr_html_()
    assert html.startswith("<svg")
    assert "width:100%" in html
    assert len(html) < 50_000


def test_a_notebook_shows_a_table_of_a_large_graph() -> None:
    html = ig.vjp(ig.load(bundled_model("resnet50")))._repr_html_()
    assert "forward (176)" in html
    assert "25.6M elements" in html
    assert "gradients of: gpu_0/data_0 <i>f32[1,3,224,224]</i>" in html
    assert len(html) < 5_000


def test_a_notebook_shows_a_broken_graph() -> None:
    graph = parse_text(JOINT)
    graph.set_input(graph.node("fc/MatMul"), 0, graph.value("dh"))
    html = graph._repr_html_()
    assert "the graph has a cycle" in html
    graph.set_outputs([graph.value("x")])
    assert graph._repr_html_().startswith("<pre>")
