"""Kernels on arrays that are cut into blocks and shared out among threads: right, and without memory of their own."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder, typed_call
from irgrad.graph import Graph
from irgrad.op import WorkspaceKernel
from irgrad.runtime import fast
from irgrad.runtime.kernels import bind, results_of
from irgrad.runtime.threads import limited
from irgrad.types import TensorType
from tests.ops.harness import rng


@dataclass(frozen=True)
class Large:
    """One node with large operands.

    Attributes:
        op: the operation.
        shapes: of its operands; None for an absent one.
        attrs: its attributes.
        outputs: how many outputs it has.
        ints: further operands that are constants.
        conditions: how many operands at the beginning are truth values.
    """

    op: str
    shapes: tuple[tuple[int, ...] | None, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    ints: tuple[Sequence[int], ...] = ()
    conditions: int = 0

    @property
    def name(self) -> str:
        return "-".join([self.op, *("x".join(map(str, s or ())) for s in self.shapes[:1]), *map(str, self.attrs.values())])

    def operands(self, dtype: Any) -> list[np.ndarray | None]:
        generator = rng(0)
        arrays: list[np.ndarray | None] = []
        for k, shape in enumerate(self.shapes):
            if shape is None:
                arrays.append(None)
            elif k < self.conditions:
                arrays.append(generator.random(shape) < 0.5)
            else:
                arrays.append((generator.standard_normal(shape) * 2).astype(dtype))
        if "BatchNormalization" in self.op and len(self.shapes) > 4:
            arrays[4] = np.abs(generator.standard_normal(self.shapes[4] or ())).astype(dtype)
        return [*arrays, *(np.array(v, np.int64) for v in self.ints)]

    def kernel(self, operands: list[np.ndarray | None]) -> Any:
        graph = Graph("large")
        first = len(self.shapes)
        values = [
            None
            if a is None
            else graph.add_input(f"x{k}", TensorType(a.dtype, a.shape))
            if k < first
            else graph.add_constant(a, f"c{k}")
            for k, a in enumerate(operands)
        ]
        Builder(graph).multi(self.op, *values, outputs=self.outputs, **self.attrs)
        (node,) = graph.nodes()
        return bind(typed_call(node)), [value.tensor_type.static_shape for value in node.outputs]


IMAGES, CHANNEL = (6, 40, 23, 23), (40,)
TOKENS, WIDTH = (7, 90, 384), (384,)
HEADS = (3, 4, 150, 16)

CASES = [
    Large("MatMul", (TOKENS, (384, 200))),
    Large("MatMul", (HEADS, (3, 4, 16, 300))),
    Large("MatMul", ((40, 64, 64), (40, 64, 64))),
    Large("Gemm", ((300, 200), (200, 400), (400,))),
    Large("Gemm", ((200, 300), (400, 200), (300, 1)), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Large("Einsum", (HEADS, HEADS), {"equation": "bhqd,bhkd->bhqk"}),
    Large("Einsum", (TOKENS, TOKENS), {"equation": "btd,bsd->bts"}),
    Large("Einsum", (TOKENS, (384, 5, 20)), {"equation": "btd,dhk->bhtk"}),
    *(
        Large(op, (IMAGES,), ints=(axes,))
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceL1")
        for axes in ((0, 2, 3), (2, 3), (0,), (1,), (0, 1, 2, 3))
    ),
    Large("ReduceSum", ((300_007,),), ints=((0,),)),
    Large("ReduceSum", ((2_500, 3, 300),), {"keepdims": 0}, ints=((0, 2),)),
    Large("irgrad.SumTo", (TOKENS,), ints=((384,),)),
    Large("irgrad.SumTo", (IMAGES,), ints=((40, 1, 1),)),
    *(Large(op, (x,), {"axis": axis}) for op in ("Softmax", "LogSoftmax") for x, axis in [(TOKENS, -1), (IMAGES, 1)]),
    Large("irgrad.SoftmaxGrad", (TOKENS, TOKENS), {"axis": -1}),
    Large("LayerNormalization", (TOKENS, WIDTH, WIDTH)),
    Large("LayerNormalization", (TOKENS, WIDTH, WIDTH), {"axis": 2}, outputs=3),
    Large("LayerNormalization", (TOKENS, (90, 384), (90, 384)), {"axis": 1}),
    Large("RMSNormalization", (TOKENS, WIDTH)),
    Large("irgrad.LayerNormalizationGrad", (TOKENS, TOKENS, WIDTH), outputs=3),
    Large("irgrad.LayerNormalizationGrad", (TOKENS, TOKENS, WIDTH), {"centred": 0, "wrt": (0, 1)}, outputs=2),
    Large("InstanceNormalization", (IMAGES, CHANNEL, CHANNEL)),
    Large("GroupNormalization", (IMAGES, CHANNEL, CHANNEL), {"num_groups": 8}),
    Large("irgrad.GroupNormalizationGrad", (IMAGES, IMAGES, CHANNEL), {"num_groups": 8}, outputs=3),
    Large("irgrad.GroupNormalizationGrad", (IMAGES, IMAGES, CHANNEL), outputs=3),
    Large("MeanVarianceNormalization", (IMAGES,)),
    Large("LpNormalization", (TOKENS,)),
    Large("BatchNormalization", (IMAGES, *[CHANNEL] * 4)),
    Large("BatchNormalization", (IMAGES, *[CHANNEL] * 4), {"training_mode": 1}, outputs=3),
    Large("BatchNormalization", ((6000, 40), *[CHANNEL] * 4), {"training_mode": 1}, outputs=3),
    Large("irgrad.BatchNormalizationGrad", (IMAGES, IMAGES, CHANNEL), {"training_mode": 1}, outputs=3),
    Large("irgrad.BatchNormalizationGrad", (IMAGES, IMAGES, *[CHANNEL] * 3), {"wrt": (0, 1, 2, 3, 4)}, outputs=5),
    Large("LRN", (IMAGES,), {"size": 5}),
    Large("irgrad.LRNGrad", (IMAGES, IMAGES), {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}),
    *(Large(op, (TOKENS,)) for op in ("Gelu", "Erf", "Sigmoid", "Softplus", "Swish", "Mish", "HardSwish", "Elu", "Selu")),
    *(Large(op, (TOKENS,)) for op in ("LeakyRelu", "Relu", "Tanh", "Exp", "Softsign", "HardSigmoid", "ThresholdedRelu")),
    Large("Gelu", (TOKENS,), {"approximate": "tanh"}),
    Large("PRelu", (TOKENS, WIDTH)),
    Large("Add", (TOKENS, WIDTH)),
    Large("Mul", (IMAGES, (40, 1, 1))),
    Large("Max", (TOKENS, TOKENS)),
    Large("Where", (TOKENS, TOKENS, TOKENS), conditions=1),
    Large("Where", ((90, 1), TOKENS, WIDTH), conditions=1),
    Large("Cast", (TOKENS,), {"to": 11}),
    Large("Attention", (HEADS, HEADS, HEADS)),
    Large("Attention", (HEADS, HEADS, HEADS), {"is_causal": 1}),
    Large("Attention", ((2, 4, 700, 16), (2, 2, 700, 16), (2, 2, 700, 8)), {"is_causal": 1}),
    Large("Attention", (HEADS, HEADS, HEADS, (150, 150))),
    Large("irgrad.AttentionGrad", (HEADS, HEADS, HEADS, None, None, None, None, HEADS), outputs=3),
    Large(
        "irgrad.AttentionGrad",
        ((2, 4, 700, 16), (2, 2, 700, 16), (2, 2, 700, 8), None, None, None, None, (2, 4, 700, 8)),
        {"is_causal": 1},
        outputs=3,
    ),
    Large("RotaryEmbedding", (HEADS, (3, 150, 8), (3, 150, 8))),
]

_OBJECTS = 80 << 10
"""Bytes that a call may hold at a time: Python's objects, and 8192 elements of two operands by which numpy broadcasts."""


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_blocks_and_threads_give_what_double_precision_gives(case: Large) -> None:
    double = case.operands(np.float64)
    single = [a if a is None or a.dtype != np.float64 else a.astype(np.float32) for a in double]
    exact = [a if a is None or a.dtype != np.float32 else a.astype(np.float64) for a in single]
    with fast.using(False), np.errstate(all="ignore"):
        with limited(1):
            kernel, _ = case.kernel(exact)
            want = results_of(kernel(*exact), case.outputs)
        with limited(3):
            kernel, _ = case.kernel(single)
            found = results_of(kernel(*single), case.outputs)
    for mine, reference in zip(found, want, strict=True):
        if mine.dtype.kind == "f":
            scale = max(float(np.abs(reference).max()), 1e-30)
            np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_no_memory_of_its_own(case: Large) -> None:
    operands = case.operands(np.float32)
    with fast.using(False), limited(1), np.errstate(all="ignore"):
        kernel, shapes = case.kernel(operands)
        outs = [r.copy() for r in results_of(kernel(*operands), case.outputs)]
        assert [out.shape for out in outs] == shapes
        given: dict[str, Any] = {"out": tuple(outs) if case.outputs > 1 else outs[0]}
        function = kernel
        if isinstance(kernel, WorkspaceKernel):
            function, given["work"] = kernel.function, np.empty(kernel.workspace, np.uint8)
        function(*operands, **given)
        tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            function(*operands, **given)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak - before < _OBJECTS


