"""The benchmarks: what they measure is told right, and the quick form of all of it works where PyTorch is installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import page
from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.results import best_of, compile_rows, geometric_means, overhead_rows, scaling_rows, step_rows
from benchmarks.suites import NINE, SUITES
from benchmarks.tables import markdown, show
from benchmarks.timing import interleaved, samples

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the models are PyTorch's")


def test_turns_are_taken_and_the_first_call_of_each_is_not_counted() -> None:
    calls: list[str] = []

    def slow(name: str) -> None:
        calls.append(name)
        sleep(0.03)  # longer than a turn: one counted call each

    taken = samples({name: lambda name=name: slow(name) for name in "ab"}, rounds=3, warmup=1, discard=1)  # type: ignore[misc]
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3}
    assert "".join(calls) == "aabb" + "aabb" + "bbaa" + "aabb"


def test_short_calls_are_repeated_in_a_turn() -> None:
    assert len(samples({"short": lambda: None}, rounds=2)["short"]) > 2
    assert 0 < interleaved({"short": lambda: None}, rounds=2)["short"] < 0.01


def measured(**medians: float) -> dict[str, Any]:
    peers: dict[str, Any] = {
        name.replace("_", "."): {"median": s, "low": s, "high": s, "least": s, "phases": {"plan": 1.0}, "bytes": 5_000_000}
        for name, s in medians.items()
    }
    peers["autograd"] = {"failed": "no such operation"}
    return {"title": "a model", "flops": 10**9, "gemm": 100e9, "peers": peers}


def test_ratios_are_to_the_best_of_pytorch_and_jax() -> None:
    suites = {
        "mlp_tiny": measured(irgrad=0.1, torch=0.4, torch_compile=0.2, jax=0.3),
        "bert": measured(irgrad=0.8, torch=0.1),
        "lstm": measured(irgrad=9.0, torch=0.1),  # not one of the nine
    }
    assert best_of(suites["mlp_tiny"]["peers"]) == 0.2
    assert best_of({}) is None
    mean, worst, count = geometric_means(suites)["irgrad"]
    assert (mean, worst, count) == (pytest.approx(2.0), 8.0, 2)
    assert "autograd" not in geometric_means(suites)
    (title, rows), *_ = step_rows(suites)
    told = {row[0]: row[1:] for row in rows}
    assert title == "a model"
    assert told["irgrad"] == ["100.0", "100.0 to 100.0", "100.0", "0.50", "10.0", "10%", "5", ""]
    assert told["autograd"][-1] == "failed: no such operation"
    assert compile_rows(suites)[1] == ["mlp_tiny", "", "", "", "1.000", "1.00", "1.00", "1.00"]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = overhead_rows({"seconds": {"bare ufuncs": 3e-7, "irgrad": 5e-7}, "failed": {"jax": "why"}})
    show(rows)
    assert capsys.readouterr().out.splitlines()[2].split() == ["irgrad", "0.500", "+0.20"]
    assert markdown([["a", ">b"], ["x|y", "1"]]) == ["| a | b |", "| --- | ---: |", "| x\\|y | 1 |"]
    assert scaling_rows({"1": {"irgrad": 0.5}, "2": {"jax": 0.25}}, "batch") == [
        ["batch", ">irgrad", ">jax"],
        ["1", "500.0", ""],
        ["2", "", "250.0"],
    ]


def test_a_gradient_is_held_against_the_right_one() -> None:
    right = {"w": np.array([3.0, 4.0]), "zero": np.array([0.0])}
    case = Case(SUITES["mlp_tiny"], Path(), {}, {}, 2.0, right, {"w": 0.0, "zero": 0.0})
    case.check(2.001, {"w": np.array([3.001, 4.0]), "zero": np.array([1e-6])})
    with pytest.raises(ValueError, match=r"the loss is 2\.1"):
        case.check(2.1, right)
    with pytest.raises(ValueError, match=r"the gradient of w is off by 2\.0e-02"):
        case.check(2.0, {**right, "w": np.array([3.1, 4.0])})
    with pytest.raises(ValueError, match="the gradient of zero is off"):
        case.check(2.0, {**right, "zero": np.array([1e-3])})
    with pytest.raises(ValueError, match="has the shape"):
        case.check(2.0, {**right, "w": np.ones((2, 1))})
    with pytest.raises(ValueError, match="off by nan"):
        case.check(2.0, {**right, "w": np.array([np.nan, 4.0])})
    loose = Case(SUITES["mlp_tiny"], Path(), {}, {}, 2.0, right, {"w": 0.03, "zero": 0.0})
    loose.check(2.0, {**right, "w": np.array([3.1, 4.0])})


def test_suites_and_peers_are_whole() -> None:
    assert set(NINE) <= set(SUITES)
    for suite in SUITES.values():
        assert suite.small().name == f"{suite.name}-quick"
        assert str(suite.batch) in suite.title


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_page_names_the_machine(tmp_path: Path) -> None:
    machine = {
        "processor": "Imaginary 9000",
        "cores": 2,
        "threads": 2,
        "system": "any",
        "python": "3",
        "versions": {"numpy": "2"},
    }
    result = {
        "machine": machine,
        "suites": {"mlp_tiny": measured(irgrad=0.1, torch=0.2), "bert": {"failed": "it died"}},
        "overhead": {"seconds": {"irgrad": 5e-7}, "failed": {}},
        "scaling": {"batch": {"1": {"irgrad": 0.1}}, "depth": {"2": {"irgrad": 0.1}}, "failed": {}},
    }
    files = page.write(tmp_path / "performance.md", result)
    assert [path.name for path in files] == ["performance.md", "performance-steps.svg", "performance-scaling.svg"]
    assert all(path.exists() for path in files)
    text = files[0].read_text(encoding="utf-8")
    for expected in ("Imaginary 9000", "numpy 2", "| mlp_tiny |", "performance-steps.svg", "100 GFLOP/s"):
        assert expected in text


@needs_torch
def test_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    written = tmp_path / "result.json"
    arguments = ["mlp_tiny", "--quick", "--rounds", "1", "--only", "irgrad", "--only", "torch", "--json", str(written)]
    assert command.main(arguments) == 0
    assert "irgrad: geometric mean of 1 ratios" in capsys.readouterr().out
    found = json.loads(written.read_text(encoding="utf-8"))
    peers = found["suites"]["mlp_tiny"]["peers"]
    assert {"median", "low", "high", "least", "phases"} <= set(peers["irgrad"])
    assert "failed" not in peers["torch"]
    assert found["machine"]["threads"] == 2


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_every_library_has_the_right_gradients(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what HIPS autograd and onnx-ad do not do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    written = tmp_path / "result.json"
    assert command.main([suite, "--quick", "--rounds", "1", "--no-memory", "--json", str(written)]) == 0
    peers = json.loads(written.read_text(encoding="utf-8"))["suites"][suite]["peers"]
    failed = {name: result["failed"] for name, result in peers.items() if "failed" in result}
    assert not {name: why for name, why in failed.items() if name not in ("autograd", "onnx-ad")}


def test_without_pytorch_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main(["mlp_tiny"]) == 2
    assert capsys.readouterr().err == "the benchmarks need torch: pip install 'irgrad[bench]'\n"


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["no-such-suite"])
    assert "there is no suite 'no-such-suite'" in capsys.readouterr().err
    assert set(PEERS) >= {"irgrad", "torch", "jax"}
