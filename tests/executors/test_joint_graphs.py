"""Joint graphs of real models as files on stock onnxruntime: the loss and every gradient are numpy's.

Of the bundled models two are run by default, all nine with ``-m slow``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.bundled import BUNDLED, bundled_model
from irgrad.graph import Graph
from irgrad.plausible import plausible_feeds, plausible_parameters

onnxruntime = pytest.importorskip("onnxruntime")

SMALL = ("shufflenet", "squeezenet")
MODELS = [pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow) for name in BUNDLED]
EXPORTS = sorted((Path(__file__).parent.parent / "data" / "exports").glob("*.onnx"))
TOLERANCE = 1e-3

Arrays = Mapping[str, np.ndarray]


def joint_of(graph: Graph) -> tuple[Graph, dict[str, np.ndarray]]:
    """The gradient of a cross entropy by every input and every weight, which are random numbers; and feeds."""
    joint = ig.grad(graph, [*graph.inputs, *graph.parameters], loss="cross_entropy")
    feeds = plausible_feeds(joint)
    for name, weight in plausible_parameters(joint, feeds).items():
        joint.set_constant(joint.value(name), weight)
    return joint, feeds


def saved(joint: Graph, path: Path, **options: Any) -> Any:
    """A session of the file that a graph is saved as, once onnx's checker has passed that."""
    ig.save(joint, path, **options)
    onnx.checker.check_model(str(path), full_check=True)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])


def run(session: Any, feeds: Arrays) -> dict[str, np.ndarray]:
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


def difference(results: Arrays, others: Arrays) -> float:
    """The largest difference, of the larger of 1 and an array's largest element."""
    assert list(results) == list(others)
    return max(largest(results[name] - other) / max(1.0, largest(other)) for name, other in others.items())


def largest(array: np.ndarray) -> float:
    return float(np.abs(array).max())


def in_double(joint: Graph, feeds: Arrays) -> dict[str, np.ndarray]:
    wide = {name: feed.astype(np.float64) if feed.dtype == np.float32 else feed for name, feed in feeds.items()}
    return ig.compile(ig.apply(joint, "convert_float{to=f64}"))(wide)


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model(name: str, tmp_path: Path) -> None:
    """As it is, written with functions and without.

    In a deep net of ReLUs some elements lie so near to 0 that rounding decides on which side they are, and with them whole
    paths of the gradient. Any two orders of summation differ there, both by as much from the gradient in float64: in the
    DenseNet by a hundredth of the largest element. The next test takes the kinks out.
    """
    joint, feeds = joint_of(ig.load(bundled_model(name)))
    want = ig.compile(joint)(feeds)
    found = 0.0
    for functions in (False, True):
        session = saved(joint, tmp_path / "joint.onnx", functions=functions, external_data=True)
        found = max(found, difference(run(session, feeds), want))
    assert found <= TOLERANCE or found <= 3 * difference(want, in_double(joint, feeds))


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_without_kinks(name: str, tmp_path: Path) -> None:
    """With Softplus in place of ReLU each gradient is right to a thousandth of its own largest element.

    Those of less than a thousandth of the largest gradient are sums that nearly cancel, to which rounding matters more.
    """
    graph = ig.load(bundled_model(name))
    for node in graph.nodes():
        if node.op.name == "Relu":
            graph.replace_all_uses(node.outputs[0], Builder(graph, near=node).op("Softplus", node.inputs[0]))
    joint, feeds = joint_of(graph)
    want = ig.compile(joint)(feeds)
    results = run(saved(joint, tmp_path / "joint.onnx", external_data=True), feeds)
    assert list(results) == list(want)
    floor = 1e-3 * max(largest(want[gradient]) for gradient in joint.gradients.values())
    for output, array in want.items():
        assert largest(results[output] - array) <= TOLERANCE * max(floor, largest(array)), output


@pytest.mark.parametrize("file", EXPORTS, ids=[file.stem for file in EXPORTS])
def test_one_file_serves_two_sizes(file: Path, tmp_path: Path) -> None:
    joint = ig.grad(ig.load(file), "parameters", loss="mse")
    session = saved(joint, tmp_path / "joint.onnx")
    check = ig.compile(joint)
    dims = {dim for value in joint.inputs.values() for dim in value.shape or () if isinstance(dim, str)}
    assert dims
    for size in (2, 5):
        feeds = plausible_feeds(joint, dims={dim: size + k for k, dim in enumerate(sorted(dims))})
        assert difference(run(session, feeds), check(feeds)) <= TOLERANCE
