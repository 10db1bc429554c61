"""Cases of irgrad/ops/loss.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

N, C = 5, 4
SCORES = rng(120).standard_normal((N, C))
PIXELS = rng(121).standard_normal((2, C, 3, 2))
WEIGHTS = rng(122).uniform(0.5, 1.5, C)
LABELS = np.array([1, 0, 3, 3, 2])
PIXEL_LABELS = np.array([[[0, 1], [2, 3], [1, 1]], [[3, 0], [0, 2], [2, 1]]])
SOME_IGNORED = np.array([1, -100, 3, 0, -100])


def log_prob(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Along a new axis 1; a label that is no class gives zeros."""
    return np.moveaxis((labels[..., None] == np.arange(classes)).astype(np.float64), -1, 1)


def coefficients(dloss: Any, labels: np.ndarray, weights: Any, ignore: int | None, reduction: str) -> tuple[Any, Any]:
    """The one-hot labels (zeros where ignored), and for each sample dloss · w over what the mean is over."""
    hits = one_hot(np.where(labels == ignore, -1, labels), C)
    shape = (1, C) + (1,) * (labels.ndim - 1)
    weight = (hits * (np.ones(C) if weights is None else weights).reshape(shape)).sum(1)
    return hits, (dloss * weight / (weight.sum() if reduction == "mean" else 1))[:, None]


def nll_ignoring_minus_one(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    # onnx.reference takes this ignore_index for none, and counts what it ignores.
    hits, c = coefficients(1.0, labels, None, -1, "mean")
    return np.asarray(-(hits * c * log_probs).sum())


def nll_grad(reduction: str, ignore_index: int | None = None) -> Any:
    def oracle(dloss: np.ndarray, shape: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        hits, c = coefficients(dloss, labels, weights, ignore_index, reduction)
        return (-hits * c).astype(dloss.dtype)

    return oracle


def cross_entropy_grad(reduction: str, ignore_index: int | None = None) -> Any:
    def oracle(dloss: np.ndarray, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        hits, c = coefficients(dloss, labels, weights, ignore_index, reduction)
        return ((np.exp(log_prob(scores)) - hits) * c).astype(scores.dtype)

    return oracle


MODES: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[str, int]]] = {
    "plain": (SCORES, LABELS, None, {}),
    "weights": (SCORES, LABELS, WEIGHTS, {}),
    "ignored": (SCORES, SOME_IGNORED, None, {"ignore_index": -100}),
    "minus-one-ignored": (SCORES, np.array([1, -1, 3, 0, -1]), None, {"ignore_index": -1}),
    "class-ignored": (SCORES, LABELS, None, {"ignore_index": 3}),
    "weights-ignored": (SCORES, SOME_IGNORED, WEIGHTS, {"ignore_index": -100}),
    "weights-class-ignored": (SCORES, LABELS, WEIGHTS, {"ignore_index": 0}),
    "int32": (SCORES, LABELS.astype(np.int32), WEIGHTS, {"ignore_index": 1}),
    "pixels": (PIXELS, PIXEL_LABELS, None, {}),
    "pixels-weights-ignored": (PIXELS, PIXEL_LABELS, WEIGHTS, {"ignore_index": 2}),
}


def losses() -> list[Case]:
    cases = []
    for reduction in ("mean", "sum", "none"):
        for id, (scores, labels, weights, extra) in MODES.items():
            attrs, id = {"reduction": reduction, **extra}, f"{id}-{reduction}"
            operands = [scores, labels, *(() if weights is None else (weights,))]
            dloss = rng(123).standard_normal(labels.shape if reduction == "none" else ())
            ignore = extra.get("ignore_index")
            cases += [
                Case("SoftmaxCrossEntropyLoss", operands, attrs, id=id),
                Case("SoftmaxCrossEntropyLoss", operands, attrs, outputs=2, id=f"{id}-log-prob"),
                Case(
                    "NegativeLogLikelihoodLoss",
                    [log_prob(scores), *operands[1:]],
                    attrs,
                    id=id,
                    oracle=nll_ignoring_minus_one if id == "minus-one-ignored-mean" else None,
                ),
                Case(
                    "irgrad.SoftmaxCrossEntropyLossGrad",
                    [dloss, *operands],
                    attrs,
                    id=id,
                    oracle=cross_entropy_grad(reduction, ignore),
                ),
                Case(
                    "irgrad.NegativeLogLikelihoodLossGrad",
                    [dloss, np.array(scores.shape), *operands[1:]],
                    attrs,
                    id=id,
                    oracle=nll_grad(reduction, ignore),
                ),
            ]
    return cases


LARGE = np.array([[1000.0, 0.0], [0.0, 1000.0]])
HALF = np.zeros((3000, 2), np.float16)

CASES = [
    *losses(),
    Case("SoftmaxCrossEntropyLoss", [SCORES.astype(np.float32), LABELS, WEIGHTS.astype(np.float32)], id="f32", outputs=2),
    Case("NegativeLogLikelihoodLoss", [SCORES.astype(np.float32), LABELS, WEIGHTS.astype(np.float32)], id="f32"),
    Case("SoftmaxCrossEntropyLoss", [SCORES, LABELS], {"reduction": "sum"}, outputs=2, wanted=[1], id="only-log-prob"),
    Case(
        "SoftmaxCrossEntropyLoss",
        [LARGE, np.array([1, 1])],
        {"reduction": "none"},
        id="large",
        order=0,
        oracle=lambda scores, labels: np.array([1000.0, 0.0]),
    ),
    # Summed in float32: 3000 equal terms would not add up in float16.
    Case(
        "SoftmaxCrossEntropyLoss",
        [HALF, np.zeros(3000, np.int64)],
        id="f16",
        order=0,
        rtol=1e-3,
        oracle=lambda scores, labels: np.float16(np.log(2)),
    ),
    Case(
        "NegativeLogLikelihoodLoss",
        [HALF - np.float16(1.5), np.zeros(3000, np.int64)],
        id="f16",
        order=0,
        oracle=lambda scores, labels: np.float16(1.5),
    ),
]
