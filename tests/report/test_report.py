"""The report: what is in it, that nothing in a model gets out of hand in it, its size, and that a browser shows it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.cli import main
from irgrad.errors import UsageError
from irgrad.graph import Graph, Role
from irgrad.report.facts import gather
from irgrad.report.page import page
from irgrad.report.plot import plot
from irgrad.report.units import bytes_text, count_text, flops_text
from irgrad.text import parse_text
from tests.report.chromium import BROWSER, Page

EVIL = "<script>document.title='owned'</script>&\"'</script><!--\u2028"
MLP = """graph mlp {
  input %x: f32[N,4]
  param %w: f32[4,8]{1}
  param %v: f32[8,3]{1}
  %h: f32[N,8] = MatMul(%x, %w) @first
  %a: f32[N,8] = Tanh(%h) @act
  %y: f32[N,3] = MatMul(%a, %v) @second
  output y
}"""


def joint(text: str = MLP) -> Graph:
    return ig.vjp(parse_text(text), wrt="parameters")


def written(graph: Graph, path: Path, **options: object) -> str:
    ig.report(graph, path, **options)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, list[list[object]]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data: dict[str, list[list[object]]] = json.loads(found[1])
    return data


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_numbers(tmp_path: Path) -> None:
    text = written(joint(), tmp_path / "report.html", sizes={"N": 2})
    data = data_of(text)
    names = [row[0] for row in data["nodes"]]
    assert names[:3] == ["first", "act", "second"]
    first = data["nodes"][0]
    assert first[1:6] == ["MatMul", "forward", "", "", ""]
    assert first[7:11] == ["f32[2,8]", 2 * 2 * 8 * 4, 4 * (2 * 4 + 4 * 8), 4 * 2 * 8]
    assert first[12] == "%h: f32[2,8] = MatMul(%x, %w) @first"
    backward = [row for row in data["nodes"] if row[2] == "backward"]
    assert {row[3] for row in backward} == {"first", "act", "second"}
    assert "N = 2" in text


def test_what_is_kept_alive() -> None:
    facts = gather(joint(), {"N": 2})
    assert [(kept.buffer.value.name, kept.buffer.size) for kept in facts.kept] == [("a", 64)]
    (kept,) = facts.kept
    readers = [facts.lives.nodes[step] for step in kept.readers]
    assert {node.rule for node in readers} == {"MatMul", "Tanh"}
    assert all(node.role is Role.BACKWARD for node in readers)
    assert facts.kept_by[kept.readers[0]] == [0]


def test_live_bytes_by_role_add_up() -> None:
    facts = gather(ig.vjp(ig.load(bundled_model("squeezenet")), wrt="parameters"))
    together = np.sum(list(facts.live.values()), axis=0)
    assert together.tolist() == facts.lives.timeline()
    boundary = next(step for step, node in enumerate(facts.lives.nodes) if node.role is Role.BACKWARD)
    assert boundary and not any(facts.live[Role.BACKWARD][:boundary])


def test_forward_against_backward() -> None:
    rows = {row.name: row for row in gather(joint(), {"N": 2}).rules()}
    assert (rows["MatMul"].forward, rows["Tanh"].forward) == (2, 1)
    first, second = 2 * 2 * 4 * 8, 2 * 2 * 8 * 3
    assert rows["MatMul"].forward_flops == first + second
    assert rows["MatMul"].backward_flops == first + 2 * second  # x wants no gradient
    assert rows["Tanh"].kept == 64


def test_a_forward_graph_alone(tmp_path: Path) -> None:
    text = written(ig.load(bundled_model("squeezenet")), tmp_path / "report.html", title="squeeze")
    assert "<h1>squeeze</h1>" in text
    assert 'id="kept"' not in text and 'id="rules"' not in text


def test_an_empty_graph(tmp_path: Path) -> None:
    assert "</html>" in written(Graph("nothing"), tmp_path / "report.html")


def test_what_is_not_known_is_said() -> None:
    graph = parse_text("graph g { input %x: f32[3] %i: i64[1,?] = NonZero(%x) %y = Cast(%i, to=1) output y }")
    assert "The sizes of 2 results are not known before the run" in page(gather(graph), "g")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (165_666_624, "166 MB"), (999_600, "1.00 MB")],
)
def test_units(number: int, text: str) -> None:
    assert bytes_text(number) == text


def test_other_units() -> None:
    assert flops_text(8.218e9) == "8.22 GFLOP"
    assert (count_text(99_999), count_text(25_557_032)) == ("99,999", "25.6 M")


# --- names from a file ------------------------------------------------------------------------------------------------


def evil() -> Graph:
    graph = parse_text(MLP)
    graph.name = EVIL
    graph.metadata["producer"] = EVIL
    for node in graph.nodes():
        graph.rename(node, f"{node.name} {EVIL}")
    for value in graph.values():
        graph.rename(value, f"{value.name} {EVIL}")
    return ig.vjp(graph, wrt="parameters")


def test_names_are_escaped(tmp_path: Path) -> None:
    text = written(evil(), tmp_path / "report.html", sizes={"N": 2})
    assert "<script>document" not in text
    assert text.count("<script") == 2 and text.count("</script") == 2
    assert "<!--" not in text
    assert any(EVIL in str(row[0]) for row in data_of(text)["nodes"])


def test_half_a_surrogate_pair_in_a_name(tmp_path: Path) -> None:
    graph = parse_text(MLP)
    graph.name = "\ud800"
    graph.rename(graph.node("act"), "\ud800")
    assert "</html>" in written(graph, tmp_path / "report.html", sizes={"N": 2})


def test_the_plot_escapes_the_peak() -> None:
    svg = plot({Role.FORWARD: [3, 5, 1]}, [Role.FORWARD] * 3, EVIL)
    assert "<script" not in svg and "&lt;script&gt;" in svg


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [
        (0, ["0"]),
        (1, ["0", "1"]),
        (316, ["0", "100", "200", "316"]),
        (455, ["0", "100", "200", "300", "400", "455"]),
        (123_456, ["0", "50,000", "100,000", "123,456"]),
    ],
)
def test_the_plot_counts_steps_in_round_numbers(steps: int, ticks: list[str]) -> None:
    svg = plot({Role.FORWARD: [0] * steps}, [Role.FORWARD] * steps, "peak")
    assert re.findall(r'<text class="tick"[^>]*>([\d,]+)</text>', svg) == ticks


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = written(joint(), tmp_path / "report.html", sizes={"N": 2})
    assert re.findall(r"""(?:src|href)\s*=|url\(|@import|fetch\(|XMLHttpRequest|import\(""", text) == []
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}


# --- files and sizes --------------------------------------------------------------------------------------------------


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(UsageError, match="sizes are needed"):
        ig.report(joint(), path)
    assert path.read_text() == "old"
    ig.report(joint(), path, {"N": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(UsageError, match="cannot be written"):
        ig.report(joint(), tmp_path / "missing" / "report.html", {"N": 2})


def transformer(layers: int) -> Graph:
    """A stack of encoder layers, as large and with names as long as those of a BERT that PyTorch exported."""
    lines, h = [], "h"
    for layer in range(layers):
        at = f"/bert/encoder/layer.{layer}"
        for part in ("query", "key", "value"):
            lines.append(f'%"{at}/{part}" = MatMul(%"{h}", %w) @"{at}/attention/self/{part}/MatMul"')
            lines.append(f'%"{at}/{part}_s" = Reshape(%"{at}/{part}", %heads) @"{at}/attention/self/{part}/Reshape"')
            lines.append(
                f'%"{at}/{part}_t" = Transpose(%"{at}/{part}_s", perm=[0, 2, 1, 3]) @"{at}/attention/self/{part}/T"'
            )
        lines.append(f'%"{at}/k" = Transpose(%"{at}/key_t", perm=[0, 1, 3, 2]) @"{at}/attention/self/Transpose_3"')
        lines.append(f'%"{at}/scores" = MatMul(%"{at}/query_t", %"{at}/k") @"{at}/attention/self/MatMul"')
        lines.append(f'%"{at}/weights" = Softmax(%"{at}/scores") @"{at}/attention/self/Softmax"')
        lines.append(f'%"{at}/context" = MatMul(%"{at}/weights", %"{at}/value_t") @"{at}/attention/self/MatMul_1"')
        lines.append(f'%"{at}/joined" = Transpose(%"{at}/context", perm=[0, 2, 1, 3]) @"{at}/attention/self/Transpose_4"')
        lines.append(f'%"{at}/flat" = Reshape(%"{at}/joined", %hidden) @"{at}/attention/self/Reshape_3"')
        lines.append(f'%"{at}/sum" = Add(%"{at}/flat", %"{h}") @"{at}/attention/output/Add"')
        lines.append(f'%"{at}/norm" = LayerNormalization(%"{at}/sum", %scale) @"{at}/attention/output/LayerNorm"')
        lines.append(f'%"{at}/wide" = MatMul(%"{at}/norm", %up) @"{at}/intermediate/dense/MatMul"')
        lines.append(f'%"{at}/gelu" = Gelu(%"{at}/wide") @"{at}/intermediate/intermediate_act_fn/Gelu"')
        lines.append(f'%"{at}/out" = MatMul(%"{at}/gelu", %down) @"{at}/output/dense/MatMul"')
        h = f"{at}/out"
    text = f"""graph bert {{
      input %h: f32[N,128,768]
      param %w: f32[768,768]{{1}} param %up: f32[768,3072]{{1}} param %down: f32[3072,768]{{1}} param %scale: f32[768]{{1}}
      const %heads: i64[4]{{0, 128, 12, 64}} const %hidden: i64[3]{{0, 128, 768}}
      {" ".join(lines)} output y = %"{h}" }}"""
    return parse_text(text)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    graphs = {"resnet50": ig.load(bundled_model("resnet50")), "bert": transformer(24)}
    for name, graph in graphs.items():
        ig.report(ig.vjp(graph, wrt="parameters"), folder / f"{name}.html", {"N": 8} if name == "bert" else {}, title=name)
    return {name: folder / f"{name}.html" for name in graphs}


@pytest.mark.parametrize("name", ["resnet50", "bert"])
def test_large_models_make_small_pages(large: dict[str, Path], name: str) -> None:
    assert 100_000 < large[name].stat().st_size < 5_000_000


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ig.save(parse_text(MLP), tmp_path / "mlp.onnx")
    page = tmp_path / "mlp.html"
    assert run("report", tmp_path / "mlp.onnx", "--grad", "--loss", "mse", "-o", page) == 0
    printed = capsys.readouterr().out
    assert "N = 1 (give --dim NAME=SIZE" in printed and str(page) in printed
    assert any(row[2] == "backward" for row in data_of(page.read_text())["nodes"])
    assert run("report", tmp_path / "mlp.onnx", "--dim", "N=4", "-o", page) == 0
    assert "note" not in capsys.readouterr().out
    assert all(row[2] == "forward" for row in data_of(page.read_text())["nodes"])


def test_the_command_names_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("report", "--example", "squeezenet") == 0
    assert (tmp_path / "squeezenet.html").is_file()


def test_the_model_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "mlp.onnx"
    ig.save(parse_text(MLP), model)
    before = model.read_bytes()
    assert run("report", model, "-o", model) == 2
    assert "would overwrite the model" in capsys.readouterr().err
    assert model.read_bytes() == before


# --- in a browser -----------------------------------------------------------------------------------------------------

in_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
ROWS = "[...document.querySelectorAll('#nodes tbody tr.row')].map(row => [...row.cells].map(cell => cell.textContent))"


def rows(view: Page) -> list[list[str]]:
    found: list[list[str]] = view.run(ROWS)
    return found


@in_browser
@pytest.mark.parametrize("name", ["resnet50", "bert"])
def test_a_browser_searches_sorts_and_shows(large: dict[str, Path], name: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with Page(large[name].as_uri(), tmp_path / "profile") as view:
        loaded = view.run("performance.timing.loadEventEnd - performance.timing.navigationStart")
        assert 0 < loaded < 2000, f"it took {loaded} ms (and {time.monotonic() - began:.1f} s with the browser)"
        everything = rows(view)
        assert [row[0] for row in everything] == [str(k) for k in range(60)]

        view.click("#search")
        view.type("weightgrad" if name == "resnet50" else "softmax backward")
        found = rows(view)
        assert found and all("Grad" in row[2] or "softmax" in " ".join(row).lower() for row in found)
        assert re.fullmatch(r"\d+ of [\d,]+ nodes", view.run("document.getElementById('found').textContent"))

        view.click("#nodes th:nth-child(7) button")
        assert view.run("document.querySelector('#nodes th:nth-child(7)').ariaSort") == "descending"
        largest = rows(view)
        view.click("#nodes th:nth-child(7) button")
        assert view.run("document.querySelector('#nodes th:nth-child(7)').ariaSort") == "ascending"
        assert {row[0] for row in largest} == {row[0] for row in rows(view)} or len(largest) == 60

        view.click("#nodes tbody tr:first-child")
        told = view.run("document.querySelector('#nodes tr.detail').textContent")
        assert "made for" in told and "by the rule of" in told

        view.hover("#plot")
        assert "live" in view.run("document.getElementById('tip').textContent")

        view.screenshot(tmp_path / "page.png")
        picture = (tmp_path / "page.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
        assert view.errors == []


@in_browser
def test_an_address_holds_a_view(large: dict[str, Path], tmp_path: Path) -> None:
    with Page(large["resnet50"].as_uri() + "#search=convweightgrad&sort=flops", tmp_path / "profile") as view:
        found = rows(view)
        assert {row[2] for row in found} == {"irgrad.ConvWeightGrad"}
        assert found[0][1] == "ConvWeightGrad_52"  # the first layer, whose images are the largest
        assert view.run("document.getElementById('search').value") == "convweightgrad"


@in_browser
def test_a_browser_runs_nothing_that_a_name_says(tmp_path: Path) -> None:
    ig.report(evil(), tmp_path / "evil.html", {"N": 2})
    with Page((tmp_path / "evil.html").as_uri(), tmp_path / "profile") as view:
        for k in range(1, len(rows(view)) + 1):
            view.run(f"document.querySelectorAll('#nodes tbody tr.row')[{k - 1}].click()")
        view.hover("#plot")
        assert view.run("document.title").startswith("<script>document.title=")
        assert view.run("document.scripts.length") == 2
        assert any(EVIL.split("\u2028")[0][-20:] in row[1] for row in rows(view))
        assert view.errors == []
