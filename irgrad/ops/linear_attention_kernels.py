"""Linear attention on arrays, chunk by chunk.

Each head of keys and values has a state S [key size, value size]. A step decays it, writes to it, and reads from it:

    S ← diag(eᵍ) S,   S ← S + k uᵀ,   o = scale · Sᵀ q,   u = v   or, by the delta rule,   u = β (v − Sᵀ k).

A chunk of steps from the state S₀ on is a few matrix products. Let Z[t, s] be the sum of g over the steps s < i <= t, Γ its
exponential (0 for s > t), E[t] that of the sum of all steps up to t, F[s] the last row of Γ, and ⟨x, y⟩ the products of rows
Σ_d x[t, d] y[s, d] Γ[t, s, d]. Then, with A the part of ⟨k, k⟩ below the diagonal and B = ⟨q, k⟩,

    u = (I + β A)⁻¹ β (v − (k E) S₀),   o = scale · ((q E) S₀ + B u),   S = E[last] S₀ + (k F)ᵀ u.

Where each element of a key has a decay of its own, Γ[t, s, d] is E[t, d] / E[s, d] as long as no decay is too strong for
that (it may be 0): matrix products throughout. The adjoint of the chunk follows from these formulas. Only that of g takes a
thought: what Z[t, s] gets, step t gains and step s loses, and so g[i] gets the sum over t >= i of gains minus losses.

References: Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training, 2023, and Parallelizing Linear
Transformers with the Delta Rule over Sequence Length, 2024.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np

from irgrad.ops.attention_kernels import split_heads
from irgrad.runtime.kernels import accumulation_dtype, deliver_all

__all__ = ["LinearForm", "attend_linearly", "pull_back_linearly"]

_SHORT_CHUNK = 16
"""Steps of a chunk where Γ has three axes."""

_STEADY = 40.0
"""How far the sum of g may get from 0 within a chunk for Γ to be a quotient: e⁴⁰ leaves float32 room for a product."""


@dataclass(frozen=True)
class LinearForm:
    """What the attributes of a LinearAttention node say.

    Attributes:
        q_heads: heads of the queries.
        kv_heads: heads of keys and values, each shared by as many heads of queries as there are for one.
        scale: what is read is multiplied by this; None for 1 / sqrt(key size).
        delta: whether the delta rule tells what is written.
        chunk: how many steps to take together.
    """

    q_heads: int
    kv_heads: int
    scale: float | None
    delta: bool
    chunk: int


class _Sequences:
    """The operands unpacked: [batch, kv heads, time, size], queries [batch, kv heads, group, time, size]."""

    def __init__(
        self,
        form: LinearForm,
        query: np.ndarray,
        key: np.ndarray,
        value: np.ndarray,
        past: np.ndarray | None,
        decay: np.ndarray | None,
        beta: np.ndarray | None,
    ) -> None:
        self.form, self.wide = form, accumulation_dtype(query.dtype)
        heads, (batch, self.time) = form.kv_heads, query.shape[:2]
        self.q = _grouped(query, form).astype(self.wide, copy=False)
        self.k, self.v = (split_heads(x, heads).astype(self.wide, copy=False) for x in (key, value))
        self.g = np.zeros((1, 1, self.time, 1), self.wide)
        if decay is not None:
            self.g = split_heads(decay, heads).astype(self.wide, copy=False)
        self.beta = None if beta is None else split_heads(beta, beta.shape[2]).astype(self.wide, copy=False)
        shape = (batch, heads, self.k.shape[3], self.v.shape[3])
        self.state = np.zeros(shape, self.wide) if past is None else past.astype(self.wide, copy=False)
        self.scale = self.wide.type(1 / sqrt(max(shape[2], 1)) if form.scale is None else form.scale)

    def chunks(self) -> Iterator[tuple[slice, bool]]:
        """Consecutive chunks of steps, and whether Γ is to be formed as a quotient there."""
        size = max(self.form.chunk, 1)
        per_key = self.g.shape[3] > 1
        steady = per_key and all(_is_steady(self.g[..., k : k + size, :]) for k in range(0, self.time, size))
        size = min(size, _SHORT_CHUNK) if per_key and not steady else size
        for start in range(0, self.time, size):
            yield slice(start, start + size), steady


def _is_steady(g: np.ndarray) -> bool:
    return bool((abs(np.cumsum(g, -2)) <= _STEADY).all())


@dataclass(frozen=True)
class _Decays:
    """E and F of a chunk, and what Γ does to products, with Γ itself or (for the quotient) with 1 / E."""

    e: np.ndarray
    f: np.ndarray
    gamma: np.ndarray | None
    inverse: np.ndarray | None

    @classmethod
    def of(cls, g: np.ndarray, as_quotient: bool) -> _Decays:
        total = np.cumsum(g, -2)
        if as_quotient:
            return cls(np.exp(total), np.exp(total[..., -1:, :] - total), None, np.exp(-total))
        steps = np.arange(g.shape[2])
        later, until = steps[:, None] > steps, steps[:, None] >= steps
        z = np.cumsum(np.where(later[:, :, None], g[..., None, :], 0), -3, g.dtype)
        gamma = np.exp(np.where(until[:, :, None], z, -np.inf))
        return cls(np.exp(total), gamma[..., -1, :, :], gamma, None)

    @cached_property
    def grouped(self) -> _Decays:
        """The same for queries, which have an axis more."""
        gamma, inverse = (None if x is None else x[:, :, None] for x in (self.gamma, self.inverse))
        return _Decays(self.e[:, :, None], self.f[:, :, None], gamma, inverse)

    def pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Σ_d x[t, d] y[s, d] Γ[t, s, d]."""
        if self.gamma is None:
            return np.tril((x * self.e) @ _turned(y * self.inverse))
        if self.gamma.shape[-1] == 1:
            return np.asarray((x @ _turned(y)) * self.gamma[..., 0])
        return np.asarray(((self.gamma * y[..., None, :, :]) @ x[..., None])[..., 0])

    def by_row(self, m: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Σ_s m[t, s] Γ[t, s, d] y[s, d]."""
        if self.gamma is None:
            return np.asarray(self.e * (np.tril(m) @ (y * self.inverse)))
        return _weighted(m, self.gamma, y)

    def by_column(self, m: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Σ_t m[t, s] Γ[t, s, d] x[t, d]."""
        if self.gamma is None:
            return np.asarray(self.inverse * (_turned(np.tril(m)) @ (x * self.e)))
        return _weighted(_turned(m), self.gamma.swapaxes(-2, -3), x)


def _weighted(m: np.ndarray, gamma: np.ndarray, y: np.ndarray) -> np.ndarray:
    if gamma.shape[-1] == 1:
        return np.asarray((m * gamma[..., 0]) @ y)
    return np.asarray((m[..., None, :] @ (gamma * y[..., None, :, :]))[..., 0, :])


class _Chunk:
    """Some steps from a state on."""

    def __init__(self, all_steps: _Sequences, state: np.ndarray, at: slice, as_quotient: bool) -> None:
        self.q, self.k, self.v, g = (x[..., at, :] for x in (all_steps.q, all_steps.k, all_steps.v, all_steps.g))
        self.beta = all_steps.beta[..., at, :] if all_steps.form.delta and all_steps.beta is not None else None
        self.state, self.scale = state, all_steps.scale
        self.decays = _Decays.of(g, as_quotient)
        self.e, self.f = self.decays.e, self.decays.f
        self.b = self.decays.grouped.pairs(self.q, self.k[:, :, None])

    @cached_property
    def a(self) -> np.ndarray:
        return np.tril(self.decays.pairs(self.k, self.k), -1)

    @cached_property
    def unit(self) -> np.ndarray:
        """The matrix I + β A."""
        assert self.beta is not None
        return np.asarray(np.eye(self.a.shape[-1], dtype=self.a.dtype) + self.beta * self.a)

    @cached_property
    def w(self) -> np.ndarray:
        """What the delta rule finds missing in the state as it was before the chunk."""
        return np.asarray(self.v - (self.k * self.e) @ self.state)

    @cached_property
    def u(self) -> np.ndarray:
        return self.v if self.beta is None else np.linalg.solve(self.unit, self.beta * self.w)

    def output(self) -> np.ndarray:
        inter = (self.q * self.e[:, :, None]) @ self.state[:, :, None]
        return np.asarray(self.scale * (inter + self.b @ self.u[:, :, None]))

    def end(self) -> np.ndarray:
        """The state after the chunk."""
        return np.asarray(self.e[..., -1, :, None] * self.state + _turned(self.k * self.f) @ self.u)

    def pulled_back(self, do: np.ndarray, end: np.ndarray, dend: np.ndarray) -> tuple[np.ndarray, ...]:
        """The cotangents of q, k, v, g, β (an empty array where there is none) and of the state before the chunk.

        Args:
            do: the cotangent of the output.
            end: the state after the chunk.
            dend: its cotangent.
        """
        do, e, k = self.scale * do, self.e[:, :, None], self.k[:, :, None]
        decays, state = self.decays.grouped, self.state[:, :, None]
        du = (_turned(self.b) @ do).sum(2) + (self.k * self.f) @ dend
        db = do @ _turned(self.u)[:, :, None]
        dq = (do @ _turned(state)) * e + decays.by_row(db, k)
        gained = np.zeros_like(self.k)
        lost = decays.by_column(db, self.q).sum(2) + (self.u @ _turned(dend)) * self.f
        dstate = (_turned(self.q * e) @ do).sum(2) + self.e[..., -1, :, None] * dend
        dv, dbeta = du, np.empty(0)
        if self.beta is not None:
            x = np.linalg.solve(_turned(self.unit), du)
            dbeta = (x * (self.w - self.a @ self.u)).sum(-1, keepdims=True)
            dv = self.beta * x
            da = np.tril(-self.beta * (x @ _turned(self.u)), -1)
            gained = self.decays.by_row(da, self.k) - (dv @ _turned(self.state)) * self.e
            lost += self.decays.by_column(da, self.k)
            dstate -= _turned(self.k * self.e) @ dv
        gains = (self.q * dq).sum(2) + self.k * (gained - lost)
        gains[..., -1, :] += (end * dend).sum(-1)
        dg = np.cumsum(gains[..., ::-1, :], -2)[..., ::-1, :]
        return dq, gained + lost, dv, dg, dbeta, dstate


def _turned(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(-1, -2)


def attend_linearly(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    past: np.ndarray | None = None,
    decay: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    form: LinearForm,
    out: Any = None,
) -> tuple[np.ndarray, ...]:
    """The results of a LinearAttention node: the output and the present state."""
    steps = _Sequences(form, query, key, value, past, decay, beta)
    state = steps.state
    y = np.empty((*query.shape[:2], form.q_heads * state.shape[3]), steps.wide)
    target = _grouped(y, form)
    for at, as_quotient in steps.chunks():
        chunk = _Chunk(steps, state, at, as_quotient)
        target[..., at, :] = chunk.output()
        state = chunk.end()
    return _delivered((y, state), (query, query if past is None else past), out)


def pull_back_linearly(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    past: np.ndarray | None,
    decay: np.ndarray | None,
    beta: np.ndarray | None,
    dy: np.ndarray,
    dpresent: np.ndarray | None = None,
    *,
    form: LinearForm,
    out: Any = None,
) -> tuple[np.ndarray, ...]:
    """The cotangents of those operands of a LinearAttention node that are present, in their order.

    `dy` is the cotangent of the output, `dpresent` that of the present state, None for zeros.
    """
    steps = _Sequences(form, query, key, value, past, decay, beta)
    chunks, states = list(steps.chunks()), [steps.state]
    for place in chunks:
        states.append(_Chunk(steps, states[-1], *place).end())
    do = _grouped(dy.astype(steps.wide, copy=False), form)
    dstate = np.zeros_like(steps.state) if dpresent is None else dpresent.astype(steps.wide)
    dq, dk, dv = (np.empty(x.shape, steps.wide) for x in (query, key, value))
    targets = [_grouped(dq, form), split_heads(dk, form.kv_heads), split_heads(dv, form.kv_heads)]
    dg = np.empty((*dk.shape[:2], form.kv_heads, steps.k.shape[3]), steps.wide)
    dbeta = np.empty((*dk.shape[:2], form.kv_heads, 1), steps.wide)
    targets += [dg.swapaxes(1, 2), dbeta.swapaxes(1, 2)]
    for number, (at, as_quotient) in reversed(list(enumerate(chunks))):
        *parts, dstate = _Chunk(steps, states[number], at, as_quotient).pulled_back(
            do[..., at, :], states[number + 1], dstate
        )
        for target, part in zip(targets, parts, strict=True):
            if part.size:
                target[..., at, :] = part
    found: list[np.ndarray | None] = [dq, dk, dv, dstate]
    found += [_summed(x, like) for x, like in ((dg, decay), (dbeta, beta))]
    pairs = [pair for pair in zip(found, (query, key, value, past, decay, beta), strict=True) if pair[1] is not None]
    return _delivered([x for x, _ in pairs], [like for _, like in pairs], out)


def _grouped(x: np.ndarray, form: LinearForm) -> np.ndarray:
    """[batch, time, query heads * size] as [batch, kv heads, group, time, size]: a view."""
    by_head = split_heads(x, form.q_heads)
    group = form.q_heads // form.kv_heads
    return by_head.reshape(by_head.shape[0], form.kv_heads, group, *by_head.shape[2:])


def _summed(x: np.ndarray, like: np.ndarray | None) -> np.ndarray | None:
    """A cotangent of the shape [batch, time, heads, size], summed to [batch, time, n] where `like` has n elements for it."""
    if like is None:
        return None
    return np.asarray(x.reshape(*like.shape, x.shape[2] * x.shape[3] // max(like.shape[2], 1)).sum(-1))


def _delivered(results: Sequence[Any], like: Sequence[Any], out: Any) -> tuple[np.ndarray, ...]:
    return deliver_all([x.astype(y.dtype, copy=False) for x, y in zip(results, like, strict=True)], out)
