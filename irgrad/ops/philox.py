"""The counter-based generator behind keyed random numbers: Philox 4x64 with 10 rounds, and the hash that derives keys.

A key is an int64. The numbers that it gives depend on it and on the shape alone: they are those of numpy's
``Generator(Philox(key=key)).random(shape)``, whose stream numpy promises to keep. The lowering computes the same bits with
integer operations of ONNX, so that an exported graph draws the same numbers in any runtime that has them for uint64.

Reference: Salmon, Moraes, Dror and Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011, section 3.

The choice, measured on one core for 2**20 elements: numpy's Philox 4x64 takes 1.7 ns for each 32 bits (C); in numpy ufuncs,
Threefry 2x32 with 20 rounds takes 6 to 9 ns and the generator Squares 6 to 7 ns. As a subgraph, Threefry 2x32 is about 110
nodes; the ten rounds of Philox are one Scan of 18 nodes, and some 20 nodes stand around it.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.types import TensorType

__all__ = ["emit_fold_in", "emit_uniform", "fold_in", "generator", "static_count"]

_BITS = (1 << 64) - 1
_UINT64 = int(TensorProto.UINT64)
_LOW = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_BUMPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10


def generator(key: np.ndarray) -> np.random.Generator:
    """The generator of numpy for a key of one element."""
    return np.random.Generator(np.random.Philox(key=int(key.item()) & _BITS))


# --- uniform numbers as a subgraph ------------------------------------------------------------------------------------


def emit_uniform(b: Builder, shape: Value, key: Value, dtype: np.dtype) -> Value:
    """What ``generator(key).random(shape, dtype)`` gives, as a subgraph of standard operations.

    Args:
        b: where to emit.
        shape: int64, one-dimensional.
        key: one int64.
        dtype: float32 (24 random bits for each element, two elements out of 64 bits) or float64 (53 bits, one element).
    """
    single = dtype == np.float32
    per_block = 8 if single else 4
    static = static_count(shape)
    count: Value | np.ndarray
    end: Value | np.ndarray
    if static is not None:
        count, end = np.array([static]), np.array(1 - (-static // per_block))
    else:
        count = b.op("ReduceProd", shape, keepdims=1)
        # The counters are 1, 2, ... up to the number of blocks, rounded up.
        end = b.op("Squeeze", b.op("Div", b.op("Add", count, 2 * per_block - 1), per_block))
    counters = b.op("Cast", b.op("Range", np.array(1), end, np.array(1)), to=_UINT64)
    words = _words(b, counters, key)
    if single:
        # Of each word the low half is the first number, the high half the second; each keeps its 24 upper bits.
        halves = b.op("Unsqueeze", words, b.ints([2]))
        bits = b.op("BitShift", halves, _column([8, 40]), direction="RIGHT")
        bits = b.op("BitwiseAnd", bits, np.array(0xFFFFFF, np.uint64))
        bits = b.op("Transpose", bits, perm=[3, 0, 1, 2])
    else:
        bits = b.op("Transpose", b.op("BitShift", words, np.array(11, np.uint64), direction="RIGHT"), perm=[2, 0, 1])
    bits = b.op("Reshape", bits, b.ints([-1]))
    if static is None or static % per_block:
        bits = b.op("Slice", bits, b.ints([0]), count)
    fractions = b.op("Mul", b.cast(bits, dtype), np.array(2.0 ** -(24 if single else 53), dtype))
    return b.op("Reshape", fractions, shape, allowzero=1)


def static_count(shape: Value) -> int | None:
    """The number of elements of a tensor of that shape, where it is known."""
    sizes = [d for d in shape.contents or () if isinstance(d, int)]
    return prod(sizes) if shape.contents is not None and len(sizes) == len(shape.contents) else None


def _column(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, np.uint64).reshape(-1, 1)


def _words(b: Builder, counters: Value, key: Value) -> Value:
    """The random words of blocks, [2, 2, blocks]: word 2 i + j of each block stands at [i, j].

    The state of a block is four words: `even` holds the words 0 and 2, `odd` 1 and 3, [2, 1, blocks] each.
    """
    even = b.op("Mul", counters, _column([1, 0])[..., None])
    odd = b.op("Mul", counters, _column([0, 0])[..., None])
    bumps = [[(r * bump) & _BITS for bump in _BUMPS] for r in range(_ROUNDS)]
    first = b.op("Mul", b.op("Reshape", b.op("Cast", key, to=_UINT64), b.ints([1])), _column([1, 0])[..., None])
    keys = b.op("Add", first, np.array(bumps, np.uint64).reshape(_ROUNDS, 2, 1, 1))
    even, odd = b.multi("Scan", even, odd, keys, outputs=2, body=_round(), num_scan_inputs=1)
    return b.op("Concat", even, odd, axis=1)


def _round() -> Graph:
    """One round: (even, odd, round key) → (even, odd). The products are of 128 bits, out of halves of 32."""
    graph = Graph("philox_round")
    state, column = TensorType(np.dtype(np.uint64), (2, 1, None)), TensorType(np.dtype(np.uint64), (2, 1, 1))
    even, odd, key = graph.add_input("even", state), graph.add_input("odd", state), graph.add_input("key", column)
    multipliers = np.array(_MULTIPLIERS[::-1], np.uint64).reshape(2, 1, 1)  # word 2 has the second one, and comes first here
    low_part, high_part = multipliers & _LOW, multipliers >> np.uint64(32)
    half = np.array(32, np.uint64)
    with Builder(graph) as b:
        crossed = b.op("Gather", even, b.ints([1, 0]), axis=0)
        low, high = b.op("BitwiseAnd", crossed, np.array(_LOW)), b.op("BitShift", crossed, half, direction="RIGHT")
        carried = high * low_part + b.op("BitShift", low * low_part, half, direction="RIGHT")
        middle = low * high_part + b.op("BitwiseAnd", carried, np.array(_LOW))
        carries = b.op("BitShift", carried, half, direction="RIGHT") + b.op("BitShift", middle, half, direction="RIGHT")
        upper = high * high_part + carries
        mixed = b.op("BitwiseXor", b.op("BitwiseXor", upper, odd), key)
        graph.set_outputs({"next_even": mixed, "next_odd": crossed * multipliers})
    return graph


# --- keys out of keys -------------------------------------------------------------------------------------------------

_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def fold_in(key: np.ndarray, data: np.ndarray) -> np.ndarray:
    """A new key out of a key and a number, elementwise; both int64, broadcast together.

    It is output number `data` of the generator SplitMix64 whose state is the key, mixed once more: one key gives different
    keys for different numbers, and one number different keys for different keys.

    Reference: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 10 (`mix64`).
    """
    if key.size == 1 and data.size == 1:  # a node's key, once in each step: Python's integers are faster than arrays of one
        word = _mixed_in(int(key.item()) & _BITS, int(data.item()) & _BITS)
        return np.full(np.broadcast_shapes(key.shape, data.shape), word, np.uint64).view(np.int64)
    # At least one of the two is no scalar, so that numpy does not warn of overflow, which is meant here.
    words = np.asarray(_mixed_in(*(array.reshape(array.shape or 1).view(np.uint64) for array in (key, data))))
    return np.asarray(words.view(np.int64).reshape(np.broadcast_shapes(key.shape, data.shape)))


def _mixed_in(key: Any, data: Any) -> Any:
    """The words of `fold_in`: of Python's integers below 2**64, or of arrays of uint64."""
    return _mix64((_mix64((key + _GAMMA) & _BITS) + data * _GAMMA + _GAMMA) & _BITS)


def _mix64(word: Any) -> Any:
    for shift, factor in _MIX:
        word = (word ^ (word >> shift)) * factor & _BITS
    return word ^ (word >> _LAST_SHIFT)


def emit_fold_in(b: Builder, key: Value, data: Value) -> Value:
    """What `fold_in` gives, as a subgraph of standard operations."""
    gamma = np.array(_GAMMA, np.uint64)
    words, numbers = (b.op("Cast", value, to=_UINT64) for value in (key, data))
    state = b.op("Add", _emit_mix64(b, b.op("Add", words, gamma)), b.op("Add", b.op("Mul", numbers, gamma), gamma))
    return b.cast(_emit_mix64(b, state), np.dtype(np.int64))


def _emit_mix64(b: Builder, word: Value) -> Value:
    for shift, factor in _MIX:
        word = b.op("Mul", _emit_shifted_xor(b, word, shift), np.array(factor, np.uint64))
    return _emit_shifted_xor(b, word, _LAST_SHIFT)


def _emit_shifted_xor(b: Builder, word: Value, shift: int) -> Value:
    return b.op("BitwiseXor", word, b.op("BitShift", word, np.array(shift, np.uint64), direction="RIGHT"))
