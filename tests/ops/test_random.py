"""Random numbers: the same bits elsewhere, and distributions as they should be."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph
from irgrad.ops.philox import fold_in, generator
from irgrad.passes.autodiff.expand import expand
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.onnx_protos import model_of
from tests.ops.random_cases import elem

KEY = TensorType(np.dtype(np.int64), ())
N = 1 << 17


def keyed(op: str, shape: tuple[int, ...], *, rank_known: bool = True, **attrs: Any) -> Graph:
    graph = Graph(op)
    key, b = graph.add_input("key", KEY), Builder(graph)
    sizes = b.ints(shape) if rank_known else graph.add_input("shape", TensorType(np.dtype(np.int64), (len(shape),)))
    graph.set_outputs({"y": b.op(op, sizes, key, **attrs)})
    return graph


def numbers(op: str, shape: tuple[int, ...], key: int, **attrs: Any) -> np.ndarray:
    return compile(keyed(op, shape, **attrs))({"key": key})["y"]


# --- the same bits everywhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", ["irgrad.RandomUniform", "irgrad.RandomNormal"])
@pytest.mark.parametrize("shape", [(7, 3), (), (0, 2), (8,), (25,)], ids=str)
def test_onnx_reference_draws_the_same_numbers(op: str, name: str, shape: tuple[int, ...], known: bool) -> None:
    graph = keyed(op, shape, rank_known=known, dtype=elem(name))
    feeds = {"key": np.array(-12345)} | ({} if known else {"shape": np.array(shape, np.int64)})
    want = compile(graph)(feeds)["y"]
    expand(graph, graph.nodes()[0])
    (got,) = ReferenceEvaluator(model_of(graph)).run(None, feeds)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def test_onnx_reference_derives_the_same_keys() -> None:
    graph = Graph("keys")
    key = graph.add_input("key", KEY)
    graph.set_outputs({"y": Builder(graph).op("irgrad.FoldIn", key, np.arange(-3, 3))})
    feeds = {"key": np.array(-1)}
    want = compile(graph)(feeds)["y"]
    expand(graph, graph.nodes()[0])
    np.testing.assert_array_equal(ReferenceEvaluator(model_of(graph)).run(None, feeds)[0], want)


ONES = (1 << 64) - 1
PI = (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89, 0x452821E638D01377, 0xBE5466CF34E90C6C)


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ((ONES,) * 6, (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
        (PI, (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
    ],
)
def test_numpy_has_the_generator_of_the_publication(words: tuple[int, ...], want: tuple[int, ...]) -> None:
    """The known answers that its authors give (Random123, philox4x64 with 10 rounds): four words of counter, two of key."""
    counter, key = (sum(word << (64 * k) for k, word in enumerate(part)) for part in (words[:4], words[4:]))
    # numpy counts up before it draws.
    assert tuple(np.random.Philox(key=key, counter=(counter - 1) % (1 << 256)).random_raw(4).tolist()) == want


def test_constants_are_folded_to_the_same_numbers() -> None:
    want = numbers("irgrad.RandomUniform", (5,), 3)
    graph = Graph("folded")
    b = Builder(graph)
    graph.set_outputs({"y": b.op("irgrad.RandomUniform", b.ints([5]), np.array(3))})
    np.testing.assert_array_equal(compile(graph)({})["y"], want)


# --- distributions ----------------------------------------------------------------------------------------------------


def distance(sample: np.ndarray, cdf: Any) -> float:
    """sqrt(n) times the statistic of Kolmogorov and Smirnov: above 1.95 once in a thousand samples."""
    values = np.sort(sample.astype(np.float64).reshape(-1))
    ranks = np.arange(values.size + 1) / values.size
    expected = cdf(values)
    return float(sqrt(values.size) * max(np.abs(expected - ranks[1:]).max(), np.abs(expected - ranks[:-1]).max()))


normal_cdf = np.vectorize(lambda z: 0.5 * (1 + erf(z / sqrt(2))))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_uniform_numbers(name: str) -> None:
    sample = numbers("irgrad.RandomUniform", (N,), 1, dtype=elem(name)).astype(np.float64)
    assert sample.min() >= 0
    assert sample.max() < 1
    for power in (1, 2, 3, 4):
        moment, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
        assert abs((sample**power).mean() - moment) < 4 * sqrt(variance / N)
    assert distance(sample, lambda u: u) < 1.95
    counts = np.bincount((sample * 256).astype(int), minlength=256)
    chi = ((counts - N / 256) ** 2 / (N / 256)).sum()
    assert abs(chi - 255) < 4 * sqrt(2 * 255)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_normal_numbers(name: str) -> None:
    sample = numbers("irgrad.RandomNormal", (N,), 2, dtype=elem(name)).astype(np.float64)
    for power, moment, square in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105)):
        assert abs((sample**power).mean() - moment) < 4 * sqrt((square - moment**2) / N)
    assert distance(sample, normal_cdf) < 1.95
    # The two numbers that one radius gives are independent of each other.
    first, second = sample[: N // 2], sample[N // 2 :]
    assert abs((first * second).mean()) < 4 / sqrt(N / 2)
    assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 4 * 2 / sqrt(N / 2)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_numbers_stay_below_1_and_thresholds_exact(dtype: Any) -> None:
    wide = numbers("irgrad.RandomUniform", (N,), 4)
    narrow = numbers("irgrad.RandomUniform", (N,), 4, dtype=elem(np.dtype(dtype).name)).astype(np.float32)
    assert narrow.max() < 1
    for ratio in (0.1, 0.25, 0.5, 0.9):
        limit = np.float32(dtype(ratio))
        np.testing.assert_array_equal(narrow >= limit, wide >= limit)


def test_keys_numbers_and_neighbours_are_uncorrelated() -> None:
    samples = [numbers("irgrad.RandomUniform", (N,), key).astype(np.float64) - 0.5 for key in (0, 1, -1, 2**62)]
    samples += [generator(fold_in(np.array(0), np.array(n))).random(N, np.float32) - 0.5 for n in (0, 1, 2)]
    bound = 4.5 / (12 * sqrt(N))
    for position, sample in enumerate(samples):
        for lag in (1, 2, 7, 8):
            assert abs((sample[lag:] * sample[:-lag]).mean()) < bound
        for other in samples[:position]:
            assert abs((sample * other).mean()) < bound


def test_derived_keys_differ_and_have_no_bias() -> None:
    keys = fold_in(np.arange(300)[:, None], np.arange(300))
    assert np.unique(keys).size == keys.size
    bits = np.unpackbits(keys.view(np.uint8)).reshape(-1, 64).mean(0)
    assert np.abs(bits - 0.5).max() < 4.5 * 0.5 / sqrt(keys.size)
    # One bit of the key, or of the number, changes half of the bits.
    for changed in (
        fold_in(np.arange(300)[:, None] ^ 1, np.arange(300)),
        fold_in(np.arange(300)[:, None], np.arange(300) ^ 1),
    ):
        flipped = np.unpackbits((keys ^ changed).view(np.uint8)).mean()
        assert abs(flipped - 0.5) < 4.5 * 0.5 / sqrt(64 * keys.size / 2)


# --- the standard operations ------------------------------------------------------------------------------------------


def drawing(op: str, *operands: np.ndarray, **attrs: Any) -> Any:
    graph = Graph(op)
    values = [graph.add_input(f"x{k}", TensorType.of(a)) for k, a in enumerate(operands)]
    graph.set_outputs({"y": Builder(graph).op(op, *values, **attrs)})
    run = compile(graph)
    return lambda: run({f"x{k}": a for k, a in enumerate(operands)})["y"]


X = np.zeros((50, 40))


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        ("RandomNormal", []),
        ("RandomUniform", []),
        ("RandomNormalLike", [X]),
        ("RandomUniformLike", [X]),
        ("Bernoulli", [X + 0.5]),
        ("Multinomial", [X]),
    ],
)
def test_a_seed_repeats_and_no_seed_does_not(op: str, operands: list[np.ndarray]) -> None:
    attrs: dict[str, Any] = {} if operands else {"shape": (50, 40)}
    seeded, free = drawing(op, *operands, seed=3.0, **attrs), drawing(op, *operands, **attrs)
    np.testing.assert_array_equal(seeded(), seeded())
    assert (free() != free()).any()
    assert (drawing(op, *operands, seed=4.0, **attrs)() != seeded()).any()


def test_seeds_of_any_size() -> None:
    for seed in (-1.0, 2.0**40, float("nan")):
        assert drawing("RandomUniform", shape=(3,), seed=seed)().shape == (3,)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1000.0, 1001.0), (-3.0, -2.0), (2.0, 2.0)])
def test_uniform_numbers_stay_in_their_interval(name: str, low: float, high: float) -> None:
    sample = drawing("RandomUniform", shape=(20_000,), low=low, high=high, seed=1.0, dtype=elem(name))().astype(np.float64)
    assert sample.min() >= low
    assert sample.max() < high or low == high
    if name in ("float32", "float64"):
        assert abs(sample.mean() - (low + high) / 2) < 0.01


def test_frequencies() -> None:
    p = np.linspace(0, 1, 5)
    ones = drawing("Bernoulli", np.tile(p, (20_000, 1)), seed=1.0)().mean(0)
    assert np.abs(ones - p).max() < 4.5 * 0.5 / sqrt(20_000)
    weights = np.array([0.1, 0.2, 0.7])
    classes = drawing("Multinomial", np.log(weights)[None] + 3.0, sample_size=20_000, seed=1.0)()
    assert np.abs(np.bincount(classes[0]) / 20_000 - weights).max() < 4.5 * 0.5 / sqrt(20_000)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("irgrad.RandomUniform", [np.array([2]), np.array(0)], {"dtype": elem("int64")}, "floating-point numbers"),
        ("irgrad.RandomUniform", [np.array([[2]]), np.array(0)], {}, "one-dimensional shape"),
        ("irgrad.RandomNormal", [np.array([2]), np.array([0, 1])], {}, "key of one int64"),
        ("irgrad.RandomNormal", [np.array([2]), np.array(0, np.int32)], {}, "key of one int64"),
        ("irgrad.FoldIn", [np.array(0), np.array(0, np.int32)], {}, "keys and numbers of int64"),
    ],
)
def test_operands_that_do_not_fit(op: str, operands: list[np.ndarray], attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        Builder(Graph("wrong")).op(op, *operands, **attrs)
