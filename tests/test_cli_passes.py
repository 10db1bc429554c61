"""The commands for those who write passes: `irgrad opt` with its reproducers, and `irgrad diff`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.cli.main import _COMMANDS
from irgrad.instruments import read_reproducer
from tests.test_cli import run

TEXT = """
graph small {
  input %x: f32[N,3]
  param %w: f32[3,40]{...}
  %h = MatMul(%x, %w)
  %i = Identity(%h)
  %y = Tanh(%i)
  output y
}
"""
GRAPH = ig.parse_text(TEXT, {"w": np.linspace(0, 1, 120, dtype=np.float32).reshape(3, 40)})


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.ir"
    path.write_text(ig.to_text(GRAPH, "full"), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Breaking(ig.Pass):
    """Fails in one of several ways."""

    name: ClassVar[str] = "breaking"
    how: str = "defect"

    def run(self, graph: ig.Graph) -> bool:
        node = next(node for node in graph.nodes() if node.op.name == "Tanh")
        graph.rename(node, "half_done")
        if self.how == "defect":
            raise ZeroDivisionError("by zero")
        node.origin = 7  # type: ignore[assignment]  # what only verify sees
        return True


@pytest.fixture(autouse=True)
def breaking() -> Iterator[None]:
    plugin = ig.Plugin("breaking", passes={"breaking": lambda: Breaking})
    ig.registry.register(plugin)
    yield
    ig.registry.unregister(plugin)


# --- opt --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pipeline",
    ["simplify", "vjp{wrt=parameters},cse,dce", "jvp,(fold,simplify)", "loss,grad{output=loss},adamw{decay=w}", ""],
)
def test_any_pipeline_over_text_and_onnx(pipeline: str, model: Path, tmp_path: Path) -> None:
    ig.save(GRAPH, tmp_path / "small.onnx")
    results = []
    for source in (model, tmp_path / "small.onnx"):
        assert run("opt", source, "-p", pipeline, "-o", tmp_path / "out.ir") == 0
        results.append(ig.load(tmp_path / "out.ir"))
        results[-1].metadata.clear()
    assert ig.graphs_equal(*results) is None


@pytest.mark.parametrize("pipeline", ["simplify", "vjp{wrt=inputs},simplify", "train_mode,explicit_keys,dce"])
@pytest.mark.parametrize("example", ["resnet50", "shufflenet"])
def test_any_pipeline_over_real_models(example: str, pipeline: str, tmp_path: Path) -> None:
    written = tmp_path / "out.ir"
    assert run("opt", "--example", example, "-p", pipeline, "-o", written) == 0
    want = ig.apply(ig.load(bundled_model(example)), pipeline)
    assert ig.graphs_equal(ig.load(written), want) is None


def test_print_changed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("opt", model, "-p", "dce,simplify,dce", "--print-changed") == 0
    printed = capsys.readouterr().out
    assert printed.count("# after ") == 1
    assert "# after simplify\ngraph small" in printed
    assert "Identity" not in printed


def test_time_passes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("opt", model, "-p", "dce,simplify", "--time-passes") == 0
    rows = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert rows == ["pass", "dce", "simplify", "total"]


@pytest.mark.parametrize("how", ["defect", "unsound"])
def test_a_failure_leaves_a_reproducer(how: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("opt", model, "-p", f"simplify,breaking{{how={how}}},dce", "--time-passes") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[1].startswith("simplify ")  # the times until then
    written = "irgrad: wrote irgrad-reproducer.ir; irgrad opt --reproduce irgrad-reproducer.ir runs the failing pass again"
    assert written in told.err.splitlines()
    assert "irgrad: in the pass 'breaking': " in told.err

    path = Path("irgrad-reproducer.ir")
    graph, pipeline = read_reproducer(path)
    assert pipeline == ("breaking" if how == "defect" else "breaking{how=unsound}")
    assert ig.graphs_equal(graph, ig.apply(GRAPH, "simplify")) is None
    assert ig.graphs_equal(ig.load(path), graph) is None  # it is a graph like any other

    before = path.read_bytes()
    assert run("opt", "--reproduce", path) == 2
    again = capsys.readouterr().err
    assert again.startswith("irgrad: in the pass 'breaking': ")
    assert "wrote" not in again
    assert path.read_bytes() == before


def test_what_is_mended_prints_its_result(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("opt", model, "-p", "breaking") == 2
    path = Path("irgrad-reproducer.ir")
    path.write_text(
        path.read_text(encoding="utf-8").replace("# pipeline: breaking", "# pipeline: simplify"), encoding="utf-8"
    )
    capsys.readouterr()
    assert run("opt", "--reproduce", path) == 0
    assert capsys.readouterr().out == ig.to_text(ig.apply(GRAPH, "simplify")) + "\n"


def test_verify_each_can_be_turned_off(model: Path, tmp_path: Path) -> None:
    assert run("opt", model, "-p", "breaking{how=unsound},dce", "-o", tmp_path / "out.ir", "--no-verify-each") == 0
    assert not Path("irgrad-reproducer.ir").exists()
    assert run("opt", model, "-p", "breaking{how=unsound},dce", "--reproducer", tmp_path / "other.ir") == 2
    assert (tmp_path / "other.ir").exists()


def test_no_reproducer(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("opt", model, "-p", "breaking", "--no-reproducer") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not Path("irgrad-reproducer.ir").exists()


def test_where_no_reproducer_can_be_written_the_error_is_still_told(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="no reproducer was written"):
        assert run("opt", model, "-p", "breaking", "--reproducer", model / "r.ir") == 2
    assert "in the pass 'breaking': it failed with ZeroDivisionError" in capsys.readouterr().err


MISTAKES = {
    "no pipeline": (["opt", "small.ir"], "say what to run"),
    "two things to run": (["opt", "--reproduce", "small.ir", "-p", "dce"], "give neither of these"),
    "no reproducer": (["opt", "--reproduce", "small.ir"], "is no reproducer"),
    "no file": (["opt", "--reproduce", "nothing.ir"], "there is no file 'nothing.ir'"),
    "no text": (["opt", "binary.ir", "-p", "dce"], "is no text in UTF-8"),
    "misspelt text": (["opt", "misspelt.ir", "-p", "dce"], "line 1"),
    "one graph to compare": (["diff", "small.ir"], "name two models, or one and --passes"),
    "three graphs to compare": (["diff", "small.ir", "small.ir", "--passes", "dce"], "name two models"),
    "nothing to compare": (["diff", "--passes", "dce"], "name one model"),
    "no such pass": (["diff", "small.ir", "--passes", "dcee"], "did you mean 'dce'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_sentence(mistake: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("binary.ir").write_bytes(b"\xff\xfe\x00")
    Path("misspelt.ir").write_text("grph g {}", encoding="utf-8")
    arguments, expected = MISTAKES[mistake]
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert expected in told.err
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1


# --- diff -------------------------------------------------------------------------------------------------------------


def test_diff_of_a_model_and_its_passes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diff", model, "--passes", "simplify") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{model}: 3 nodes", "after simplify: 2 nodes"]
    assert "nodes: 0 added, 1 removed, 1 changed, 1 the same" in lines
    assert "- %i: f32[N,40] = Identity(%h)" in lines
    assert lines[-2:] == ["~ %y: f32[N,40] = Tanh(%h)", "    operand 0: %i → %h"]


def test_diff_of_two_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.ir"
    other.write_text(ig.to_text(ig.vjp(GRAPH, "parameters"), "full"), encoding="utf-8")
    assert run("diff", model, other, "--rows", "1", "--exit-code") == 1
    printed = capsys.readouterr().out
    assert "backward" in printed
    assert "more new nodes" in printed
    assert "(--rows 0 shows all)" in printed
    assert run("diff", model, model, "--exit-code") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing differs"


def test_diff_of_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ig.save(ig.load(bundled_model("squeezenet")), tmp_path / "squeezenet.onnx")
    assert run("diff", "--example", "squeezenet", tmp_path / "squeezenet.onnx", "--exit-code") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing differs"
    assert run("diff", "--example", "resnet50", "--passes", "vjp,simplify", "--rows", "5") == 0
    assert len(capsys.readouterr().out.splitlines()) < 60


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in _COMMANDS)
