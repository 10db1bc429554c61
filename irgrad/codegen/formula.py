"""From the graph of a fused node to items: composite operations taken apart, shapes forgotten, axes merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import networkx as nx
import numpy as np

from irgrad.builder import Builder
from irgrad.codegen.composites import COMPOSITES, Composite
from irgrad.codegen.elementary import ELEMENTWISE, Context
from irgrad.codegen.items import Item, Maker, Unsupported, in_order
from irgrad.codegen.layout import Aligned, Layouts, Relation, shape_of, space_of
from irgrad.codegen.losses import LOSSES
from irgrad.graph import Graph, Node, Value
from irgrad.types import dtype_name

__all__ = ["Formula", "Operand", "Output", "formulas_of", "remade"]

DTYPES = frozenset(map(np.dtype, ("float32", "float64", "bool", "int32", "int64")))
_APART = 128  # a last axis of at least this size is not merged with others, so that rows may lie apart in memory


@dataclass(frozen=True)
class Operand:
    """An array that a kernel reads.

    Attributes:
        name: of the value.
        dtype, shape: of the array.
        axes: of the space, in order, that it varies along.
        constant: the array itself where the body holds it; None for an input.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    constant: np.ndarray | None = None


@dataclass(frozen=True)
class Output:
    """An array that a kernel writes.

    Attributes:
        item: what is in it.
        axes: of the space that the array has; the item may be constant along some.
        position: among the body's outputs.
        name: of the output.
        shape: of the array.
    """

    item: Item
    axes: tuple[int, ...]
    position: int
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Formula:
    """What a body computes over one iteration space.

    Attributes:
        sizes: of the axes of the space.
        operands: the body's inputs in order, then its constants; None for what is not read here.
        outputs: those of the body that are formed here.
        checks: truth values that must hold, and what to say where one does not.
    """

    sizes: tuple[int, ...]
    operands: tuple[Operand | None, ...]
    outputs: tuple[Output, ...]
    checks: tuple[tuple[Item, str], ...]

    @property
    def roots(self) -> list[Item]:
        return [*(output.item for output in self.outputs), *(item for item, _ in self.checks)]


def formulas_of(body: Graph) -> list[Formula]:
    """The formulae of a body: one, or several where it consists of parts that have nothing but single numbers in common.

    Raises:
        Unsupported: it has none; the message says why.
    """
    graph = _expanded(body)
    return [_merged(_formula(graph, outputs)) for outputs in _parts(graph)]


def _parts(graph: Graph) -> list[list[tuple[int, str]]]:
    """Positions and names of outputs, apart where tensors of more than one element do not connect them."""
    groups: nx.utils.UnionFind[Value] = nx.utils.UnionFind()
    large: set[Value] = {v for v in graph.inputs.values() if shape_of(v) and prod(shape_of(v)) > 1}
    for node in graph.nodes():
        entry = _entry(node)
        assert entry is not None
        met = [v for v in _data(node, entry) if v in large]
        if met or any(prod(shape_of(v)) > 1 for v in node.outputs):
            large.update(node.outputs)
            groups.union(*met, *node.outputs)
    parts: dict[Value | None, list[tuple[int, str]]] = {}
    for position, (name, value) in enumerate(graph.outputs.items()):
        parts.setdefault(groups[value] if value in large else None, []).append((position, name))
    single = parts.pop(None, [])
    if not parts:
        return [single]
    first, *rest = parts.values()
    return [sorted([*first, *single]), *rest]


# --- composite operations that only their lowering explains ---------------------------------------------------------------


def _expanded(body: Graph) -> Graph:
    """The body, or a copy in which operations that are not known here are replaced by their lowering."""
    graph = body
    while True:
        unknown = [node for node in graph.nodes() if _entry(node) is None]
        if not unknown:
            return graph
        for node in unknown:
            if not node.op.has_lowering:
                raise Unsupported(f"{node.op.qualified_name} is not an operation that is compiled")
        if graph is body:
            graph = body.copy()
        for node in [graph.node(node.name) for node in unknown]:
            b = Builder(graph)
            b.take_after(node)
            with b:
                results = node.op.lowered(b, node)
            for old, new in zip(node.outputs, results, strict=True):
                graph.replace_all_uses(old, new)
            graph.erase(node)


def _entry(node: Node) -> Composite | None:
    name = node.op.qualified_name
    if name in ELEMENTWISE:
        return _ELEMENTWISE.get(name) or Composite(ELEMENTWISE[name], _broadcast)
    return COMPOSITES.get(name) or LOSSES.get(name)


def _broadcast(node: Node) -> list[Relation]:
    return [Aligned.right(v, node.outputs[0]) for v in node.inputs if v is not None and v.tensor_type.static_shape != (1,)]


_ELEMENTWISE = {  # those with operands that are no data
    "Expand": Composite(ELEMENTWISE["Expand"], lambda node: [Aligned.right(node.operand(0), node.outputs[0])], (0,)),
    "CastLike": Composite(ELEMENTWISE["CastLike"], lambda node: [Aligned.right(node.operand(0), node.outputs[0])], (0,)),
    "ConstantOfShape": Composite(ELEMENTWISE["ConstantOfShape"], lambda node: [], ()),
}


