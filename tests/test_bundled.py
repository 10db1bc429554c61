"""The nine real models that ship inside the onnx package: loaded unchanged, run, differentiated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import irgrad as ig
from irgrad.bundled import BUNDLED, bundled_model, bundled_output
from irgrad.gradcheck import GradientChecker
from irgrad.graph import Graph
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.verify import verify


@pytest.fixture(params=BUNDLED, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def graph(name: str) -> Iterator[Graph]:
    yield ig.load(bundled_model(name))


def test_forward_equals_the_shipped_output(name: str, graph: Graph) -> None:
    expected = onnx.TensorProto()
    expected.ParseFromString(bundled_output(name).read_bytes())
    ((feed, value),) = graph.inputs.items()
    shape = value.tensor_type.static_shape
    assert shape is not None
    size = int(np.prod(shape))
    # The ramp that onnx's own backend tests feed.
    image = (np.arange(size).reshape(shape) / size).astype(np.float32)
    (result,) = ig.compile(graph)({feed: image}).values()
    np.testing.assert_allclose(result, numpy_helper.to_array(expected), rtol=1e-3, atol=1e-7)


def test_every_weight_is_a_parameter(graph: Graph) -> None:
    assert all(v.is_parameter for v in graph.constants if v.dtype == np.float32 and v.tensor_type.rank)
    verify(graph, types=True)


def test_gradients_agree_with_finite_differences(graph: Graph) -> None:
    """By the image and every weight together, then by the image and two of the weights, where each counts more.

    The files' weights are all 0.02, so that by symmetry most gradients vanish; random ones are fed in their place.
    """
    feeds = plausible_feeds(graph)
    feeds |= plausible_parameters(graph, feeds)
    everything = [*graph.inputs, *graph.parameters]
    checker = GradientChecker(graph, feeds, everything)
    generator = np.random.default_rng(0)
    few = [everything[0], *generator.choice(everything[1:], 2, replace=False)]
    size = sum(array.size for array in graph.parameters.values())
    for names in (everything, few) if size < 3e7 else (everything,):  # the largest ones take a minute for each
        # Along some directions a kink lies so close that differences tell too little: then another one is tried.
        for _ in range(4):
            result = checker.check(generator, names)
            if result.conclusive:
                break
        assert result.ok, (names, result)
        assert abs(result.numeric) > 1e-6, "the check would pass with every gradient at zero"


def test_joint_graph_is_sound_and_round_trips(graph: Graph) -> None:
    joint = ig.vjp(graph, [*graph.inputs, *graph.parameters])
    verify(joint, types=True)
    for source in (graph, joint):
        text = ig.to_text(source)
        again = ig.parse_text(text, {value.name: array for value, array in source.constants.items()})
        assert ig.graphs_equal(source, again) is None
