"""Files that the PyTorch exporters wrote, against the logits and gradients that PyTorch computes.

tests/data/exports/make.py says what the files hold and makes them anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import irgrad as ig
from irgrad.frontend import load
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile

FILES = sorted((Path(__file__).parent / "data" / "exports").glob("*.onnx"))
TOLERANCE = 1e-4  # of the largest element: float32, and sums in another order than PyTorch's
OUTPUT = "logits"


def expected(file: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The feeds, the gradients by name, the logits and their cotangent."""
    with np.load(file.with_suffix(".npz")) as data:
        arrays = dict(data)
    feeds = {name.removeprefix("input:"): array for name, array in arrays.items() if name.startswith("input:")}
    gradients = {name.removeprefix("grad:"): array for name, array in arrays.items() if name.startswith("grad:")}
    return feeds, gradients, arrays[f"output:{OUTPUT}"], arrays["cotangent"]


def assert_close(got: np.ndarray, want: np.ndarray, what: str) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(want).max())), err_msg=what)


def test_there_are_files() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_export(file: Path) -> None:
    feeds, gradients, logits, cotangent = expected(file)
    graph = load(str(file))
    assert_close(compile(graph)(feeds)[OUTPUT], logits, OUTPUT)
    Vjp(wrt=list(gradients), outputs=[OUTPUT]).run(graph)
    results = compile(graph)({**feeds, f"{OUTPUT}_cotangent": cotangent})
    assert_close(results[OUTPUT], logits, OUTPUT)
    for name, gradient in gradients.items():
        assert_close(results[graph.gradients[name]], gradient, name)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_joint_graph_of_an_export_is_sound_and_round_trips(file: Path) -> None:
    graph = ig.load(file)
    joint = ig.vjp(graph, "parameters")
    ig.verify(joint, types=True)
    for source in (graph, joint):
        again = ig.parse_text(ig.to_text(source), {value.name: array for value, array in source.constants.items()})
        assert ig.graphs_equal(source, again) is None
