"""Cases of irgrad/ops/pool.py.

The oracle goes through the windows one by one, since onnx.reference is slow and wrong in many places: MaxPool drops NaN,
gives Indices of another image where the kernel is not as large as the output, takes pads in the wrong order, and rounds
SAME_LOWER down; LpPool scales up the windows that ceil_mode cuts short; GlobalMaxPool pools over the wrong axes unless there
are two; AveragePool has no ceil_mode with auto_pad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng


def images(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Numbers that are well apart, so that no maximum is near another one."""
    count = int(np.prod(shape))
    return ((rng(seed).permutation(count) + 0.5) / max(count, 1) * 4 - 2).reshape(shape).astype(dtype)


def axis_windows(size: int, k: int, stride: int, dilation: int, pads: tuple[int, int], auto: str, ceil: int) -> Any:
    """For each window of an axis: its positions in the image, and how many it has within the padding."""
    extent = (k - 1) * dilation + 1
    begin, end = pads
    if auto.startswith("SAME"):
        count = -(-size // stride)
        total = max(0, (count - 1) * stride + extent - size)
        begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        end = total - begin
    else:
        if auto == "VALID":
            begin = end = 0
        count = (size + begin + end - extent) // stride + 1
        if ceil and auto != "VALID" and (size + begin + end - extent) % stride and count * stride < size + begin:
            count += 1
    for o in range(count):
        positions = [o * stride + j * dilation - begin for j in range(k)]
        yield [p for p in positions if 0 <= p < size], sum(-begin <= p < size + end for p in positions)


def each_window(shape: tuple[int, ...], attrs: dict[str, Any]) -> Iterator[Any]:
    """(index of the window, positions along each axis, size with the padding)."""
    rank = len(shape) - 2
    pads = attrs.get("pads", (0,) * 2 * rank)
    axes = [
        list(
            axis_windows(
                shape[a + 2],
                attrs["kernel_shape"][a],
                attrs.get("strides", (1,) * rank)[a],
                attrs.get("dilations", (1,) * rank)[a],
                (pads[a], pads[a + rank]),
                attrs.get("auto_pad", "NOTSET"),
                attrs.get("ceil_mode", 0),
            )
        )
        for a in range(rank)
    ]
    for index in product(*(range(len(windows)) for windows in axes)):
        chosen = [windows[o] for windows, o in zip(axes, index, strict=True)]
        yield index, [positions for positions, _ in chosen], int(np.prod([count for _, count in chosen]))


def result_like(x: np.ndarray, attrs: dict[str, Any], dtype: Any) -> np.ndarray:
    last = list(each_window(x.shape, attrs))[-1][0]
    return np.zeros((*x.shape[:2], *(o + 1 for o in last)), dtype)


def max_oracle(attrs: dict[str, Any]) -> Callable[..., Any]:
    def oracle(x: np.ndarray) -> Any:
        y, places = result_like(x, attrs, x.dtype), result_like(x, attrs, np.int64)
        sizes = x.shape[2:]
        for n, c in np.ndindex(*x.shape[:2]):
            for index, axes, _ in each_window(x.shape, attrs):
                best, where = -np.inf, -1
                for at in product(*axes):
                    value = x[(n, c, *at)]
                    if where < 0 or value > best or (np.isnan(value) and not np.isnan(best)):
                        order = "F" if attrs.get("storage_order") else "C"
                        plane = int(np.ravel_multi_index(at, sizes, order=order))
                        best, where = value, (n * x.shape[1] + c) * int(np.prod(sizes)) + plane
                y[(n, c, *index)], places[(n, c, *index)] = best, where
        return y, places

    return oracle


def mean_oracle(attrs: dict[str, Any]) -> Callable[..., Any]:
    def oracle(x: np.ndarray) -> np.ndarray:
        y = result_like(x, attrs, x.dtype)
        for index, axes, count in each_window(x.shape, attrs):
            inside = [x[(slice(None), slice(None), *at)] for at in product(*axes)]
            y[(slice(None), slice(None), *index)] = sum(inside) / (count if attrs.get("count_include_pad") else len(inside))
        return y

    return oracle


def norm_oracle(attrs: dict[str, Any]) -> Callable[..., Any]:
    def oracle(x: np.ndarray) -> np.ndarray:
        y, p = result_like(x, attrs, x.dtype), attrs.get("p", 2)
        for index, axes, _ in each_window(x.shape, attrs):
            total = sum(np.abs(x[(slice(None), slice(None), *at)]) ** p for at in product(*axes))
            y[(slice(None), slice(None), *index)] = total ** (1 / p)
        return y

    return oracle


def mean_grad_oracle(attrs: dict[str, Any]) -> Callable[..., Any]:
    def oracle(dy: np.ndarray, shape: np.ndarray) -> np.ndarray:
        dx = np.zeros(tuple(shape))
        for index, axes, count in each_window(dx.shape, attrs):
            inside = list(product(*axes))
            for at in inside:
                share = count if attrs.get("count_include_pad") else len(inside)
                dx[(slice(None), slice(None), *at)] += dy[(slice(None), slice(None), *index)] / share
        return dx

    return oracle


def max_case(x: np.ndarray, attrs: dict[str, Any], id: str, **options: Any) -> Case:
    return Case("MaxPool", [x], attrs, outputs=2, id=id, oracle=max_oracle(attrs), **options)


X = images(2, 2, 7, 6)
NAN = np.where(X > 1.2, np.nan, X)

GEOMETRY: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "plain": (X, {"kernel_shape": (3, 2)}),
    "strides": (X, {"kernel_shape": (2, 3), "strides": (2, 3)}),
    "pads": (X, {"kernel_shape": (3, 3), "strides": (2, 1), "pads": (1, 2, 0, 1)}),
    "dilations": (X, {"kernel_shape": (2, 3), "dilations": (3, 2), "pads": (1, 0, 1, 1)}),
    "ceil": (X, {"kernel_shape": (2, 2), "strides": (2, 4), "ceil_mode": 1}),
    "ceil_pads": (X, {"kernel_shape": (3, 3), "strides": (3, 2), "pads": (0, 1, 2, 1), "ceil_mode": 1}),
    "ceil_dropped": (images(1, 1, 5, 5), {"kernel_shape": (2, 2), "strides": (3, 3), "pads": (1,) * 4, "ceil_mode": 1}),
    "ceil_dilations": (X, {"kernel_shape": (2, 2), "strides": (2, 3), "dilations": (2, 3), "ceil_mode": 1}),
    "same_upper": (X, {"kernel_shape": (3, 2), "strides": (2, 2), "auto_pad": "SAME_UPPER"}),
    "same_lower": (X, {"kernel_shape": (2, 3), "strides": (3, 1), "auto_pad": "SAME_LOWER"}),
    "same_dilations": (X, {"kernel_shape": (2, 3), "dilations": (2, 1), "auto_pad": "SAME_LOWER"}),
    "valid": (X, {"kernel_shape": (2, 3), "strides": (2, 2), "auto_pad": "VALID"}),
    "valid_ceil": (X, {"kernel_shape": (2, 3), "strides": (2, 2), "auto_pad": "VALID", "ceil_mode": 1}),
    "1d": (images(2, 3, 9), {"kernel_shape": (3,), "strides": (2,), "pads": (1, 0)}),
    "3d": (images(1, 2, 4, 3, 5), {"kernel_shape": (2, 2, 3), "strides": (1, 2, 2), "pads": (0, 1, 1, 1, 0, 0)}),
}

