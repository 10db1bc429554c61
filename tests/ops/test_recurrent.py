"""Recurrent layers against unrolled graphs and PyTorch, in 16 bits and at the edges; what attributes may say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import irgrad as ig
from irgrad.builder import Builder
from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Value
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.ops.harness import rng
from tests.ops.recurrent_cases import EVERYTHING, GATES, H0, HIDDEN, LENGTHS, LONG, X, case, layer, operands

STEPS, BATCH = 5, 3


def gradients(graph: Graph, feeds: dict[str, Any], cotangents: dict[str, Any]) -> dict[str, Any]:
    """The outputs, and the gradients by all inputs and parameters, under the names of what they are gradients by."""
    joint = ig.vjp(graph, wrt=[*graph.inputs, *graph.parameters], outputs=list(cotangents))
    found = compile(joint)({**feeds, **{f"{name}_cotangent": c for name, c in cotangents.items()}})
    return {**{name: found[name] for name in graph.outputs}, **{of: found[name] for of, name in joint.gradients.items()}}


def assert_close(got: dict[str, Any], want: dict[str, Any], rtol: float = 1e-9) -> None:
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=rtol, err_msg=name)


# --- unrolled ---------------------------------------------------------------------------------------------------------


def unrolled_lstm(b: Builder, xs: Sequence[Value], w: Value, r: Value, bias: Value, h: Value, c: Value) -> list[Value]:
    states = []
    for x in xs:
        z = b.op("Gemm", x, w, bias, transB=1) + b.op("Gemm", h, r, transB=1)
        i, o, f, g = b.multi("Split", z, outputs=4, axis=1, num_outputs=4)
        c = b.op("Sigmoid", f) * c + b.op("Sigmoid", i) * b.op("Tanh", g)
        h = b.op("Sigmoid", o) * b.op("Tanh", c)
        states.append(h)
    return states


def unrolled_gru(b: Builder, xs: Sequence[Value], w: Value, r: Value, bias: Value, h: Value, _: Value) -> list[Value]:
    states = []
    w_gates, r_gates, bias_gates = (b.multi("Split", v, outputs=3, axis=0, num_outputs=3) for v in (w, r, bias))
    for x in xs:
        xz, xr, xh = (b.op("Gemm", x, w, bias, transB=1) for w, bias in zip(w_gates, bias_gates, strict=True))
        update = b.op("Sigmoid", xz + b.op("Gemm", h, r_gates[0], transB=1))
        reset = b.op("Sigmoid", xr + b.op("Gemm", h, r_gates[1], transB=1))
        hidden = b.op("Tanh", xh + b.op("Gemm", reset * h, r_gates[2], transB=1))
        h = (1 - update) * hidden + update * h
        states.append(h)
    return states


@pytest.mark.parametrize(("kind", "unroll"), [("LSTM", unrolled_lstm), ("GRU", unrolled_gru)])
def test_a_layer_is_its_unrolled_graph(kind: str, unroll: Callable[..., list[Value]]) -> None:
    g, generator = GATES[kind], rng(3)
    shapes = {
        "x": (STEPS, BATCH, 4),
        "w": (1, g * HIDDEN, 4),
        "r": (1, g * HIDDEN, HIDDEN),
        "b": (1, 2 * g * HIDDEN),
        "h": (1, BATCH, HIDDEN),
        "c": (1, BATCH, HIDDEN),
    }
    feeds = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    if kind == "GRU":
        del feeds["c"]
    cotangent = generator.standard_normal((STEPS, 1, BATCH, HIDDEN))

    layered, unrolled = Graph("layer"), Graph("unrolled")
    operands = [layered.add_input(name, TensorType.of(array)) for name, array in feeds.items()]
    layered.set_outputs({"y": Builder(layered).op(kind, *operands[:4], None, *operands[4:])})
    inputs = {name: unrolled.add_input(name, TensorType.of(array)) for name, array in feeds.items()}
    with Builder(unrolled) as b:
        xs = [b.op("Gather", inputs["x"], b.constant(np.array(t))) for t in range(STEPS)]
        w, r, bias, h, c = (b.op("Squeeze", inputs[name], b.ints([0])) for name in ("w", "r", "b", "h", [*inputs][-1]))
        of_input, of_recurrence = b.multi("Split", bias, outputs=2, axis=0, num_outputs=2)
        states = unroll(b, xs, w, r, of_input + of_recurrence, h, c)
        unrolled.set_outputs({"y": b.op("Concat", *(b.op("Unsqueeze", s, b.ints([0, 1])) for s in states), axis=0)})
    got, want = (gradients(graph, feeds, {"y": cotangent}) for graph in (layered, unrolled))
    assert_close(got, want)


# --- PyTorch ----------------------------------------------------------------------------------------------------------

ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""For each gate in ONNX's order its place in PyTorch's: i, f, g, o and r, z, n."""


