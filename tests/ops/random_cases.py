"""Cases of irgrad/ops/random.py.

The standard operations have a seed here: then they give what onnx.reference gives, except where the comment says why not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from tests.ops.harness import Case, rng

FLOATS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
KEY = np.array(2**40 + 7)
SHAPE = np.array([3, 5])


def elem(name: str) -> int:
    return int(TensorProto.STRING if name == "text" else helper.np_dtype_to_tensor_dtype(np.dtype(FLOATS.get(name, name))))


# --- keyed ------------------------------------------------------------------------------------------------------------


def drawn(shape: np.ndarray, key: np.ndarray, dtype: Any) -> np.ndarray:
    """What numpy draws for a key, rounded towards 0 to one of the numbers of a narrower dtype."""
    word = int(key.item()) % 2**64
    wide = np.float64 if dtype == np.float64 else np.float32
    numbers = np.asarray(np.random.Generator(np.random.Philox(key=word)).random(tuple(shape), wide))
    if dtype == wide:
        return numbers
    nearest = numbers.astype(dtype)
    step = np.maximum(nearest.astype(np.float32) * 2.0 ** -ml_dtypes.finfo(dtype).nmant, 2.0**-24)
    above = nearest.astype(np.float32) > numbers
    # Half a step below what was rounded up lies between it and its neighbour.
    lower = nearest.astype(np.float32) - np.where(above, step * 0.75, 0)
    return np.where(above, lower.astype(dtype), nearest)


def box_muller(shape: np.ndarray, key: np.ndarray, dtype: Any) -> np.ndarray:
    wide = np.float64 if dtype == np.float64 else np.float32
    count = int(np.prod(shape))
    half = (count + 1) // 2
    u, v = drawn(np.array([2, half]), key, wide).astype(np.float64)
    radius = np.sqrt(-2 * np.log(1 - u))
    numbers = np.concatenate([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)])
    return numbers[:count].reshape(tuple(shape)).astype(dtype)


def keyed(op: str, oracle: Callable[..., np.ndarray], rtol: dict[str, float]) -> list[Case]:
    cases = []
    for name, dtype in FLOATS.items():
        for label, shape in {
            "": SHAPE,
            "scalar": SHAPE[:0],
            "empty": np.array([0, 4]),
            "whole-blocks": np.array([16]),
        }.items():
            cases.append(
                Case(
                    f"irgrad.{op}",
                    [shape, KEY],
                    {"dtype": elem(name)},
                    id="-".join(filter(None, (name, label))),
                    order=0,
                    oracle=lambda s, k, dtype=dtype: oracle(s, k, dtype),
                    rtol=rtol.get(name, 0),
                )
            )
    cases.append(
        Case(
            f"irgrad.{op}",
            [SHAPE, np.array([-3])],
            id="key-of-rank-1",
            order=0,
            oracle=lambda s, k: oracle(s, k, np.float32),
            rtol=rtol["float32"],
        )
    )
    return cases


def fold_in(key: np.ndarray, number: np.ndarray) -> np.ndarray:
    def mixed(word: int) -> int:
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    def one(k: Any, n: Any) -> int:
        golden = 0x9E3779B97F4A7C15
        word = mixed((mixed((int(k) + golden) % 2**64) + (int(n) + 1) * golden) % 2**64)
        return word - 2**64 if word >= 2**63 else word

    return np.asarray(np.vectorize(one, otypes=[np.int64])(key, number))


EXTREMES = np.array([0, -1, 2**63 - 1, -(2**63)])
KEYED = [
    *keyed("RandomUniform", drawn, {"float32": 0}),
    *keyed("RandomNormal", box_muller, {"float32": 3e-6, "float64": 1e-12, "float16": 1e-3, "bfloat16": 1e-2}),
    Case("irgrad.FoldIn", [KEY, np.array(3)], order=0, oracle=fold_in, rtol=0),
    Case("irgrad.FoldIn", [EXTREMES, np.array(-3)], id="keys", order=0, oracle=fold_in, rtol=0),
    Case("irgrad.FoldIn", [KEY, EXTREMES], id="numbers", order=0, oracle=fold_in, rtol=0),
    Case("irgrad.FoldIn", [EXTREMES[:, None], EXTREMES[:3]], id="both", order=0, oracle=fold_in, rtol=0),
]

# --- standard ---------------------------------------------------------------------------------------------------------

X = rng(500).standard_normal((3, 4))
P = rng(501).uniform(0, 1, (4, 5))
SCORES = np.log(rng(502).uniform(0.1, 1, (2, 3)))


def standard() -> list[Case]:
    cases = []
    for name, options in {"RandomUniform": {"low": -2.0, "high": 3.0}, "RandomNormal": {"mean": 2.0, "scale": 3.0}}.items():
        for dtype in FLOATS:
            # onnx.reference rounds after each step, we once.
            rtol = {"float16": 5e-3, "bfloat16": 5e-2}.get(dtype, 1e-5)
            attrs = {"dtype": elem(dtype), "seed": 7.0}
            cases += [
                Case(name, [], {"shape": (3, 4), **attrs}, id=dtype, order=0, rtol=rtol),
                Case(f"{name}Like", [X.astype(np.float32)], attrs, id=dtype, order=0, rtol=rtol),
            ]
        cases += [
            Case(name, [], {"shape": (3, 4), "seed": 1.0, **options}, id="options", order=0),
            Case(name, [], {"shape": (), "seed": 1.0, **options}, id="scalar", order=0, oracle=first(name, options)),
            Case(f"{name}Like", [X], {"seed": 1.0, **options}, id="options", order=0),
            Case(f"{name}Like", [np.arange(3)], {"seed": 1.0, "dtype": elem("float32")}, id="of-integers", order=0),
            Case(
                f"{name}Like", [np.array(["a", "b"], object)], {"seed": 1.0, "dtype": elem("float64")}, id="of-text", order=0
            ),
        ]
    return cases


def first(name: str, options: dict[str, float]) -> Callable[[], np.ndarray]:
    """One number: onnx.reference has no shape of rank 0."""
    state = np.random.RandomState(1)
    if name == "RandomNormal":
        number = state.standard_normal() * options["scale"] + options["mean"]
    else:
        number = state.random_sample() * (options["high"] - options["low"]) + options["low"]
    return lambda: np.asarray(number, np.float32)


def ones(p: np.ndarray) -> np.ndarray:
    """1 with probability p. The reference draws from a binomial distribution, which takes its numbers in another way."""
    return np.random.RandomState(3).random_sample(p.shape) < p.astype(np.float64)


def chosen(count: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """onnx.reference has no Multinomial."""

    def choose(scores: np.ndarray) -> np.ndarray:
        numbers = np.random.RandomState(seed).random_sample((len(scores), count, scores.shape[1]))
        return np.asarray((scores.astype(np.float64)[:, None] - np.log(-np.log(numbers))).argmax(2))

    return choose


OTHERS = [
    *(Case("Bernoulli", [P.astype(dtype)], {"seed": 3.0}, id=name, order=0, oracle=ones) for name, dtype in FLOATS.items()),
    *(
        Case("Bernoulli", [P], {"seed": 3.0, "dtype": elem(name)}, id=f"as-{name}", order=0, oracle=ones)
        for name in ("bool", "int8", "uint64", "float16", "float32")
    ),
    Case("Bernoulli", [np.array([0.0, 1.0, 0.0, 1.0])], id="certain", order=0, oracle=lambda p: p),
    *(
        Case("Multinomial", [SCORES.astype(dtype)], {"seed": 5.0}, id=name, order=0, oracle=chosen(1, 5))
        for name, dtype in FLOATS.items()
    ),
    Case(
        "Multinomial",
        [SCORES],
        {"seed": 6.0, "sample_size": 4, "dtype": elem("int64")},
        id="four-int64",
        order=0,
        oracle=chosen(4, 6),
    ),
    Case(
        "Multinomial",
        [np.array([[-np.inf, 0.5, -np.inf], [-np.inf, -np.inf, 2.0]])],
        {"sample_size": 3},
        id="impossible-classes",
        order=0,
        oracle=lambda scores: np.array([[1] * 3, [2] * 3]),
    ),
]

CASES = [*KEYED, *standard(), *OTHERS]
