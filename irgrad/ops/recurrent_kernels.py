"""RNN, GRU and LSTM and their adjoints over whole sequences, in numpy.

The inputs of all steps are projected by one matrix product, each step adds that of its state; going back, each step needs
one product, and the cotangents of the weights one over all steps each. Inside, the axes are [direction, step, batch, ...],
and 16-bit floats are float32.

Steps beyond the end of a sequence (`sequence_lens`) leave its state as it is, and their results are 0. In reverse, where
they come first, the state thus enters the last step that counts as it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.ops.recurrent_cells import Adjoint, AdjointStep, Direction, adjoint_of, step_of
from irgrad.ops.recurrent_settings import C0, H0, LENS, B, P, R, Recurrence, W, X
from irgrad.runtime.kernels import accumulation_dtype

__all__ = ["run", "run_adjoint"]


class _Layer:
    """A layer and its operands in the dtype to compute in.

    Args:
        recurrence: the attributes.
        operands: those of the standard operation, None for one that is absent; absent ones at the end may be left out.
        steps: how many steps the sequences have.
        batch: how many sequences there are.
    """

    def __init__(self, recurrence: Recurrence, operands: Sequence[np.ndarray | None], steps: int, batch: int) -> None:
        r = operands[R]
        assert r is not None
        self.recurrence, self.steps, self.batch = recurrence, steps, batch
        self.dtype = accumulation_dtype(r.dtype)
        self.r = r.astype(self.dtype, copy=False)
        self.lens = operands[LENS] if len(operands) > LENS else None
        self._operands = [
            None if v is None or k == LENS else v.astype(self.dtype, copy=False) for k, v in enumerate(operands)
        ]

    def operand(self, position: int) -> np.ndarray | None:
        return self._operands[position] if position < len(self._operands) else None

    def needed(self, position: int) -> np.ndarray:
        found = self.operand(position)
        assert found is not None
        return found

    @property
    def hidden(self) -> int:
        return int(self.r.shape[2])

    def batch_second(self, array: np.ndarray) -> np.ndarray:
        """X or a state with its batch axis second."""
        return array.swapaxes(0, 1) if self.recurrence.batch_first else array

    def by_direction(self, array: np.ndarray) -> np.ndarray:
        """A view of Y (or its cotangent) as [direction, step, batch, H]."""
        return array.transpose(2, 1, 0, 3) if self.recurrence.batch_first else array.swapaxes(0, 1)

    @cached_property
    def x(self) -> np.ndarray:
        """The inputs of all steps as a matrix, [steps · batch, size]; 0 in those that do not count."""
        x = self.batch_second(self.needed(X))
        if self.mask is not None:
            # What lies there may be anything, NaN too, which a factor of 0 would not remove.
            x = np.where(self.mask, x, x.dtype.type(0))
        return _rows(np.ascontiguousarray(x))

    @cached_property
    def mask(self) -> np.ndarray | None:
        """Whether a step counts, [steps, batch, 1]; None where all do.

        Raises:
            ExecutionError: a sequence is said to be longer than there are steps, or shorter than none.
        """
        lens = self.lens
        if lens is None or not lens.size:
            return None
        if lens.min() < 0 or lens.max() > self.steps:
            raise ExecutionError(f"sequence_lens are {lens.min()} to {lens.max()}, but there are {self.steps} steps")
        if lens.min() == self.steps:
            return None
        mask: np.ndarray = np.arange(self.steps)[:, None, None] < lens[:, None]
        return mask

    @cached_property
    def whole(self) -> int:
        """How many of the first steps count for all of the batch."""
        return self.steps if self.mask is None or self.lens is None else int(self.lens.min())

    def padding(self, t: int) -> np.ndarray | None:
        """Where a step does not count, [batch, 1]; None where it counts for all of the batch."""
        return None if self.mask is None or t < self.whole else ~self.mask[t]

    def order(self, d: int) -> range:
        """The steps in the order in which a direction takes them."""
        return range(self.steps - 1, -1, -1) if self.recurrence.reverse[d] else range(self.steps)

    def initial(self, position: int, d: int) -> np.ndarray:
        """The state that a direction starts from."""
        found = self.operand(position)
        return np.zeros((self.batch, self.hidden), self.dtype) if found is None else self.batch_second(found)[d]

    def direction(self, d: int) -> Direction:
        bias, p = self.operand(B), self.operand(P)
        return Direction(
            self.recurrence,
            self.recurrence.functions[d],
            self.r[d],
            None if bias is None else bias[d].reshape(2, -1),
            None if p is None else p[d].reshape(3, -1),
            self.batch,
        )

    def empty(self, blocks: int = 1) -> np.ndarray:
        """An array for all steps of a direction."""
        return np.empty((self.steps, self.batch, blocks * self.hidden), self.dtype)


# --- forward ----------------------------------------------------------------------------------------------------------


def run(recurrence: Recurrence, operands: Sequence[np.ndarray | None], *, saving: bool) -> tuple[np.ndarray, ...]:
    """The results of a layer.

    Args:
        recurrence: the attributes.
        operands: those of the standard operation.
        saving: return what the adjoint needs too.

    Returns:
        Y, Y_h and, of an LSTM, Y_c; when saving, the pre-activations [directions, steps, batch, blocks · H] (0 in steps that
        do not count), and an LSTM's cells after each step [directions, steps, batch, H].
    """
    x = operands[X]
    assert x is not None
    steps, batch = x.shape[1::-1] if recurrence.batch_first else x.shape[:2]
    layer = _Layer(recurrence, operands, steps, batch)
    w, hidden, directions = layer.needed(W), layer.hidden, len(recurrence.reverse)
    y_shape = (batch, steps, directions, hidden) if recurrence.batch_first else (steps, directions, batch, hidden)
    y = np.empty(y_shape, x.dtype)
    ends = [np.empty((directions, batch, hidden), x.dtype) for _ in range(recurrence.n_states)]
    kept = directions if saving else 1  # else all directions use the same memory
    gates = np.empty((kept, steps, batch, recurrence.saved * hidden), layer.dtype)
    cells = np.empty((kept, steps, batch, hidden), layer.dtype) if recurrence.has_cells else None
    for d in range(directions):
        place = d if saving else 0
        z = gates[place]
        np.matmul(layer.x, w[d].T, out=_rows(z)[:, : recurrence.gates * hidden])
        into = layer.by_direction(y)[d]
        # Where the results have another dtype, or a step's are not in one piece, they are formed elsewhere first.
        states = into if y.dtype == layer.dtype and not recurrence.batch_first else layer.empty()
        found = _run_direction(layer, d, z, states, None if cells is None else cells[place])
        if states is not into:
            into[...] = states
        for end, state in zip(ends, found, strict=False):
            end[d] = state
    results = [y, *(np.ascontiguousarray(layer.batch_second(end)) for end in ends)]
    if saving:
        results += [gates] if cells is None else [gates, cells]
    return tuple(results)


def _run_direction(
    layer: _Layer, d: int, z: np.ndarray, states: np.ndarray, cells: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fill in the states (0 where steps do not count) and the cells of all steps; the final ones."""
    step = step_of(layer.direction(d))
    h = layer.initial(H0, d)
    c = None if cells is None else layer.initial(C0, d)
    for t in layer.order(d):
        h_out, c_out = states[t], None if cells is None else cells[t]
        step(z[t], h, c, h_out, c_out)
        padding = layer.padding(t)
        if padding is None:
            h = h_out
        else:
            h = np.where(padding, h, h_out)
            for array in (h_out, z[t]):
                np.copyto(array, 0, where=padding)
            if c is not None and c_out is not None:
                np.copyto(c_out, c, where=padding)
        c = c_out
    return h, c