def reordered(kind: str, array: Any) -> Any:
    parts = np.split(array, GATES[kind])
    return np.concatenate([parts[k] for k in ORDERS[kind]])


def stacked(kind: str, module: Any, get: Callable[[Any], Any]) -> dict[str, Any]:
    """The weights of a PyTorch module, or their gradients, as ONNX has them, layer by layer."""
    found: dict[str, Any] = {}
    ends = ["", "_reverse"] if module.bidirectional else [""]
    for k in range(module.num_layers):
        for name, of in (("W", "weight_ih"), ("R", "weight_hh")):
            found[f"{name}{k}"] = np.stack([reordered(kind, get(getattr(module, f"{of}_l{k}{end}"))) for end in ends])
        biases = [
            np.concatenate([reordered(kind, get(getattr(module, f"{of}_l{k}{end}"))) for of in ("bias_ih", "bias_hh")])
            for end in ends
        ]
        found[f"B{k}"] = np.stack(biases)
    return found


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("layers", "bidirectional"), [(2, True), (1, False)])
def test_a_stack_agrees_with_pytorch(kind: str, layers: int, bidirectional: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    directions, hidden, size = 1 + bidirectional, 3, 4
    module = getattr(torch.nn, kind)(size, hidden, layers, bidirectional=bidirectional).double()
    x = torch.randn(STEPS, BATCH, size, dtype=torch.float64, requires_grad=True)
    starts = [torch.randn(layers * directions, BATCH, hidden, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    starts = starts if kind == "LSTM" else starts[:1]
    y, ends = module(x, tuple(starts) if kind == "LSTM" else starts[0])
    results = [y, *(ends if kind == "LSTM" else [ends])]
    cotangents = [torch.randn_like(v) for v in results]
    torch.autograd.backward(results, cotangents)

    graph = Graph("stack")
    b = Builder(graph)
    value = graph.add_input("x", TensorType(np.dtype(np.float64), (STEPS, BATCH, size)))
    initial = [
        graph.add_input(name, TensorType(np.dtype(np.float64), tuple(v.shape)))
        for name, v in zip("hc", starts, strict=False)
    ]
    by_layer = [b.multi("Split", v, outputs=layers, axis=0, num_outputs=layers) for v in initial]
    final: list[list[Value]] = []
    weights = stacked(kind, module, lambda v: v.detach().numpy())
    for k in range(layers):
        w, r, bias = (graph.add_constant(weights[f"{name}{k}"], f"{name}{k}", parameter=True) for name in "WRB")
        outputs = b.multi(
            kind,
            *(value, w, r, bias, None, *(parts[k] for parts in by_layer)),
            outputs=1 + len(initial),
            direction="bidirectional" if bidirectional else "forward",
            **({"linear_before_reset": 1} if kind == "GRU" else {}),
        )
        turned = b.op("Transpose", outputs[0], perm=(0, 2, 1, 3))
        value = b.op("Reshape", turned, b.ints([STEPS, BATCH, directions * hidden]))
        final.append(list(outputs[1:]))
    joined = {
        f"{name}_n": b.op("Concat", *parts, axis=0) for name, parts in zip("hc", zip(*final, strict=True), strict=False)
    }
    graph.set_outputs({"y": value, **joined})

    fed = dict(zip(graph.outputs, (c.numpy() for c in cotangents), strict=True))
    feeds = dict(zip(graph.inputs, (v.detach().numpy() for v in (x, *starts)), strict=True))
    want = dict(zip(graph.outputs, (v.detach().numpy() for v in results), strict=True))
    want |= dict(zip(graph.inputs, (v.grad.numpy() for v in (x, *starts)), strict=True))
    assert_close(gradients(graph, feeds, fed), want | stacked(kind, module, lambda v: v.grad.numpy()))


# --- 16 bits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", GATES)
def test_sixteen_bits_are_float32_inside(kind: str, dtype: Any) -> None:
    narrow = case(kind, "narrow", EVERYTHING, direction="bidirectional", layout=1)
    inputs = [None if a is None or k == LENGTHS else a.astype(dtype) for k, a in enumerate(narrow.inputs)]
    feeds = {f"x{k}": a for k, a in enumerate(inputs) if a is not None}
    results = []
    for of in (dtype, np.float64):
        graph = Graph("narrow")
        b = Builder(graph)
        values = [
            None if a is None else graph.add_input(f"x{k}", TensorType(np.dtype(of), a.shape)) for k, a in enumerate(inputs)
        ]
        lengths = b.constant(narrow.inputs[LENGTHS])
        values[LENGTHS] = lengths
        y, *_ = b.multi(kind, *values, outputs=narrow.outputs, **narrow.attrs)
        graph.set_outputs({"y": y})
        cotangent = rng(2).standard_normal([d for d in y.shape or () if isinstance(d, int)]).astype(dtype)
        cast = {name: array.astype(of) for name, array in feeds.items()}
        results.append(gradients(graph, cast, {"y": cotangent.astype(of)}))
    for name, want in results[1].items():
        assert results[0][name].dtype == dtype
        error = np.abs(results[0][name].astype(np.float64) - want).max()
        assert error <= 4 * float(ml_dtypes.finfo(dtype).eps) * np.abs(want).max(), name


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {}), ("LSTM", {"input_forget": 1})],
)
def test_a_single_unit_in_single_precision(kind: str, attrs: dict[str, int]) -> None:
    """Its gates are columns with gaps between the elements, of which numpy 2.4 gets some functions wrong."""
    g, generator = GATES[kind], rng(5)
    shapes = [(STEPS, BATCH, 3), (1, g, 3), (1, g, 1), (1, 2 * g), None, (1, BATCH, 1), (1, BATCH, 1), (1, 3)]
    inputs = [None if s is None else generator.standard_normal(s) for s in shapes[: 8 if kind == "LSTM" else 6]]
    found = []
    for dtype in (np.float32, np.float64):
        graph = Graph("unit")
        feeds = {f"x{k}": a.astype(dtype) for k, a in enumerate(inputs) if a is not None}
        values = [
            None if a is None else graph.add_input(f"x{k}", TensorType(np.dtype(dtype), a.shape))
            for k, a in enumerate(inputs)
        ]
        graph.set_outputs({"y": Builder(graph).op(kind, *values, **attrs)})
        found.append(gradients(graph, feeds, {"y": np.ones((STEPS, 1, BATCH, 1), dtype)}))
    assert_close(*found, rtol=2e-5)


