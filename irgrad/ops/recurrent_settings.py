"""What the attributes of a recurrent layer say, and the types of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irgrad.errors import TypeInferenceError
from irgrad.op import Call
from irgrad.ops.recurrent_activations import Activation, activations_of
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.types import Dim, TensorType, Type, dims_differ, divide_dims, merge_dims, multiply_dims

__all__ = ["C0", "H0", "LENS", "B", "P", "R", "Recurrence", "W", "X", "adjoint_types", "forward_types"]

X, W, R, B, LENS, H0, C0, P = range(8)
"""Positions of the operands; C0 and P are those of LSTM only."""

_DEFAULT_FUNCTIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class Recurrence:
    """The attributes of one node.

    Attributes:
        kind: "RNN", "GRU" or "LSTM".
        reverse: for each direction whether it runs from the last step to the first.
        functions: for each direction the activation functions f, g, h of ONNX's equations.
        clip: bound of the gates' pre-activations; None for none.
        batch_first: the layout is 1, with the batch axis first.
        coupled: an LSTM's forget gate is 1 - its input gate (`input_forget`).
        linear: a GRU's reset gate acts behind the recurrent weights (`linear_before_reset`).
    """

    kind: str
    reverse: tuple[bool, ...]
    functions: tuple[tuple[Activation, ...], ...]
    clip: float | None
    batch_first: bool
    coupled: bool
    linear: bool

    @classmethod
    def of(cls, name: str, attrs: Mapping[str, Any]) -> Recurrence:
        """Read the attributes of an operation called `name`, a "Grad" at the end of which does not matter.

        Raises:
            TypeInferenceError: an attribute has a value that it cannot have.
        """
        kind = name.removesuffix("Grad")
        direction, layout, clip = attrs.get("direction", "forward"), attrs.get("layout", 0), attrs.get("clip")
        if direction not in _DIRECTIONS:
            raise TypeInferenceError(f"{kind} has the direction {direction!r}; it must be one of {', '.join(_DIRECTIONS)}")
        if layout not in (0, 1):
            raise TypeInferenceError(f"{kind} has the layout {layout}; it must be 0 or 1")
        if clip is not None and not clip > 0:
            raise TypeInferenceError(f"{kind} clips at {clip}; the bound must be positive, and left out for none")
        reverse = _DIRECTIONS[direction]
        return cls(
            kind,
            reverse,
            _functions(kind, len(reverse), attrs),
            clip,
            layout == 1,
            bool(attrs.get("input_forget", 0)),
            bool(attrs.get("linear_before_reset", 0)),
        )

    @property
    def gates(self) -> int:
        """How many gates the weights hold."""
        return _GATES[self.kind]

    @property
    def saved(self) -> int:
        """How many numbers per hidden unit and step the adjoint needs of the gates.

        Those of a linear GRU's are followed by what the reset gate is multiplied by.
        """
        return self.gates + (1 if self.kind == "GRU" and self.linear else 0)

    @property
    def has_cells(self) -> bool:
        return self.kind == "LSTM"

    @property
    def n_outputs(self) -> int:
        """How many outputs the standard operation has: Y, Y_h, and Y_c of an LSTM."""
        return 3 if self.has_cells else 2

    @property
    def n_states(self) -> int:
        return 2 if self.has_cells else 1


def _functions(kind: str, directions: int, attrs: Mapping[str, Any]) -> tuple[tuple[Activation, ...], ...]:
    default = _DEFAULT_FUNCTIONS[kind]
    names = attrs.get("activations") or default * directions
    if kind == "RNN" and directions == 1 and len(names) == 2:
        names = names[:1]  # the default, which the schema writes for two directions
    if len(names) != len(default) * directions:
        raise TypeInferenceError(
            f"{kind} has {len(names)} activation functions, but {len(default) * directions} are needed: "
            f"{len(default)} for each of {directions} direction(s)"
        )
    found = activations_of(names, attrs.get("activation_alpha") or (), attrs.get("activation_beta") or ())
    return tuple(tuple(found[k : k + len(default)]) for k in range(0, len(found), len(default)))


# --- types ------------------------------------------------------------------------------------------------------------


def forward_types(call: Call, *, saving: bool) -> Sequence[Type]:
    """The types of Y, Y_h, an LSTM's Y_c and, of an operation that saves them, the gates and an LSTM's cells.

    Raises:
        TypeInferenceError: the operands do not fit each other or the attributes.
    """
    recurrence = Recurrence.of(call.op.name, call.attrs)
    steps, batch, hidden = _checked(call, recurrence)
    dtype = call.tensor(X).dtype
    types: list[Type] = [_sequence_type(recurrence, dtype, steps, batch, hidden)]
    types += [_state_type(recurrence, dtype, batch, hidden)] * recurrence.n_states
    if saving:
        wide, directions = accumulation_dtype(dtype), len(recurrence.reverse)
        types.append(TensorType(wide, (directions, steps, batch, multiply_dims(recurrence.saved, hidden))))
        if recurrence.has_cells:
            types.append(TensorType(wide, (directions, steps, batch, hidden)))
    return types[: call.n_outputs]


def adjoint_types(call: Call, first: int) -> Sequence[Type]:
    """The types of the cotangents of the operands that the attribute `wrt` tells.

    Args:
        call: an adjoint.
        first: the position of X among its operands.
    """
    recurrence = Recurrence.of(call.op.name, call.attrs)
    y, gates = call.tensor(recurrence.n_outputs + recurrence.n_states), call.tensor(first - recurrence.n_states)
    directions, g = len(recurrence.reverse), recurrence.gates
    steps, batch = (None, None) if gates.shape is None else gates.shape[1:3]
    hidden = _dim(call.tensor(first + R), 2)
    size = next((_dim(call.tensor(first + k), 2) for k in (X, W) if call.has(first + k)), None)
    state = _state_type(recurrence, y.dtype, batch, hidden)
    x = (batch, steps, size) if recurrence.batch_first else (steps, batch, size)
    types = {
        X: TensorType(y.dtype, x),
        W: TensorType(y.dtype, (directions, multiply_dims(g, hidden), size)),
        R: TensorType(y.dtype, (directions, multiply_dims(g, hidden), hidden)),
        B: TensorType(y.dtype, (directions, multiply_dims(2 * g, hidden))),
        H0: state,
        C0: state,
        P: TensorType(y.dtype, (directions, multiply_dims(3, hidden))),
    }
    return [types[position] for position in call.attrs["wrt"]]


def _sequence_type(recurrence: Recurrence, dtype: np.dtype, steps: Dim, batch: Dim, hidden: Dim) -> TensorType:
    directions = len(recurrence.reverse)
    if recurrence.batch_first:
        return TensorType(dtype, (batch, steps, directions, hidden))
    return TensorType(dtype, (steps, directions, batch, hidden))


def _state_type(recurrence: Recurrence, dtype: np.dtype, batch: Dim, hidden: Dim) -> TensorType:
    directions = len(recurrence.reverse)
    return TensorType(dtype, (batch, directions, hidden) if recurrence.batch_first else (directions, batch, hidden))


def _checked(call: Call, recurrence: Recurrence) -> tuple[Dim, Dim, Dim]:
    """The number of steps, the batch size and the hidden size, each as far as any operand tells it.

    Raises:
        TypeInferenceError: two operands tell different ones.
    """
    for position, name in ((X, "X"), (W, "W"), (R, "R")):
        if not call.has(position):
            raise TypeInferenceError(f"{recurrence.kind} has no operand {name}")
    g, directions = recurrence.gates, len(recurrence.reverse)
    steps, batch, size = _dim(call.tensor(X), 0), _dim(call.tensor(X), 1), _dim(call.tensor(X), 2)
    if recurrence.batch_first:
        steps, batch = batch, steps
    declared = call.attrs.get("hidden_size")
    rows = [_dim(call.tensor(W), 1), _dim(call.tensor(R), 1)]
    hidden = merge_dims(declared, _dim(call.tensor(R), 2), *(divide_dims(row, g) for row in rows))
    if call.has(LENS):
        batch = merge_dims(batch, _dim(call.tensor(LENS), 0))
    state = _state_type(recurrence, call.tensor(X).dtype, batch, hidden).shape
    wanted: dict[int, tuple[str, Sequence[Dim]]] = {
        X: ("X", (batch, steps, size) if recurrence.batch_first else (steps, batch, size)),
        W: ("W", (directions, multiply_dims(g, hidden), size)),
        R: ("R", (directions, multiply_dims(g, hidden), hidden)),
        B: ("B", (directions, multiply_dims(2 * g, hidden))),
        LENS: ("sequence_lens", (batch,)),
        H0: ("initial_h", state or ()),
        C0: ("initial_c", state or ()),
        P: ("P", (directions, multiply_dims(3, hidden))),
    }
    for position, (name, shape) in wanted.items():
        if call.has(position):
            _expect(recurrence, call.tensor(position), name, call.tensor(X).dtype, position, shape)
    return steps, batch, hidden


def _expect(
    recurrence: Recurrence, found: TensorType, name: str, dtype: np.dtype, position: int, shape: Sequence[Dim]
) -> None:
    want = TensorType(np.dtype(np.int32) if position == LENS else dtype, tuple(shape))
    bad_shape = found.shape is not None and (len(found.shape) != len(shape) or any(map(dims_differ, found.shape, shape)))
    if found.dtype != want.dtype or bad_shape:
        raise TypeInferenceError(f"{recurrence.kind}: the operand {name} is {found}, but {want} is needed")


def _dim(type: TensorType, axis: int) -> Dim:
    return None if type.shape is None or axis >= len(type.shape) else type.shape[axis]
