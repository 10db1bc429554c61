"""Groups while they grow: nodes with the space that they run over together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from irgrad.graph import Node, Role, Value
from irgrad.passes.fusion.members import Layout, Member
from irgrad.rewrite import is_named
from irgrad.runtime.tiles import WHOLE
from irgrad.types import Dim

__all__ = ["Cluster", "Limits", "elements", "is_small", "merged"]

_ROWS = 8  # positions along the tiled axes from which on cutting the space into tiles is worth it
_SUMS = 4  # how many times as large as what is summed up over tiles the space has to be


@dataclass(frozen=True)
class Limits:
    """How far groups may grow.

    Attributes:
        nodes: nodes of a group.
        operands: values that a group reads.
        outputs: values that others read of it.
        roles: whether nodes of different roles may be in one group.
    """

    nodes: int = 200
    operands: int = 32
    outputs: int = 16
    roles: bool = False


class Cluster:
    """One or more nodes; those that can be in no group are alone in one without a space.

    Attributes:
        index: its place in the order in which clusters were made.
        nodes: the nodes.
        role: of the nodes.
        members: node → what it is in the group; empty for a node that can be in none.
        space: the dimensions that the group runs over; None where it can be no group.
        layouts: value → its layout, for what is read and made.
        whole: axes that are not cut.
        domains: the axes that nodes run along; each has to run along all that are cut.
        sums: results that are sums over axes, and over which.
        reads: value → how many nodes read it.
        made: the results of the nodes.
        inputs: what is read and not made here.
        outputs: what is made and used elsewhere.
        why: why nothing was joined to it, as far as something was tried.
    """

    def __init__(self, index: int, node: Node, member: Member | None, why: str = "") -> None:
        self.index = index
        self.nodes = [node]
        self.role: Role = node.role
        self.members: dict[Node, Member] = {} if member is None else {node: member}
        self.space = None if member is None else member.space
        self.layouts: dict[Value, Layout] = {}
        self.whole: frozenset[int] = frozenset()
        self.domains: set[frozenset[int]] = set()
        self.sums: dict[Value, frozenset[int]] = {}
        self.reads: Counter[Value] = Counter()
        self.made = set(node.outputs)
        self.why = why
        self.level = 0
        values = node.inputs
        if member is not None:
            values = tuple(v for v, layout in zip(values, member.operands, strict=True) if layout is not None)
            self._place(node, member)
        self.reads.update({v for v in values if v is not None})
        self.inputs = set(self.reads)
        self.outputs = {v for v in node.outputs if _used_outside(v, 0)}

    def _place(self, node: Node, member: Member) -> None:
        self.whole = member.whole
        self.domains = {frozenset(_long(member.space))}
        pairs = [*zip(node.inputs, member.operands, strict=True), *zip(node.outputs, member.results, strict=True)]
        for value, layout in pairs:
            if value is None or layout is None:
                continue
            if self.layouts.setdefault(value, layout) != layout:
                self.space, self.why = None, f"it reads %{value.name} along different axes"
        over = member.summed & set(_long(member.space))
        self.sums = {v: over for v, layout in zip(node.outputs, member.results, strict=True) if not over <= set(layout)}

    @property
    def fusible(self) -> bool:
        return self.space is not None

    def free(self) -> list[int]:
        """The axes that may be cut."""
        return [] if self.space is None else [axis for axis in _long(self.space) if axis not in self.whole]

    def take(self, other: Cluster) -> None:
        """Add the nodes of another cluster of the same level, over whatever space they run: the group is run as a whole."""
        self.nodes += other.nodes
        self.members.update(other.members)
        self.inputs |= other.inputs
        self.reads.update(other.reads)
        self.made |= other.made
        self.outputs |= other.outputs

    def __repr__(self) -> str:
        return f"<Cluster of {', '.join(node.name for node in self.nodes)}>"


def _used_outside(value: Value, inside: int) -> bool:
    """Whether a value is used by more than so many nodes, or has to be there by its name."""
    return value.is_output or is_named(value) or len(value.users) > inside


def _long(space: Sequence[Dim]) -> list[int]:
    return [axis for axis, dim in enumerate(space) if dim != 1]


def is_small(space: Sequence[Dim]) -> bool:
    """Whether a group over a space is run as a whole, so that nothing depends on which axes may be cut."""
    total = elements(space)
    return total is not None and total <= WHOLE


def elements(space: Iterable[Dim]) -> int | None:
    """The number of elements of a space, None where it is not known."""
    dims = list(space)
    known = [dim for dim in dims if isinstance(dim, int)]
    return prod(known) if len(known) == len(dims) else None


def merged(a: Cluster, b: Cluster, limits: Limits) -> Cluster | str:
    """One cluster of both, the larger of the two, which is changed; or why there can be none.

    Whether nodes in between forbid it is not looked at here.
    """
    if a.space is None or b.space is None:
        return (b if a.fusible else a).why
    if a.role is not b.role and not limits.roles:
        return f"one is {a.role.value}, the other {b.role.value}"
    if len(a.nodes) + len(b.nodes) > limits.nodes:
        return f"together they are more than {limits.nodes} nodes"
    wide, narrow = (b, a) if _extent(b) > _extent(a) else (a, b)
    axes = _mapping(narrow, wide)
    if isinstance(axes, str):
        return axes
    view = _Mapped(narrow, axes)
    for value, layout in view.layouts.items() if len(narrow.layouts) < len(wide.layouts) else _common(wide, view):
        if wide.layouts.get(value, layout) != layout:
            return f"%{value.name} runs along different axes in them"
    assert wide.space is not None
    whole = _whole(wide, view)
    if isinstance(whole, str):
        return whole
    problem = _space_problem(wide, view, whole) or _interface_problem(wide, narrow, limits)
    return problem or _absorb(wide, view, whole)


class _Mapped:
    """A cluster whose axes are told as those of another one."""

    def __init__(self, cluster: Cluster, axes: Mapping[int, int]) -> None:
        self.cluster = cluster
        self.layouts = (
            cluster.layouts
            if all(k == v for k, v in axes.items())
            else {v: tuple(None if k is None else axes[k] for k in layout) for v, layout in cluster.layouts.items()}
        )
        self.axes = axes
        self.whole = frozenset(axes[k] for k in cluster.whole if k in axes)
        self.domains = {frozenset(axes[k] for k in domain) for domain in cluster.domains}
        self.sums = {v: frozenset(axes[k] for k in over if k in axes) for v, over in cluster.sums.items()}


def _extent(cluster: Cluster) -> tuple[int, int, int]:
    assert cluster.space is not None
    return len(_long(cluster.space)), elements(cluster.space) or 0, len(cluster.nodes)


def _common(wide: Cluster, view: _Mapped) -> list[tuple[Value, Layout]]:
    return [(value, view.layouts[value]) for value in wide.layouts if value in view.layouts]


def _mapping(narrow: Cluster, wide: Cluster) -> dict[int, int] | str:
    """The axis of the wide space for each axis of the narrow one that is longer than 1."""
    assert narrow.space is not None and wide.space is not None
    if len(narrow.space) == len(wide.space):
        pairs = zip(narrow.space, wide.space, strict=True)
        if all(n in (1, w) for n, w in pairs):
            return {axis: axis for axis in range(len(wide.space))}
    found: dict[int, int] = {}
    few, many = sorted((narrow.layouts, wide.layouts), key=len)
    for value in few:
        if value in many:
            for k, axis in zip(narrow.layouts[value], wide.layouts[value], strict=True):
                if k is not None and axis is not None and found.setdefault(k, axis) != axis:
                    return f"%{value.name} runs along different axes in them"
    for axis in _long(narrow.space):
        if axis not in found or narrow.space[axis] != wide.space[found[axis]]:
            return f"one runs over {_text(narrow.space)}, the other over {_text(wide.space)}"
    return found


def _whole(wide: Cluster, view: _Mapped) -> frozenset[int] | str:
    """The axes that must not be cut: those over which a sum goes that the group itself reads are among them."""
    assert wide.space is not None
    whole = wide.whole | view.whole
    if is_small(wide.space):
        return whole
    long = set(_long(wide.space))
    narrow = view.cluster
    for value, over in [*wide.sums.items(), *view.sums.items()]:
        mine = value in wide.made
        if not (value in wide.reads or value in narrow.reads) or (over & long) <= whole:
            continue
        together = (whole | over) & long
        last = together == set(sorted(long)[len(long) - len(together) :])
        reader = long if not mine else set().union(*view.domains)
        if not last and not over & long <= reader:
            return f"one reads %{value.name}, which is summed over all of the other"
        whole |= over
    return whole


def _space_problem(wide: Cluster, view: _Mapped, whole: frozenset[int]) -> str | None:
    assert wide.space is not None
    if is_small(wide.space):
        return None
    free = frozenset(axis for axis in _long(wide.space) if axis not in whole)
    total = elements(wide.space)
    for domain in (*wide.domains, *view.domains):
        if not free <= domain:
            return f"one runs over a part of {_text(wide.space)} only, and would be computed again and again"
    rows = elements(wide.space[axis] for axis in free)
    if rows is not None and rows < _ROWS:
        return f"of {_text(wide.space)} only {rows} parts do not depend on each other"
    for value, over in [*wide.sums.items(), *view.sums.items()]:
        if over & free:
            size = elements(value.tensor_type.shape or ())
            if total is not None and size is not None and size * _SUMS > total:
                return f"the sum %{value.name} is nearly as large as what it is a sum of"
    return None


def _interface_problem(wide: Cluster, narrow: Cluster, limits: Limits) -> str | None:
    few, many = (wide, narrow) if len(wide.inputs) < len(narrow.inputs) else (narrow, wide)
    count = len(many.inputs) + sum(v not in many.inputs and v not in many.made for v in few.inputs)
    count -= sum(v in few.made for v in many.inputs) if len(few.made) > len(many.inputs) else _read(few.made, many.inputs)
    if count > limits.operands:
        return f"together they read more than {limits.operands} values"
    gone = [v for c, other in ((wide, narrow), (narrow, wide)) for v in _both(c.outputs, other.reads) if _gone(v, c, other)]
    if len(wide.outputs) + len(narrow.outputs) - len(gone) > limits.outputs:
        return f"together they return more than {limits.outputs} values"
    return None


def _read(made: set[Value], inputs: set[Value]) -> int:
    return sum(v in inputs for v in made)


def _both(values: set[Value], reads: Mapping[Value, int]) -> list[Value]:
    few, many = (values, reads) if len(values) < len(reads) else (reads, values)
    return [v for v in few if v in many]


def _gone(value: Value, maker: Cluster, other: Cluster) -> bool:
    """Whether a value is used by these two clusters only."""
    return not _used_outside(value, maker.reads[value] + other.reads[value])


def _absorb(wide: Cluster, view: _Mapped, whole: frozenset[int]) -> Cluster:
    """Both clusters as one: the space of the wide one, kept by the object that has more nodes."""
    narrow = view.cluster
    gone = [v for c, other in ((wide, narrow), (narrow, wide)) for v in _both(c.outputs, other.reads) if _gone(v, c, other)]
    if len(narrow.nodes) > len(wide.nodes) and view.layouts is narrow.layouts:
        kept, lost, lost_layouts, lost_domains, lost_sums = narrow, wide, wide.layouts, wide.domains, wide.sums
        kept.space = wide.space
    else:
        kept, lost, lost_layouts, lost_domains, lost_sums = wide, narrow, view.layouts, view.domains, view.sums
    kept.index = min(wide.index, narrow.index)
    kept.nodes += lost.nodes
    kept.members.update(lost.members)
    kept.layouts.update(lost_layouts)
    kept.domains |= lost_domains
    kept.sums.update(lost_sums)
    kept.whole = whole
    kept.inputs -= lost.made
    kept.inputs |= lost.inputs - kept.made
    kept.reads.update(lost.reads)
    kept.made |= lost.made
    kept.outputs |= lost.outputs
    kept.outputs.difference_update(gone)
    return kept


def _text(space: Sequence[Dim]) -> str:
    return f"[{','.join(map(str, space))}]"
