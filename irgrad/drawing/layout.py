"""From a graph to the boxes and edges that show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from irgrad.drawing.diagram import Body, Box, Diagram, Edge, EdgeKind, Kind
from irgrad.drawing.labels import attributes_text, cut, elements_text, operations_text, ports_text, shortened, type_label
from irgrad.drawing.options import AUTO_BOXES, Options, selected
from irgrad.drawing.parts import Part, choose_parts, parts_at_depth, tree_of
from irgrad.graph import Graph, Node, Role, Value
from irgrad.literals import counted
from irgrad.text import line_of

__all__ = ["diagram_of"]

FEWEST_BOXES = 12
"""What is left for a subgraph where the graph around it has used up the boxes."""


MOST_PARAMETERS = 3
"""A node with more parameters than this has them inside of its box: a row of boxes would push everything else apart."""


def diagram_of(graph: Graph, options: Options) -> Diagram:
    """The drawing of a graph.

    Raises:
        UsageError: an option does not fit the graph.
    """
    return _Layout(graph, options, "", AUTO_BOXES).diagram


class _Layout:
    """The drawing of one graph, in `diagram`.

    Args:
        graph: the graph or subgraph.
        options: what is drawn.
        prefix: what all ids begin with.
        most: how many boxes there may be where it is free to choose.
    """

    def __init__(self, graph: Graph, options: Options, prefix: str, most: int) -> None:
        self.diagram = Diagram(graph.name)
        self._graph = graph
        self._options = options
        self._prefix = prefix
        self._nodes = selected(graph, options)
        self._drawn = set(self._nodes)
        roles = {node.role for node in self._nodes}
        self._usual = roles.pop() if len(roles) == 1 else Role.FORWARD
        self._box_of: dict[Node, Box] = {}
        self._sources: dict[Value, Box] = {}  # the boxes of values that no drawn node makes
        self._edges: dict[tuple[Box, Box], list[Value]] = {}

        used = {value for node in self._nodes for value in node.inputs if value is not None}
        inputs = [value for value in graph.inputs.values() if value in used or not options.filters]
        parameters = [value for value in graph.constants if value.is_parameter and value in used]
        outputs = {k: v for k, v in graph.outputs.items() if v.producer in self._drawn or not options.filters}
        pieces = self._pieces(most - min(len(inputs) + len(outputs.keys() - graph.gradients.values()), most // 3))
        self._whole = not any(isinstance(piece, Part) for piece in pieces)
        # Where there is room, each parameter and each gradient has a box; otherwise they are told of in those of the nodes.
        self._roomy = (
            self._whole
            and len(pieces) + len(inputs) + len(outputs) + len(parameters) <= most
            and all(len(_parameters([node])) <= MOST_PARAMETERS for node in self._nodes)
        )

        self._add_nodes(pieces)
        self._add_sources([*inputs, *parameters] if self._roomy else inputs)
        self._connect_nodes()
        self._add_outputs(outputs)
        self._label_edges()
        self._align()
        self._add_bodies(most)

    def _pieces(self, most: int) -> Sequence[Part | Node]:
        collapse = self._options.collapse
        if collapse == "none" or (collapse == "auto" and len(self._nodes) <= most):
            return self._nodes
        tree = tree_of(self._graph, self._drawn)
        return choose_parts(tree, most) if collapse == "auto" else parts_at_depth(tree, int(collapse))

    def _new_box(self, kind: Kind, role: Role, title: str, lines: Iterable[str], detail: str) -> Box:
        id = f"{self._prefix}{kind.value[0]}{len(self.diagram.boxes)}"
        box = Box(id, kind, role, title, tuple(line for line in lines if line), cut(detail))
        self.diagram.boxes.append(box)
        return box

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _add_nodes(self, pieces: Sequence[Part | Node]) -> None:
        position = {node: index for index, node in enumerate(self._nodes)}
        groups: list[tuple[list[Node], str]] = []
        for piece in pieces:
            members: dict[Role, list[Node]] = {}
            for node in [piece] if isinstance(piece, Node) else sorted(piece.nodes, key=position.__getitem__):
                members.setdefault(node.role, []).append(node)
            groups += [(nodes, "" if isinstance(piece, Node) else piece.title) for nodes in members.values()]
        for nodes, title in sorted(groups, key=lambda group: position[group[0][0]]):
            box = self._add_node(nodes[0]) if len(nodes) == 1 else self._add_group(nodes, title)
            self._box_of.update(dict.fromkeys(nodes, box))

    def _add_node(self, node: Node) -> Box:
        title = node.op.name if node.op.domain == "irgrad" else node.op.qualified_name
        lines = [shortened(node.name), attributes_text(node), *ports_text(node)]
        if not self._roomy:
            parameters = _parameters([node])
            lines += [f"{shortened(v.name, 20)} {type_label(v)}" for v in parameters[:2]]
            lines += [f"+{counted(len(parameters) - 2, 'parameter')}"] * (len(parameters) > 2)
            lines += self._gradients_text([node])
        return self._new_box(Kind.NODE, node.role, shortened(title), lines, line_of(node))

    def _add_group(self, nodes: list[Node], title: str) -> Box:
        lines = [counted(len(nodes), "node"), *operations_text(nodes)]
        parameters = _parameters(nodes)
        if parameters and nodes[0].role is Role.FORWARD:
            elements = sum(v.constant.size for v in parameters if v.constant is not None)
            lines.append(f"{counted(len(parameters), 'parameter')}, {elements_text(elements)}")
        lines += self._gradients_text(nodes)
        detail = f"{title}: {', '.join(node.name for node in nodes[:20])}"
        return self._new_box(Kind.GROUP, nodes[0].role, shortened(title), lines, detail)

    def _gradients_text(self, nodes: Iterable[Node]) -> list[str]:
        """What is said in place of boxes for the gradients of parameters."""
        made = {value for node in nodes for value in node.outputs if value.is_output}
        outputs = self._graph.outputs
        names = [of for of, name in self._graph.gradients.items() if outputs[name] in made and self._in_text(of)]
        return [f"→ gradient of {shortened(names[0], 20)}" if len(names) == 1 else f"→ {len(names)} gradients"] * bool(names)

    def _in_text(self, name: str) -> bool:
        """Whether the gradient of a value has no box of its own."""
        return not self._roomy and self._graph.has_value(name) and self._graph.value(name).is_parameter

    # --- what is no node ----------------------------------------------------------------------------------------------

    def _add_sources(self, values: Sequence[Value]) -> None:
        """Boxes of inputs and parameters: one each where there is room, otherwise one for those that go the same ways."""
        alike: dict[object, list[Value]] = {}
        for value in values:
            targets = tuple(dict.fromkeys(self._box_of[user].id for user in value.users if user in self._drawn))
            alike.setdefault(value if self._roomy or value.is_output else targets, []).append(value)
        for group in alike.values():
            users = [self._box_of[user].role for value in group for user in value.users if user in self._drawn]
            role = min(users, key=list(Role).index, default=self._usual)
            kind = Kind.PARAMETER if group[0].is_parameter else Kind.INPUT
            box = self._add_terminal(kind, role, [(value.name, value) for value in group])
            self._sources.update(dict.fromkeys(group, box))

    def _add_outputs(self, outputs: dict[str, Value]) -> None:
        gradient_of = {name: of for of, name in self._graph.gradients.items()}
        alike: dict[object, list[tuple[str, Value]]] = {}
        for name, value in outputs.items():
            source = self._source(value)
            if name in gradient_of and self._in_text(gradient_of[name]) and source is not None:
                continue
            key = name if self._roomy or source is None else (source.id, name in gradient_of)
            alike.setdefault(key, []).append((name, value))
        for group in alike.values():
            source = self._source(group[0][1])
            gradient = group[0][0] in gradient_of
            role = source.role if source is not None else Role.BACKWARD if gradient else self._usual
            box = self._add_terminal(Kind.GRADIENT if gradient else Kind.OUTPUT, role, group)
            if source is not None:
                self._edges[source, box] = [value for _, value in group]

    def _add_terminal(self, kind: Kind, role: Role, named: Sequence[tuple[str, Value]]) -> Box:
        (name, value), number = named[0], len(named)
        title = shortened(name) if number == 1 else counted(number, kind.value)
        line = type_label(value) if number == 1 else f"{shortened(name, 28)}, …"
        return self._new_box(kind, role, title, [line], ", ".join(f"{name}: {value.type}" for name, value in named))

    # --- edges --------------------------------------------------------------------------------------------------------

    def _source(self, value: Value) -> Box | None:
        producer = value.producer
        return self._sources.get(value) if producer is None or producer not in self._drawn else self._box_of[producer]

    def _connect_nodes(self) -> None:
        # Where groups are drawn, an edge into what is left out would say little and there would be many.
        cuts = self._options.filters and self._whole
        for node in self._nodes:
            box = self._box_of[node]
            for value in dict.fromkeys(v for v in node.inputs if v is not None):
                source = self._source(value)
                if source is None and cuts and (producer := value.producer) is not None:
                    source = self._sources[value] = self._add_elsewhere([producer], node.role, value)
                if source is not None and source is not box:
                    values = self._edges.setdefault((source, box), [])
                    if value not in values:
                        values.append(value)
        for node in self._nodes if cuts else ():
            for value in node.outputs:
                if users := [user for user in value.users if user not in self._drawn]:
                    self._edges[self._box_of[node], self._add_elsewhere(users, node.role, value)] = [value]

    def _add_elsewhere(self, nodes: Sequence[Node], role: Role, value: Value) -> Box:
        """The box of what a filter left out at one end of an edge."""
        title = nodes[0].op.name if len(nodes) == 1 else counted(len(nodes), "node")
        lines = [shortened(nodes[0].name) if len(nodes) == 1 else f"{shortened(nodes[0].name, 28)}, …"]
        lines += [nodes[0].role.value] * (nodes[0].role is not role)
        return self._new_box(Kind.ELSEWHERE, role, title, lines, f"%{value.name}: {', '.join(n.name for n in nodes[:20])}")

    def _label_edges(self) -> None:
        # An edge between columns is labelled only where no edge inside of a column says the same.
        said = {
            value for (source, target), values in self._edges.items() if source.column is target.column for value in values
        }
        for (source, target), values in self._edges.items():
            label = ""
            terminal = {source.kind, target.kind} & {Kind.INPUT, Kind.PARAMETER, Kind.OUTPUT, Kind.GRADIENT}
            if self._options.shapes and not terminal and (source.column is target.column or values[0] not in said):
                label = type_label(values[0]) + (f" +{len(values) - 1}" if len(values) > 1 else "")
            self.diagram.edges.append(Edge(source.id, target.id, EdgeKind.DATA, label))
        if self._options.origins:
            self._add_origins()

    def _origin(self, node: Node) -> Box | None:
        if node.origin is None or not self._graph.has_node(node.origin):
            return None
        return self._box_of.get(self._graph.node(node.origin))

    def _add_origins(self) -> None:
        pairs = dict.fromkeys((self._origin(node), self._box_of[node]) for node in self._nodes)
        for origin, box in pairs:
            if origin is not None and origin is not box:
                self.diagram.edges.append(Edge(origin.id, box.id, EdgeKind.ORIGIN))

    def _align(self) -> None:
        """Put the first backward box that was made for another one beside it."""
        taken: set[Box] = set()
        for node in self._nodes:
            box, origin = self._box_of[node], self._origin(node)
            # What is recomputed for several backward nodes in a row stands below all of them.
            if origin is None or origin.column is box.column or box.role is not Role.BACKWARD:
                continue
            if not taken & {origin, box}:
                taken |= {origin, box}
                self.diagram.aligned.append((origin.id, box.id))

    # --- subgraphs ----------------------------------------------------------------------------------------------------

    def _add_bodies(self, most: int) -> None:
        if not self._options.depth:
            return
        left = max(most - len(self.diagram.boxes), FEWEST_BOXES)
        inside = replace(self._options, around=None, roles=None, only=None, depth=self._options.depth - 1)
        for node in self._nodes:
            box = self._box_of[node]
            if box.kind is not Kind.NODE:
                continue
            for name, subgraph in ((k, v) for k, v in node.attrs.items() if isinstance(v, Graph)):
                id = f"{box.id}_{len(self.diagram.bodies)}"
                layout = _Layout(subgraph, inside, f"{id}_", left)
                left = max(left - len(layout.diagram.boxes), FEWEST_BOXES)
                title = f"{name} of {shortened(node.name)}"
                self.diagram.bodies.append(Body(id, box.id, title, layout.diagram))
                self.diagram.edges.append(Edge(box.id, id, EdgeKind.BODY))


def _parameters(nodes: Iterable[Node]) -> list[Value]:
    """The parameters among the operands, each once, in the order of the program."""
    return list(dict.fromkeys(v for node in nodes for v in node.inputs if v is not None and v.is_parameter))
