"""Cases of irgrad/ops/recurrent.py.

onnx.reference ignores sequence_lens, clip, activations (but for RNN) and input_forget, so that what is expected comes from
an oracle: ONNX's equations, sequence by sequence and step by step. It computes with complex numbers as well, which gives
exact derivatives: those of the adjoints' cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

STEPS, BATCH, SIZE, HIDDEN = 4, 3, 2, 2
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENS = np.array([4, 1, 3], np.int32)
X, W, R, B, LENGTHS, H0, C0, P = range(8)
Formula = Callable[[Any, float, float], Any]

FUNCTIONS: dict[str, Formula] = {
    "relu": lambda x, a, b: np.where(x >= 0, x, 0),
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "thresholdedrelu": lambda x, a, b: np.where(x >= a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(x) - 1)),
    "softsign": lambda x, a, b: x / (1 + abs(x)),
    "softplus": lambda x, a, b: np.log(1 + np.exp(x)),
}
ALPHA = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
BETA = {"affine", "scaledtanh", "hardsigmoid"}
DEFAULT_ALPHA = {"leakyrelu": 0.01, "thresholdedrelu": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
DEFAULT_BETA = {"affine": 0.0, "hardsigmoid": 0.5}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def functions(kind: str, attrs: Mapping[str, Any], directions: int) -> list[list[Callable[[Any], Any]]]:
    names = [name.lower() for name in attrs.get("activations", DEFAULTS[kind] * directions)]
    alphas, betas = list(attrs.get("activation_alpha", ())), list(attrs.get("activation_beta", ()))
    found = []
    for name in names:
        a = alphas.pop(0) if name in ALPHA and alphas else DEFAULT_ALPHA.get(name, 0.0)
        b = betas.pop(0) if name in BETA and betas else DEFAULT_BETA.get(name, 0.0)
        found.append(lambda x, f=FUNCTIONS[name], a=a, b=b: f(x, a, b))
    number = len(DEFAULTS[kind])
    return [found[k * number : (k + 1) * number] for k in range(directions)]


def step(kind: str, attrs: Mapping[str, Any], fs: Sequence[Any], xw: Any, h: Any, c: Any, r: Any, b: Any, p: Any) -> Any:
    """One step of one sequence: the next state, the next cells, what is saved of the gates."""
    n, bound = HIDDEN, attrs.get("clip")

    def clipped(z: Any) -> Any:
        return z if bound is None else np.where(z.real > bound, bound, np.where(z.real < -bound, -bound, z))

    of_input, of_recurrence = b
    if kind == "RNN":
        z = xw + r @ h + of_input + of_recurrence
        return fs[0](clipped(z)), None, z
    if kind == "GRU":
        f, g = fs
        z = (xw + of_input + of_recurrence)[: 2 * n] + r[: 2 * n] @ h
        update, reset = f(clipped(z[:n])), f(clipped(z[n:]))
        if attrs.get("linear_before_reset"):
            through = r[2 * n :] @ h + of_recurrence[2 * n :]
            z_hidden = xw[2 * n :] + reset * through + of_input[2 * n :]
            saved = [z, z_hidden, through]
        else:
            z_hidden = xw[2 * n :] + r[2 * n :] @ (reset * h) + (of_input + of_recurrence)[2 * n :]
            saved = [z, z_hidden]
        hidden = g(clipped(z_hidden))
        return (1 - update) * hidden + update * h, None, np.concatenate(saved)
    f, g, final = fs
    z_i, z_o, z_f, z_c = np.split(xw + r @ h + of_input + of_recurrence, 4)
    z_i, z_f = z_i + p[:n] * c, z_f + p[2 * n :] * c
    i_gate = f(clipped(z_i))
    f_gate = 1 - i_gate if attrs.get("input_forget") else f(clipped(z_f))
    c = f_gate * c + i_gate * g(clipped(z_c))
    z_o = z_o + p[n : 2 * n] * c
    return f(clipped(z_o)) * final(c), c, np.concatenate([z_i, z_o, z_f, z_c])


def layer(kind: str, attrs: Mapping[str, Any]) -> Callable[..., tuple[Any, ...]]:
    """All outputs of the operation that saves the gates; those of the standard one are the first."""

    def oracle(*operands: Any) -> tuple[Any, ...]:
        x, w, r, b, lengths, h0, c0, p = (*operands, *(None,) * (8 - len(operands)))
        directions, gates = len(w), GATES[kind]
        batch_first = attrs.get("layout") == 1
        if batch_first:
            x, h0, c0 = (None if v is None else np.swapaxes(v, 0, 1) for v in (x, h0, c0))
        steps, batch = x.shape[:2]
        dtype = np.result_type(*(v for v in operands if v is not None and v.dtype.kind != "i"))
        if b is None:
            b = np.zeros((directions, 2 * gates * HIDDEN), dtype)
        if p is None:
            p = np.zeros((directions, 3 * HIDDEN), dtype)
        lengths = [steps] * batch if lengths is None else lengths
        saved = gates + (1 if kind == "GRU" and attrs.get("linear_before_reset") else 0)
        y = np.zeros((steps, directions, batch, HIDDEN), dtype)
        ends = np.zeros((2, directions, batch, HIDDEN), dtype)
        z = np.zeros((directions, steps, batch, saved * HIDDEN), dtype)
        cells = np.zeros((directions, steps, batch, HIDDEN), dtype)
        fs = functions(kind, attrs, directions)
        for d in range(directions):
            backward = d == 1 or attrs.get("direction") == "reverse"
            for k in range(batch):
                h = np.zeros(HIDDEN, dtype) if h0 is None else h0[d, k]
                c = np.zeros(HIDDEN, dtype) if c0 is None else c0[d, k]
                for t in range(steps)[:: -1 if backward else 1]:
                    if t < lengths[k]:
                        both = b[d].reshape(2, -1)
                        h, c, z[d, t, k] = step(kind, attrs, fs[d], w[d] @ x[t, k], h, c, r[d], both, p[d])
                        y[t, d, k] = h
                    if c is not None:
                        cells[d, t, k] = c
                ends[0, d, k] = h
                if c is not None:
                    ends[1, d, k] = c
        if batch_first:
            y, ends = y.transpose(2, 0, 1, 3), ends.transpose(0, 2, 1, 3)
        return (y, *ends, z, cells) if kind == "LSTM" else (y, ends[0], z)

    return oracle


def operands(kind: str, attrs: Mapping[str, Any], present: Sequence[int], dtype: Any = np.float64) -> list[Any]:
    """Operands of a case: X, W, R and those that are `present`."""
    directions, g, generator = 2 if attrs.get("direction") == "bidirectional" else 1, GATES[kind], rng(7)
    state = (BATCH, directions, HIDDEN) if attrs.get("layout") == 1 else (directions, BATCH, HIDDEN)
    shapes = {
        X: (BATCH, STEPS, SIZE) if attrs.get("layout") == 1 else (STEPS, BATCH, SIZE),
        W: (directions, g * HIDDEN, SIZE),
        R: (directions, g * HIDDEN, HIDDEN),
        B: (directions, 2 * g * HIDDEN),
        H0: state,
        C0: state,
        P: (directions, 3 * HIDDEN),
    }
    found: list[Any] = [None] * (1 + max(present, default=R) if max(present, default=R) > R else 3)
    for position in sorted({X, W, R, *present}):
        found[position] = LENS if position == LENGTHS else generator.standard_normal(shapes[position]).astype(dtype)
    return found


def n_outputs(kind: str, *, saving: bool) -> int:
    return (3 if kind == "LSTM" else 2) + (saving and (2 if kind == "LSTM" else 1))


def case(kind: str, id: str, present: Sequence[int] = (), *, saving: bool = False, **attrs: Any) -> Case:
    if kind != "LSTM":
        present = [position for position in present if position not in (C0, P)]
    return Case(
        f"irgrad.{kind}" if saving else kind,
        operands(kind, attrs, present),
        attrs,
        outputs=n_outputs(kind, saving=saving),
        id=id,
        oracle=layer(kind, attrs),
    )


EVERYTHING = (B, LENGTHS, H0, C0, P)
LONG = (B, H0, C0, P)  # all but sequence_lens


def options(kind: str) -> list[Case]:
    """One case per option, and all of them together."""
    return [
        case(kind, "minimal"),
        case(kind, "hidden-size", hidden_size=HIDDEN),
        case(kind, "bias", (B,)),
        case(kind, "initial", (H0, C0)),
        case(kind, "lens", (LENGTHS,)),
        case(kind, "lens-reverse", (LENGTHS, H0, C0), direction="reverse"),
        case(kind, "reverse", LONG, direction="reverse"),
        case(kind, "bidirectional", LONG, direction="bidirectional"),
        case(kind, "layout", LONG, layout=1),
        case(kind, "layout-bidirectional", EVERYTHING, layout=1, direction="bidirectional"),
        case(kind, "everything", EVERYTHING, direction="bidirectional"),
        case(kind, "clip", EVERYTHING, clip=0.6),
        Case(kind, operands(kind, {}, ()), id="one-output", oracle=layer(kind, {})),
        Case(
            kind,
            operands(kind, {}, EVERYTHING[: 5 if kind == "LSTM" else 3], np.float32),
            outputs=n_outputs(kind, saving=False),
            id="single",
            oracle=layer(kind, {}),
        ),
    ]


NAMES = ("Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu")
NAMES += ("Softsign", "Softplus")
GIVEN = {
    "Affine": {"activation_alpha": (0.7,), "activation_beta": (0.3,)},
    "LeakyRelu": {"activation_alpha": (0.2,)},
    "ThresholdedRelu": {"activation_alpha": (0.3,)},
    "ScaledTanh": {"activation_alpha": (1.3,), "activation_beta": (0.6,)},
    "HardSigmoid": {"activation_alpha": (0.3,), "activation_beta": (0.4,)},
    "Elu": {"activation_alpha": (0.8,)},
}

ACTIVATIONS = [
    *(case("RNN", f"activation-{name}", LONG, activations=(name,), **GIVEN.get(name, {})) for name in NAMES),
    *(
        case("RNN", f"activation-{name}-default", activations=(name,))
        for name in ("LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu")
    ),
    case("RNN", "activation-Affine-alpha", activations=("Affine",), activation_alpha=(0.7,)),
    case("RNN", "activation-LeakyRelu-negative", LONG, activations=("leakyrelu",), activation_alpha=(-0.5,)),
    case("RNN", "activations-as-the-schema-has-them", activations=("Tanh", "Tanh")),
    case(
        "RNN",
        "activations-bidirectional",
        LONG,
        direction="bidirectional",
        activations=("ELU", "scaledTANH"),
        activation_alpha=(0.8, 1.3),
        activation_beta=(0.6,),
        clip=1.5,
    ),
    case(
        "GRU", "activations", LONG, activations=("HardSigmoid", "Softsign"), activation_alpha=(0.3,), activation_beta=(0.4,)
    ),
    case(
        "GRU",
        "activations-bidirectional",
        EVERYTHING,
        direction="bidirectional",
        linear_before_reset=1,
        activations=("Sigmoid", "LeakyRelu", "hardsigmoid", "Affine"),
        activation_alpha=(0.1, 0.3, 0.7),
        activation_beta=(0.4, 0.2),
    ),
    case("LSTM", "activations", LONG, activations=("Softplus", "Softsign", "ScaledTanh"), **GIVEN["ScaledTanh"]),
    case(
        "LSTM",
        "activations-bidirectional",
        EVERYTHING,
        direction="bidirectional",
        activations=("HardSigmoid", "Elu", "Affine", "sigmoid", "Tanh", "Relu"),
        activation_alpha=(0.3, 0.8, 0.7),
        activation_beta=(0.4, 0.1),
    ),
    # One value per function: those of functions that take none are not read.
    case("LSTM", "activations-with-idle-values", activations=("HardSigmoid", "Tanh", "Tanh"), activation_alpha=(0.3, 0, 0)),
]

GRU_OPTIONS = [
    case("GRU", "linear", linear_before_reset=1),
    case("GRU", "linear-bias", (B, H0), linear_before_reset=1),
    case("GRU", "linear-everything", EVERYTHING, linear_before_reset=1, direction="bidirectional", layout=1, clip=0.6),
]

LSTM_OPTIONS = [
    case("LSTM", "peepholes", (P,)),
    case("LSTM", "initial-c", (C0,)),
    case("LSTM", "input-forget", LONG, input_forget=1),
    case("LSTM", "input-forget-everything", EVERYTHING, input_forget=1, direction="bidirectional", layout=1, clip=0.6),
]

SAVING = [
    *(
        case(kind, id, present, saving=True, **attrs)
        for kind in GATES
        for id, present, attrs in (
            ("minimal", (), {}),
            ("everything", EVERYTHING, {"direction": "bidirectional"}),
            ("layout", EVERYTHING, {"layout": 1, "direction": "reverse", "clip": 0.6}),
        )
    ),
    case("GRU", "linear", EVERYTHING, saving=True, linear_before_reset=1, direction="bidirectional"),
    case("LSTM", "input-forget", EVERYTHING, saving=True, input_forget=1),
]


# --- adjoints ---------------------------------------------------------------------------------------------------------


def adjoint(kind: str, id: str, present: Sequence[int] = (), given: Sequence[int] | None = None, **attrs: Any) -> Case:
    """A case of an adjoint.

    Args:
        kind: "RNN", "GRU" or "LSTM".
        id: what is special.
        present: the operands that the layer has besides X, W and R.
        given: the outputs of the layer whose cotangents are not zero; all of them by default.
        attrs: those of the layer.
    """
    if kind != "LSTM":
        present = [position for position in present if position not in (C0, P)]
    inputs = operands(kind, attrs, present)
    run = layer(kind, attrs)
    results, generator = run(*inputs), rng(9)
    cotangents = [generator.standard_normal(v.shape) if given is None or k in given else None for k, v in enumerate(results)]
    n_standard = n_outputs(kind, saving=False)
    wrt = tuple(k for k, v in enumerate(inputs) if v is not None and k != LENGTHS)

    def oracle(*_: Any) -> tuple[Any, ...]:
        return tuple(exact_cotangent(run, inputs, cotangents, position) for position in wrt)

    read = [None if k == B else v for k, v in enumerate(inputs)]
    return Case(
        f"irgrad.{kind}Grad",
        [*cotangents, results[0], *results[n_standard:], *read],
        {**attrs, "wrt": wrt},
        outputs=len(wrt),
        id=id,
        oracle=oracle,
    )


def exact_cotangent(run: Any, inputs: Sequence[Any], cotangents: Sequence[Any], position: int) -> Any:
    """The cotangent of an operand by complex steps: the derivative of an analytic f is Im f(x + ih) / h, without roundoff.

    Reference: Squire and Trapp, Using Complex Variables to Estimate Derivatives of Real Functions, SIAM Review 40 (1998).
    """
    result, tiny = np.zeros(inputs[position].shape), 1e-30
    for index in np.ndindex(result.shape):
        moved = inputs[position].astype(complex)
        moved[index] += 1j * tiny
        values = run(*inputs[:position], moved, *inputs[position + 1 :])
        result[index] = sum(np.vdot(c, v.imag) for c, v in zip(cotangents, values, strict=True) if c is not None) / tiny
    return result


ADJOINTS = [
    *(
        adjoint(kind, id, present, given, **attrs)
        for kind in GATES
        for id, present, given, attrs in (
            ("minimal", (), (0,), {}),
            ("last", (B,), (1,), {}),
            ("everything", EVERYTHING, None, {"direction": "bidirectional"}),
            ("layout", EVERYTHING, None, {"layout": 1, "direction": "reverse", "clip": 0.6}),
        )
    ),
    adjoint("GRU", "linear", EVERYTHING, linear_before_reset=1, direction="bidirectional"),
    adjoint("LSTM", "cells", (C0,), (2,)),
    adjoint("LSTM", "input-forget", EVERYTHING, input_forget=1),
]

CASES = [
    *(case for kind in GATES for case in options(kind)),
    *ACTIVATIONS,
    *GRU_OPTIONS,
    *LSTM_OPTIONS,
    *SAVING,
    *ADJOINTS,
]
