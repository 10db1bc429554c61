"""Cases of irgrad/ops/attention.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx.reference.ops.op_attention import _compute_attention

from tests.ops.harness import Case, rng

BATCH, SIZE = 2, 2
FLOAT, DOUBLE, HALF, BRAIN = 1, 11, 10, 16  # element types as ONNX numbers them


def operands(
    heads: tuple[int, int] = (2, 2),
    rows: int = 3,
    keys: int = 4,
    v_size: int = 3,
    *,
    packed: bool = False,
    past: int | None = None,
    mask: np.ndarray | None = None,
    lengths: Sequence[int] | None = None,
    dtype: Any = np.float64,
) -> list[Any]:
    """Q, K, V, mask, past key, past value and lengths, without what is absent at the end."""
    generator = rng(3)

    def draw(number: int, sequence: int, size: int, as_packed: bool = packed) -> np.ndarray:
        x = generator.standard_normal((BATCH, number, sequence, size)).astype(dtype)
        return x.swapaxes(1, 2).reshape(BATCH, sequence, number * size) if as_packed else x

    found: list[Any] = [draw(heads[0], rows, SIZE), draw(heads[1], keys, SIZE), draw(heads[1], keys, v_size), mask]
    found += [None, None] if past is None else [draw(heads[1], past, SIZE, False), draw(heads[1], past, v_size, False)]
    found.append(None if lengths is None else np.array(lengths))
    while found[-1] is None:
        found.pop()
    return found


def heads_of(attrs: Mapping[str, Any], *heads: int) -> dict[str, Any]:
    return {**attrs, "q_num_heads": heads[0], "kv_num_heads": heads[1]}


def floats(*shape: int) -> np.ndarray:
    return rng(4).standard_normal(shape)


def bools(*shape: int, seed: int = 5) -> np.ndarray:
    """A mask in which every row has a key."""
    mask = rng(seed).random(shape) < 0.6
    mask[..., 0] = True
    return mask


def with_infinities(mask: np.ndarray) -> np.ndarray:
    return np.where(bools(*mask.shape), mask, -np.inf)


def in_double(**attrs: Any) -> Any:
    """onnx.reference in float64, rounded once: in 16 bits it rounds at every step."""

    def oracle(*arrays: Any) -> tuple[np.ndarray, ...]:
        double = [a.astype(np.float64) if a is not None and a.dtype.kind not in "ib" else a for a in arrays]
        return tuple(np.asarray(r).astype(arrays[0].dtype) for r in _compute_attention(*double, **attrs))

    return oracle


def after_rounding(precision: Any) -> Any:
    """Scores that are rounded before their softmax, which is rounded once: onnx.reference rounds in between as well."""

    def oracle(*arrays: Any) -> np.ndarray:
        scores = _compute_attention(*arrays, qk_matmul_output_mode=2)[3].astype(precision).astype(np.float64)
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        probabilities = (powers / powers.sum(-1, keepdims=True)).astype(precision).astype(np.float32)
        return np.asarray(probabilities @ arrays[2])

    return oracle


def raw_scores(softcap: float) -> Any:
    """Mode 0 shows scores as they are before the soft cap; onnx.reference shows them behind it."""

    def oracle(*arrays: Any) -> tuple[np.ndarray, ...]:
        return (*_compute_attention(*arrays, softcap=softcap)[:3], _compute_attention(*arrays)[3])

    return oracle


def case(id: str, inputs: list[Any], outputs: int = 1, **options: Any) -> Case:
    fields = {name: options.pop(name) for name in ("order", "wanted", "oracle", "rtol", "wrt") if name in options}
    return Case("Attention", inputs, options, outputs, id, **fields)


def zeros(*arrays: Any) -> np.ndarray:
    """Queries that see no key, or of which there are none, which onnx.reference cannot have; packed, with 4 heads of 3."""
    q, _, v = arrays[:3]
    return np.zeros((*q.shape[:-1], v.shape[3] if v.ndim == 4 else 12))


DEAD_ROW = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], np.bool_)

CASES: list[Case] = [
    # --- heads --------------------------------------------------------------------------------------------------------
    case("heads", operands()),
    case("grouped", operands((4, 2))),
    case("multi-query", operands((3, 1))),
    case("one-head", operands((1, 1))),
    case("one-query", operands((4, 2), rows=1)),
    case("packed", operands(packed=True), **heads_of({}, 2, 2)),
    case("packed-grouped", operands((4, 2), packed=True), **heads_of({}, 4, 2)),
    case("packed-multi-query", operands((2, 1), packed=True), **heads_of({}, 2, 1)),
    case("scale", operands(), scale=0.3),
    case("packed-scale", operands((4, 2), packed=True), **heads_of({"scale": 1.5}, 4, 2)),
    # --- axes of size 0 -----------------------------------------------------------------------------------------------
    case("no-keys", operands((4, 2), keys=0), oracle=zeros),
    case("no-keys-masked", operands((4, 2), keys=0, mask=floats(3, 0)), oracle=zeros, is_causal=1, softcap=0.7),
    case("no-queries", operands((4, 2), rows=0), 4, softcap=0.7, qk_matmul_output_mode=3),
    case("no-queries-packed", operands((4, 2), rows=0, packed=True), oracle=zeros, **heads_of({}, 4, 2)),
    case("no-values", operands((4, 2), v_size=0, past=2), 3),
    case("no-batch", [a[:0] for a in operands((4, 2))], 4),
    case("no-batch-packed", [a[:0] for a in operands((4, 2), packed=True)], oracle=zeros, **heads_of({}, 4, 2)),
    case("no-head-size", [a[..., :0] for a in operands((4, 2))[:2]] + operands((4, 2))[2:], softcap=0.7),
    # --- masks --------------------------------------------------------------------------------------------------------
    case("mask-1d", operands(mask=floats(4))),
    case("mask-2d", operands(mask=floats(3, 4))),
    case("mask-row", operands(mask=floats(1, 4))),
    case("mask-3d", operands(mask=floats(2, 3, 4))),
    case("mask-4d", operands(mask=floats(2, 2, 3, 4))),
    case("mask-batch", operands(mask=floats(2, 1, 1, 4))),
    case("mask-grouped", operands((4, 2), mask=floats(2, 4, 3, 4))),
    case("mask-grouped-heads", operands((4, 2), mask=floats(4, 1, 4))),
    case("mask-packed", operands((4, 2), packed=True, mask=floats(1, 4, 3, 4)), **heads_of({}, 4, 2)),
    case("mask-infinite", operands(mask=with_infinities(floats(2, 1, 3, 4)))),
    case("mask-short", operands(mask=floats(3, 3))),
    case("mask-short-grouped", operands((4, 2), mask=floats(2, 4, 1, 2))),
    case("mask-bool", operands(mask=bools(3, 4))),
    case("mask-bool-4d", operands((4, 2), mask=bools(2, 4, 3, 4))),
    case("mask-bool-short", operands(mask=bools(2, 1, 3, 2))),
    case("mask-bool-dead-row", operands(mask=DEAD_ROW)),
    case("mask-dead-row", operands(mask=np.where(DEAD_ROW, floats(3, 4), -np.inf))),
    case("mask-integers", operands(mask=rng(6).integers(-2, 2, (3, 4)))),
    # --- positions ----------------------------------------------------------------------------------------------------
    case("causal", operands(rows=4), is_causal=1),
    case("causal-more-queries", operands(rows=5, keys=3), is_causal=1),
    case("causal-fewer-queries", operands((4, 2), rows=2), is_causal=1),
    case("causal-mask", operands(rows=4, mask=floats(2, 1, 4, 4)), is_causal=1),
    case("causal-bool", operands(rows=4, mask=np.vander(np.arange(4)) > 3), is_causal=1),
    case("causal-packed", operands(rows=4, packed=True), **heads_of({"is_causal": 1}, 2, 2)),
    case("left", operands(rows=4), left_window_size=1),
    case("right", operands(rows=4), right_window_size=1),
    case("left-right", operands(rows=4, mask=floats(4)), left_window_size=0, right_window_size=1),
    case("causal-left", operands(rows=4), is_causal=1, left_window_size=1),
    case("causal-right", operands(rows=4), is_causal=1, right_window_size=1),
    case("left-past", operands(rows=2, past=3), left_window_size=2, right_window_size=0),
    case("left-behind-the-end", operands(rows=5, keys=2), left_window_size=1),
    # --- caches -------------------------------------------------------------------------------------------------------
    case("past", operands(past=2), 3),
    case("past-hidden", operands(past=2)),
    case("past-empty", operands(past=0), 3),
    case("past-grouped", operands((4, 2), past=3), 3),
    case("past-packed", operands((4, 2), packed=True, past=2), 3, **heads_of({}, 4, 2)),
    case("past-mask", operands(past=2, mask=floats(2, 1, 3, 6)), 3),
    case("past-causal", operands(past=2), 3, is_causal=1),
    case("present", operands(), 3),
    case("present-packed", operands(packed=True), 3, **heads_of({}, 2, 2)),
    case("present-only", operands(past=2), 3, wanted=[1, 2]),
    case("present-key-only", operands((4, 2), packed=True, past=2), 3, wanted=[1], **heads_of({}, 4, 2)),
    case("lengths", operands(lengths=[3, 2])),
    case("lengths-zero", operands(lengths=[0, 4])),
    case("lengths-mask", operands((4, 2), lengths=[3, 1], mask=floats(3, 3))),
    case("lengths-packed", operands((4, 2), packed=True, lengths=[3, 2]), **heads_of({}, 4, 2)),
    case("lengths-causal", operands(rows=2, lengths=[4, 3]), is_causal=1),
    case("lengths-causal-before-the-start", operands(rows=3, lengths=[4, 1]), is_causal=1),
    case("lengths-window", operands(rows=2, lengths=[4, 3]), left_window_size=1, right_window_size=0),
    # --- soft cap -----------------------------------------------------------------------------------------------------
    case("softcap", operands(), softcap=0.7),
    case("softcap-grouped", operands((4, 2), mask=floats(3, 4)), softcap=1.5, is_causal=1),
    case("softcap-packed-past", operands((4, 2), packed=True, past=2), 3, **heads_of({"softcap": 2.0, "scale": 0.5}, 4, 2)),
    # --- precision ----------------------------------------------------------------------------------------------------
    case("softmax-float", operands(dtype=np.float32), softmax_precision=FLOAT),
    case("softmax-double", operands(mask=floats(3, 4).astype(np.float32), dtype=np.float32), softmax_precision=DOUBLE),
    case(
        "softmax-half",
        operands(mask=floats(3, 4).astype(np.float32), dtype=np.float32),
        softmax_precision=HALF,
        oracle=after_rounding(np.float16),
    ),
    case(
        "softmax-brain",
        operands(mask=floats(3, 4).astype(np.float32), dtype=np.float32),
        softmax_precision=BRAIN,
        oracle=after_rounding(ml_dtypes.bfloat16),
    ),
    case("single", operands((4, 2), dtype=np.float32), 4, is_causal=1),
    case(
        "half",
        operands((4, 2), past=2, mask=floats(3, 6).astype(np.float16), dtype=np.float16),
        4,
        qk_matmul_output_mode=3,
        softcap=2.0,
        oracle=in_double(qk_matmul_output_mode=3, softcap=2.0),
        rtol=1e-3,
    ),
    case("half-softmax", operands(dtype=np.float16), softmax_precision=FLOAT, oracle=in_double(), rtol=1e-3),
    case("brain", operands(dtype=ml_dtypes.bfloat16), 4, is_causal=1, oracle=in_double(is_causal=1), rtol=1e-2),
    case("other-values", [*operands(dtype=np.float32)[:2], operands()[2].astype(np.float16)], rtol=1e-3),
    case("other-mask", operands(mask=floats(3, 4).astype(np.float16), dtype=np.float32)),
]

# --- what the fourth result shows -------------------------------------------------------------------------------------

for _mode in range(4):
    _all: dict[str, Any] = {"qk_matmul_output_mode": _mode}
    _capped: dict[str, Any] = {**_all, "softcap": 1.2}
    if _mode == 0:
        _capped["oracle"] = raw_scores(1.2)
    CASES += [
        case(f"shown-{_mode}", operands(), 4, **_all),
        case(f"shown-{_mode}-softcap", operands((4, 2), mask=floats(4, 3, 4)), 4, **_capped),
        case(f"shown-{_mode}-bool", operands(mask=DEAD_ROW), 4, **_capped),
        case(f"shown-{_mode}-only", operands(mask=floats(2, 1, 3, 4)), 4, wanted=[3], **_capped),
        case(f"shown-{_mode}-only-uncapped", operands((4, 2), mask=floats(3, 4)), 4, wanted=[3], **_all),
        case(f"shown-{_mode}-not-wanted", operands((4, 2)), 4, wanted=[0], **_capped),
        case(
            f"shown-{_mode}-packed-past",
            operands((4, 2), packed=True, past=2, mask=floats(2, 1, 3, 6)),
            4,
            is_causal=1,
            **heads_of(_all, 4, 2),
        ),
        case(f"shown-{_mode}-lengths", operands(lengths=[3, 2]), 4, wanted=[0, 3], **_all),
    ]


# --- the adjoint in one node ------------------------------------------------------------------------------------------


def dense_adjoint(wrt: Sequence[int], **attrs: Any) -> Any:
    """The formulas at the top of irgrad/ops/attention.py with all scores at once, in float64."""

    def oracle(*arrays: Any) -> tuple[np.ndarray, ...]:
        q, k, v, mask, _, _, lengths, dy = arrays
        q4, dy4 = (_by_head(x, attrs.get("q_num_heads")) for x in (q, dy))
        k4, v4 = (_by_head(x, attrs.get("kv_num_heads")) for x in (k, v))
        group = q4.shape[1] // k4.shape[1]
        keys, values = (np.repeat(x, group, 1) for x in (k4, v4))
        scale = attrs.get("scale", 1 / np.sqrt(q4.shape[3]))
        bias = np.zeros((q4.shape[0], 1, q4.shape[2], k4.shape[2]))
        offset = 0 if lengths is None else (lengths - q4.shape[2]).reshape(-1, 1, 1, 1)
        key, query = np.arange(k4.shape[2]), np.arange(q4.shape[2])[:, None] + offset
        right = 0 if attrs.get("is_causal") else attrs.get("right_window_size", -1)
        hidden = np.zeros(bias.shape, bool)
        if right >= 0:
            hidden |= key > query + right
        if attrs.get("left_window_size", -1) >= 0:
            hidden |= key < query - attrs["left_window_size"]
        if lengths is not None:
            hidden |= key >= lengths.reshape(-1, 1, 1, 1)
        if mask is not None:
            bias = bias + (np.where(mask, 0, -np.inf) if mask.dtype == np.bool_ else mask)
        s = scale * q4 @ keys.swapaxes(2, 3) + np.where(hidden, -np.inf, bias)
        top = s.max(-1, keepdims=True)
        e = np.exp(s - np.where(np.isfinite(top), top, 0))
        p = e / np.maximum(e.sum(-1, keepdims=True), 1e-300)
        dp = dy4 @ values.swapaxes(2, 3)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale
        shared = (k4.shape[0], k4.shape[1], group)
        found = {
            0: ds @ keys,
            1: (ds.swapaxes(2, 3) @ q4).reshape(*shared, *k4.shape[2:]).sum(2),
            2: (p.swapaxes(2, 3) @ dy4).reshape(*shared, *v4.shape[2:]).sum(2),
        }
        results = []
        for index in wrt:
            x = (q, k, v)[index]
            dx = found[index] if x.ndim == 4 else found[index].swapaxes(1, 2).reshape(x.shape)
            results.append(dx.astype(x.dtype))
        return tuple(results)

    return oracle


def _by_head(x: np.ndarray, heads: int | None) -> np.ndarray:
    x = x.astype(np.float64)
    return x if heads is None else x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def grad_case(id: str, inputs: list[Any], wrt: Sequence[int] = (0, 1, 2), **options: Any) -> Case:
    attrs = {**options.pop("attrs", {}), "wrt": tuple(wrt)}
    q, v = inputs[0], inputs[2]
    shape = (*q.shape[:-1], v.shape[-1])
    if q.ndim == 3:
        shape = (*q.shape[:2], attrs["q_num_heads"] * (v.shape[2] // attrs["kv_num_heads"]))
    full = [*inputs, *[None] * (7 - len(inputs)), rng(9).standard_normal(shape).astype(q.dtype)]
    oracle = dense_adjoint(**attrs)
    return Case("irgrad.AttentionGrad", full, attrs, id=id, outputs=len(wrt), oracle=oracle, **options)


CASES += [
    grad_case("plain", operands()),
    grad_case("queries", operands(), (0,)),
    grad_case("keys", operands(), (1,)),
    grad_case("values", operands(), (2,)),
    grad_case("grouped", operands((4, 2))),
    grad_case("packed", operands((4, 2), packed=True), attrs=heads_of({}, 4, 2)),
    grad_case("causal", operands(rows=4, keys=4), attrs={"is_causal": 1, "scale": 0.4}),
    grad_case("window", operands(rows=4, keys=5), attrs={"left_window_size": 1, "right_window_size": 2}),
    grad_case("mask-bools", operands(mask=bools(3, 4))),
    grad_case("mask-numbers", operands(mask=with_infinities(floats(2, 1, 3, 4)))),
    grad_case("lengths", operands(lengths=[2, 4]), attrs={"is_causal": 1}),
    grad_case("f32", operands((4, 2), dtype=np.float32)),
    grad_case("f16", operands(dtype=np.float16), order=0, rtol=1e-2),
]