MAX = [
    *(max_case(x, attrs, name) for name, (x, attrs) in GEOMETRY.items()),
    max_case(X, {"kernel_shape": (3, 2), "strides": (2, 2), "storage_order": 1}, "column_major"),
    max_case(images(1, 2, 3, 4, 5), {"kernel_shape": (2, 2, 2), "storage_order": 1}, "column_major_3d"),
    max_case(images(2, 2, 6), {"kernel_shape": (2,), "storage_order": 1}, "column_major_1d"),
    max_case(NAN, {"kernel_shape": (3, 2), "pads": (1, 0, 1, 1)}, "nan", order=0),
    max_case(np.where(X > 0, -np.inf, X), {"kernel_shape": (3, 2), "pads": (1, 0, 1, 1)}, "minus_infinity", order=0),
    max_case(np.ones((1, 1, 3, 4)), {"kernel_shape": (2, 2)}, "ties", order=0),
    max_case(np.round(X), {"kernel_shape": (3, 3), "pads": (1,) * 4}, "some_ties", order=0),
    max_case(
        images(1, 1, 1, 3), {"kernel_shape": (2, 2), "dilations": (2, 1), "pads": (1, 0, 1, 0)}, "only_padding", order=0
    ),
    max_case((X * 50).astype(np.int8), {"kernel_shape": (2, 2), "pads": (1, 0, 1, 0)}, "i8", order=0),
    max_case((X * 50 + 100).astype(np.uint8), {"kernel_shape": (2, 2), "pads": (1, 0, 1, 0)}, "u8", order=0),
    max_case(images(2, 2, 7, 6, dtype=np.float32), {"kernel_shape": (2, 2), "strides": (2, 2)}, "f32"),
    max_case(images(1, 2, 5, 4, dtype=np.float16), {"kernel_shape": (2, 2)}, "f16", order=0),
    max_case(images(1, 1, 300), {"kernel_shape": (270,)}, "large_window", order=0),
    Case("MaxPool", [X], {"kernel_shape": (3, 2), "pads": (1, 1, 1, 0)}, id="values_only"),
    Case(
        "MaxPool",
        [(X * 50).astype(np.int8)],
        {"kernel_shape": (2, 2)},
        id="values_only_i8",
        order=0,
        oracle=lambda x: max_oracle({"kernel_shape": (2, 2)})(x)[0],
    ),
    Case(
        "irgrad.MaxPoolGrad",
        [images(1, 2, 2, 2), np.array([[[[0, 3], [5, 3]], [[7, 6], [11, 8]]]]), np.array([1, 2, 3, 2])],
        oracle=lambda dy, i, shape: np.bincount(i.reshape(-1), dy.reshape(-1), 12).reshape(shape),
    ),
    Case(
        "irgrad.MaxPoolGrad",
        [images(1, 2, 2), np.array([[[0, 3], [5, 4]]]), np.array([1, 2, 3])],
        {"distinct": 1},
        id="distinct",
        oracle=lambda dy, i, shape: np.bincount(i.reshape(-1), dy.reshape(-1), 6).reshape(shape),
    ),
]

