"""Cases of irgrad/ops/fourier.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

REAL = rng(0).standard_normal((2, 6, 5, 1))
COMPLEX = rng(1).standard_normal((2, 6, 5, 2))


def dft(id: str, x: np.ndarray, length: int | None = None, axis: int | None = None, **more: Any) -> Case:
    attrs = {name: more.pop(name) for name in ("inverse", "onesided") if name in more}
    operands = [x, None if length is None else np.array(length), None if axis is None else np.array(axis)]
    while operands[-1] is None:
        operands.pop()
    return Case("DFT", operands, attrs, id=id, **more)


LENGTHS = {"own-length": None, "odd": 7, "shorter": 3, "longer": 8}

DFTS = [
    *(dft(f"real-{id}", REAL, n) for id, n in LENGTHS.items()),
    *(dft(f"complex-{id}", COMPLEX, n) for id, n in LENGTHS.items()),
    *(dft(f"inverse-{id}", COMPLEX, n, inverse=1) for id, n in LENGTHS.items()),
    dft("inverse-of-real", REAL, inverse=1),
    *(dft(f"onesided-{id}", REAL, n, onesided=1) for id, n in LENGTHS.items()),
    *(dft(f"inverse-onesided-{id}", COMPLEX, n, inverse=1, onesided=1) for id, n in LENGTHS.items()),
    *(
        dft(f"{id}-axis-{axis}", x, n, axis, **attrs)
        for axis in (0, 1, -3)
        for id, x, n, attrs in (
            ("real", REAL, 4, {}),
            ("onesided", REAL, 4, {"onesided": 1}),
            ("inverse-onesided", COMPLEX, 5, {"inverse": 1, "onesided": 1}),
        )
    ),
    dft("inverse-onesided-own-length-axis-1", COMPLEX, None, 1, inverse=1, onesided=1),
    dft("inverse-onesided-of-one-bin", COMPLEX[..., :1, :], 1, inverse=1, onesided=1),
    dft("vector", REAL[0, :, 0]),
    dft("one-point", REAL[:, :, :1]),
    dft("f32", REAL.astype(np.float32), rtol=1e-4),
    dft("f32-onesided", REAL.astype(np.float32), 8, onesided=1, rtol=1e-4),
    dft("f32-inverse-onesided", COMPLEX.astype(np.float32), 8, inverse=1, onesided=1, rtol=1e-4),
    dft("f16", COMPLEX.astype(np.float16), rtol=1e-2),
    Case("DFT", [REAL.astype(np.float32), np.array(3, np.int32), np.array(-2)], id="i32-length", rtol=1e-4),
]

SIGNAL = rng(2).standard_normal((2, 11, 1))
WINDOW = rng(3).uniform(0.5, 1, 4)
STEP = np.array(3)
PAIRS = rng(4).standard_normal((2, 11, 2))


def transform(x: np.ndarray, step: np.ndarray, window: np.ndarray | None = None, length: Any = None) -> np.ndarray:
    z = x.astype(np.float64) @ np.array([1, 1j][: x.shape[-1]])
    n = int(length) if length is not None else x.shape[1] if window is None else len(window)
    frames = np.stack([z[:, first : first + n] for first in range(0, z.shape[1] - n + 1, int(step))], 1)
    y = np.fft.fft(frames if window is None else frames * window)
    return np.stack([y.real, y.imag], -1)


def onesided(x: np.ndarray, step: np.ndarray, window: np.ndarray | None = None, length: Any = None) -> np.ndarray:
    # Where a window or a frame length is not given, onnx.reference is given arrays that it cannot use.
    y = transform(x, step, window, length)
    return y[:, :, : y.shape[2] // 2 + 1]


STFTS = [
    Case("STFT", [SIGNAL, STEP, WINDOW], id="window", oracle=onesided),
    Case("STFT", [SIGNAL, STEP, WINDOW, np.array(4)], id="window-and-length", oracle=onesided),
    Case("STFT", [SIGNAL, STEP, None, np.array(5)], id="length", oracle=onesided),
    Case("STFT", [SIGNAL, STEP], id="one-frame", oracle=onesided),
    Case("STFT", [SIGNAL, np.array(1), WINDOW], id="step-1", oracle=onesided),
    Case("STFT", [SIGNAL, np.array(5), WINDOW], id="gaps", oracle=onesided),
    Case("STFT", [SIGNAL, STEP, WINDOW[:3]], id="odd", oracle=onesided),
    Case("STFT", [SIGNAL, STEP, WINDOW], {"onesided": 0}, id="two-sided", oracle=transform),
    Case("STFT", [PAIRS, STEP, WINDOW], {"onesided": 0}, id="complex", oracle=transform),
    Case("STFT", [PAIRS, STEP, None, np.array(4)], {"onesided": 1}, id="complex-onesided", oracle=onesided),
    Case("STFT", [SIGNAL, STEP, WINDOW], id="window-only", wrt=[2], oracle=onesided),
    Case("STFT", [SIGNAL, STEP, WINDOW], id="signal-only", wrt=[0], oracle=onesided),
    Case(
        "STFT",
        [SIGNAL.astype(np.float32), np.array(3, np.int32), WINDOW.astype(np.float32), np.array(4, np.int32)],
        id="f32",
        oracle=onesided,
        rtol=1e-4,
    ),
    Case("STFT", [SIGNAL.astype(np.float16), STEP, WINDOW.astype(np.float16)], id="f16", oracle=onesided, rtol=1e-2),
]


def frames(x: np.ndarray, step: np.ndarray, length: np.ndarray) -> np.ndarray:
    n = int(length)
    return np.stack([x[:, first : first + n] for first in range(0, x.shape[1] - n + 1, int(step))], 1)


def added(x: np.ndarray, step: np.ndarray, size: np.ndarray) -> np.ndarray:
    y = np.zeros((len(x), int(size), x.shape[3]))
    for k in range(x.shape[1]):
        y[:, k * step : k * step + x.shape[2]] += x[:, k]
    return y


FRAMES = [
    *(
        Case("irgrad.Frames", [PAIRS, np.array(step), np.array(length)], id=f"step-{step}-of-{length}", oracle=frames)
        for step, length in ((1, 4), (2, 4), (3, 5), (6, 2), (1, 11), (20, 3))
    ),
    *(
        Case("irgrad.OverlapAdd", [x, np.array(step), np.array(size)], id=f"step-{step}-to-{size}", oracle=added)
        for x, step, size in (
            (rng(5).standard_normal((2, 3, 4, 1)), 2, 8),
            (rng(6).standard_normal((1, 3, 5, 2)), 3, 13),
            (rng(7).standard_normal((2, 2, 2, 1)), 4, 9),
            (rng(8).standard_normal((2, 4, 3, 1)), 1, 6),
        )
    ),
    Case(
        "irgrad.OverlapAdd",
        [rng(9).standard_normal((1, 2, 3, 1)).astype(np.float32), np.array(2), np.array(5)],
        id="f32",
        oracle=added,
    ),
]

CASES = [*DFTS, *STFTS, *FRAMES]