# --- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_what_lies_behind_the_end_does_not_matter(kind: str, direction: str) -> None:
    """Not even NaN, and its gradient is 0."""
    padded = case(kind, "padded", EVERYTHING, direction=direction)
    graph = padded.graph()
    feeds = padded.feeds(graph)
    cotangents = {name: rng(4).standard_normal(v.tensor_type.static_shape or ()) for name, v in graph.outputs.items()}
    want = gradients(graph.copy(), feeds, cotangents)
    behind = np.arange(len(feeds["x0"]))[:, None] >= padded.inputs[LENGTHS]
    assert behind.any()
    feeds["x0"] = feeds["x0"].copy()
    feeds["x0"][behind] = np.nan
    got = gradients(graph, feeds, cotangents)
    assert_close(got, want)
    assert not got["x0"][behind].any()


@pytest.mark.parametrize("kind", GATES)
def test_empty_sequences_keep_their_state(kind: str) -> None:
    empty = case(kind, "empty", LONG)
    inputs = [*empty.inputs]
    inputs[LENGTHS] = np.array([0, 2, 0], np.int32)
    graph = Graph("empty")
    values = [None if a is None else graph.add_input(f"x{k}", TensorType.of(a)) for k, a in enumerate(inputs)]
    graph.set_outputs(Builder(graph).multi(kind, *values, outputs=empty.outputs))
    feeds = {f"x{k}": a for k, a in enumerate(inputs) if a is not None}
    _, state, *_ = compile(graph)(feeds).values()
    np.testing.assert_array_equal(state[0, [0, 2]], inputs[H0][0, [0, 2]])
    check_grads(graph, feeds)


