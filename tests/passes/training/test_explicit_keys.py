"""Random numbers as functions of a key, in graphs and in their subgraphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

import irgrad as ig
from irgrad.errors import PassError
from irgrad.graph import Graph, Role
from irgrad.passes.autodiff.expand import expand
from irgrad.passes.training.explicit_keys import ExplicitKeys, draws
from irgrad.pipeline import Pipeline
from irgrad.verify import verify
from tests.frontends.build import array, graph, model, node, scalar, value

X = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
PROBABILITIES = np.random.default_rng(1).uniform(0, 1, (30, 20)).astype(np.float32)


def keyed(source: Any, **options: Any) -> Graph:
    loaded = source if isinstance(source, Graph) else ig.load(source)
    result = Pipeline(ExplicitKeys(**options), truthful=True).apply(loaded)
    verify(result, types=True)
    assert not any(draws(n) for inner in result.walk() for n in inner.nodes())
    return result


def one_node(
    op: str, *, operand: bool = True, outputs: Sequence[str] = ("y",), elem: int = TensorProto.FLOAT, **attrs: Any
) -> Any:
    nodes = [node(op, ["x"] if operand else [], list(outputs), name="draw", **attrs)]
    return model(nodes, [value("x", (30, 20))] if operand else [], [helper.make_empty_tensor_value_info(n) for n in outputs])


def run(g: Graph, **feeds: Any) -> dict[str, np.ndarray]:
    return ig.compile(g)(feeds)


# --- each operation ---------------------------------------------------------------------------------------------------

TYPES = [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE]


@pytest.mark.parametrize("elem", TYPES)
@pytest.mark.parametrize("op", ["RandomUniform", "RandomNormal"])
@pytest.mark.parametrize("like", [False, True], ids=["", "like"])
@pytest.mark.parametrize("given", [False, True], ids=["defaults", "options"])
def test_numbers(op: str, like: bool, elem: int, given: bool) -> None:
    options = ({"low": -2.0, "high": 3.0} if op == "RandomUniform" else {"mean": 2.0, "scale": 0.5}) if given else {}
    shape = {} if like else {"shape": [30, 20]}
    g = keyed(one_node(op + "Like" * like, operand=like, dtype=elem, **options, **shape))
    feeds = {"x": X} if like else {}
    first, again, other = (run(g, key=k, **feeds)["y"] for k in (1, 1, 2))
    assert first.dtype == helper.tensor_dtype_to_np_dtype(elem)
    assert first.shape == X.shape
    np.testing.assert_array_equal(first, again)
    first, other = first.astype(np.float64), other.astype(np.float64)
    assert (first != other).mean() > 0.9
    if op == "RandomUniform":
        low, high = (-2, 3) if given else (0, 1)
        assert low <= first.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < first.max() < high
    else:
        mean, scale = (2, 0.5) if given else (0, 1)
        assert abs(first.mean() - mean) < 4.5 * scale / np.sqrt(X.size)
        assert abs(first.std() - scale) < 4.5 * scale / np.sqrt(2 * X.size)


def test_an_upper_end_that_rounding_reaches_is_left_out() -> None:
    for low, high in ((1e6, 1e6 + 1), (1e6 + 1, 1e6)):
        g = keyed(one_node("RandomUniform", operand=False, shape=[2000], low=low, high=high))
        numbers = run(g, key=0)["y"]
        assert high not in numbers
        assert low in numbers


@pytest.mark.parametrize("elem", [TensorProto.BOOL, TensorProto.INT8, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_bernoulli(elem: int) -> None:
    g = keyed(one_node("Bernoulli", dtype=elem))
    p = np.repeat(np.float32([[0, 0.2, 0.7, 1]]), 150, axis=0).reshape(30, 20)
    ones = run(g, x=p, key=3)["y"]
    assert ones.dtype == helper.tensor_dtype_to_np_dtype(elem)
    for share in np.unique(p):
        assert abs(ones[p == share].astype(float).mean() - share) <= 4.5 * np.sqrt(share * (1 - share) / 150)


@pytest.mark.parametrize("shape", [(2, 4), ("N", None)], ids=["static", "dynamic"])
def test_multinomial(shape: Any) -> None:
    nodes = [node("Multinomial", ["x"], ["y"], sample_size=5000, dtype=TensorProto.INT64)]
    g = keyed(model(nodes, [value("x", shape)], [value("y", None, TensorProto.INT64)]))
    weights = np.array([[0.5, 0.2, 0.3, 0], [0, 0, 0.9, 0.1]])
    with np.errstate(divide="ignore"):
        classes = run(g, x=np.log(weights).astype(np.float32), key=5)["y"]
    assert classes.shape == (2, 5000)
    for row, expected in zip(classes, weights, strict=True):
        counts = np.bincount(row, minlength=4) / 5000
        assert np.abs(counts - expected).max() < 4.5 * 0.5 / np.sqrt(5000)
        assert (counts[expected == 0] == 0).all()


def dropout(
    ratio: float | None = 0.25,
    training: Any = True,
    fed: Sequence[str] = (),
    outputs: Sequence[str] = ("y", "mask"),
    **attrs: Any,
) -> Any:
    initializers = [] if ratio is None else [array("ratio", ratio)]
    initializers.append(array("training", training, bool))
    types = {"ratio": TensorProto.FLOAT, "training": TensorProto.BOOL}
    return model(
        [node("Dropout", ["x", "" if ratio is None else "ratio", "training"], list(outputs), name="drop", **attrs)],
        [value("x", (30, 20)), *(scalar(name, types[name]) for name in fed)],
        [helper.make_empty_tensor_value_info(n) for n in outputs],
        [t for t in initializers if t.name not in fed],
        opsets=22,
    )


@pytest.mark.parametrize("ratio", [0.25, None])
def test_dropout(ratio: float | None) -> None:
    g = keyed(dropout(ratio))
    found = run(g, x=X, key=1)
    rate = 0.5 if ratio is None else ratio
    np.testing.assert_allclose(found["y"], np.where(found["mask"], X / np.float32(1 - rate), 0), rtol=1e-6)
    assert abs(found["mask"].mean() - (1 - rate)) < 4.5 * np.sqrt(rate * (1 - rate) / X.size)
    np.testing.assert_array_equal(run(g, x=X, key=1)["y"], found["y"])
    assert (run(g, x=X, key=2)["mask"] != found["mask"]).any()


def test_dropout_whose_ratio_and_mode_are_fed() -> None:
    g = keyed(dropout(fed=("ratio", "training")))
    off = run(g, x=X, key=1, ratio=0.25, training=False)
    np.testing.assert_array_equal(off["y"], X)
    assert off["mask"].all()
    for ratio in (0.0, 0.9, 1.0):
        on = run(g, x=X, key=1, ratio=ratio, training=True)
        assert abs(on["mask"].mean() - (1 - ratio)) <= 4.5 * np.sqrt(ratio * (1 - ratio) / X.size)
        assert np.isfinite(on["y"]).all()


@pytest.mark.parametrize("first", [True, False], ids=["keys-then-gradient", "gradient-then-keys"])
def test_gradient_of_keyed_dropout(first: bool) -> None:
    graph = ig.load(dropout(fed=("ratio", "training"), outputs=("y",)))
    wrt = ["x", "ratio"]
    joint = ig.vjp(keyed(graph), wrt) if first else keyed(ig.vjp(graph, wrt))
    feeds = {"x": X, "key": 1, "ratio": 0.3, "training": True, "y_cotangent": np.ones_like(X)}
    found = run(joint, **feeds)
    kept = found["y"] != 0
    np.testing.assert_allclose(found["x_grad"], np.where(kept, 1 / 0.7, 0), rtol=1e-6)
    np.testing.assert_allclose(found["ratio_grad"], (X * kept).sum() / 0.7**2, rtol=1e-4)
    for ratio, training in ((0.3, False), (1.0, True)):
        found = run(joint, **{**feeds, "ratio": ratio, "training": training})
        np.testing.assert_array_equal(found["x_grad"], np.full_like(X, 1 - training))
        assert found["ratio_grad"] == 0
    ig.check_grads(keyed(graph), {k: v for k, v in feeds.items() if k != "y_cotangent"}, ["x", "ratio"])


# --- keys -------------------------------------------------------------------------------------------------------------


def two_draws(**attrs: Any) -> Any:
    nodes = [node("RandomUniform", [], [n], name=n, shape=[50], **attrs) for n in ("a", "b")]
    return model(nodes, [], [value("a", (50,)), value("b", (50,))])


def test_nodes_of_one_seed_draw_independently() -> None:
    found = run(keyed(two_draws(seed=0.0)), key=0)
    assert (found["a"] != found["b"]).all()


def test_a_seed_changes_the_numbers() -> None:
    draws_of = [run(keyed(two_draws(**attrs)), key=0)["a"] for attrs in ({}, {"seed": 0.0}, {"seed": 1.0})]
    assert (draws_of[0] != draws_of[1]).all()
    assert (draws_of[1] != draws_of[2]).all()


def test_a_node_keeps_its_numbers_when_others_go() -> None:
    whole = ig.load(two_draws())
    part = whole.copy()
    part.set_outputs({"b": part.value("b")})
    np.testing.assert_array_equal(run(keyed(ig.apply(part, "dce")), key=7)["b"], run(keyed(whole), key=7)["b"])


def test_rewriting_does_not_change_the_numbers() -> None:
    g = keyed(two_draws())
    want = run(g, key=9)
    for pipeline in ("simplify", "cse,fold,dce"):
        found = run(ig.apply(g, pipeline), key=9)
        for name, numbers in want.items():
            np.testing.assert_array_equal(found[name], numbers)
    for n in g.nodes():
        if n.op.has_lowering:
            expand(g, n)
    found = run(g, key=9)
    for name, numbers in want.items():
        np.testing.assert_array_equal(found[name], numbers)


def test_a_key_that_is_there_is_used_and_another_name_can_be_chosen() -> None:
    nodes = [node("RandomUniform", [], ["y"], shape=[3]), node("Cast", ["key"], ["k"], to=1), node("Add", ["y", "k"], ["z"])]
    proto = model(nodes, [scalar("key", TensorProto.INT64)], [value("z", (3,))])
    assert list(keyed(proto).inputs) == ["key"]
    assert list(keyed(proto, key="seed").inputs) == ["key", "seed"]
    proto.graph.input[0].CopyFrom(scalar("key", TensorProto.INT32))
    with pytest.raises(PassError, match=r"'key'.*is taken"):
        keyed(proto)


def test_a_graph_that_draws_nothing_stays_as_it_is() -> None:
    plain = model([node("Tanh", ["x"], ["y"])], [value("x")], [value("y")])
    zero = node("Constant", [], ["r"], value_float=0.0)
    idle = [zero, node("Cast", ["on"], ["t"], to=TensorProto.BOOL), node("Dropout", ["x", "r", "t"], ["y"])]
    for proto in (dropout(training=False), plain, model(idle, [value("x"), scalar("on")], [value("y")])):
        assert not Pipeline(ExplicitKeys(), truthful=True).run(ig.load(proto))


def test_random_recomputation_is_refused() -> None:
    g = ig.load(two_draws())
    g.node("a").role = Role.RECOMPUTE
    with pytest.raises(PassError, match="before recomputation"):
        keyed(g)


def test_an_unknown_way_to_draw_is_refused() -> None:
    class Noise(ig.Op):
        pass

    g = Graph("noise")
    x = g.add_input("x", ig.TensorType(np.dtype(np.float32), (2,)))
    g.set_outputs(g.add_node(Noise("Noise", domain="custom", random=True), [x], [x.type]).outputs)
    with pytest.raises(PassError, match=r"1 node\(s\) draw random numbers in a way that is not known.*custom.Noise"):
        keyed(g)


def test_an_operation_that_draws_by_its_lowering_is_expanded() -> None:
    noise = ig.Op("Noise", domain="custom", random=True)

    @noise.lower
    def _(b: ig.Builder, n: ig.Node) -> ig.Value:
        return b.op("Add", n.operand(0), b.op("RandomNormalLike", n.operand(0)))

    g = Graph("noise")
    x = g.add_input("x", ig.TensorType(np.dtype(np.float32), (20,)))
    g.set_outputs(g.add_node(noise, [x], [x.type]).outputs)
    (found,) = run(keyed(g), x=X[0], key=0).values()
    assert (found != X[0]).all()


# --- subgraphs --------------------------------------------------------------------------------------------------------


def branch(name: str, ratio: float) -> Any:
    nodes = [
        node("Constant", [], [f"{name}/r"], value=array("", ratio)),
        node("Constant", [], [f"{name}/t"], value=array("", True, bool)),
        node("Dropout", ["x", f"{name}/r", f"{name}/t"], [name], name="drop"),
    ]
    return graph(nodes, (), [value(name, (30, 20))], name=name)


def test_if() -> None:
    nodes = [
        node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch("one", 0.5),
            else_branch=graph([node("Identity", ["x"], ["two"])], (), [value("two", (30, 20))]),
        ),
        node("Dropout", ["x", "ratio", "on"], ["z"], name="drop"),
    ]
    proto = model(
        nodes,
        [scalar("c", TensorProto.BOOL), value("x", (30, 20))],
        [value("y", (30, 20)), value("z", (30, 20))],
        [array("ratio", 0.5), array("on", True, bool)],
        opsets=22,
    )
    g = keyed(proto)
    taken, other = (run(g, x=X, c=c, key=4) for c in (True, False))
    assert 0.4 < (taken["y"] == 0).mean() < 0.6
    assert ((taken["y"] == 0) != (taken["z"] == 0)).any()
    np.testing.assert_array_equal(other["y"], X)
    np.testing.assert_array_equal(run(g, x=X, c=True, key=4)["y"], taken["y"])


def loop(trips: int = 4, *, rank: int = 0) -> Any:
    """Scan outputs are what each iteration drew."""
    number = scalar("i", TensorProto.INT64) if rank == 0 else value("i", (1,), TensorProto.INT64)
    body = graph(
        [
            node("Identity", ["c"], ["c_out"]),
            node("RandomUniform", [], ["u"], name="draw", shape=[50]),
            node("Add", ["s", "u"], ["s_out"]),
            node("Add", ["u", "shift"], ["drawn"]),
        ],
        [number, scalar("c", TensorProto.BOOL), value("s", (50,))],
        [scalar("c_out", TensorProto.BOOL), value("s_out", (50,)), value("drawn", (50,))],
    )
    return model(
        [node("Loop", ["trips", "", "start"], ["sum", "all"], body=body)],
        [value("start", (50,)), value("shift", (1,))],
        [value("sum", (50,)), value("all", (trips, 50))],
        [array("trips", trips, np.int64)],
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_loop(rank: int) -> None:
    g = keyed(loop(rank=rank))
    feeds: dict[str, Any] = {"start": np.zeros(50, np.float32), "shift": np.zeros(1, np.float32)}
    found = run(g, key=6, **feeds)
    assert np.unique(found["all"]).size == found["all"].size
    np.testing.assert_allclose(found["sum"], found["all"].sum(0), rtol=1e-6)
    np.testing.assert_array_equal(run(g, key=6, **feeds)["all"], found["all"])
    assert (run(g, key=7, **feeds)["all"] != found["all"]).all()


@pytest.mark.parametrize("directions", [None, [1]], ids=["forward", "backward"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", [4, "T", None])
def test_scan(directions: list[int] | None, axis: int, length: Any) -> None:
    body = graph(
        [
            node("RandomNormalLike", ["x"], ["noise"], name="draw"),
            node("Add", ["noise", "shift"], ["drawn"]),
            node("Add", ["s", "x"], ["s_out"]),
        ],
        [value("s", (50,)), value("x", (50,))],
        [value("s_out", (50,)), value("drawn", (50,))],
    )
    attrs = {} if directions is None else {"scan_input_directions": directions}
    shape = (length, 50) if axis == 0 else (50, length)
    proto = model(
        [node("Scan", ["start", "xs"], ["end", "all"], body=body, num_scan_inputs=1, scan_input_axes=[axis], **attrs)],
        [value("start", (50,)), value("xs", shape), value("shift", (1,))],
        [value("end", (50,)), value("all", None)],
    )
    g = keyed(proto)
    xs = np.arange(200, dtype=np.float32).reshape((4, 50) if axis == 0 else (50, 4))
    feeds: dict[str, Any] = {"start": np.zeros(50, np.float32), "xs": xs, "shift": np.full(1, 100, np.float32)}
    found = run(g, key=6, **feeds)
    np.testing.assert_array_equal(found["end"], xs.sum(axis))
    assert np.unique(found["all"]).size > 0.99 * found["all"].size
    assert abs(found["all"].mean() - 100) < 4.5 / np.sqrt(200)
    np.testing.assert_array_equal(run(g, key=6, **feeds)["all"], found["all"])


def test_subgraphs_of_subgraphs() -> None:
    inner: NodeProto = node("RandomUniform", [], ["u"], name="draw", shape=[5])
    deep = graph([inner, node("Add", ["u", "x"], ["out"])], (), [value("out", (5,))])
    plain = graph([node("Identity", ["x"], ["same"])], (), [value("same", (5,))])
    condition: ValueInfoProto = scalar("c", TensorProto.BOOL)
    outer = graph([node("If", ["c"], ["in"], then_branch=deep, else_branch=plain)], (), [value("in", (5,))])
    proto = model(
        [
            node(
                "If", ["c"], ["y"], then_branch=outer, else_branch=graph([node("Neg", ["x"], ["n"])], (), [value("n", (5,))])
            )
        ],
        [condition, value("x", (5,))],
        [value("y", (5,))],
    )
    g = keyed(proto)
    x = np.zeros(5, np.float32)
    np.testing.assert_array_equal(run(g, c=True, x=x, key=1)["y"], run(g, c=True, x=x, key=1)["y"])
    assert (run(g, c=True, x=x, key=1)["y"] != run(g, c=True, x=x, key=2)["y"]).all()
