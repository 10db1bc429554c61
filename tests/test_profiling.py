"""Profiles, and the commands `irgrad profile` and `irgrad bench`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.cli import main
from irgrad.errors import FeedError, UsageError
from irgrad.graph import Graph, Node, Role
from irgrad.profiling import Times, measure
from irgrad.runtime.executable import NumpyExecutable
from irgrad.types import TensorType

F32 = np.dtype(np.float32)


def network(rows: int | str = 8) -> Graph:
    """Two layers whose nodes are named by scopes."""
    generator = np.random.default_rng(0)
    graph = Graph("network")
    value = graph.add_input("x", TensorType(F32, (rows, 16)))
    with Builder(graph) as b:
        for layer in ("first", "second"):
            w = graph.add_constant(generator.standard_normal((16, 16), np.float32), f"{layer}.w", parameter=True)
            product = b.node(ig.find_op("MatMul"), [value, w], name=f"/{layer}/MatMul").outputs[0]
            value = b.node(ig.find_op("Tanh"), [product], name=f"/{layer}/Tanh").outputs[0]
    graph.set_outputs({"y": value})
    return graph


def feeds(rows: int = 8) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, 16), np.float32), "y_cotangent": np.ones((rows, 16), np.float32)}


class Slow(NumpyExecutable):
    """Its clock says that a MatMul takes three seconds, and anything else one."""

    def timed(self, feeds: Mapping[str, Any], clock: Callable[[], float]) -> tuple[dict[str, Any], list[tuple[Node, float]]]:
        results, times = super().timed(feeds, clock)
        return results, [(node, 3.0 if node.op.name == "MatMul" else 1.0) for node, _ in times]


@pytest.fixture
def found() -> ig.Profile:
    joint = ig.vjp(network(), "parameters")
    return ig.profile(Slow(joint), feeds(), runs=2)


def test_nodes_come_in_order_with_role_origin_scope_and_cost(found: ig.Profile) -> None:
    rows = {row.node: row for row in found.rows}
    assert list(rows)[:4] == ["/first/MatMul", "/first/Tanh", "/second/MatMul", "/second/Tanh"]
    first = rows["/first/MatMul"]
    assert (first.op, first.role, first.origin, first.scope) == ("MatMul", Role.FORWARD, None, ("first",))
    assert first.flops == 2 * 8 * 16 * 16
    assert (first.read, first.written, first.bytes) == (4 * (8 + 16) * 16, 4 * 8 * 16, 4 * (8 + 16 + 8) * 16)
    backward = [row for row in found.rows if row.role is Role.BACKWARD]
    assert {row.scope for row in backward} == {("first",), ("second",)}
    assert all(row.origin in rows for row in backward)


def test_shares_add_up(found: ig.Profile) -> None:
    assert found.seconds == sum(row.seconds for row in found.rows)
    for shares in (found.by_op(), found.by_role(), found.by_scope()):
        assert sum(share.seconds for share in shares.values()) == found.seconds
        assert sum(share.nodes for share in shares.values()) == len(found.rows)
        taken = [share.seconds for share in shares.values()]
        assert taken == sorted(taken, reverse=True)
    products = found.by_op()["MatMul"]
    assert (products.nodes, products.seconds) == (2, 6.0)
    assert [row.op for row in found.slowest()][:2] == ["MatMul", "MatMul"]
    assert found.by_group() == {}


def test_the_tree_goes_from_roles_to_operations(found: ig.Profile) -> None:
    lines = [" ".join(line.split()) for line in str(found).splitlines()]
    assert lines[0] == f"{1e3 * found.seconds:.3f} ms 100% {'█' * 20} all nodes ({len(found.rows)} nodes)"
    at = next(index for index, line in enumerate(lines) if line.endswith("forward (4 nodes)"))
    assert [line.split("█ ")[1] for line in lines[at + 1 : at + 4]] == [
        "first (2 nodes)",
        "MatMul (1 node)",
        "Tanh (1 node)",
    ]
    assert lines[at].startswith("8000.000 ms")


def test_small_branches_are_told_together(found: ig.Profile) -> None:
    text = found.tree(least=0.2)
    assert "others" in text
    assert "Tanh" not in text
    assert len(text.splitlines()) < len(str(found).splitlines())


def test_the_trace_is_chromes(found: ig.Profile, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    found.save(path)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert [event["name"] for event in complete] == [row.node for row in found.rows]
    ends = [event["ts"] + event["dur"] for event in complete]
    assert ends[-1] == 1e6 * found.seconds
    assert [event["ts"] for event in complete] == [0.0, *ends[:-1]]
    assert complete[0]["args"] == {"op": "MatMul", "scope": "first", "flops": 4096, "bytes read": 1536, "bytes written": 512}
    lanes = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    assert set(lanes) == {"forward", "backward"}
    assert {event["tid"] for event in complete} == set(lanes.values())
    with pytest.raises(UsageError, match="written"):
        found.save(tmp_path / "nowhere" / "trace.json")


def test_a_graph_is_compiled_and_unknown_sizes_are_those_of_the_feeds() -> None:
    found = ig.profile(network("N"), {"x": np.ones((3, 16), np.float32)}, runs=2, threads=1)
    assert found.rows[0].flops == 2 * 3 * 16 * 16
    assert found.step.low <= found.step.median <= found.step.high
    assert found.seconds > 0
    assert found.overhead >= 0
    assert found.runs == 2


def test_fused_groups_are_told_by_what_is_in_them() -> None:
    fused = ig.apply(network(4096), "fuse")
    groups = {node.attrs["body"].name for node in fused.nodes() if node.op.qualified_name == "irgrad.Fused"}
    found = ig.profile(fused, {"x": np.ones((4096, 16), np.float32)}, runs=1)
    assert set(found.by_group()) == groups
    assert {row.group for row in found.rows if row.op == "irgrad.Fused"} == groups


def test_a_graph_without_nodes() -> None:
    graph = Graph("empty")
    graph.set_outputs({"y": graph.add_input("x", TensorType(F32, (2,)))})
    found = ig.profile(graph, {"x": np.ones(2, np.float32)}, runs=1)
    assert found.rows == ()
    assert "all nodes (0 nodes)" in str(found)
    assert found.chrome()["traceEvents"]


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="does not tell the time of single nodes"):
        ig.profile(ig.compile(network(), "reference"), feeds())
    with pytest.raises(UsageError, match="the option threads is for a graph"):
        ig.profile(ig.compile(network()), feeds(), threads=1)
    with pytest.raises(UsageError, match="runs must be at least 1"):
        ig.profile(network(), feeds(), runs=0)
    with pytest.raises(FeedError):
        ig.profile(network(), {})


def test_measuring_leaves_the_first_calls_out() -> None:
    calls: list[int] = []
    times = measure(lambda: calls.append(1), 5)
    assert len(calls) == 8
    assert times.low <= times.median <= times.high


def test_quartiles() -> None:
    assert Times.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Times(3.0, 2.0, 4.0)
    assert Times.of([2.0]) == Times(2.0, 2.0, 2.0)


# --- the commands -----------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    """The exit code of the command."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    ig.save(network("N"), path)
    return path