@pytest.mark.parametrize("lengths", [[5, 1, 1], [1, -1, 1]])
def test_impossible_lengths_are_refused(lengths: list[int]) -> None:
    wrong = case("RNN", "wrong", (LENGTHS,))
    graph = wrong.graph(dynamic=True)
    with pytest.raises(ExecutionError, match=r"sequence_lens are -?1 to [15], but there are 4 steps"):
        compile(graph)({**wrong.feeds(graph), "x4": np.array(lengths, np.int32)})


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2)], ids=["no-steps", "no-batch"])
def test_nothing_to_do(kind: str, shape: tuple[int, ...]) -> None:
    graph = Graph("nothing")
    _, *weights = operands(kind, {}, ())
    x = graph.add_input("x", TensorType(np.dtype(np.float64), shape))
    constants = [graph.add_constant(a, name, parameter=True) for a, name in zip(weights, "wr", strict=True)]
    graph.set_outputs({"y": Builder(graph).op(kind, x, *constants)})
    found = gradients(graph, {"x": np.zeros(shape)}, {"y": np.zeros((shape[0], 1, shape[1], HIDDEN))})
    assert found["y"].shape == (shape[0], 1, shape[1], HIDDEN)
    assert found["x"].shape == shape
    assert not found["w"].any() and not found["r"].any()


# --- the joint graph --------------------------------------------------------------------------------------------------


def test_the_forward_node_saves_what_the_adjoint_needs() -> None:
    joint = ig.vjp(case("LSTM", "joint", LONG).graph(), wrt=["x0", "x1"])
    assert [node.op.qualified_name for node in joint.nodes()] == ["irgrad.LSTM", "irgrad.LSTMGrad"]


def test_the_adjoint_reads_only_what_it_needs() -> None:
    of_inputs = ig.vjp(case("LSTM", "inputs", LONG).graph(), wrt=["x0"]).nodes()[-1]
    of_weights = ig.vjp(case("LSTM", "weights", LONG).graph(), wrt=["x1"]).nodes()[-1]
    first = len(of_inputs.inputs) - 8
    assert [v is None for v in of_inputs.inputs[first : first + 4]] == [True, False, False, True]
    assert [v is None for v in of_weights.inputs[first : first + 4]] == [False, True, False, True]


def test_a_node_that_saves_its_gates_is_differentiated_again() -> None:
    """A second gradient of the forward outputs of a joint graph."""
    twice = case("GRU", "twice", LONG)
    graph = twice.graph()
    joint = ig.vjp(graph, wrt=["x0"], outputs=["y0"])
    feeds = twice.feeds(graph)
    feeds["y0_cotangent"] = rng(1).standard_normal(graph.outputs["y0"].tensor_type.static_shape or ())
    once = compile(joint)(feeds)
    joint.set_outputs({"again": joint.outputs["y0"]})
    second = ig.vjp(joint, wrt=["x0"], outputs=["again"])
    feeds["again_cotangent"] = feeds["y0_cotangent"]
    np.testing.assert_array_equal(compile(second)(feeds)[second.gradients["x0"]], once["x0_grad"])


