"""``irgrad draw`` and ``irgrad view``."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from irgrad.cli import main


def run(*arguments: str | Path) -> int:
    """The exit code of the command."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.md"
    assert run("draw", "--example", "squeezenet", "-o", path) == 0
    assert capsys.readouterr().out == f"squeezenet: drew 67 nodes to {path}\n"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("```mermaid\nflowchart TB\n")
    assert "backward" not in text


def test_draw_the_joint_graph_around_a_node(tmp_path: Path) -> None:
    path = tmp_path / "near.dot"
    arguments = ("--grad", "--wrt", "inputs", "--around", "n1", "--radius", "1", "--collapse", "none", "--no-shapes")
    assert run("draw", "--example", "squeezenet", *arguments, "-o", path) == 0
    text = path.read_text(encoding="utf-8")
    assert "subgraph cluster_backward" in text
    assert text.count("<b>") == 4
    assert 'label=" ' not in text


def test_draw_what_the_filters_leave(tmp_path: Path) -> None:
    path = tmp_path / "some.mmd"
    options = ("--grad", "--role", "backward", "--only", "n1", "--only", "n2?", "--origins", "--depth", "0")
    assert run("draw", "--example", "squeezenet", *options, "-o", path) == 0
    text = path.read_text(encoding="utf-8")
    assert ":::backward" in text
    assert ":::forward" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "x.bmp"), "'x.bmp' does not say a format to draw in"),
        (("-o", "x.md", "--collapse", "some"), "--collapse takes auto, none or the depth"),
        (("-o", "x.md", "--around", "data_1"), "neither a node nor a value 'data_1'; did you mean 'data_0'"),
        (("-o", "x.md", "--only", "nobody"), "there is nothing to draw"),
        (("-o", "x.md", "--wrt", "inputs"), "--wrt is for the joint graph; give --grad too"),
        (("-o", "nowhere/x.md"), "there is no folder 'nowhere'"),
    ],
)
def test_mistakes_of_draw(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("draw", "--example", "squeezenet", *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class FakeNetron(ModuleType):
    """What `irgrad view` asks of Netron, noted down."""

    def __init__(self, error: OSError | None = None) -> None:
        super().__init__("netron")
        self.error = error
        self.served: dict[str, Any] = {}
        self.waited = False

    def serve(self, file: str, data: Any, address: tuple[str, int | None], browse: bool) -> tuple[str, int]:
        if self.error:
            raise self.error
        model = onnx.load(file)
        beside = [path.name for path in Path(file).parent.iterdir()]
        self.served = {"model": model, "path": Path(file), "beside": beside, "address": address, "browse": browse}
        return address[0], address[1] or 1234

    def wait(self) -> None:
        assert self.served["path"].exists()
        self.waited = True


def test_view(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    netron = FakeNetron()
    monkeypatch.setitem(sys.modules, "netron", netron)
    assert run("view", "--example", "squeezenet", "--grad", "--wrt", "inputs", "--no-browser") == 0
    assert "nodes at http://127.0.0.1:1234" in capsys.readouterr().out
    assert netron.served["address"] == ("127.0.0.1", None)
    assert netron.served["browse"] is False
    assert netron.served["beside"] == ["joint.onnx"]
    assert "data_0_grad" in [output.name for output in netron.served["model"].graph.output]
    assert netron.waited
    assert not netron.served["path"].parent.exists()


def test_view_where_the_port_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "netron", FakeNetron(OSError(98, "Address already in use")))
    assert run("view", "--example", "squeezenet", "--port", "8080") == 2
    assert capsys.readouterr().err == "irgrad: Netron cannot be served at 127.0.0.1:8080: Address already in use\n"


def test_view_without_netron(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "netron", None)
    assert run("view", "--example", "squeezenet") == 2
    assert "needs the extra irgrad[view]: pip install 'irgrad[view]'" in capsys.readouterr().err
