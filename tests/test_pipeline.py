"""Pipelines: their text, what is checked between passes, what instruments are told."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from irgrad.compare import graphs_equal
from irgrad.errors import AdjointError, GraphError, PassError, UnsupportedOpError, VerifyError
from irgrad.graph import Graph, Role
from irgrad.instruments import DumpOnFailure, Instrument, NodeCounts, PrintAfter, Timing
from irgrad.pipeline import Pass, Pipeline
from irgrad.plugin import Plugin, registry
from irgrad.text import parse_text, to_text


class Policy(Enum):
    EAGER = "eager"
    LAZY = "lazy"


@dataclass(frozen=True)
class Options(Pass):
    """Takes options of every kind and does nothing."""

    name: ClassVar[str] = "options"
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    label: str = "none given"
    budget: int | None = None
    names: Sequence[str] = ()
    wrt: str | Sequence[str] = "parameters"
    sizes: tuple[int, ...] = (1,)
    kinds: frozenset[str] = frozenset()
    policy: Policy = Policy.EAGER
    mode: Literal["fast", "small"] = "fast"
    inner: Sequence[Pass] = ()
    one: Pass | None = None
    either: int | str = 0
    predicate: Callable[[Any], bool] | None = None

    def run(self, graph: Graph) -> bool:
        return False


@dataclass(frozen=True)
class Needy(Pass):
    """Has an option without a default."""

    name: ClassVar[str] = "needy"
    what: int
    positive: int = 1

    def __post_init__(self) -> None:
        if self.positive < 0:
            raise PassError(f"positive must not be {self.positive}")

    def run(self, graph: Graph) -> bool:
        return False


@dataclass(frozen=True)
class Act(Pass):
    """Does what it is told to."""

    name: ClassVar[str] = "act"
    action: Callable[[Graph], Any] = lambda graph: None
    says: bool = True
    needs: Callable[[Graph], Any] = lambda graph: None
    promises: Callable[[Graph], Any] = lambda graph: None

    def requires(self, graph: Graph) -> None:
        self.needs(graph)

    def run(self, graph: Graph) -> bool:
        self.action(graph)
        return self.says

    def ensures(self, graph: Graph) -> None:
        self.promises(graph)


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    added = Plugin("test", passes={"options": lambda: Options, "needy": lambda: Needy, "act": lambda: Act})
    registry.register(added)
    yield
    registry.unregister(added)


def graph() -> Graph:
    return parse_text(
        "graph g { input %x: f32[2] %a = Neg(%x) %b = Neg(%a) backward of a %dead = Tanh(%x) recompute output b }"
    )


def options(text: str) -> Options:
    (made,) = Pipeline(text).passes
    assert isinstance(made, Options)
    return made


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("count=12", "count", 12),
        ("count=-3", "count", -3),
        ("count=1_000", "count", 1000),
        ("count=64MB", "count", 64_000_000),
        ("count=64mib", "count", 64 * 2**20),
        ("count=1.5k", "count", 1500),
        ("count=2G", "count", 2_000_000_000),
        ("rate=0.25", "rate", 0.25),
        ("rate=1e-3", "rate", 1e-3),
        ("rate=2", "rate", 2.0),
        ("rate=inf", "rate", float("inf")),
        ("rate=1KiB", "rate", 1024.0),
        ("flag=true", "flag", True),
        ("flag=off", "flag", False),
        ("label=conv1/w:0", "label", "conv1/w:0"),
        ('label="a, b} = \\"c\\""', "label", 'a, b} = "c"'),
        ('label="12"', "label", "12"),
        ("label=12", "label", "12"),
        ("label=a|b", "label", "a|b"),
        ("budget=none", "budget", None),
        ("budget=1", "budget", 1),
        ("names=a|b", "names", ("a", "b")),
        ("names=[a, b]", "names", ("a", "b")),
        ("names=a", "names", ("a",)),
        ('names="a|b"', "names", ("a|b",)),
        ("names=[]", "names", ()),
        ("wrt=inputs", "wrt", "inputs"),
        ("wrt=[inputs]", "wrt", ("inputs",)),
        ("wrt=a|b", "wrt", ("a", "b")),
        ('wrt="a|b"', "wrt", "a|b"),
        ("sizes=[1,2k]", "sizes", (1, 2000)),
        ("sizes=1|2", "sizes", (1, 2)),
        ("kinds=a|b|a", "kinds", frozenset("ab")),
        ("policy=lazy", "policy", Policy.LAZY),
        ("mode=small", "mode", "small"),
        ("either=5", "either", 5),
        ("either=x5", "either", "x5"),
        ('either="5"', "either", "5"),
    ],
)
def test_options(text: str, key: str, value: Any) -> None:
    made = options("options{" + text + "}")
    assert getattr(made, key) == value
    assert type(getattr(made, key)) is type(value)
    assert Pipeline(str(Pipeline([made]))).passes == (made,)


def test_nested_pipelines() -> None:
    made = options("options{inner=(cse,dce), one=(options{count=2})}")
    assert [type(p).__name__ for p in made.inner] == ["CommonSubexpressions", "DeadCode"]
    assert made.one == Options(count=2)
    pipeline = Pipeline("dce,(cse,(fold)),simplify{limit=1k}")
    assert str(pipeline) == "dce,(cse,(fold)),simplify{limit=1000}"
    assert [p.name for p in pipeline._flat()] == ["dce", "cse", "fold", "simplify"]
    assert Pipeline(str(pipeline)) == pipeline
    assert repr(pipeline) == "Pipeline('dce,(cse,(fold)),simplify{limit=1000}')"
    assert str(Pipeline([made])) == "options{inner=(cse,dce),one=(options{count=2})}"
    assert hash(Pipeline(str(pipeline))) == hash(pipeline)
    assert pipeline != "dce"


def test_spaces_and_empty_texts() -> None:
    assert Pipeline(" dce , options { count = 2 , flag = yes } ").passes == Pipeline("dce,options{count=2,flag=true}").passes
    assert Pipeline("").passes == Pipeline("  ").passes == ()
    assert Pipeline("options{}").passes == (Options(),)


def test_pipelines_of_passes() -> None:
    assert Pipeline(Options()).passes == (Options(),)
    assert Pipeline(Pipeline("dce")).passes == (Pipeline("dce"),)
    assert str(Pipeline([Options(count=3), Pipeline("dce")])) == "options{count=3},(dce)"
    with pytest.raises(PassError, match="made of passes; 'dce' is none"):
        Pipeline([Options(), "dce"])  # type: ignore[list-item]


@pytest.mark.parametrize("name", registry.names("passes"))
def test_every_pass_has_a_text(name: str) -> None:
    cls = registry.get("passes", name)
    assert cls.name == name
    needed = [field.name for field in fields(cls) if field.default is MISSING and field.default_factory is MISSING]
    made = cls(**dict.fromkeys(needed, 1.5))
    assert Pipeline(str(Pipeline([made]))).passes == (made,)


MISTAKES = [
    (
        "dce,simplfy",
        r"column 5 of the pipeline 'dce,simplfy': there is no pass 'simplfy'; did you mean 'simplify'\? \(known: ",
    ),
    ("zzz", r"column 1 .* there is no pass 'zzz' \(known: act, "),
    ("dce,", "column 5 .* the name of a pass was expected, but the text ends here"),
    ("dce cse", "column 5 .* a comma or the end was expected, not 'cse'"),
    ("dce}", "column 4 .* a comma or the end was expected, not '}'"),
    ("(dce", r"column 5 .* '\)' was expected, but the text ends here"),
    (
        "options{cuont=1}",
        r"column 9 .* the pass 'options' has no option 'cuont'; did you mean 'count'\? \(known: count, rate",
    ),
    ("dce{x=1}", r"column 5 .* the pass 'dce' has no option 'x' \(known: none\)"),
    ("options{count}", "column 14 .* '=' was expected, not '}'"),
    ("options{count=", "column 15 .* a value was expected, but the text ends here"),
    ("options{count=1", "column 16 .* a comma or '}' was expected, but the text ends here"),
    ("options{count=1,count=2}", "column 17 .* the option 'count' is given twice"),
    ("options{names=[a b]}", r"column 18 .* a comma or '\]' was expected, not 'b'"),
    ("options{=1}", "column 9 .* the name of an option was expected, not '='"),
    ("options{count=x}", "column 15 .* the option 'count' of the pass 'options' takes a whole number .*, not x"),
    ("options{count=1.5}", "column 15 .* takes a whole number"),
    ('options{count="1"}', 'column 15 .* takes a whole number, not "1"'),
    ("options{rate=x}", "column 14 .* takes a number, not x"),
    ("options{flag=maybe}", "column 14 .* takes true or false, not maybe"),
    ("options{label=[a]}", r"column 15 .* takes a string, not \[a\]"),
    ("options{policy=hasty}", "column 16 .* takes eager or lazy, not hasty"),
    ("options{mode=big}", "column 14 .* takes fast or small, not big"),
    ("options{budget=x}", "column 16 .* takes a whole number .* or none, not x"),
    ("options{sizes=[1,x]}", r"column 15 .* takes a whole number .*, not \[1,x\]"),
    ("options{inner=x}", "column 15 .* takes a Pass, which cannot be written as text"),
    ("options{predicate=x}", "column 19 .* cannot be written as text"),
    ("options{count=(dce)}", r"column 15 .* takes a whole number, not \(dce\)"),
    ("options{count=1;}", "column 15 .* takes a whole number"),
    ("needy", "column 1 .* the pass 'needy' needs the option 'what'"),
    ("needy{what=1,positive=-1}", "column 1 .* positive must not be -1"),
    ('options{label="a}', "column 15 .* a value was expected, not '\"'"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[t for t, _ in MISTAKES])
def test_mistakes_are_located(text: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        Pipeline(text)


# --- running ----------------------------------------------------------------------------------------------------------


def test_apply_leaves_the_graph_alone() -> None:
    g = graph()
    before = g.copy()
    result = Pipeline("dce").apply(g)
    assert graphs_equal(g, before) is None
    assert len(result) == 2
    assert Pipeline("dce").run(g)
    assert not Pipeline("dce").run(g)
    assert graphs_equal(g, result) is None


def broken(g: Graph) -> None:
    g.set_input(g.node("a"), 0, None)


def test_the_graph_is_verified_between_passes() -> None:
    with pytest.raises(VerifyError, match="in the pass 'act': the graph 'g' breaks 1 invariant"):
        Pipeline([Act(broken), Options()]).run(graph())
    wrong = graph()
    broken(wrong)
    with pytest.raises(VerifyError, match=r"^the graph 'g' breaks"):
        Pipeline([Options()]).run(wrong)
    assert Pipeline([Act(broken)], verify=False).run(graph())


def raising(error: Exception) -> Callable[[Graph], None]:
    def action(g: Graph) -> None:
        raise error

    return action


def test_errors_name_the_pass_and_keep_their_class() -> None:
    with pytest.raises(AdjointError, match=r"^in the pass 'act': no gradient$"):
        Pipeline([Act(raising(AdjointError("no gradient")))]).run(graph())
    with pytest.raises(UnsupportedOpError) as caught:
        Pipeline([Act(raising(UnsupportedOpError("two nodes", ["a", "b"])))]).run(graph())
    assert caught.value.nodes == ("a", "b")
    with pytest.raises(
        PassError, match=r"in the pass 'act': it failed with KeyError \('k'\), a defect of the pass"
    ) as wrapped:
        Pipeline([Act(raising(KeyError("k")))]).run(graph())
    assert isinstance(wrapped.value.__cause__, KeyError)
    with pytest.raises(PassError, match="in the pass 'act': it failed with RuntimeError"):
        Pipeline([Act(raising(RuntimeError()))]).run(graph())


def test_conditions_are_asked_for() -> None:
    unmet = raising(PassError("there is no loss"))
    touched: list[Graph] = []
    with pytest.raises(PassError, match="in the pass 'act': there is no loss"):
        Pipeline([Act(touched.append, needs=unmet)]).run(graph())
    assert touched == []
    with pytest.raises(PassError, match="in the pass 'act': there is no loss"):
        Pipeline([Act(touched.append, promises=unmet)]).run(graph())
    assert len(touched) == 1


def test_truthfulness_is_checked_on_request() -> None:
    def rename(g: Graph) -> None:
        g.rename(g.value("a"), "other")

    with pytest.raises(PassError, match="said that it changed nothing, but the results of the node 'a' are"):
        Pipeline([Act(rename, says=False)], truthful=True).run(graph())
    with pytest.raises(PassError, match="said that it changed the graph, but it did not"):
        Pipeline([Act(says=True)], truthful=True).run(graph())
    assert Pipeline([Act(rename), Act(says=False)], truthful=True).run(graph())
    assert not Pipeline([Act(rename, says=False)]).run(graph())


# --- instruments ------------------------------------------------------------------------------------------------------


class Recorder(Instrument):
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def before(self, pass_: Pass, graph: Graph) -> None:
        self.log.append(f"{self.name} before {pass_.name}")

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        self.log.append(f"{self.name} after {pass_.name}: {changed}")

    def failed(self, pass_: Pass, graph: Graph, error: BaseException) -> None:
        self.log.append(f"{self.name} failed {pass_.name}: {error}")


def test_instruments_are_told_in_order() -> None:
    log: list[str] = []
    watched = Pipeline(
        [Pipeline("dce"), Act(raising(GraphError("no")))], instruments=[Recorder(log, "1"), Recorder(log, "2")]
    )
    with pytest.raises(GraphError):
        watched.run(graph())
    assert log == [
        "1 before dce",
        "2 before dce",
        "2 after dce: True",
        "1 after dce: True",
        "1 before act",
        "2 before act",
        "2 failed act: in the pass 'act': no",
        "1 failed act: in the pass 'act': no",
    ]


def test_print_after(capsys: pytest.CaptureFixture[str]) -> None:
    Pipeline("dce,options,cse", instruments=[PrintAfter()]).run(graph())
    printed = capsys.readouterr().out
    small = Pipeline("dce").apply(graph())
    assert printed == "".join(
        f"# after {name}\n{to_text(small)}\n" for name in ("dce", "options (nothing changed)", "cse (nothing changed)")
    )
    file = io.StringIO()
    Pipeline("dce,options,cse", instruments=[PrintAfter(["cse", "options"], file=file)]).run(graph())
    assert [line for line in file.getvalue().splitlines() if line.startswith("#")] == [
        "# after options (nothing changed)",
        "# after cse (nothing changed)",
    ]
    file = io.StringIO()
    Pipeline("dce,options", instruments=[PrintAfter(changed_only=True, file=file)]).run(graph())
    assert file.getvalue().count("# after") == 1


def test_timing() -> None:
    timing = Timing()
    Pipeline("dce,options", instruments=[timing]).run(graph())
    assert [(name, changed) for name, _, changed in timing.rows] == [("dce", True), ("options", False)]
    assert all(seconds >= 0 for _, seconds, _ in timing.rows)
    lines = str(timing).splitlines()
    assert lines[0].split() == ["pass", "time"]
    assert lines[2].endswith("nothing changed")
    assert lines[3].startswith("total")


def test_node_counts() -> None:
    counts = NodeCounts()
    Pipeline("dce,options", instruments=[counts]).run(graph())
    assert counts.rows[0] == (
        "dce",
        {Role.FORWARD: 1, Role.BACKWARD: 1, Role.RECOMPUTE: 1},
        {Role.FORWARD: 1, Role.BACKWARD: 1},
    )
    assert [line.split() for line in str(counts).splitlines()] == [
        ["pass", "nodes", "forward", "backward", "recompute"],
        ["dce", "3", "->", "2", "1", "1", "1", "->", "0"],
        ["options", "2", "1", "1", "0"],
    ]
    assert str(NodeCounts()) == "pass  nodes"


def test_dump_on_failure(tmp_path: Path) -> None:
    dump = DumpOnFailure(tmp_path / "dumps")
    g = graph()
    g.add_constant(np.arange(100.0), "large")

    def fail(inner: Graph) -> None:
        inner.rename(inner.value("a"), "half_done")
        raise GraphError("two\nlines")

    with pytest.raises(GraphError):
        Pipeline([Options(), Act(fail)], instruments=[dump]).run(g.copy())
    assert dump.path == tmp_path / "dumps" / "02-act.ir"
    text = dump.path.read_text(encoding="utf-8")
    assert text.splitlines()[1].startswith("# pipeline: act{action=")
    assert text.splitlines()[2:5] == ["# which failed:", "# in the pass 'act': two", "# lines"]
    assert graphs_equal(parse_text(text), g) is None
    fine = DumpOnFailure(tmp_path / "none")
    Pipeline("dce", instruments=[fine]).run(g)
    assert fine.path is None
    assert not (tmp_path / "none").exists()
