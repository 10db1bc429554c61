"""The live-bytes plot: an SVG of stacked areas over the steps, drawn without a library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from irgrad.graph import Role
from irgrad.report.units import bytes_text, round_bytes_text

__all__ = ["HEIGHT", "LEFT", "RIGHT", "WIDTH", "plot"]

WIDTH, HEIGHT = 1120, 330
LEFT, RIGHT, TOP, BOTTOM = 74, 14, 34, 56  # margins of the area that is drawn in
_STRIP = 8  # height of the strip that shows the role of each step
_COLUMNS = 1000  # more steps than this share columns, each of which shows the highest of its steps
_TICKS = 5


def plot(live: Mapping[Role, Sequence[int]], roles: Sequence[Role], peak_name: str) -> str:
    """An SVG element.

    Args:
        live: role → live bytes during each step in buffers made by nodes of this role.
        roles: the role of each step.
        peak_name: the node at the first step at which most bytes are alive.
    """
    total = [sum(step) for step in zip(*live.values(), strict=True)] or [0] * len(roles)
    columns = _columns(total)
    highest = max(total, default=0)
    scale = _nice_above(max(highest, 1) * 1.04)
    body = [*_grid(scale, len(total)), *_areas(live, columns, scale, len(total)), *_strip(roles)]
    if total:
        body += _peak(total.index(highest), highest, scale, len(total), peak_name)
    label = f"Live bytes over {len(total)} steps; the peak is {bytes_text(highest)} at {peak_name}"
    return (
        f'<svg id="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(body)}'
        f'<line id="cursor" class="cursor" visibility="hidden" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>'
    )


def _columns(total: Sequence[int]) -> list[tuple[int, int]]:
    """(first step, step to show) for each column."""
    if not total:
        return []
    count = min(len(total), _COLUMNS)
    starts = [k * len(total) // count for k in range(count)]
    ends = [*starts[1:], len(total)]
    return [(a, max(range(a, b), key=total.__getitem__)) for a, b in zip(starts, ends, strict=True)]


def _x(step: float, steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps, 1)


def _y(size: float, scale: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * size / scale


def _areas(
    live: Mapping[Role, Sequence[int]], columns: Sequence[tuple[int, int]], scale: float, steps: int
) -> Iterator[str]:
    """One polygon for each role, on top of the ones before; each has the outline of a staircase."""
    floor = [0] * len(columns)
    for role, sizes in live.items():
        ceiling = [base + sizes[shown] for base, (_, shown) in zip(floor, columns, strict=True)]
        there = _stairs(ceiling, columns, scale, steps)
        back = _stairs(floor, columns, scale, steps)
        points = " ".join([*there, *reversed(back)])
        yield f'<polygon class="area {role.value}" points="{points}"/>'
        floor = ceiling


def _stairs(sizes: Sequence[int], columns: Sequence[tuple[int, int]], scale: float, steps: int) -> list[str]:
    points = []
    for k, size in enumerate(sizes):
        end = columns[k + 1][0] if k + 1 < len(columns) else steps
        y = f"{_y(size, scale):.1f}"
        points += [f"{_x(columns[k][0], steps):.1f},{y}", f"{_x(end, steps):.1f},{y}"]
    return points


def _step_ticks(steps: int) -> list[int]:
    """Round numbers of steps, and the last one, with room for what is written at each."""
    power = 10 ** (len(str(steps // _TICKS)) - 1)
    distance = next(factor * power for factor in (1, 2, 5, 10) if factor * power * (_TICKS + 1) > steps)
    return [*range(0, steps - 2 * distance // 5, distance), steps]


def _grid(scale: float, steps: int) -> Iterator[str]:
    for k in range(_TICKS + 1):
        y = _y(scale * k / _TICKS, scale)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        size = round_bytes_text(scale * k / _TICKS)
        yield f'<text class="tick" x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{size}</text>'
    for step in _step_ticks(steps):
        anchor = "start" if step == 0 else "end" if step == steps else "middle"
        y = HEIGHT - BOTTOM + _STRIP + 22
        yield f'<text class="tick" x="{_x(step, steps):.1f}" y="{y}" text-anchor="{anchor}">{step:,}</text>'
    middle = (WIDTH + LEFT - RIGHT) / 2
    yield f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">step (a node each)</text>'


def _strip(roles: Sequence[Role]) -> Iterator[str]:
    """A strip below the plot that shows the role of each step, in runs of equal ones."""
    start = 0
    for step in range(1, len(roles) + 1):
        if step == len(roles) or roles[step] is not roles[start]:
            x, width = _x(start, len(roles)), _x(step, len(roles)) - _x(start, len(roles))
            yield (
                f'<rect class="area {roles[start].value}" x="{x:.2f}" y="{HEIGHT - BOTTOM + 4}" '
                f'width="{width:.2f}" height="{_STRIP}"/>'
            )
            start = step


def _peak(step: int, size: int, scale: float, steps: int, name: str) -> Iterator[str]:
    x, y = _x(step + 0.5, steps), _y(size, scale)
    shown = name if len(name) <= 48 else f"{name[:47]}…"
    anchor, shift = ("end", 8) if x > WIDTH / 2 else ("start", -8)
    yield f'<line class="peak" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{HEIGHT - BOTTOM}"/>'
    yield f'<circle class="peak" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    yield (
        f'<text class="peak" x="{x + shift:.1f}" y="{TOP - 14}" text-anchor="{anchor}">'
        f"peak {bytes_text(size)} · step {step:,} · {escape(shown)}</text>"
    )
    yield f'<line class="peak lead" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{y:.1f}"/>'


def _nice_above(size: float) -> float:
    """A round number not below `size` that divides into `_TICKS` round parts."""
    part = size / _TICKS
    power = 1
    while power * 10 <= part:
        power *= 10
    return next(m * power * _TICKS for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= part)