def test_a_file_may_leave_out_any_output() -> None:
    x, w, r = (a.astype(np.float32) for a in operands("LSTM", {}, ()))
    want = layer("LSTM", {})(*operands("LSTM", {}, ()))
    for names in (["y"], ["", "h"], ["", "", "c"], ["y", "", "c"]):
        node = helper.make_node("LSTM", ["x", "w", "r"], names, hidden_size=HIDDEN)
        wanted = [k for k, name in enumerate(names) if name]
        graph = helper.make_graph(
            [node],
            "partial",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(names[k], TensorProto.FLOAT, None) for k in wanted],
            [numpy_helper.from_array(w, "w"), numpy_helper.from_array(r, "r")],
        )
        read = ig.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]))
        for (name, got), k in zip(compile(read)({"x": x}).items(), wanted, strict=True):
            np.testing.assert_allclose(got, want[k], rtol=1e-4, err_msg=name)
        check_grads(read, {"x": x}, ["x", "w", "r"])


# --- attributes -------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("LSTM", {"direction": "backward"}, "direction 'backward'"),
    ("LSTM", {"layout": 2}, "layout 2"),
    ("GRU", {"clip": 0.0}, "clips at 0.0"),
    ("GRU", {"hidden_size": 3}, r"GRU: the operand W is f64\[1,6,2\], but f64\[1,9,2\] is needed"),
    ("RNN", {"activations": ("Tanhh",)}, "'Tanhh' is no activation function; did you mean 'Tanh'"),
    ("RNN", {"activations": ("Affine",)}, "Affine needs a value in activation_alpha"),
    ("LSTM", {"activations": ("Sigmoid", "Tanh")}, "2 activation functions, but 3 are needed"),
    (
        "LSTM",
        {"activations": ("Sigmoid", "LeakyRelu", "Tanh"), "activation_alpha": (0.0, 0.3, 0.0)},
        "3 values, but 1 of the activation functions Sigmoid, LeakyRelu, Tanh take one",
    ),
    ("RNN", {"direction": "bidirectional"}, "the operand W is"),
]


@pytest.mark.parametrize(
    ("kind", "attrs", "message"), REFUSED, ids=[f"{kind}-{next(iter(attrs))}" for kind, attrs, _ in REFUSED]
)
def test_what_attributes_cannot_say_is_refused(kind: str, attrs: dict[str, Any], message: str) -> None:
    graph = Graph("refused")
    values = [graph.add_input(f"x{k}", TensorType.of(a)) for k, a in enumerate(operands(kind, {}, ()))]
    with pytest.raises(TypeInferenceError, match=message):
        Builder(graph).op(kind, *values, **attrs)


def test_operands_that_do_not_fit_are_refused() -> None:
    graph = Graph("refused")
    x, w, r = (graph.add_input(f"x{k}", TensorType.of(a)) for k, a in enumerate(operands("GRU", {}, ())))
    b = Builder(graph)
    with pytest.raises(TypeInferenceError, match="GRU lacks its operand 2, 'R'"):
        b.op("GRU", x, w)
    with pytest.raises(TypeInferenceError, match=r"the operand initial_h is f64\[1,6,2\], but f64\[1,3,2\] is needed"):
        b.op("GRU", x, w, r, None, None, w)
    with pytest.raises(TypeInferenceError, match="'sequence_lens', is f64"):
        b.op("GRU", x, w, r, None, x)


def test_sizes_follow_from_any_operand() -> None:
    """Symbols pass through; the hidden size may be told by R alone."""
    graph = Graph("symbols")
    double = np.dtype(np.float64)
    x = graph.add_input("x", TensorType(double, ("T", "N", 2)))
    w = graph.add_input("w", TensorType(double, None))
    r = graph.add_input("r", TensorType(double, (1, None, 5)))
    y, h, c = Builder(graph).multi("LSTM", x, w, r, outputs=3)
    assert y.shape == ("T", 1, "N", 5)
    assert h.shape == c.shape == (1, "N", 5)
    assert X == 0