AVERAGE = [
    *(
        Case(
            op,
            [x if op == "AveragePool" else images(*oracle(x).shape), *(() if op == "AveragePool" else (np.array(x.shape),))],
            attrs | {"count_include_pad": include},
            id=f"{name}{'_include_pad' if include else ''}",
            oracle=oracle if op == "AveragePool" else mean_grad_oracle(attrs | {"count_include_pad": include}),
        )
        for op in ("AveragePool", "irgrad.AveragePoolGrad")
        for name, (x, attrs) in GEOMETRY.items()
        for include in (0, 1)
        for oracle in [mean_oracle(attrs | {"count_include_pad": include})]
    ),
    Case("AveragePool", [images(2, 2, 6, 6, dtype=np.float32)], {"kernel_shape": (2, 2), "strides": (2, 2)}, id="f32"),
    Case("AveragePool", [images(1, 2, 5, 4, dtype=np.float16)], {"kernel_shape": (2, 2)}, id="f16", order=0, rtol=1e-3),
]

NORMS = [
    *(Case("LpPool", [x], attrs, id=name, oracle=norm_oracle(attrs)) for name, (x, attrs) in GEOMETRY.items()),
    *(
        Case("LpPool", [x], attrs | {"p": p}, id=f"{name}_p{p}", oracle=norm_oracle(attrs | {"p": p}))
        for name in ("pads", "ceil_pads")
        for x, attrs in [GEOMETRY[name]]
        for p in (1, 3, 4)
    ),
    Case("LpPool", [images(1, 2, 5, 5, dtype=np.float32)], {"kernel_shape": (2, 2)}, id="f32"),
]


def whole(reduce: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def whole_norm(p: int) -> Callable[..., Any]:
    return lambda x: whole(np.sum)(np.abs(x) ** p) ** (1 / p)


GLOBAL = [
    Case("GlobalAveragePool", [X]),
    Case("GlobalAveragePool", [images(2, 3, 5)], id="1d"),
    Case("GlobalAveragePool", [images(2, 1, 2, 3, 2, dtype=np.float32)], id="3d"),
    Case("GlobalAveragePool", [images(1, 2, 4, 4, dtype=np.float16)], id="f16", order=0, rtol=1e-3),
    Case("GlobalMaxPool", [X]),
    Case("GlobalMaxPool", [images(2, 3, 5)], id="1d", oracle=whole(np.max)),
    Case("GlobalMaxPool", [images(2, 1, 2, 3, 2)], id="3d", oracle=whole(np.max)),
    Case("GlobalMaxPool", [NAN], id="nan", order=0, oracle=whole(np.max)),
    Case("GlobalLpPool", [X], oracle=whole_norm(2)),
    Case("GlobalLpPool", [images(2, 3, 5)], {"p": 1}, id="p1", oracle=whole_norm(1)),
    Case("GlobalLpPool", [images(1, 2, 2, 3, 2)], {"p": 3}, id="p3", oracle=whole_norm(3)),
]

CASES = MAX + AVERAGE + NORMS + GLOBAL