def test_profile_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.json"
    arguments = (
        "--grad",
        "--loss",
        "mse",
        "--dim",
        "N=4",
        "--rounds",
        "2",
        "--top",
        "3",
        "--threads",
        "1",
        "--trace",
        trace,
    )
    assert run("profile", model, *arguments) == 0
    printed = capsys.readouterr().out
    for expected in (
        "gradient of loss",
        "all nodes (",
        "backward (",
        "MatMul",
        "made for",
        "--top 0 shows all",
        "wrote a trace",
    ):
        assert expected in printed
    assert json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]


def test_profile_command_forward_only(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("profile", model, "--rounds", "1", "--top", "0") == 0
    printed = capsys.readouterr().out
    assert "backward" not in printed
    assert "/second/Tanh" in printed


def test_bench_command(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", model, "--loss", "mse", "--dim", "N=4", "--rounds", "2", "--threads", "1") == 0
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    for name in ("compile", "first run", "run", "quartiles", "arithmetic", "outside of nodes", "memory"):
        assert name in rows
    assert "FLOP/s" in printed
    assert "times the forward pass" in printed
    assert "a node" in rows["outside of nodes"]


def test_bench_command_on_another_executor(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", model, "--rounds", "1", "--executor", "reference") == 0
    printed = capsys.readouterr().out
    assert "outside of nodes" not in printed
    assert "memory" not in printed


def test_bench_command_takes_feeds(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 16), np.float32))
    assert run("bench", model, "--rounds", "1", "--feed", f"x={tmp_path / 'x.npy'}") == 0
    assert "random feeds" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profile", "--wrt", "inputs"), "--wrt is for the joint graph"),
        (("profile", "--trace", "nowhere/trace.json"), "there is no folder"),
        (("profile", "--rounds", "0"), "0 is not in the range"),
        (("bench", "--executor", "nonsense"), "nonsense"),
        (("bench", "--dim", "M=1"), "no input has a symbolic dimension 'M'"),
    ],
)
def test_mistakes_of_the_commands(
    model: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = arguments
    assert run(command, model, *options) == 2
    assert message in capsys.readouterr().err
