"""Cases of irgrad/ops/linear_attention.py.

onnx.reference computes in float32, so that what is expected comes from an oracle: the recurrence, step by step. It computes
with complex numbers as well, which gives exact derivatives: those of the adjoint's cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

BATCH, STEPS, KEY, VALUE = 2, 4, 2, 3
TINY = 1e-30


def operands(
    rule: str,
    heads: tuple[int, int] = (2, 2),
    *,
    past: bool = False,
    per_key: bool = True,
    shared_beta: bool = False,
    strength: float = 1.0,
    steps: int = STEPS,
    dtype: Any = np.float64,
) -> list[Any]:
    generator = rng(9)
    q_heads, kv_heads = heads

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(dtype)

    found: list[Any] = [
        draw(BATCH, steps, q_heads * KEY),
        draw(BATCH, steps, kv_heads * KEY),
        draw(BATCH, steps, kv_heads * VALUE),
    ]
    found.append(draw(BATCH, kv_heads, KEY, VALUE) if past else None)
    decay = -strength * abs(draw(BATCH, steps, kv_heads * (KEY if per_key else 1)))
    found.append(decay.astype(dtype) if "gated" in rule else None)
    found.append(abs(draw(BATCH, steps, 1 if shared_beta else kv_heads)) / 2 if "delta" in rule else None)
    while found[-1] is None:
        found.pop()
    return found


def recurrence(attrs: Mapping[str, Any], *arrays: Any) -> tuple[np.ndarray, np.ndarray]:
    """In float64, or complex128 where an operand is complex."""
    q, k, v, past, decay, beta = (None if a is None else a.astype(np.result_type(a, np.float64)) for a in arrays)
    q_heads, heads, (batch, steps) = attrs["q_num_heads"], attrs["kv_num_heads"], q.shape[:2]
    q, k, v = (x.reshape(batch, steps, n, x.shape[2] // n) for x, n in ((q, q_heads), (k, heads), (v, heads)))
    state = np.zeros((batch, heads, k.shape[3], v.shape[3])) if past is None else past
    scale, outputs = attrs.get("scale") or k.shape[3] ** -0.5, [np.zeros((batch, q_heads, v.shape[3]))]
    for t in range(steps):
        if decay is not None:
            state = state * np.exp(decay[:, t].reshape(batch, heads, decay.shape[2] // heads, 1))
        u = v[:, t]
        if beta is not None:
            u = beta[:, t, :, None] * (u - np.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, :, :, None] * u[:, :, None]
        outputs.append(scale * np.einsum("bhk,bhkv->bhv", q[:, t], np.repeat(state, q_heads // heads, 1)))
    return np.stack(outputs, 1)[:, 1:].reshape(batch, steps, q_heads * v.shape[3]), state


def expected(**attrs: Any) -> Any:
    def oracle(*given: Any) -> tuple[np.ndarray, ...]:
        arrays = [*given, *[None] * (6 - len(given))]
        y, state = recurrence(attrs, *arrays)
        return y.astype(arrays[0].dtype), state.astype(arrays[0 if arrays[3] is None else 3].dtype)

    return oracle


def expected_gradient(**attrs: Any) -> Any:
    def oracle(*given: Any) -> tuple[np.ndarray, ...]:
        arrays, (dy, dpresent) = given[:6], (*given[6:], None)[:2]
        found = []
        for k, x in enumerate(arrays):
            if x is None:
                continue
            gradient = np.zeros(x.shape)
            for place in np.ndindex(x.shape):
                moved = x.astype(np.complex128)
                moved[place] += TINY * 1j
                y, state = recurrence(attrs, *arrays[:k], moved, *arrays[k + 1 :])
                total = (dy * y).sum() + (0 if dpresent is None else (dpresent * state).sum())
                gradient[place] = total.imag / TINY
            found.append(gradient.astype(x.dtype))
        return tuple(found)

    return oracle


def case(
    id: str, rule: str, heads: tuple[int, int] = (2, 2), attrs: Mapping[str, Any] | None = None, **options: Any
) -> Case:
    fields = {name: options.pop(name) for name in ("order", "wanted", "rtol", "wrt") if name in options}
    given = {"update_rule": rule, "q_num_heads": heads[0], "kv_num_heads": heads[1], **(attrs or {})}
    inputs = options.pop("inputs", None) or operands(rule, heads, **options)
    return Case("LinearAttention", inputs, given, 2, id, oracle=expected(**given), **fields)


def gradient_case(id: str, rule: str, heads: tuple[int, int] = (2, 2), *, present: bool = True, **options: Any) -> Case:
    rtol = options.pop("rtol", 1e-5)
    attrs = {"update_rule": rule, "q_num_heads": heads[0], "kv_num_heads": heads[1], **options.pop("attrs", {})}
    inputs = operands(rule, heads, **options)
    inputs += [None] * (6 - len(inputs))
    shapes = (BATCH, inputs[0].shape[1], heads[0] * VALUE), (BATCH, heads[1], KEY, VALUE)
    seeds = [rng(10).standard_normal(shape).astype(inputs[0].dtype) for shape in shapes[: 2 if present else 1]]
    count = sum(x is not None for x in inputs)
    return Case(
        "irgrad.LinearAttentionGrad",
        [*inputs, *seeds],
        attrs,
        count,
        id,
        oracle=expected_gradient(**attrs),
        rtol=rtol,
        order=0,
    )


CASES: list[Case] = []
for _rule in ("linear", "gated", "delta", "gated_delta"):
    CASES += [
        case(_rule, _rule),
        case(f"{_rule}-past", _rule, past=True),
        case(f"{_rule}-grouped", _rule, (4, 2), past=True),
        case(f"{_rule}-one-step", _rule, past=True, steps=1),
        case(f"{_rule}-no-steps", _rule, (4, 2), past=True, steps=0),
        case(f"{_rule}-no-batch", _rule, inputs=[a if a is None else a[:0] for a in operands(_rule)]),
        case(f"{_rule}-chunks-of-1", _rule, (4, 2), {"chunk_size": 1}, past=True),
        case(f"{_rule}-chunks-of-3", _rule, (2, 1), {"chunk_size": 3}),
        case(f"{_rule}-output-only", _rule, past=True, wanted=[0]),
        case(f"{_rule}-state-only", _rule, past=True, wanted=[1]),
        case(f"{_rule}-single", _rule, past=True, dtype=np.float32, rtol=1e-4),
        case(f"{_rule}-half", _rule, past=True, dtype=np.float16, rtol=2e-3),
        gradient_case(_rule, _rule, past=True),
        gradient_case(f"{_rule}-grouped", _rule, (4, 2), attrs={"chunk_size": 3}),
        gradient_case(f"{_rule}-no-state", _rule, present=False),
        gradient_case(f"{_rule}-no-steps", _rule, (4, 2), past=True, steps=0),
        gradient_case(f"{_rule}-single", _rule, past=True, dtype=np.float32, rtol=1e-3),
    ]
    if "gated" in _rule:
        CASES += [
            case(f"{_rule}-strong", _rule, (4, 2), past=True, strength=50.0),
            gradient_case(f"{_rule}-strong", _rule, (4, 2), past=True, strength=50.0),
            case(f"{_rule}-per-head", _rule, (4, 2), {"chunk_size": 2}, per_key=False, past=True),
            gradient_case(f"{_rule}-per-head", _rule, (4, 2), per_key=False, past=True),
        ]
    if "delta" in _rule:
        CASES += [
            case(f"{_rule}-shared-beta", _rule, shared_beta=True, past=True),
            gradient_case(f"{_rule}-shared-beta", _rule, shared_beta=True),
        ]

_mixed = operands("gated_delta", past=True, dtype=np.float16)
_mixed[3] = _mixed[3].astype(np.float32)
_reset = operands("gated_delta", past=True)
_reset[4][0, 2] = -np.inf

CASES += [
    case("scale", "linear", (4, 2), {"scale": 0.3}),
    gradient_case("scale", "linear", (4, 2), attrs={"scale": 0.3}),
    case("state-in-single", "gated_delta", inputs=_mixed, rtol=2e-3),
    case("forgets-all", "gated_delta", inputs=_reset),
    Case(
        "LinearAttention",
        operands("gated_delta"),
        {"q_num_heads": 2, "kv_num_heads": 2},
        2,
        "default-rule",
        oracle=expected(q_num_heads=2, kv_num_heads=2),
    ),
]
