"""What the cases of attention do not see: blocks, chunks, memory, symbolic sizes, how few nodes an adjoint has, refusals."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Role
from irgrad.ops import attention_kernels
from irgrad.ops.linear_attention_kernels import LinearForm, attend_linearly, pull_back_linearly
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.ops import attention_cases, linear_attention_cases
from tests.ops.harness import Case, rng

F32 = np.dtype(np.float32)


def graph_of(op: str, *shapes: Any, outputs: int = 1, dtype: Any = np.float64, **attrs: Any) -> Graph:
    """One node whose operand k is the input `x<k>` of the given shape; None for an absent operand."""
    graph = Graph(op)
    types = [np.dtype(np.int64 if (op, k) == ("Attention", 6) else dtype) for k in range(len(shapes))]
    operands = [
        None if shape is None else graph.add_input(f"x{k}", TensorType(types[k], shape or None))
        for k, shape in enumerate(shapes)
    ]
    results = Builder(graph).multi(op, *operands, outputs=outputs, **attrs)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(results)})
    return graph


def backward(graph: Graph) -> list[str]:
    Vjp("inputs", ["y0"]).run(graph)
    return [node.op.name for node in graph.nodes() if node.role is Role.BACKWARD]


# --- blocks, chunks, memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [1, 5, 12, 30])
@pytest.mark.parametrize("case", attention_cases.CASES, ids=[case.name for case in attention_cases.CASES])
def test_blocks_do_not_matter(case: Case, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = case.graph()
    want = compile(graph)(case.feeds(graph))
    monkeypatch.setattr(attention_kernels, "_BLOCK", scores)
    for name, result in compile(graph)(case.feeds(graph)).items():
        rtol = 1e-12 if result.dtype == np.float64 else 1e-6 if result.dtype == np.float32 else 1e-2
        np.testing.assert_allclose(result.astype(np.float64), want[name].astype(np.float64), rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("window", [{}, {"is_causal": 1}, {"left_window_size": 20, "right_window_size": 0}])
def test_no_array_of_all_scores_is_made(window: dict[str, int]) -> None:
    shape = (1, 2, 1500, 4)
    graph = graph_of("Attention", *[shape] * 3, dtype=F32, **window)
    Vjp("inputs").run(graph)
    feeds = {name: rng(0).standard_normal(shape).astype(F32) for name in graph.inputs}
    run = compile(graph)
    tracemalloc.start()
    run(feeds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 1500 * 1500 * F32.itemsize / 2


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("per_key", [False, True])
@pytest.mark.parametrize("strength", [0.02, 1.0, 30.0])
def test_long_sequences_in_chunks_and_in_single_precision(rule: str, per_key: bool, strength: float) -> None:
    arrays = linear_attention_cases.operands(rule, (4, 2), past=True, per_key=per_key, strength=strength, steps=150)
    arrays[1] /= 2 * np.linalg.norm(arrays[1].reshape(2, 150, 2, 2), axis=3).max()
    arrays += [None] * (6 - len(arrays))
    dy = rng(11).standard_normal((2, 150, 12))
    forms = [LinearForm(4, 2, None, "delta" in rule, chunk) for chunk in (1, 64)]
    want, got = (attend_linearly(*arrays, form=form) for form in forms)
    dwant, dgot = (pull_back_linearly(*arrays, dy, form=form) for form in forms)
    single = [None if a is None else a.astype(F32) for a in arrays]
    narrow = *attend_linearly(*single, form=forms[1]), *pull_back_linearly(*single, dy.astype(F32), form=forms[1])
    for exact, chunked, rounded in zip((*want, *dwant), (*got, *dgot), narrow, strict=True):
        size = np.linalg.norm(exact)
        assert np.linalg.norm(chunked - exact) <= 1e-11 * size
        assert np.linalg.norm(rounded - exact) <= 2e-5 * size


# --- what nobody asked for --------------------------------------------------------------------------------------------


def test_the_adjoint_is_small() -> None:
    assert backward(graph_of("Attention", *[(2, 4, 8, 6)] * 3)) == ["AttentionGrad"]
    capped = backward(graph_of("Attention", *[(2, 4, 8, 6)] * 3, softcap=1.0))
    assert sorted(capped) == sorted(
        [
            *("Transpose", "MatMul"),  # V
            *("Transpose", "MatMul", "Mul", "ReduceSum", "Sub", "Mul"),  # the masked scores
            *("Transpose", "MatMul", "Mul", "Tanh", "Mul", "Sub", "Mul"),  # the scores
            *("MatMul", "Mul"),  # Q
            *("Transpose", "MatMul", "Mul"),  # K
        ]
    )
    grouped = backward(graph_of("Attention", (2, 4, 8, 6), (2, 2, 8, 6), (2, 2, 8, 6), softcap=1.0))
    assert sorted(grouped) == sorted([*capped, *["Reshape"] * 5])
    assert backward(graph_of("RotaryEmbedding", (2, 4, 3, 6), (2, 3, 3), (2, 3, 3)))[:2] == ["Neg", "RotaryEmbedding"]
    rules = {"update_rule": "linear", "q_num_heads": 2, "kv_num_heads": 2}
    assert backward(graph_of("LinearAttention", *[(2, 3, 4)] * 3, outputs=2, **rules)) == ["LinearAttentionGrad"]


@pytest.mark.parametrize("mode", range(4))
def test_forward_runs_once_where_an_exporter_wrote_all_results(mode: int) -> None:
    graph = graph_of("Attention", *[(1, 2, 3, 4)] * 3, outputs=4, softcap=0.8, qk_matmul_output_mode=mode)
    graph.set_outputs({"y0": graph.outputs["y0"]})
    (node,) = graph.nodes()
    scores = node.outputs[3].name
    feeds = {f"x{k}": rng(k).standard_normal((1, 2, 3, 4)) for k in range(3)}
    check_grads(graph, feeds)
    Vjp("inputs").run(graph)
    assert [n.op.name for n in graph.nodes()].count("Attention") == 1
    assert graph.has_value(scores) == (mode == 3)  # what was to hold scores holds probabilities now


def test_shown_scores_alone_need_no_second_attention() -> None:
    graph = graph_of("Attention", *[(1, 2, 3, 4)] * 3, outputs=4, softcap=0.8)
    Vjp("inputs", ["y3"]).run(graph)
    assert [n.op.name for n in graph.nodes()].count("Attention") == 1


def test_shown_scores_are_not_replaced() -> None:
    graph = graph_of("Attention", *[(1, 2, 3, 4)] * 3, outputs=4)
    feeds = {f"x{k}": rng(k).standard_normal((1, 2, 3, 4)) for k in range(3)}
    want = compile(graph)(feeds)["y3"]
    Vjp("inputs", ["y0"]).run(graph)
    np.testing.assert_array_equal(compile(graph)({**feeds, "y0_cotangent": feeds["x0"]})["y3"], want)


# --- sizes that are not known -----------------------------------------------------------------------------------------


def test_symbolic_sizes_stay() -> None:
    shape = ("N", 4, "T", 8)
    graph = graph_of("Attention", shape, ("N", 2, "S", 8), ("N", 2, "S", 5), outputs=4, dtype=F32)
    assert [value.shape for value in graph.outputs.values()] == [
        *[("N", 4, "T", 5), ("N", 2, "S", 8)],
        *[("N", 2, "S", 5), ("N", 4, "T", "S")],
    ]
    packed = graph_of("Attention", *[("N", "T", 8)] * 3, outputs=3, q_num_heads=4, kv_num_heads=4)
    assert [value.shape for value in packed.outputs.values()] == [("N", "T", 8), *[("N", 4, "T", 2)] * 2]
    linear = {"update_rule": "linear", "q_num_heads": 2, "kv_num_heads": 2}
    graph = graph_of("LinearAttention", *[("N", "T", 8)] * 3, outputs=2, **linear)
    assert [value.shape for value in graph.outputs.values()] == [("N", "T", 8), ("N", 2, 4, 4)]
    graph = graph_of("CausalConvWithState", ("N", 3, "T"), (3, 1, 4), outputs=2)
    assert [value.shape for value in graph.outputs.values()] == [("N", 3, "T"), ("N", 3, 3)]


def test_a_mask_without_axes_is_refused() -> None:
    """Is it for all keys, as broadcasting has it, or for the first one only, as a mask that is shorter than the keys?"""
    with pytest.raises(TypeInferenceError, match="mask of Attention is f64"):
        Case("Attention", [*attention_cases.operands(), np.array(0.0)]).graph()


@pytest.mark.parametrize("outputs", [["y0"], ["y1", "y2"]], ids=["result", "present"])
def test_unknown_rank_runs_but_has_no_gradient(outputs: list[str]) -> None:
    graph = graph_of("Attention", (), (), (), outputs=3)
    x = rng(1).standard_normal((1, 2, 3, 4))
    assert compile(graph)({"x0": x, "x1": x, "x2": x})["y0"].shape == x.shape
    with pytest.raises(UnsupportedOpError, match="ranks of Q, K and V"):
        Vjp("inputs", outputs).run(graph)


# --- refusals ---------------------------------------------------------------------------------------------------------

H = (2, 4, 3, 6)
P = (2, 3, 8)
LINEAR = {"q_num_heads": 2, "kv_num_heads": 2}


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "message"),
    [
        ("Attention", [P, P, P], {}, "needs the attribute q_num_heads"),
        ("Attention", [P, P, P], {"q_num_heads": 2, "kv_num_heads": 0}, "needs the attribute kv_num_heads"),
        ("Attention", [H, H, H], {"q_num_heads": 4}, "for operands with 3 axes"),
        ("Attention", [H, P, P], {}, "all have 3 or all have 4 axes"),
        ("Attention", [(2, 3), (2, 3), (2, 3)], {}, "all have 3 or all have 4 axes"),
        ("Attention", [P, P, P], {"q_num_heads": 3, "kv_num_heads": 2}, "divide the last axis"),
        ("Attention", [H, (2, 3, 3, 6), (2, 3, 3, 6)], {}, "no multiple"),
        ("Attention", [H, (3, 4, 3, 6), (3, 4, 3, 6)], {}, "different batch sizes"),
        ("Attention", [H, (2, 4, 3, 5), H], {}, "different sizes of Q's and K's heads"),
        ("Attention", [H, (2, 4, 5, 6), H], {}, "different numbers of keys and values"),
        ("Attention", [H, H, H, None, H], {}, "past_key and past_value together"),
        ("Attention", [H, H, H, None, H, H, (2,)], {}, "not both"),
        ("Attention", [H, H, H, None, P, P], {}, "past keys and values with 4 axes"),
        ("Attention", [H, H, H, None, None, None, (1,)], {}, "different batch sizes"),
        ("Attention", [H, H, H, None, None, None, (2, 1)], {}, "nonpad_kv_seqlen with 1 axes"),
        ("Attention", [H, H, H], {"left_window_size": -2}, "left_window_size"),
        ("Attention", [H, H, H], {"softcap": -1.0}, "softcap of Attention is -1.0"),
        ("Attention", [H, H, H], {"qk_matmul_output_mode": 4}, "qk_matmul_output_mode of Attention is 4"),
        ("Attention", [H, H, H], {"softmax_precision": 7}, "softmax_precision of Attention is 7"),
        ("Attention", [H, H, H, (4,)], {}, "mask of Attention is"),
        ("Attention", [H, H, H, (4, 3)], {}, "mask of Attention is"),
        ("Attention", [H, H, H, (2, 3)], {}, "mask of Attention is"),
        ("Attention", [H, H, H, (2, 3, 3)], {}, "mask of Attention is"),
        ("Attention", [H, H, H, (3, 4, 3, 3)], {}, "mask of Attention is"),
        ("Attention", [H, H, H, (1, 1, 1, 3, 3)], {}, "mask of Attention is"),
        ("RotaryEmbedding", [P, (2, 3, 2), (2, 3, 2)], {}, "num_heads"),
        ("RotaryEmbedding", [(2, 3), (2, 3, 2), (2, 3, 2)], {}, "3 or 4 axes"),
        ("RotaryEmbedding", [P, (2, 3, 2), (2, 3, 2)], {"num_heads": -2}, "num_heads"),
        ("RotaryEmbedding", [P, (2, 3, 2), (2, 3, 2)], {"num_heads": 3}, "among 3 heads"),
        ("RotaryEmbedding", [(2, 4, 3, 5), (2, 3, 2), (2, 3, 2)], {}, "pairs of elements, but not 5"),
        ("RotaryEmbedding", [H, (2, 3, 4), (2, 3, 4)], {"rotary_embedding_dim": 8}, "pairs of elements, but not 8"),
        ("RotaryEmbedding", [H, (2, 3, 4), (2, 3, 4)], {"rotary_embedding_dim": -2}, "pairs of elements, but not -2"),
        ("RotaryEmbedding", [H, (5, 3), (5, 3), (1, 3)], {}, "position_ids"),
        ("RotaryEmbedding", [H, (5, 3), (5, 3), (3,)], {}, "position_ids"),
        ("RotaryEmbedding", [H, (2, 3, 2), (2, 3, 3)], {}, "cos_cache"),
        ("RotaryEmbedding", [H, (2, 3, 3), (3, 3)], {}, "sin_cache"),
        ("LinearAttention", [P, P, P], {"update_rule": "linear"}, "heads of queries"),
        ("LinearAttention", [P, P, P], {**LINEAR, "update_rule": "cubic"}, "update rule 'cubic'"),
        ("LinearAttention", [P, P, P], {**LINEAR, "update_rule": "gated"}, "takes a decay"),
        ("LinearAttention", [P, P, P, None, None, P], {**LINEAR, "update_rule": "linear"}, "takes no beta"),
        ("LinearAttention", [P, P, (2, 4, 8)], {**LINEAR, "update_rule": "linear"}, "do not fit each other"),
        ("LinearAttention", [P, P, P, None, (2, 3, 3)], {**LINEAR, "update_rule": "gated"}, "do not fit each other"),
        ("LinearAttention", [P, P, P, (2, 2, 4, 3)], {**LINEAR, "update_rule": "linear"}, "do not fit each other"),
        ("CausalConvWithState", [P, (3, 1, 2)], {"activation": "relu"}, "'relu'"),
        ("CausalConvWithState", [P, (4, 1, 2)], {}, "do not fit each other"),
        ("CausalConvWithState", [P, (3, 1, 2), None, (2, 3, 2)], {}, "do not fit each other"),
        ("CausalConvWithState", [P, (3, 2)], {}, "has 3 axes"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op: str, shapes: list[Any], attrs: dict[str, Any], message: str) -> None:
    outputs = 1 if op in ("Attention", "RotaryEmbedding") else 2
    with pytest.raises(TypeInferenceError, match=message):
        graph_of(op, *shapes, outputs=outputs, **attrs)
