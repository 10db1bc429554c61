"""Training artifacts: what the files hold, that training by them is training, and that failing leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irgrad as ig
from irgrad import artifacts
from irgrad.errors import AdjointError, ExportError, IrgradError, PassError, UsageError
from irgrad.passes.loss import Loss
from tests.frontends.build import array, model, node, scalar, value
from tests.test_cli import run as command

GENERATOR = np.random.default_rng(0)
MODELS = ["training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"]
FILES = sorted([*MODELS, "checkpoint.npz", "artifacts.json"])
STEPS = 20
RATE = np.float32(2.0**-6)


def weight(name: str, *shape: int) -> Any:
    return array(name, GENERATOR.standard_normal(shape) / np.sqrt(shape[-1]))


def network() -> onnx.ModelProto:
    """Convolution, BatchNormalization, pooling, Dropout and a head."""
    ones, zeros = np.ones(4), np.zeros(4)
    return model(
        [
            node("Conv", ["x", "conv.w"], ["h1"], name="conv", pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["h1", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["h2"], name="bn"),
            node("Relu", ["h2"], ["h3"], name="relu"),
            node("MaxPool", ["h3"], ["h4"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["h4"], ["h5"], name="flat"),
            node("Dropout", ["h5"], ["h6"], name="drop"),
            node("Gemm", ["h6", "head.w", "head.b"], ["y"], name="head", transB=1),
        ],
        [value("x", ("N", 1, 6, 6))],
        [value("y", ("N", 3))],
        [
            weight("conv.w", 4, 1, 3, 3),
            *(
                array(f"bn.{name}", data)
                for name, data in [("scale", ones), ("bias", zeros), ("mean", zeros), ("var", ones)]
            ),
            weight("head.w", 3, 36),
            weight("head.b", 3),
        ],
    )


def perceptron() -> onnx.ModelProto:
    return model(
        [
            node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
            node("Tanh", ["h"], ["t"]),
            node("Gemm", ["t", "w2", "b2"], ["y"], transB=1),
        ],
        [value("x", ("N", 6))],
        [value("y", ("N", 3))],
        [weight("w1", 8, 6), weight("b1", 8), weight("w2", 3, 8), weight("b2", 3)],
    )


NETWORK, PERCEPTRON = ig.load(network()), ig.load(perceptron())
LABELS = GENERATOR.integers(0, 3, 16)
BATCHES = {
    "network": {"x": GENERATOR.standard_normal((16, 1, 6, 6)).astype(np.float32), "target": LABELS},
    "perceptron": {"x": GENERATOR.standard_normal((16, 6)).astype(np.float32), "target": LABELS},
}

Run = Callable[[dict[str, Any]], dict[str, Any]]


def on_irgrad(path: Path) -> Run:
    run = ig.compile(ig.load(path))
    return lambda feeds: run({name: feeds[name] for name in run.graph.inputs})


def on_onnxruntime(path: Path) -> Run:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    return lambda feeds: dict(
        zip(outputs, session.run(outputs, {name: np.asarray(feeds[name]) for name in inputs}), strict=True)
    )


def trained(folder: Path, make: Callable[[Path], Run], batch: dict[str, Any]) -> tuple[list[float], dict[str, Any], Any]:
    """Train by the files of a folder: the losses, the state, and what the evaluation model returns in the end."""
    index = json.loads((folder / "artifacts.json").read_text(encoding="utf-8"))
    training, evaluation, optimizer = (make(folder / index[part]["file"]) for part in ("training", "eval", "optimizer"))
    state = dict(np.load(folder / "checkpoint.npz"))
    losses = []
    for step in range(1, STEPS + 1):
        settings = {"key": np.int64(step), "step": np.int64(step), "learning_rate": RATE}
        found = training({**state, **batch, **settings})
        moved = optimizer({**state, **found, **settings})
        for part, results in (("training", found), ("optimizer", moved)):
            state.update({name: results[output] for name, output in index[part]["updates"].items()})
        losses.append(float(found[index["loss"]]))
    return losses, state, evaluation({**state, **batch})


OPTIMIZERS = ["adamw", "clip_grad_norm{max_norm=0.5},sgd{momentum=0.9}", "rmsprop{skip=*.b},lion"]


# --- training by the files is training --------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["network", "perceptron"])
def test_onnxruntime_and_irgrad_train_alike(name: str, optimizer: str, tmp_path: Path) -> None:
    graph = {"network": NETWORK, "perceptron": PERCEPTRON}[name]
    ig.save_artifacts(graph, tmp_path / "a", loss="cross_entropy", optimizer=optimizer)
    losses, state, results = trained(tmp_path / "a", on_irgrad, BATCHES[name])
    other_losses, other_state, other_results = trained(tmp_path / "a", on_onnxruntime, BATCHES[name])
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    assert other_state.keys() == state.keys()
    for key, own in state.items():
        assert (np.asarray(other_state[key]).dtype, np.shape(other_state[key])) == (own.dtype, own.shape)
        np.testing.assert_allclose(other_state[key], own, rtol=1e-4, atol=1e-5, err_msg=key)
    for key in ("loss", "y"):
        np.testing.assert_allclose(other_results[key], results[key], rtol=1e-4, atol=1e-5)


def test_the_files_train_as_one_joint_graph_does(tmp_path: Path) -> None:
    """The training model, the optimizer and their names, against one graph that does a whole step."""
    ig.save_artifacts(NETWORK, tmp_path / "a", loss="cross_entropy")
    losses, state, results = trained(tmp_path / "a", on_irgrad, BATCHES["network"])
    joint = ig.apply(ig.grad(ig.load(ig.to_onnx(NETWORK), training=True), loss="cross_entropy"), "adamw,simplify")
    run, own = ig.compile(joint), ig.initial_state(joint)
    for step in range(1, STEPS + 1):
        found = run({**BATCHES["network"], **own, "key": step, "step": step, "learning_rate": RATE})
        own = {name: found[output] for name, output in ig.updates(joint).items()}
        np.testing.assert_allclose(found["loss"], losses[step - 1], rtol=1e-6)
    assert own.keys() == state.keys()
    for name, want in own.items():
        np.testing.assert_allclose(state[name], want, rtol=1e-5, atol=1e-6, err_msg=name)
    model_state = {name: state[name] for name in state if NETWORK.has_value(name)}
    inference = ig.compile(ig.with_parameters(NETWORK, model_state))
    np.testing.assert_allclose(inference({"x": BATCHES["network"]["x"]})["y"], results["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [on_irgrad, on_onnxruntime])
def test_they_train_as_torch_does(make: Callable[[Path], Run], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    ig.save_artifacts(PERCEPTRON, tmp_path / "a", loss="cross_entropy", optimizer="clip_grad_norm{max_norm=0.5},adamw")
    losses, state, results = trained(tmp_path / "a", make, BATCHES["perceptron"])
    w = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in PERCEPTRON.parameters.items()}
    x, target = (torch.tensor(BATCHES["perceptron"][name]) for name in ("x", "target"))
    optimizer = torch.optim.AdamW(w.values(), lr=float(RATE))

    def forward() -> Any:
        return torch.tanh(x @ w["w1"].T + w["b1"]) @ w["w2"].T + w["b2"]

    for step in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(), target)
        np.testing.assert_allclose(losses[step], loss.item(), rtol=1e-5)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 0.5)
        optimizer.step()
    for name, parameter in w.items():
        np.testing.assert_allclose(state[name], parameter.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(results["y"], forward().detach().numpy(), rtol=1e-4, atol=1e-5)


# --- what the files hold ----------------------------------------------------------------------------------------------


def test_the_files_hold_standard_operations_and_what_the_index_says(tmp_path: Path) -> None:
    index = ig.save_artifacts(NETWORK, tmp_path / "a", loss="cross_entropy")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    assert json.loads((tmp_path / "a" / "artifacts.json").read_text(encoding="utf-8")) == index
    for part in ("training", "eval", "optimizer"):
        proto = onnx.load(tmp_path / "a" / index[part]["file"])
        onnx.checker.check_model(proto, full_check=True)
        assert {n.domain for n in proto.graph.node} == {""}
        assert [o.domain for o in proto.opset_import] == [""]
        assert not proto.functions
        read = {name for n in proto.graph.node for name in n.input}
        assert {t.name for t in proto.graph.initializer} <= read
        assert [i.name for i in proto.graph.input] == index[part]["inputs"]
        assert [o.name for o in proto.graph.output] == index[part]["outputs"]
    parameters = ["conv.w", "bn.scale", "bn.bias", "head.w", "head.b"]
    statistics, states = ["bn.mean", "bn.var"], [f"{name}.adamw.{s}" for name in parameters for s in "mv"]
    gradients = {name: f"{name}_grad" for name in parameters}
    assert index["training"] == {
        "file": MODELS[0],
        "inputs": ["x", "key", "target", *parameters, *statistics],
        "outputs": ["loss", *gradients.values(), "bn.mean_updated", "bn.var_updated"],
        "updates": {name: f"{name}_updated" for name in statistics},
    }
    assert index["eval"]["inputs"] == ["x", "target", *parameters, *statistics]
    assert index["eval"]["outputs"] == ["loss", "y"]
    assert index["optimizer"]["inputs"] == [*parameters, *gradients.values(), "learning_rate", "step", *states]
    assert index["optimizer"]["updates"].keys() == {*parameters, *states}
    assert {key: index[key] for key in ("loss", "data", "target", "key")} == {
        "loss": "loss",
        "data": ["x"],
        "target": "target",
        "key": "key",
    }
    assert (index["parameters"], index["statistics"], index["states"]) == (parameters, statistics, states)
    assert (index["settings"], index["gradients"]) == (["learning_rate", "step"], gradients)
    checkpoint = dict(np.load(tmp_path / "a" / "checkpoint.npz"))
    assert list(checkpoint) == [*parameters, *statistics, *states]
    np.testing.assert_array_equal(checkpoint["head.w"], NETWORK.parameters["head.w"])


def test_what_is_not_trained_stays_in_the_models(tmp_path: Path) -> None:
    index = ig.save_artifacts(NETWORK, tmp_path / "a", loss="cross_entropy", wrt=["head.w", "head.b"], training=False)
    assert index["training"]["inputs"] == index["eval"]["inputs"] == ["x", "target", "head.w", "head.b"]
    assert (index["key"], index["statistics"]) == (None, [])
    for name in MODELS[:2]:
        held = {t.name for t in onnx.load(tmp_path / "a" / name).graph.initializer}
        assert {"conv.w", "bn.mean"} <= held
        assert "head.w" not in held


def test_running_statistics_are_not_trained_in_inference_either(tmp_path: Path) -> None:
    index = ig.save_artifacts(NETWORK, tmp_path / "a", loss="cross_entropy", training=False)
    assert index["parameters"] == ["conv.w", "bn.scale", "bn.bias", "head.w", "head.b"]
    assert index["training"]["updates"] == {}


def test_a_model_that_has_its_loss(tmp_path: Path) -> None:
    graph = ig.apply(PERCEPTRON, [Loss("mse", target="wanted", result="error")])
    index = ig.save_artifacts(graph, tmp_path / "a", output="error", optimizer="sgd")
    assert (index["loss"], index["target"], index["data"]) == ("error", None, ["x", "wanted"])
    assert index["settings"] == ["learning_rate"]
    index = ig.save_artifacts(PERCEPTRON, tmp_path / "b", loss=Loss("mse", target="wanted", result="error"))
    assert (index["loss"], index["target"], index["data"]) == ("error", "wanted", ["x"])
    assert index["eval"]["outputs"] == ["error", "y"]


def test_statistics_that_were_written_once_since_they_were_equal(tmp_path: Path) -> None:
    """The training has two means and variances, and so the evaluation has."""
    nodes = [node("Identity", [f"m.{s}"], [f"n.{s}"]) for s in ("mean", "var")]
    for x, y, prefix in (("x", "h", "m"), ("h", "y", "n")):
        nodes.append(node("BatchNormalization", [x, "s", "s", f"{prefix}.mean", f"{prefix}.var"], [y], name=y))
    same = [array("s", [1.0, 2.0]), array("m.mean", [0.0, 0.0]), array("m.var", [1.0, 1.0])]
    graph = ig.load(model(nodes, [value("x", ("N", 2))], [value("y", ("N", 2))], same))
    index = ig.save_artifacts(graph, tmp_path / "a", loss="mse")
    statistics = ["m.mean", "m.var", "n.mean", "n.var"]
    assert index["statistics"] == statistics
    assert set(statistics) <= set(index["eval"]["inputs"])
    batch = {name: GENERATOR.standard_normal((8, 2)).astype(np.float32) for name in ("x", "target")}
    _, state, results = trained(tmp_path / "a", on_irgrad, batch)
    assert (state["m.mean"] != state["n.mean"]).any()
    inference = ig.compile(ig.with_parameters(graph, {name: state[name] for name in ["s", *statistics]}))
    np.testing.assert_allclose(inference({"x": batch["x"]})["y"], results["y"], rtol=1e-5)


def test_the_opset_that_was_asked_for(tmp_path: Path) -> None:
    ig.save_artifacts(PERCEPTRON, tmp_path / "a", loss="mse", opset=20)
    assert {onnx.load(tmp_path / "a" / name).opset_import[0].version for name in MODELS} == {20}
    with pytest.raises(ExportError, match="cannot be said in opset 13"):
        ig.save_artifacts(NETWORK, tmp_path / "b", loss="cross_entropy", opset=13)
    assert not (tmp_path / "b").exists()


# --- nothing half done ------------------------------------------------------------------------------------------------


def test_other_files_stay_and_old_artifacts_go(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ig.save_artifacts(PERCEPTRON, tmp_path, loss="mse", optimizer="sgd")
    index = ig.save_artifacts(PERCEPTRON, tmp_path, loss="mse", optimizer="lion")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])
    assert json.loads((tmp_path / "artifacts.json").read_text(encoding="utf-8")) == index


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_failure_leaves_nothing_behind(there: bool, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    if there:
        ig.save_artifacts(PERCEPTRON, folder, loss="mse", optimizer="sgd")
        (folder / "checkpoint.npz").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if late:
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda a, b: fail() if b.name in ("a", MODELS[0]) else rename(a, b))
    else:
        monkeypatch.setattr(artifacts, "save_arrays", fail)
    with pytest.raises(UsageError, match=r"'.*a' cannot be written: No space left on device"):
        ig.save_artifacts(PERCEPTRON, folder, loss="mse", optimizer="lion")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert folder.exists() == there


SHAPED = model(
    [
        node("Resize", ["x", "", "scales"], ["r"]),
        node("Mul", ["r", "w"], ["p"]),
        node("ReduceSum", ["p"], ["y"], keepdims=0),
    ],
    [value("x", (1, 1, 2, 2))],
    [scalar("y")],
    [array("scales", [1, 1, 2, 2]), array("w", [2.0])],
)
BARE = model([node("Tanh", ["x"], ["y"])], [value("x", (2, 3))], [value("y", (2, 3))])


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (PERCEPTRON, {"loss": "msee"}, PassError, "there is no loss 'msee'; there are: bce_with_logits"),
        (PERCEPTRON, {"loss": "mse", "output": "z"}, IrgradError, "there is no value 'z'"),
        (PERCEPTRON, {}, AdjointError, r"the gradient is of a scalar, but the output 'y' is f32\[N,3\]; add a loss"),
        (PERCEPTRON, {"loss": "mse", "wrt": ["w3"]}, IrgradError, "there is no value 'w3'"),
        (PERCEPTRON, {"loss": "mse", "wrt": ["x"]}, UsageError, "'x' cannot be trained: it is an input of the model"),
        (PERCEPTRON, {"loss": "mse", "wrt": ["h"]}, UsageError, "'h' cannot be trained: it is computed"),
        (NETWORK, {"loss": "mse", "wrt": ["bn.mean"]}, UsageError, "'bn.mean' cannot be trained: it is a running statistic"),
        (ig.load(SHAPED), {"wrt": ["scales"]}, UsageError, "'scales' cannot be trained: it decides the shape of a result"),
        (ig.load(BARE), {"loss": "mse"}, AdjointError, "there is nothing to differentiate by: the graph has no parameters"),
        (
            PERCEPTRON,
            {"loss": "mse", "optimizer": "simplify"},
            UsageError,
            "leaves 4 parameters as is, such as 'w1'; name in wrt=",
        ),
        (PERCEPTRON, {"loss": "mse", "optimizer": "adamv"}, PassError, "there is no pass 'adamv'; did you mean 'adam"),
        (PERCEPTRON, {"loss": "mse", "opset": 99}, UsageError, "opset=99: models are written in opset"),
    ],
)
def test_mistakes(source: ig.Graph, options: dict[str, Any], error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        ig.save_artifacts(source, tmp_path / "a", **options)
    assert not [*tmp_path.iterdir()]


def test_several_outputs_that_could_be_the_loss(tmp_path: Path) -> None:
    graph = PERCEPTRON.copy()
    graph.set_outputs({**graph.outputs, "h": graph.value("h")})
    with pytest.raises(UsageError, match=r"say which output is the loss \(output=\), or add one \(loss=\); there are y, h"):
        ig.save_artifacts(graph, tmp_path / "a")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(perceptron().SerializeToString())
    return path


def test_the_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--loss", "cross_entropy", "--wrt", "w2,b2", "--optimizer", "sgd{momentum=0.9}", "-o", tmp_path / "a"]
    assert command("artifacts", file, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: 2 parameters trained by sgd{{momentum=0.9}}; 2 further arrays of state"
    assert lines[1:] == [f"wrote {tmp_path / 'a' / name}" for name in (*MODELS, "checkpoint.npz", "artifacts.json")]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES


@pytest.mark.parametrize(
    ("options", "folder", "sentence"),
    [
        (["--loss", "mse"], "model.onnx", "'model.onnx' cannot be written: it is a file"),
        (["--loss", "mse"], "no/such", "'no/such' cannot be written: there is no folder 'no'"),
        (["--loss", "msee"], "a", "'msee' is not one of"),
        (["--loss", "mse", "--optimizer", "adamv"], "a", "there is no pass 'adamv'; did you mean"),
        (["--loss", "mse", "--wrt", "x"], "a", "'x' cannot be trained: it is an input of the model"),
        ([], "a", "the gradient is of a scalar, but the output 'y' is f32[N,3]"),
    ],
)
def test_mistakes_of_the_command(
    options: list[str],
    folder: str,
    sentence: str,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("artifacts", file.name, *options, "-o", folder) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
