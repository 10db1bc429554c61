"""The graph: operations and tensors on one bipartite networkx DiGraph.

`Graph` owns the structure. The vertices of its digraph *are* the `Node` and `Value` objects, hashed by identity; an edge
value→node exists exactly when the value is an operand, an edge node→value exactly when it is an output. Nothing else
stores adjacency. Everything changes through the mutators below, each O(degree of what it touches).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import networkx as nx
import numpy as np

from irgrad.errors import GraphError, did_you_mean
from irgrad.node import Expansion, Node, Operand, Role, Value, active_emitter, active_pass
from irgrad.types import Dim, TensorType, Type

if TYPE_CHECKING:
    from irgrad.op import Op

__all__ = [
    "MAX_CONTENTS",
    "OPSET",
    "Expansion",
    "Graph",
    "Node",
    "Operand",
    "Role",
    "Value",
    "active_emitter",
    "active_pass",
]

OPSET = 28
"""The ai.onnx opset whose operations a graph is written in; readers bring older models up to it."""


MAX_CONTENTS = 64
"""Integer tensors of at most this many elements are followed element by element, see `Value.contents`."""


class Graph:
    """A computation: inputs, constants and nodes to outputs.

    Attributes:
        name: a label.
        opset: the ai.onnx opset that the nodes are written in.
        gradients: name of a value → name of the output that is its gradient.
        metadata: what the source file says of itself (producer, doc string, free properties); strings only.
    """

    printer: ClassVar[Callable[[Graph], str]] = repr
    """What ``str(graph)`` calls; the text module puts its own function here."""

    drawer: ClassVar[Callable[..., None]]
    """What `draw` calls; the drawing package puts its own function here."""

    notebook: ClassVar[Callable[[Graph], str]] = repr
    """What a notebook shows, as HTML; the drawing package puts its own function here."""

    def __init__(self, name: str = "graph", opset: int = OPSET) -> None:
        self.name = name
        self.opset = opset
        self.gradients: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._dag: nx.DiGraph[Any] = nx.DiGraph()
        # networkx's own adjacency dicts, read only: its views cost a wrapper object at each look.
        self._pred: Mapping[Any, Mapping[Any, Any]] = cast("Any", self._dag)._pred
        self._succ: Mapping[Any, Mapping[Any, Any]] = cast("Any", self._dag)._succ
        self._inputs: list[Value] = []
        self._outputs: dict[str, Value] = {}
        self._returned: set[Value] = set()  # the values of _outputs, so that asking about one is O(1)
        self._constants: dict[Value, np.ndarray] = {}
        self._values: dict[str, Value] = {}
        self._node_names: dict[str, Node] = {}
        self._fresh: dict[tuple[bool, str], int] = {}
        self._next_key = 0
        self._order: list[Node] | None = None
        self._by_origin: dict[str, list[Node]] | None = None

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def dag(self) -> nx.DiGraph[Any]:
        """The structure as a frozen networkx view: any algorithm of networkx reads it, none can change it."""
        view: Any = nx.graphviews.generic_graph_view(cast("Any", self._dag))
        return cast("nx.DiGraph[Any]", nx.freeze(view))

    @property
    def inputs(self) -> dict[str, Value]:
        """The inputs by name, in order (a snapshot)."""
        return {value.name: value for value in self._inputs}

    @property
    def outputs(self) -> dict[str, Value]:
        """Name of an output → the value that it returns, in order (a snapshot).

        The name of an output is its own: rewriting may put a value of another name behind it, and one value may be
        returned under two names.
        """
        return dict(self._outputs)

    @property
    def constants(self) -> Mapping[Value, np.ndarray]:
        """Constant values and their arrays (not to be written to), in the order in which they were added (a live view)."""
        return MappingProxyType(self._constants)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The constants that are meant to be learned, by name: the float initializers of a model."""
        return {value.name: array for value, array in self._constants.items() if value.is_parameter}

    def nodes(self) -> list[Node]:
        """All nodes in a stable topological order (a snapshot, so that the graph may change during a loop over it).

        Among the nodes that could come next, the one that was added first (or was put near one that was) does. A change
        of the graph costs the next call O(n log n).

        Raises:
            GraphError: the graph has a cycle.
        """
        if self._order is None:
            self._order = self._sorted()
        return list(self._order)

    def values(self) -> list[Value]:
        """All values: inputs, constants, then results in the order of `nodes`."""
        results = [value for node in self.nodes() for value in node._outputs]
        return [*self._inputs, *self._constants, *results]

    def value(self, name: str) -> Value:
        """The value of that name.

        Raises:
            GraphError: there is none; the message offers close names.
        """
        try:
            return self._values[name]
        except KeyError:
            raise GraphError(f"there is no value {name!r} in the graph{did_you_mean(name, self._values)}") from None

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            GraphError: there is none.
        """
        try:
            return self._node_names[name]
        except KeyError:
            raise GraphError(f"there is no node {name!r} in the graph{did_you_mean(name, self._node_names)}") from None

    def backward_of(self, node: Node) -> list[Node]:
        """The backward nodes that were made for a node, in program order (those of this graph, not of subgraphs).

        The first call after a change of the graph costs O(n), any other one no more than its result.
        """
        if self._by_origin is None:
            found: dict[str, list[Node]] = {}
            for other in self.nodes():
                if other.origin is not None:
                    found.setdefault(other.origin, []).append(other)
            self._by_origin = found
        return [other for other in self._by_origin.get(node.name, ()) if other.role is Role.BACKWARD]

    def forward_of(self, node: Node) -> Node | None:
        """The forward node that a node was made for: the one that its `origin` names.

        None where it has no origin, and where nothing here is called so any more: the forward node was rewritten into
        something else, or is in another graph (that of a backward Loop's body is in the forward one's).
        """
        return None if node.origin is None else self._node_names.get(node.origin)

    def keeps_alive(self, value: Value) -> list[Node]:
        """The backward nodes that read a value, so that it has to be kept (or computed again) until they have run.

        Those that read it only through a view of it or as the operand of a forward node are not among them.
        """
        return [user for user in value.users if user.role is Role.BACKWARD]

    def walk(self) -> Iterator[Graph]:
        """The graph and all subgraphs inside it, outer ones first; each may be changed before the next is asked for."""
        waiting = [self]
        for graph in waiting:
            yield graph
            waiting += [inner for node in graph._node_names.values() for inner in node.subgraphs]

    def has_value(self, name: str) -> bool:
        return name in self._values

    def has_node(self, name: str) -> bool:
        return name in self._node_names

    def __len__(self) -> int:
        """The number of nodes (operations)."""
        return len(self._node_names)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return type(self).printer(self)

    def _repr_html_(self) -> str:
        return type(self).notebook(self)

    def draw(self, path: str | Path, **options: Any) -> None:
        """Draw the graph to a file; `irgrad.draw` tells the formats and the options.

        Raises:
            UsageError: see there.
        """
        type(self).drawer(self, path, **options)

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self._inputs)} inputs, {len(self)} nodes, {len(self._outputs)} outputs>"

    # --- mutators -----------------------------------------------------------------------------------------------------

    def add_input(self, name: str, type: Type) -> Value:
        """A new input at the end of the inputs."""
        value = self._new_value(name, type)
        self._inputs.append(value)
        return value

    def add_constant(self, array: np.ndarray, name: str | None = None, *, parameter: bool = False) -> Value:
        """A new constant that holds `array`, which must not be changed afterwards."""
        value = self._new_value(name or self.fresh_name("const"), TensorType.of(array))
        value.is_parameter = parameter
        value.contents = _contents(array)
        self._constants[value] = array
        return value

    def add_clone(
        self,
        node: Node,
        inputs: Sequence[Value | None],
        types: Sequence[Type] | None = None,
        *,
        fresh_names: bool = False,
        subgraphs: bool = False,
    ) -> Node:
        """A node that does on other operands what a node of another graph does, for the same reasons.

        Args:
            node: its operation, attributes, role, origin, rule and expansion are taken over.
            inputs: the operands.
            types: of the outputs; those of the node's own by default.
            fresh_names: the names of the node and its outputs are not, or may not be, new here.
            subgraphs: copy the graphs among its attributes too.

        Raises:
            GraphError: see `add_node`.
        """
        names = [value.name for value in node.outputs]
        attrs = {k: a.copy() if isinstance(a, Graph) else a for k, a in node.attrs.items()} if subgraphs else node.attrs
        return self.add_node(
            node.op,
            inputs,
            [value.type for value in node.outputs] if types is None else types,
            attrs,
            name=self.fresh_name(node.name, node=True) if fresh_names else node.name,
            output_names=[self.fresh_name(name) for name in names] if fresh_names else names,
            role=node.role,
            origin=node.origin,
            rule=node.rule,
            expansion=node.expansion,
        )

    def add_node(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        types: Sequence[Type],
        attrs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        output_names: Sequence[str | None] | None = None,
        role: Role = Role.FORWARD,
        origin: str | None = None,
        near: Node | None = None,
        rule: str | None = None,
        expansion: Expansion | None = None,
    ) -> Node:
        """A new node whose outputs have the given types.

        Args:
            op: the operation.
            inputs: operands, None for an absent one.
            types: one type per output.
            attrs: attributes.
            name: a name that no node has yet; a fresh one if absent.
            output_names: names for the outputs; None makes a fresh one.
            role: see `Role`.
            origin: the name of the forward node that the new one is made for.
            near: place the node at this one's position in the program order instead of at the end.
            rule: see `Node`.
            expansion: see `Node`.

        Raises:
            GraphError: an operand belongs to another graph, or a name is taken.
        """
        for value in inputs:
            if value is not None and (value._graph is not self or value not in self._dag):
                raise GraphError(f"{value!r} cannot be an operand here: it belongs to another graph or was erased")
        if name is None:
            name = self.fresh_name(op.name, node=True)
        elif name in self._node_names:
            raise GraphError(f"there is already a node {name!r}")
        names = [*(output_names or ()), *([None] * len(types))][: len(types)]
        taken = [n for n in names if n is not None and n in self._values]
        if taken or len(set(names) - {None}) != len([n for n in names if n is not None]):
            raise GraphError(f"the output names {names} of the node {name!r} are not new and unique")
        key = (self._next_key if near is None else near._key[0], self._next_key)
        self._next_key += 1
        node = Node(self, op, name, attrs or {}, role, origin, rule, expansion, key)
        self._node_names[name] = node
        self._dag.add_node(node)
        for value in inputs:
            node._inputs.append(value)
            if value is not None:
                self._dag.add_edge(value, node)
        given = {n for n in names if n is not None}
        for type, output_name in zip(types, names, strict=True):
            self._append_output(node, type, output_name, avoid=given)
        self._order = self._by_origin = None
        return node

    def add_output(self, node: Node, type: Type, name: str | None = None, *, at: int | None = None) -> Value:
        """A further output of an existing node (an optional one that its operation has and nobody had asked for).

        It comes last, or at the position `at`, so that those from there on move by one.
        """
        self._order = None
        _note_change(node)
        value = self._append_output(node, type, name)
        if at is not None:
            node._outputs.insert(at, node._outputs.pop())
        return value

    def remove_output(self, node: Node, index: int) -> None:
        """Take away an output that nothing uses; those behind it move up.

        Raises:
            GraphError: something uses it.
        """
        value = node._outputs[index]
        self._check_unused(value)
        _note_change(node)
        del node._outputs[index]
        self._dag.remove_node(value)
        del self._values[value._name]

    def set_op(self, node: Node, op: Op, attrs: Mapping[str, Any]) -> None:
        """Let a node do something else with its operands; its results must stay of their types."""
        _note_change(node)
        node.op = op
        node.attrs = dict(attrs)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Make `value` the operand `index` of `node`, in place of what was there."""
        if value is not None and (value._graph is not self or value not in self._dag):
            raise GraphError(f"{value!r} cannot be an operand here: it belongs to another graph or was erased")
        _note_change(node)
        old = node._inputs[index]
        node._inputs[index] = value
        if old is not None and not any(v is old for v in node._inputs):
            self._dag.remove_edge(old, node)
        if value is not None:
            self._dag.add_edge(value, node)
        self._order = None

    def set_operands(self, node: Node, values: Sequence[Value | None]) -> None:
        """Replace all operands of `node`, of which there may be more or fewer than before."""
        for value in values:
            if value is not None and (value._graph is not self or value not in self._dag):
                raise GraphError(f"{value!r} cannot be an operand here: it belongs to another graph or was erased")
        _note_change(node)
        self._dag.remove_edges_from([(value, node) for value in self._pred[node]])
        node._inputs = list(values)
        self._dag.add_edges_from([(value, node) for value in values if value is not None])
        self._order = None

    def replace_all_uses(self, old: Value, new: Value) -> None:
        """Make every user of `old`, and every output that is `old`, use `new` instead. `old` stays, unused."""
        if old is new:
            return
        for user in old.users:
            for index, value in enumerate(user._inputs):
                if value is old:
                    self.set_input(user, index, new)
        if old in self._returned:
            self._returned.discard(old)
            self._returned.add(new)
            for name, value in self._outputs.items():
                if value is old:
                    self._outputs[name] = new

    def erase(self, thing: Node | Value) -> None:
        """Remove a node with its outputs, or an input or constant, that nothing uses.

        Raises:
            GraphError: something still uses it, or it is an output of the graph, or the value has a producer.
        """
        if isinstance(thing, Value) and thing.producer is not None:
            raise GraphError(f"{thing!r} is made by a node; erase that node instead")
        values = [thing] if isinstance(thing, Value) else thing._outputs
        for value in values:
            self._check_unused(value)
        for value in values:
            self._dag.remove_node(value)
            del self._values[value._name]
        if isinstance(thing, Node):
            self._dag.remove_node(thing)
            del self._node_names[thing._name]
            self._order = self._by_origin = None
        else:
            self._constants.pop(thing, None)
            self._inputs = [value for value in self._inputs if value is not thing]

    def set_outputs(self, outputs: Mapping[str, Value] | Iterable[Value]) -> None:
        """Replace the outputs; gradients that are no output any more are forgotten.

        Args:
            outputs: name → value, or just values, which then go by their own names.

        Raises:
            GraphError: a value belongs to another graph, or a name would come twice.
        """
        pairs = list(outputs.items()) if isinstance(outputs, Mapping) else [(v.name, v) for v in outputs]
        for name, value in pairs:
            if value._graph is not self or value not in self._dag:
                raise GraphError(f"{value!r} cannot be the output {name!r}: it belongs to another graph or was erased")
        if len(dict(pairs)) != len(pairs):
            raise GraphError("a value is listed twice among the outputs; give a mapping with a name for each")
        self._outputs = dict(pairs)
        self.gradients = {of: name for of, name in self.gradients.items() if name in self._outputs}
        self._returned = {value for _, value in pairs}

    def set_type(self, value: Value, type: Type) -> None:
        """Replace the type of a value by one that says more (or other) about it."""
        value._type = type

    def set_constant(self, value: Value, array: np.ndarray) -> None:
        """Replace the array of a constant, and with it the type of its value."""
        if value not in self._constants:
            raise GraphError(f"{value!r} is no constant")
        self._constants[value] = array
        value._type = TensorType.of(array)
        value.contents = _contents(array)

    def rename(self, thing: Node | Value, name: str) -> None:
        """Give a node or a value another name, one that is free."""
        table: dict[str, Any] = self._node_names if isinstance(thing, Node) else self._values
        if name in table:
            if table[name] is thing:
                return
            raise GraphError(f"the name {name!r} is taken")
        del table[thing._name]
        table[name] = thing
        thing._name = name

    def fresh_name(self, hint: str, *, node: bool = False, avoid: Collection[str] = ()) -> str:
        """A name like `hint` that no value (or, with ``node``, no node) has. The same calls give the same names.

        Nor is it one of `avoid`, which are about to be given away.
        """
        table: Mapping[str, object] = self._node_names if node else self._values
        name, count = hint, self._fresh.get((node, hint), 0)
        while name in table or name in avoid:
            count += 1
            name = f"{hint}_{count}"
        self._fresh[node, hint] = count
        return name

    def copy(self) -> Graph:
        """A graph of its own with the same names, types and order; the arrays of constants are shared."""
        other = Graph(self.name, self.opset)
        other.gradients = dict(self.gradients)
        other.metadata = dict(self.metadata)
        mapped: dict[Value, Value] = {}
        for value in self._inputs:
            mapped[value] = other.add_input(value.name, value.type)
            mapped[value].contents = value.contents
        for value, array in self._constants.items():
            mapped[value] = other.add_constant(array, value.name, parameter=value.is_parameter)
        for node in self.nodes():
            clone = other.add_clone(node, [None if v is None else mapped[v] for v in node._inputs], subgraphs=True)
            clone.changed_by = node.changed_by
            for value, twin in zip(node._outputs, clone._outputs, strict=True):
                mapped[value] = twin
                twin.contents = value.contents
        other.set_outputs({name: mapped[value] for name, value in self._outputs.items()})
        return other

    # --- internals ----------------------------------------------------------------------------------------------------

    def _new_value(self, name: str, type: Type) -> Value:
        if name in self._values:
            raise GraphError(f"there is already a value {name!r}")
        value = Value(self, name, type)
        self._values[name] = value
        self._dag.add_node(value)
        return value

    def _check_unused(self, value: Value) -> None:
        if self._succ[value]:
            raise GraphError(f"{value!r} is still used by {value.users[0]!r}")
        if value in self._returned:
            raise GraphError(f"{value!r} is an output of the graph")

    def _append_output(self, node: Node, type: Type, name: str | None, avoid: Collection[str] = ()) -> Value:
        if name is None:
            hint = node._name if not node._outputs else f"{node._name}.{len(node._outputs)}"
            name = self.fresh_name(hint, avoid=avoid)
        value = self._new_value(name, type)
        node._outputs.append(value)
        self._dag.add_edge(node, value)
        return value

    def _sorted(self) -> list[Node]:
        producers: dict[Node, int] = {}
        ready: list[tuple[tuple[int, int], Node]] = []
        pred, succ = self._pred, self._succ
        for node in self._node_names.values():
            waits = sum(1 for value in pred[node] if pred[value])
            producers[node] = waits
            if not waits:
                ready.append((node._key, node))
        heapq.heapify(ready)
        order: list[Node] = []
        while ready:
            node = heapq.heappop(ready)[1]
            order.append(node)
            for value in succ[node]:
                for user in succ[value]:
                    producers[user] -= 1
                    if not producers[user]:
                        heapq.heappush(ready, (user._key, user))
        if len(order) != len(self._node_names):
            stuck = next(node for node, waits in producers.items() if waits)
            raise GraphError(f"the graph has a cycle; one of the nodes on or behind it is {stuck!r}")
        return order


def _note_change(node: Node) -> None:
    """Note the pass that is changing a node; a change that no pass makes leaves the last one that did."""
    node.changed_by = active_pass.get() or node.changed_by


def _contents(array: np.ndarray) -> tuple[Dim, ...] | None:
    if array.dtype.kind in "iub" and array.size <= MAX_CONTENTS:
        return tuple(int(x) for x in array.reshape(-1))
    return None