# --- backward ---------------------------------------------------------------------------------------------------------


def run_adjoint(
    recurrence: Recurrence,
    cotangents: Sequence[np.ndarray | None],
    saved: Sequence[np.ndarray],
    operands: Sequence[np.ndarray | None],
    wrt: Sequence[int],
) -> tuple[np.ndarray, ...]:
    """The cotangents of operands.

    Args:
        recurrence: the attributes.
        cotangents: of all results of `run` when saving; None for zero.
        saved: Y, the pre-activations and an LSTM's cells.
        operands: those of the standard operation; None also for those that are not needed: X but for W, W but for X, B.
        wrt: the positions of the operands whose cotangents are wanted.
    """
    y, gates = saved[0], saved[1]
    directions, steps, batch = gates.shape[:3]
    layer = _Layer(recurrence, operands, steps, batch)
    found = [_Cotangents(layer, d, cotangents, y, saved[1:]) for d in range(directions)]
    results: list[np.ndarray] = []
    for position in wrt:
        if position == X:
            w = layer.needed(W)
            total = found[0].of_pre_activations @ w[0]
            for d in range(1, directions):
                total += found[d].of_pre_activations @ w[d]
            result = layer.batch_second(total.reshape(steps, batch, total.shape[1]))
        else:
            parts = [part.of(position) for part in found]
            result = np.stack(parts)
            if position in (H0, C0):
                result = layer.batch_second(result)
        results.append(np.ascontiguousarray(result).astype(y.dtype, copy=False))
    return tuple(results)


