"""The command line as a user meets it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from click import Context
from onnx import TensorProto, helper, numpy_helper

from irgrad import graphs_equal, load, parse_text
from irgrad.cli import main
from irgrad.cli.main import _COMMANDS, cli
from irgrad.cli.tables import Table, align

ROOT = Path(__file__).parent.parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = tanh(x @ w), with an input named "file", which must not trip anything up."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["file", "w"], ["h"]),
            helper.make_node("Tanh", ["h"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("file", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2) / 10, "w")],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="tester"), path)
    return path


def run(*arguments: str | Path) -> int:
    """The exit code of the command."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_grad_prints_saves_and_checks(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.ones((4, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    saved = tmp_path / "out.npz"
    arguments = ("grad", model, "--wrt", "w,file", "--loss", "mse", "--feed", f"file={tmp_path / 'x.npy'}", "--save", saved)
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "agrees; analytic" in printed
    assert "gradient of loss" in printed
    assert "random feeds (seed 0) for target [4, 2]" in printed
    results = np.load(saved)
    assert sorted(results) == ["file_grad", "loss", "w_grad", "y"]
    assert results["w_grad"].shape == (3, 2)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_grad_of_an_output_that_is_no_scalar(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grad", model, "--dim", "N=5") == 0
    printed = capsys.readouterr().out
    assert "gradient of sum(c * y) with random c" in printed
    assert "file [5, 3]" in printed


def test_grad_of_an_intermediate(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grad", model, "--output", "h", "--wrt", "w") == 0
    printed = capsys.readouterr().out
    assert "gradient of sum(c * h) with random c" in printed
    assert "agrees; analytic" in printed


def test_save_replaces_a_file_and_mistakes_leave_it(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "out.npz"
    saved.write_text("old")
    assert run("grad", model, "--wrt", "nobody", "--save", saved) == 2
    assert saved.read_text() == "old"
    assert run("grad", model, "--save", saved) == 0
    assert "saved 2 arrays" in capsys.readouterr().out
    assert sorted(np.load(saved)) == ["w_grad", "y"]


def test_grad_on_a_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grad", "--example", "squeezenet", "--wrt", "inputs") == 0
    printed = capsys.readouterr().out
    assert "random weights (seed 0) in place of the model's own" in printed
    assert "agrees; analytic" in printed


def test_inspect(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", model) == 0
    printed = capsys.readouterr().out
    for expected in (
        "producer: tester",
        "f32[N,3]",
        "1 parameter, 6 elements, 24 bytes",
        "MatMul",
        "every operation has a gradient",
    ):
        assert expected in printed
    assert run("inspect", model, "--text") == 0
    assert "%y: f32[N,2] = Tanh(%h)" in capsys.readouterr().out


def test_inspect_names_what_has_no_gradient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Odd", ["x"], ["y"], domain="custom")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("custom", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports), tmp_path / "odd.onnx")
    assert run("inspect", tmp_path / "odd.onnx") == 0
    assert "without a gradient: custom.Odd" in capsys.readouterr().out
    assert run("grad", tmp_path / "odd.onnx", "--wrt", "inputs") == 2
    assert "custom.Odd" in capsys.readouterr().err


def test_check(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", model) == 0
    printed = capsys.readouterr().out
    assert "the graph is sound" in printed
    assert printed.count("agrees; analytic") == 3


def test_ops(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ops", "conv", "Floor") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["Conv", "numpy", "rule"]
    assert printed.splitlines()[2].split() == ["Floor", "numpy", "zero"]
    assert run("ops") == 0
    assert "gradient: " in capsys.readouterr().out


def test_opt_prints_after_each_pass(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("opt", model, "-p", "vjp{wrt=inputs},simplify", "--print-after-all", "--time-passes", "--count-nodes") == 0
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("graph small opset 28 {") == 2
    assert "file_grad" in printed.out + printed.err


def test_opt_writes_a_model_or_text(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("joint.onnx", "joint.ir"):
        assert run("opt", model, "-p", "vjp{wrt=w},simplify", "-o", tmp_path / name) == 0
    assert capsys.readouterr().out == ""
    joint = load(tmp_path / "joint.onnx")
    assert joint.gradients == {"w": "w_grad"}
    assert graphs_equal(parse_text((tmp_path / "joint.ir").read_text(encoding="utf-8")), joint) is None


def test_grad_writes_the_joint_graph(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "joint.onnx"
    assert run("grad", model, "--loss", "mse", "--onnx", written) == 0
    assert f"wrote the joint graph to {written}" in capsys.readouterr().out
    onnx.checker.check_model(str(written), full_check=True)
    assert load(written).gradients == {"w": "w_grad"}


MISTAKES = {
    "no such file": (["grad", "missing.onnx"], "there is no file 'missing.onnx'"),
    "no model": (["grad"], "name one model"),
    "no such example": (["grad", "--example", "resnet51"], "there is no bundled model 'resnet51'"),
    "no such name": (["grad", "{model}", "--wrt", "ww"], "did you mean 'w'"),
    "no such feed": (["grad", "{model}", "--feed", "z=z.npy"], "'z' is no input of the model"),
    "no such array": (["grad", "{model}", "--feed", "file=z.npy"], "'z.npy' cannot be read"),
    "no folder to save to": (
        ["grad", "{model}", "--save", "nowhere/out.npz"],
        "cannot be written: there is no folder 'nowhere'",
    ),
    "no such pass": (["opt", "{model}", "-p", "simplfy"], "simplify"),
    "no such operation": (["ops", "Convv"], "there is no operation 'Convv'; did you mean 'Conv'"),
    "an example as a file": (["grad", "resnet50"], "--example resnet50"),
    "no such output": (["grad", "{model}", "--output", "yy"], "there is no value 'yy'"),
    "nothing to differentiate by": (["grad", "{model}", "--wrt", ","], "--wrt names nothing"),
    "an integer by name": (["grad", "{model}", "--dim", "N=two"], "--dim takes NAME=SIZE"),
    "a digit that is no decimal": (["grad", "{model}", "--dim", "N=\N{SUPERSCRIPT TWO}"], "--dim takes NAME=SIZE"),
    "no such dimension": (
        ["check", "{model}", "--dim", "M=2"],
        "no input has a symbolic dimension 'M'; those of the inputs are N",
    ),
    "a dimension beyond memory": (["grad", "{model}", "--dim", "N=99999999999"], "would take 299,999,999,997 elements"),
    "a folder as the array": (["grad", "{model}", "--feed", "file=."], "the file '.' cannot be read: Is a directory"),
    "the model as the array": (["grad", "{model}", "--feed", "file={model}"], "is no whole .npy array"),
    "the model as the result": (["grad", "{model}", "--save", "{model}"], "would overwrite the model"),
    "a folder as the result": (["grad", "{model}", "--save", "."], "cannot be written: it is a folder"),
    "the model as the joint graph": (["grad", "{model}", "--onnx", "{model}"], "would overwrite the model"),
    "the model as the output": (["opt", "{model}", "-p", "simplify", "-o", "{model}"], "would overwrite the model"),
    "no folder for the output": (
        ["opt", "{model}", "-p", "simplify", "-o", "nowhere/x.onnx"],
        "there is no folder 'nowhere'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_sentence(
    mistake: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    arguments, expected = MISTAKES[mistake]
    assert run(*[a.replace("{model}", model.name) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1


def real(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, its streams piped."""
    return subprocess.run(
        [sys.executable, "-m", "irgrad", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def test_a_broken_file_through_the_real_command(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-20])
    done = real("grad", model)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("irgrad: ")
    assert len(done.stderr.strip().splitlines()) == 1


LONG = "encoder/layers/0/self_attention/query_projection/kernel/größe"


def test_pipes_get_whole_names_in_any_encoding_and_no_display(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Tanh", [LONG], ["y"])],
        "g",
        [helper.make_tensor_value_info(LONG, TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "long.onnx")
    done = real("check", tmp_path / "long.onnx", COLUMNS="40", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    done = real("grad", tmp_path / "long.onnx", "--wrt", "inputs", COLUMNS="40", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    escaped = LONG.encode("ascii", "backslashreplace").decode()
    assert [line for line in done.stdout.splitlines() if line.startswith(f"{escaped}  [2]  ")]
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_an_interrupt_is_no_traceback(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("irgrad.cli.check.verify", lambda *_, **__: interrupted())
    assert run("check", model) == 130
    assert capsys.readouterr().err.strip() == "irgrad: interrupted"


def test_tables_fold_the_widest_column_behind_separators() -> None:
    table = Table("name", ">norm")
    table.add_row("encoder/layer_0/weight", "1.5")
    table.add_row("b", "10")
    assert list(table.lines()) == [
        "name                    norm",
        "encoder/layer_0/weight   1.5",
        "b                         10",
    ]
    assert list(table.lines(24)) == [
        "name                norm",
        "encoder/layer_0/     1.5",
        "weight",
        "b                     10",
    ]
    assert list(table.lines(1)) == [line[:16] + line[18:] for line in table.lines(24)]


def test_numbers_line_up_at_their_points() -> None:
    table = Table(">norm")
    for text in align([1.5, 20, 0.00390625, 1e-20, -3.25, float("nan")]):
        table.add_row(text)
    assert list(table.lines())[1:] == [
        " 1.5",
        "20",
        " 0.00390625",
        " 1e-20",
        "-3.25",
        "  nan",
    ]


COMMANDS = {name: command for name in _COMMANDS if (command := cli.get_command(Context(cli), name)) is not None}
TAKE_A_MODEL = [name for name, command in COMMANDS.items() if any(p.name == "model" for p in command.params)]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_every_command_has_help_with_an_example(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*[command] * (command is not None), "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    example = f"irgrad {command or 'grad'}"
    assert any(line.strip().startswith(example) for line in lines), "no line of the help is an example"


@pytest.mark.parametrize("command", TAKE_A_MODEL)
@pytest.mark.parametrize(("content", "sentence"), [(None, "there is no file"), (b"\x00no model", "'model.onnx'")])
def test_every_command_says_what_is_wrong_with_a_model(
    command: str,
    content: bytes | None,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one sentence, and without anything written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "netron", ModuleType("netron"))
    if content is not None:
        Path("model.onnx").write_bytes(content)
    needed = {"diff": ["model.onnx"], "opt": ["-p", "dce"]}.get(command, [])
    for parameter in COMMANDS[command].params:
        if parameter.required:
            needed += [parameter.opts[0], "result.md"]
    before = list(tmp_path.iterdir())
    assert run(command, "model.onnx", *needed) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("irgrad: ")
    assert sentence in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == before
