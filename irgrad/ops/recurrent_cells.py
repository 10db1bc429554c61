"""One time step of RNN, GRU and LSTM and its adjoint, in numpy: all in buffers that are made once for a direction.

Notation of ONNX's descriptions: a pre-activation z is what an activation function is applied to, before it is clipped; H is
the hidden size, and the blocks of H columns that the gates take stand in the order of the weights (LSTM: i, o, f, c; GRU:
z, r, h). The pre-activations of a step come in as the projected input ``X[t] W^T`` and are completed in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from irgrad.ops.recurrent_activations import Activation
from irgrad.ops.recurrent_settings import Recurrence

__all__ = ["Adjoint", "Direction", "Step", "adjoint_of", "step_of"]


@dataclass(frozen=True)
class Direction:
    """One direction of a layer.

    Attributes:
        recurrence: the attributes.
        functions: the activation functions f, g, h of this direction.
        r: recurrent weights [gates · H, H].
        bias: [2, gates · H], the biases of the input and of the recurrence, or None.
        p: the peepholes of i, o and f, [3, H], or None.
        batch: the batch size.
    """

    recurrence: Recurrence
    functions: Sequence[Activation]
    r: np.ndarray
    bias: np.ndarray | None
    p: np.ndarray | None
    batch: int

    @property
    def hidden(self) -> int:
        return int(self.r.shape[1])

    def buffer(self, blocks: int = 1) -> np.ndarray:
        """Memory for a number of blocks of H columns."""
        return np.empty((self.batch, blocks * self.hidden), self.r.dtype)


Step: TypeAlias = Callable[[np.ndarray, np.ndarray, "np.ndarray | None", np.ndarray, "np.ndarray | None"], None]
"""``step(z, h, c, h_out, c_out)``: z comes in as the projected input and is completed; h_out and c_out are written to.