# --- items --------------------------------------------------------------------------------------------------------------


def _needed(graph: Graph, outputs: Iterable[Value]) -> list[Node]:
    wanted = set(outputs)
    found = []
    for node in reversed(graph.nodes()):
        if wanted.intersection(node.outputs):
            found.append(node)
            wanted.update(v for v in node.inputs if v is not None)
    return found[::-1]


def _formula(graph: Graph, outputs: Sequence[tuple[int, str]]) -> Formula:
    wanted = [graph.outputs[name] for _, name in outputs]
    nodes = _needed(graph, wanted)
    entries = {node: entry for node in nodes if (entry := _entry(node)) is not None}
    values: dict[Value, None] = {}
    for node in nodes:
        values.update(dict.fromkeys(_data(node, entries[node])))
        values.update(dict.fromkeys(node.outputs))
    values.update(dict.fromkeys(wanted))
    for value in values:
        _check_type(value)
    sizes = space_of(values, [cut for node in nodes for cut in entries[node].cuts(node)])
    numbers = [v for v in values if v.constant is not None and v.constant.size == 1]
    relations = [relation for node in nodes for relation in entries[node].relations(node)]
    layouts = Layouts(sizes, values, [r for r in relations if r.a in values and r.b in values])
    maker = Maker(sizes)
    items: dict[Value, Item] = {v: maker.number(v.constant.item(), v.dtype) for v in numbers if v.constant is not None}
    operands: list[Operand | None] = []
    for value in [*graph.inputs.values(), *graph.constants]:
        if value in values and value not in items:
            axes = layouts.axes(value)
            maker.name = value.name
            items[value] = maker.operand(len(operands), value.dtype, axes)
            operands.append(Operand(value.name, value.dtype, shape_of(value), axes, _contiguous(value.constant)))
        else:
            operands.append(None)
    checks: list[tuple[Item, str]] = []
    for node in nodes:
        maker.name = node.outputs[0].name
        positions = entries[node].data
        args = [
            None if v is None or (positions is not None and k not in positions) else items[v]
            for k, v in enumerate(node.inputs)
        ]
        context = Context(maker, layouts, node, args)
        found = entries[node].meaning(context)
        checks += context.checks
        results = found if isinstance(found, tuple) else (found,)
        for value, item in zip(node.outputs, results, strict=False):
            assert item is not None
            if item.dtype != value.dtype:
                raise Unsupported(f"%{value.name} would be computed in {dtype_name(item.dtype)}")
            items[value] = item
    found_outputs = tuple(
        Output(items[v], layouts.axes(v), k, name, shape_of(v)) for v, (k, name) in zip(wanted, outputs, strict=True)
    )
    return Formula(sizes, tuple(operands), found_outputs, tuple(checks))


def _data(node: Node, entry: Composite) -> list[Value]:
    return [v for k, v in enumerate(node.inputs) if v is not None and (entry.data is None or k in entry.data)]


def _check_type(value: Value) -> None:
    shape_of(value)
    if value.dtype not in DTYPES:
        raise Unsupported(f"%{value.name} is of {dtype_name(value.dtype)}")


def _contiguous(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.ascontiguousarray(array).reshape(array.shape)


# --- merging axes -------------------------------------------------------------------------------------------------------


def _merged(formula: Formula) -> Formula:
    """The same formula, neighbouring axes that nothing tells apart made one."""
    sets: list[Iterable[int]] = [output.axes for output in formula.outputs]
    for item in in_order(formula.roots):
        sets.append(item.axes)
        if item.is_reduction or item.op == "pick":
            sets.append(item.data)
    together = [set(axes) for axes in sets]
    block_of: list[int] = []
    sizes: list[int] = []
    last = len(formula.sizes) - 1
    for axis, size in enumerate(formula.sizes):
        apart = axis == last and size >= _APART
        if axis and not apart and all((axis in s) == (axis - 1 in s) for s in together):
            sizes[-1] *= size
        else:
            sizes.append(size)
        block_of.append(len(sizes) - 1)

    def rename(axes: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted({block_of[axis] for axis in axes}))

    maker = Maker(sizes)
    return remade(formula, maker, maker.rebuilt(formula.roots, rename), rename)


def remade(
    formula: Formula, maker: Maker, items: Sequence[Item], rename: Callable[[Iterable[int]], tuple[int, ...]] = tuple
) -> Formula:
    """A formula with other items, over the space of their maker, whose axes may have other names."""
    outputs = tuple(
        replace(output, item=item, axes=rename(output.axes)) for item, output in zip(items, formula.outputs, strict=False)
    )
    checks = tuple((item, message) for item, (_, message) in zip(items[len(outputs) :], formula.checks, strict=True))
    operands = tuple(None if o is None else replace(o, axes=rename(o.axes)) for o in formula.operands)
    return Formula(maker.sizes, operands, outputs, checks)