class _Cotangents:
    """What one direction passes back; matrices over all steps have the rows [step · batch]."""

    def __init__(
        self,
        layer: _Layer,
        d: int,
        cotangents: Sequence[np.ndarray | None],
        y: np.ndarray,
        saved: Sequence[np.ndarray],
    ) -> None:
        self.layer, recurrence = layer, layer.recurrence
        self.d = d
        self.cells = saved[1][d] if recurrence.has_cells else None
        self._y = layer.by_direction(y)[d]
        self.cells_started = None if self.cells is None else _started(layer, d, self.cells, C0)
        adjoint = adjoint_of(layer.direction(d))
        self.split, self.scaled = adjoint.split, adjoint.scaled
        self._dz = layer.empty(recurrence.gates)
        self._dr = layer.empty(recurrence.gates if self.split else 1) if self.split or self.scaled else None
        self._go_back(adjoint, cotangents, saved[0][d])
        self.dh, self.dc = adjoint.dh, adjoint.dc

    @cached_property
    def started(self) -> np.ndarray:
        """The states that the steps started from."""
        return _started(self.layer, self.d, self._y, H0)

    def _go_back(self, adjoint: Adjoint, cotangents: Sequence[np.ndarray | None], z: np.ndarray) -> None:
        layer, d, n_states = self.layer, self.d, self.layer.recurrence.n_states
        wide = [None if g is None else g.astype(layer.dtype, copy=False) for g in cotangents]
        dy = None if wide[0] is None else layer.by_direction(wide[0])[d]
        for end, carried in zip(wide[1 : 1 + n_states], (adjoint.dh, adjoint.dc), strict=False):
            carried[...] = 0 if end is None else layer.batch_second(end)[d]
        dgates, dcells = (*(None if g is None else g[d] for g in wide[1 + n_states :]), None)[:2]
        for t in reversed(layer.order(d)):
            padding = layer.padding(t)
            if dcells is not None:
                adjoint.dc += dcells[t]
            held = None if padding is None else (adjoint.dh.copy(), adjoint.dc.copy())
            if dy is not None:
                adjoint.dh += dy[t]
            step = AdjointStep(
                z[t],
                self.started[t] if layer.recurrence.kind == "GRU" else None,
                None if self.cells_started is None else self.cells_started[t],
                None if self.cells is None else self.cells[t],
                self._dz[t],
                None if self._dr is None else self._dr[t],
                None if dgates is None else dgates[t],
            )
            adjoint(step)
            if padding is not None and held is not None:
                for array, kept in zip((adjoint.dh, adjoint.dc), held, strict=True):
                    np.copyto(array, kept, where=padding)
                for array in (step.dz, *([] if step.dr is None else [step.dr])):
                    np.copyto(array, 0, where=padding)

    def of(self, position: int) -> np.ndarray:
        """The cotangent of the part of an operand that belongs to the direction."""
        if position == W:
            dw: np.ndarray = self.of_pre_activations.T @ self.layer.x
            return dw
        if position == R:
            return self._of_r()
        if position == B:
            return np.concatenate([np.add.reduce(self.of_pre_activations, 0), np.add.reduce(self._of_recurrent, 0)])
        if position == P:
            return self._of_p()
        return self.dh if position == H0 else self.dc

    @property
    def of_pre_activations(self) -> np.ndarray:
        return _rows(self._dz)

    @property
    def _of_recurrent(self) -> np.ndarray:
        """The cotangents of the pre-activations as the recurrent weights and biases see them."""
        return _rows(self._dr) if self.split and self._dr is not None else _rows(self._dz)

    def _of_r(self) -> np.ndarray:
        dz, started, n = self._of_recurrent, _rows(self.started), self.layer.hidden
        if not self.scaled or self._dr is None:
            dr: np.ndarray = dz.T @ started
            return dr
        return np.concatenate([dz[:, : 2 * n].T @ started, dz[:, 2 * n :].T @ _rows(self._dr)])

    def _of_p(self) -> np.ndarray:
        """The peepholes of i and f see the cells that a step started from, that of o those that it made."""
        assert self.cells is not None and self.cells_started is not None
        n = self.layer.hidden
        seen = (self.cells_started, self.cells, self.cells_started)
        parts = [np.einsum("tbh,tbh->h", self._dz[:, :, k * n : (k + 1) * n], cells) for k, cells in enumerate(seen)]
        return np.concatenate(parts)


def _rows(array: np.ndarray) -> np.ndarray:
    """An array [steps, batch, columns] as a matrix [steps · batch, columns]."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


def _started(layer: _Layer, d: int, made: np.ndarray, position: int) -> np.ndarray:
    """The states (or cells) that the steps of a direction started from, given those that they made.

    Args:
        layer: the layer.
        d: the direction.
        made: [steps, batch, H].
        position: that of the initial ones among the operands.
    """
    initial, started = layer.initial(position, d), layer.empty()
    if layer.recurrence.reverse[d]:
        started[:-1], started[-1:] = made[1:], initial
        if layer.mask is not None and position == H0:
            # Behind the end of a sequence, where Y is 0, the state is still the initial one. Cells are saved as they are.
            np.copyto(started[:-1], initial, where=~layer.mask[1:])
    else:
        started[1:], started[:1] = made[:-1], initial
    return started