The cells c and c_out are those of an LSTM, else None.
"""


class Adjoint(ABC):
    """The adjoint of one step. Arrays of one step are [batch, columns].

    Attributes:
        dh: the cotangent of the state, on entry of a step that of what it makes, afterwards that of what it starts from.
        dc: the same of an LSTM's cells.
        split: the recurrent weights' cotangents are not those of the input weights: the pre-activations that the two see
            have different ones (a GRU whose reset gate acts behind the weights).
        scaled: the recurrent weights of the hidden gate multiply r · h (a GRU whose reset gate acts before them).
    """

    split = False
    scaled = False

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        recurrence = direction.recurrence
        self.clip = recurrence.clip
        self.a, self.slopes = direction.buffer(recurrence.gates), direction.buffer(recurrence.gates)
        self.clipped = self.a if self.clip is None else direction.buffer(recurrence.gates)
        self.work = direction.buffer()
        self.dh, self.dc = direction.buffer(), direction.buffer()

    @abstractmethod
    def __call__(self, step: AdjointStep) -> None:
        """Go back over one step."""

    def activate(self, z: np.ndarray, *spans: tuple[Activation, slice]) -> None:
        """Compute the gates and their slopes from the pre-activations, for each span of columns by its function."""
        x = z
        if self.clip is not None:
            x = np.clip(z, -self.clip, self.clip, out=self.clipped)
        for function, span in spans:
            function.apply(x[:, span], self.a[:, span])
            function.slope(x[:, span], self.a[:, span], self.slopes[:, span])
        if self.clip is not None:
            np.copyto(self.slopes, 0, where=np.abs(z) > self.clip)


@dataclass
class AdjointStep:
    """What the adjoint of one step reads and writes.

    Attributes:
        z: the pre-activations (of a linear GRU followed by what the reset gate multiplies).
        h: the state that the step started from; of a GRU, else None.
        c: the cells that it started from; c_out: those that it made. Of an LSTM, else None.
        dz: is written: cotangents of the pre-activations, as the input weights see them.
        dr: is written: the same as the recurrent weights see them, where that differs (`Adjoint.split`), or what the hidden
            gate's recurrent weights multiply (`Adjoint.scaled`).
        dgates: cotangents of z that come from outside, or None.
    """

    z: np.ndarray
    h: np.ndarray | None
    c: np.ndarray | None
    c_out: np.ndarray | None
    dz: np.ndarray
    dr: np.ndarray | None
    dgates: np.ndarray | None


def _activator(clip: float | None) -> Callable[[Activation, np.ndarray, np.ndarray], None]:
    """``activate(f, z, a)``, which writes f of the clipped z into a."""

    def activate(function: Activation, z: np.ndarray, a: np.ndarray) -> None:
        if clip is None:
            function.apply(z, a)
        else:
            np.clip(z, -clip, clip, out=a)
            function.apply(a, a)

    return activate


# --- RNN --------------------------------------------------------------------------------------------------------------


def _rnn_step(d: Direction) -> Step:
    r, recurrent, bias = np.ascontiguousarray(d.r.T), d.buffer(), _summed_bias(d)
    activate, (f,) = _activator(d.recurrence.clip), d.functions

    def step(z: np.ndarray, h: np.ndarray, c: np.ndarray | None, h_out: np.ndarray, c_out: np.ndarray | None) -> None:
        np.matmul(h, r, out=recurrent)
        z += recurrent
        if bias is not None:
            z += bias
        activate(f, z, h_out)

    return step


def _summed_bias(d: Direction) -> np.ndarray | None:
    return None if d.bias is None else d.bias[0] + d.bias[1]


class _RnnAdjoint(Adjoint):
    def __call__(self, step: AdjointStep) -> None:
        (f,) = self.direction.functions
        self.activate(step.z, (f, slice(None)))
        np.multiply(self.dh, self.slopes, out=step.dz)
        if step.dgates is not None:
            step.dz += step.dgates
        np.matmul(step.dz, self.direction.r, out=self.dh)


# --- GRU --------------------------------------------------------------------------------------------------------------


def _gru_step(d: Direction) -> Step:
    """The reset gate acts on the state, before the recurrent weights of the hidden gate."""
    n = d.hidden
    r, r_hidden = np.ascontiguousarray(d.r[: 2 * n].T), np.ascontiguousarray(d.r[2 * n :].T)
    recurrent, through, a, bias = d.buffer(2), d.buffer(), d.buffer(3), _summed_bias(d)
    activate, (f, g) = _activator(d.recurrence.clip), d.functions

    def step(z: np.ndarray, h: np.ndarray, c: np.ndarray | None, h_out: np.ndarray, c_out: np.ndarray | None) -> None:
        np.matmul(h, r, out=recurrent)
        z[:, : 2 * n] += recurrent
        if bias is not None:
            z += bias
        activate(f, z[:, : 2 * n], a[:, : 2 * n])
        np.multiply(a[:, n : 2 * n], h, out=through)
        z[:, 2 * n :] += through @ r_hidden
        activate(g, z[:, 2 * n :], a[:, 2 * n :])
        _mix(a, h, h_out)

    return step


def _linear_gru_step(d: Direction) -> Step:
    """The reset gate acts on what the recurrent weights of the hidden gate have made of the state."""
    n = d.hidden
    r, recurrent, a = np.ascontiguousarray(d.r.T), d.buffer(3), d.buffer(3)
    bias = None if d.bias is None else np.concatenate([d.bias[0, : 2 * n] + d.bias[1, : 2 * n], d.bias[0, 2 * n :]])
    recurrent_bias = None if d.bias is None else d.bias[1, 2 * n :]
    activate, (f, g) = _activator(d.recurrence.clip), d.functions

    def step(z: np.ndarray, h: np.ndarray, c: np.ndarray | None, h_out: np.ndarray, c_out: np.ndarray | None) -> None:
        gates, hidden = z[:, : 3 * n], z[:, 3 * n :]
        np.matmul(h, r, out=recurrent)
        gates[:, : 2 * n] += recurrent[:, : 2 * n]
        hidden[...] = recurrent[:, 2 * n :]
        if bias is not None and recurrent_bias is not None:
            gates += bias
            hidden += recurrent_bias
        activate(f, gates[:, : 2 * n], a[:, : 2 * n])
        np.multiply(a[:, n : 2 * n], hidden, out=recurrent[:, 2 * n :])
        gates[:, 2 * n :] += recurrent[:, 2 * n :]
        activate(g, gates[:, 2 * n :], a[:, 2 * n :])
        _mix(a, h, h_out)

    return step


def _mix(a: np.ndarray, h: np.ndarray, h_out: np.ndarray) -> None:
    """Write (1 - update) · hidden + update · h, given the activated gates."""
    n = h.shape[1]
    np.subtract(h, a[:, 2 * n :], out=h_out)
    h_out *= a[:, :n]
    h_out += a[:, 2 * n :]


class _GruAdjoint(Adjoint):
    scaled = True

    def __call__(self, step: AdjointStep) -> None:
        n, r, dh, dz = self.direction.hidden, self.direction.r, self.dh, step.dz
        update, reset = self.a[:, :n], self.a[:, n : 2 * n]
        self.unmix(step)
        assert step.dr is not None and step.h is not None
        np.multiply(reset, step.h, out=step.dr)
        np.matmul(dz[:, 2 * n :], r[2 * n :], out=self.work)
        np.multiply(self.work, step.h, out=dz[:, n : 2 * n])
        dz[:, n : 2 * n] *= self.slopes[:, n : 2 * n]
        if step.dgates is not None:
            dz[:, n : 2 * n] += step.dgates[:, n : 2 * n]
        self.work *= reset
        dh *= update
        dh += self.work
        np.matmul(dz[:, : 2 * n], r[: 2 * n], out=self.work)
        dh += self.work

    def unmix(self, step: AdjointStep) -> None:
        """Compute the gates, and the cotangents of the update gate's and the hidden gate's pre-activations."""
        n, dh, dz, (f, g) = self.direction.hidden, self.dh, step.dz, self.direction.functions
        self.activate(step.z[:, : 3 * n], (f, slice(0, 2 * n)), (g, slice(2 * n, 3 * n)))
        assert step.h is not None
        np.subtract(step.h, self.a[:, 2 * n :], out=dz[:, :n])
        dz[:, :n] *= dh
        np.subtract(1, self.a[:, :n], out=dz[:, 2 * n :])
        dz[:, 2 * n :] *= dh
        for span in (slice(0, n), slice(2 * n, 3 * n)):
            dz[:, span] *= self.slopes[:, span]
            if step.dgates is not None:
                dz[:, span] += step.dgates[:, span]


class _LinearGruAdjoint(_GruAdjoint):
    split = True
    scaled = False

    def __call__(self, step: AdjointStep) -> None:
        n, dh, dz, dr = self.direction.hidden, self.dh, step.dz, step.dr
        assert dr is not None
        reset = self.a[:, n : 2 * n]
        self.unmix(step)
        np.multiply(dz[:, 2 * n :], reset, out=dr[:, 2 * n :])
        np.multiply(dz[:, 2 * n :], step.z[:, 3 * n :], out=dz[:, n : 2 * n])
        dz[:, n : 2 * n] *= self.slopes[:, n : 2 * n]
        if step.dgates is not None:
            dz[:, n : 2 * n] += step.dgates[:, n : 2 * n]
            dr[:, 2 * n :] += step.dgates[:, 3 * n :]
        dr[:, : 2 * n] = dz[:, : 2 * n]
        dh *= self.a[:, :n]
        np.matmul(dr, self.direction.r, out=self.work)
        dh += self.work


# --- LSTM -------------------------------------------------------------------------------------------------------------


def _lstm_step(d: Direction) -> Step:
    n, p, coupled = d.hidden, d.p, d.recurrence.coupled
    r, recurrent, a, work, bias = np.ascontiguousarray(d.r.T), d.buffer(4), d.buffer(4), d.buffer(), _summed_bias(d)
    activate, (f, g, h_function) = _activator(d.recurrence.clip), d.functions
    i_gate, o_gate, f_gate, c_gate = (a[:, k * n : (k + 1) * n] for k in range(4))

    def peep(z: np.ndarray, block: int, gate: int, cells: np.ndarray) -> None:
        assert p is not None
        part = z[:, block * n : (block + 1) * n]
        np.multiply(cells, p[gate], out=work)
        part += work
        activate(f, part, a[:, block * n : (block + 1) * n])

    def step(z: np.ndarray, h: np.ndarray, c: np.ndarray | None, h_out: np.ndarray, c_out: np.ndarray | None) -> None:
        assert c is not None and c_out is not None
        np.matmul(h, r, out=recurrent)
        z += recurrent
        if bias is not None:
            z += bias
        if p is None:
            activate(f, z[:, : 3 * n], a[:, : 3 * n])
        else:
            peep(z, 0, 0, c)
            peep(z, 2, 2, c)
        activate(g, z[:, 3 * n :], c_gate)
        if coupled:
            np.subtract(1, i_gate, out=f_gate)
        np.multiply(f_gate, c, out=c_out)
        np.multiply(i_gate, c_gate, out=work)
        c_out += work
        if p is not None:
            peep(z, 1, 1, c_out)
        # As runtimes have it, the bound is not for what h is applied to: the cells.
        h_function.apply(c_out, h_out)
        h_out *= o_gate

    return step


class _LstmAdjoint(Adjoint):
    def __init__(self, direction: Direction) -> None:
        super().__init__(direction)
        self.hyper, self.hyper_slope = direction.buffer(), direction.buffer()

    def __call__(self, step: AdjointStep) -> None:
        d, dh, dc, dz, work = self.direction, self.dh, self.dc, step.dz, self.work
        n, (f, g, h) = d.hidden, d.functions
        assert step.c is not None and step.c_out is not None
        self.activate(step.z, (f, slice(0, 3 * n)), (g, slice(3 * n, 4 * n)))
        i_gate, o_gate, f_gate, c_gate = (self.a[:, k * n : (k + 1) * n] for k in range(4))
        di, do, df, dg = (dz[:, k * n : (k + 1) * n] for k in range(4))

        h.apply(step.c_out, self.hyper)
        h.slope(step.c_out, self.hyper, self.hyper_slope)
        np.multiply(dh, self.hyper, out=do)
        self._through_activation(step, slice(n, 2 * n))
        np.multiply(dh, o_gate, out=work)
        work *= self.hyper_slope
        dc += work
        if d.p is not None:
            dc += np.multiply(do, d.p[1], out=work)

        if d.recurrence.coupled:
            np.subtract(c_gate, step.c, out=di)
            di *= dc
            df.fill(0)
            np.subtract(1, i_gate, out=f_gate)
        else:
            np.multiply(dc, c_gate, out=di)
            np.multiply(dc, step.c, out=df)
        np.multiply(dc, i_gate, out=dg)
        self._through_activation(step, slice(0, n))
        self._through_activation(step, slice(2 * n, 4 * n))
        dc *= f_gate
        if d.p is not None:
            dc += np.multiply(di, d.p[0], out=work)
            dc += np.multiply(df, d.p[2], out=work)
        np.matmul(dz, d.r, out=dh)

    def _through_activation(self, step: AdjointStep, span: slice) -> None:
        """From cotangents of gates to those of their pre-activations, those from outside included."""
        step.dz[:, span] *= self.slopes[:, span]
        if step.dgates is not None:
            step.dz[:, span] += step.dgates[:, span]


def _cell(recurrence: Recurrence) -> tuple[Callable[[Direction], Step], type[Adjoint]]:
    if recurrence.kind == "LSTM":
        return _lstm_step, _LstmAdjoint
    if recurrence.kind == "GRU":
        return (_linear_gru_step, _LinearGruAdjoint) if recurrence.linear else (_gru_step, _GruAdjoint)
    return _rnn_step, _RnnAdjoint


def step_of(direction: Direction) -> Step:
    """The step of a direction."""
    return _cell(direction.recurrence)[0](direction)


def adjoint_of(direction: Direction) -> Adjoint:
    """The adjoint of the step of a direction."""
    return _cell(direction.recurrence)[1](direction)