COMPILED = [
    Large("Softmax", (TOKENS,)),
    Large("irgrad.SoftmaxGrad", (TOKENS, TOKENS)),
    Large("LayerNormalization", (TOKENS, WIDTH, WIDTH), outputs=3),
    Large("irgrad.LayerNormalizationGrad", (TOKENS, TOKENS, WIDTH), outputs=3),
    Large("irgrad.GroupNormalizationGrad", (IMAGES, IMAGES, CHANNEL), {"num_groups": 8}, outputs=3),
    Large("BatchNormalization", (IMAGES, *[CHANNEL] * 4), {"training_mode": 1}, outputs=3),
    Large("irgrad.BatchNormalizationGrad", (IMAGES, IMAGES, CHANNEL), {"training_mode": 1}, outputs=3),
    Large("Gelu", (TOKENS,)),
    Large("Attention", (HEADS, HEADS, HEADS, (150, 150)), {"is_causal": 1}),
    Large("irgrad.AttentionGrad", (HEADS, HEADS, HEADS, None, None, None, None, HEADS), outputs=3),
]


@pytest.mark.parametrize("case", COMPILED, ids=[case.name for case in COMPILED])
def test_compiled_forms_agree(case: Large) -> None:
    pytest.importorskip("numba")
    operands = case.operands(np.float32)
    with np.errstate(all="ignore"):
        with fast.using(False):
            kernel, _ = case.kernel(operands)
            want = results_of(kernel(*operands), case.outputs)
        with fast.using(True), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # what cannot be compiled warns
            kernel, _ = case.kernel(operands)
            for _ in range(2):
                kernel(*operands)
            assert fast.wait(120)
            found = results_of(kernel(*operands), case.outputs)
    for mine, reference in zip(found, want, strict=True):
        scale = float(np.abs(reference).max())
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=2e-6 * scale)
