"""Optimizers: a hundred steps against the formula in numpy, and against torch.optim where torch is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import irgrad as ig
from irgrad.errors import PassError, UsageError
from irgrad.graph import Graph
from irgrad.passes.training.optimizer import Optimizer
from irgrad.passes.training.optimizers import SGD, Adagrad, Adam, AdamW, Lion, RMSprop
from irgrad.pipeline import Pipeline
from irgrad.verify import verify

TEXT = """
graph line {
  input %x: f32[N,3]
  param %w: f32[3,2]{...}
  param %b: f32[2]{0.5,-0.25}
  param %idle: f32[4]{1.0}
  %h = MatMul(%x, %w)
  %y = Add(%h, %b)
  output y
}
"""
GENERATOR = np.random.default_rng(0)
LINE = ig.parse_text(TEXT, {"w": GENERATOR.standard_normal((3, 2)).astype(np.float32)})
X, TARGET = GENERATOR.standard_normal((8, 3)), GENERATOR.standard_normal((8, 2))
LONG = GENERATOR.standard_normal(50).astype(np.float32)
RATE = 2.0**-5  # a float32 and a float64 alike
STEPS = 100
DATA = {"x": X.astype(np.float32), "target": TARGET.astype(np.float32)}


def step_of(pipeline: str | Optimizer, dtype: str = "f32") -> Graph:
    joint = ig.grad(ig.apply(LINE, f"convert_float{{to={dtype}}}"), loss="mse")
    joint = ig.apply(joint, pipeline, truthful=True)
    verify(joint, types=True)
    assert not Pipeline(pipeline, truthful=True).run(joint), "a second time changes nothing"
    return joint


def trajectory(joint: Graph, steps: int = STEPS) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What each step returns, and the state after it."""
    run, state = ig.compile(joint), ig.initial_state(joint)
    types = {name: value.dtype for name, value in joint.inputs.items()}
    for step in range(1, steps + 1):
        feeds = {"x": X, "target": TARGET, "learning_rate": RATE, "step": step}
        results = run({**{n: np.asarray(a, types[n]) for n, a in feeds.items() if n in types}, **state})
        state = {name: results[output] for name, output in ig.updates(joint).items()}
        yield results, state


# --- the formulae, told once more in numpy -----------------------------------------------------------------------------

Formula = Callable[[int, np.ndarray, np.ndarray, dict[str, Any]], np.ndarray]
"""``formula(t, x, g, s)``: the next x; s is what it remembers, empty at first."""


def sgd(momentum: float = 0, dampening: float = 0, nesterov: bool = False, decay: float = 0) -> Formula:
    def formula(t: int, x: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        g = g + decay * x
        s["v"] = g if t == 1 else momentum * s["v"] + (1 - dampening) * g
        direction = g + momentum * s["v"] if nesterov else s["v"] if momentum else g
        return x - RATE * direction

    return formula


def adagrad(rate_decay: float = 0, initial: float = 0, decay: float = 0) -> Formula:
    def formula(t: int, x: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        g = g + decay * x
        s["s"] = s.get("s", initial) + g**2
        return x - RATE / (1 + (t - 1) * rate_decay) * g / (np.sqrt(s["s"]) + 1e-10)

    return formula


def rmsprop(momentum: float = 0, centered: bool = False, decay: float = 0, alpha: float = 0.99) -> Formula:
    def formula(t: int, x: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        g = g + decay * x
        s["s"] = alpha * s.get("s", 0) + (1 - alpha) * g**2
        s["m"] = alpha * s.get("m", 0) + (1 - alpha) * g
        root = np.sqrt(np.maximum(s["s"] - s["m"] ** 2, 0) if centered else s["s"]) + 1e-8
        s["v"] = momentum * s.get("v", 0) + g / root
        return x - RATE * s["v"]

    return formula


def adam(decay: float = 0, decoupled: bool = False, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Formula:
    def formula(t: int, x: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        g, x = (g, x - RATE * decay * x) if decoupled else (g + decay * x, x)
        s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
        s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g**2
        return x - RATE * (s["m"] / (1 - beta1**t)) / (np.sqrt(s["v"] / (1 - beta2**t)) + eps)

    return formula


def lion(decay: float = 0, beta1: float = 0.9, beta2: float = 0.99) -> Formula:
    def formula(t: int, x: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        m = s.get("m", np.zeros_like(g))
        s["m"] = beta2 * m + (1 - beta2) * g
        return x - RATE * (np.sign(beta1 * m + (1 - beta1) * g) + decay * x)

    return formula


CASES: dict[str, tuple[Optimizer, Formula, str, dict[str, Any]]] = {
    "sgd": (SGD(), sgd(), "SGD", {}),
    "sgd-decay": (SGD(weight_decay=0.1), sgd(decay=0.1), "SGD", {"weight_decay": 0.1}),
    "sgd-momentum": (SGD(momentum=0.9), sgd(0.9), "SGD", {"momentum": 0.9}),
    "sgd-nesterov": (
        SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
        sgd(0.9, nesterov=True, decay=0.1),
        "SGD",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "sgd-dampening": (SGD(momentum=0.9, dampening=0.5), sgd(0.9, 0.5), "SGD", {"momentum": 0.9, "dampening": 0.5}),
    "adagrad": (Adagrad(), adagrad(), "Adagrad", {}),
    "adagrad-all": (
        Adagrad(rate_decay=0.01, initial=0.1, weight_decay=0.1),
        adagrad(0.01, 0.1, 0.1),
        "Adagrad",
        {"lr_decay": 0.01, "initial_accumulator_value": 0.1, "weight_decay": 0.1},
    ),
    "rmsprop": (RMSprop(), rmsprop(), "RMSprop", {}),
    "rmsprop-momentum": (RMSprop(momentum=0.5), rmsprop(0.5), "RMSprop", {"momentum": 0.5}),
    "rmsprop-centered": (
        RMSprop(centered=True, weight_decay=0.1, alpha=0.9),
        rmsprop(centered=True, decay=0.1, alpha=0.9),
        "RMSprop",
        {"centered": True, "weight_decay": 0.1, "alpha": 0.9},
    ),
    "rmsprop-all": (
        RMSprop(centered=True, momentum=0.5),
        rmsprop(0.5, centered=True),
        "RMSprop",
        {"centered": True, "momentum": 0.5},
    ),
    "adam": (Adam(), adam(), "Adam", {}),
    "adam-all": (
        Adam(weight_decay=0.1, beta1=0.8, beta2=0.99, eps=1e-3),
        adam(0.1, False, 0.8, 0.99, 1e-3),
        "Adam",
        {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-3},
    ),
    "adamw": (AdamW(), adam(0.01, decoupled=True), "AdamW", {}),
    "adamw-no-decay": (AdamW(weight_decay=0), adam(), "AdamW", {"weight_decay": 0}),
    "lion": (Lion(), lion(), "", {}),
    "lion-decay": (Lion(weight_decay=0.1, beta1=0.8, beta2=0.9), lion(0.1, 0.8, 0.9), "", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hundred_steps_of_the_formula(case: str) -> None:
    optimizer, formula, _, _ = CASES[case]
    joint = step_of(optimizer, "f64")
    want = {name: joint.parameters[name] for name in joint.gradients}
    memories: dict[str, dict[str, Any]] = {name: {} for name in want}
    for t, (results, state) in enumerate(trajectory(joint), 1):
        for name, gradient in joint.gradients.items():
            want[name] = formula(t, want[name], results[gradient], memories[name])
            np.testing.assert_allclose(state[name], want[name], rtol=1e-12, atol=1e-12, err_msg=f"{name}, step {t}")
    moved = [name for name in want if (want[name] != joint.parameters[name]).any()]
    assert {"w", "b"} <= set(moved)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-6), ("f64", 1e-12)])
@pytest.mark.parametrize("case", [case for case, (_, _, name, _) in CASES.items() if name])
def test_a_hundred_steps_of_torch(case: str, dtype: str, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    optimizer, _, name, options = CASES[case]
    joint = step_of(optimizer, dtype)
    theirs = {n: torch.nn.Parameter(torch.tensor(joint.parameters[n])) for n in joint.gradients}
    stepper = getattr(torch.optim, name)(list(theirs.values()), lr=RATE, **options)
    for results, state in trajectory(joint):
        for n, parameter in theirs.items():
            parameter.grad = torch.tensor(results[joint.gradients[n]])
        stepper.step()
        for n, parameter in theirs.items():
            np.testing.assert_allclose(state[n], parameter.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=n)


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("optimizer", [AdamW(), SGD(momentum=0.9), Lion()], ids=lambda o: o.name)
def test_parameters_of_16_bits_are_moved_in_float32(optimizer: Optimizer, dtype: str) -> None:
    narrow = np.dtype(np.float16 if dtype == "f16" else ml_dtypes.bfloat16)
    joint = step_of(optimizer, dtype)
    states = {name for name in ig.updates(joint) if name in joint.inputs}
    assert {joint.inputs[name].dtype.name for name in states} == {"float32"}
    formula = {"adamw": adam(0.01, decoupled=True), "sgd": sgd(0.9), "lion": lion()}[optimizer.name]
    memory: dict[str, Any] = {}
    before, spacing = joint.parameters["w"].astype(np.float64), 2.0**-10 if dtype == "f16" else 2.0**-7
    for t, (results, state) in enumerate(trajectory(joint, 20), 1):
        assert state["w"].dtype == narrow
        want = formula(t, before, results["w_grad"].astype(np.float64), memory)
        before = state["w"].astype(np.float64)
        np.testing.assert_allclose(before, want, rtol=spacing, err_msg=f"step {t}")


def test_a_gradient_that_is_zero_moves_nothing_but_by_decay() -> None:
    for optimizer in (AdamW(weight_decay=0), RMSprop(centered=True), Adagrad(), Lion(), SGD(momentum=0.9)):
        *_, (_, state) = trajectory(step_of(optimizer), 3)
        np.testing.assert_array_equal(state["idle"], np.ones(4, np.float32), err_msg=optimizer.name)
    *_, (_, state) = trajectory(step_of(AdamW(weight_decay=0.5)), 2)
    np.testing.assert_allclose(state["idle"], np.full(4, (1 - RATE / 2) ** 2), rtol=1e-6)


def test_a_variance_that_rounding_makes_negative_is_zero() -> None:
    """A gradient that stays the same has the variance 0, and what is computed of it may be less."""
    graph = ig.parse_text("graph g { param %w: f32[50]{...} %loss = ReduceSum(%w, keepdims=0) output loss }", {"w": LONG})
    joint = ig.apply(ig.grad(graph), "rmsprop{centered=true,alpha=0.5}")
    run, state = ig.compile(joint), ig.initial_state(joint)
    for _ in range(STEPS):
        results = run({**state, "learning_rate": RATE})
        state = {name: results[output] for name, output in ig.updates(joint).items()}
        assert all(np.isfinite(array).all() for array in state.values())


# --- which parameters, which names ------------------------------------------------------------------------------------


def test_only_what_matches_decays() -> None:
    joint = step_of(AdamW(weight_decay=0.5, decay=("w",)))
    _, state = next(trajectory(joint, 1))
    _, plain = next(trajectory(step_of(AdamW(weight_decay=0)), 1))
    np.testing.assert_array_equal(state["b"], plain["b"])
    np.testing.assert_allclose(state["w"], plain["w"] - RATE / 2 * LINE.parameters["w"], rtol=1e-5)


def test_several_optimizers_each_for_some_parameters() -> None:
    joint = ig.apply(ig.grad(LINE, loss="mse"), "sgd{only=b,learning_rate=slow},adamw{skip=idle}")
    assert {name for name in ig.updates(joint) if name in joint.parameters} == {"w", "b"}
    assert list(joint.inputs) == ["x", "target", "slow", "learning_rate", "step", "w.adamw.m", "w.adamw.v"]
    results = ig.compile(joint)({**DATA, **ig.initial_state(joint), "slow": 0, "learning_rate": RATE, "step": 1})
    np.testing.assert_array_equal(results["b_next"], LINE.parameters["b"])
    np.testing.assert_array_equal(results["b_grad"], ig.compile(ig.grad(LINE, loss="mse"))(DATA)["b_grad"])


def test_what_a_step_returns_and_begins_with() -> None:
    joint = ig.apply(ig.grad(LINE, wrt=["b"], loss="mse"), "adagrad{initial=0.5},simplify")
    assert ig.updates(joint) == {"b": "b_next", "b.adagrad.s": "b.adagrad.s_next"}
    state = ig.initial_state(joint)
    assert list(state) == ["b", "b.adagrad.s"]
    np.testing.assert_array_equal(state["b.adagrad.s"], np.full(2, 0.5, np.float32))
    assert {node.role for node in joint.nodes()} == {ig.Role.FORWARD, ig.Role.BACKWARD, ig.Role.UPDATE}
    assert joint.gradients == {"b": "b_grad"}


@pytest.mark.parametrize("way", ["text", "onnx"])
def test_the_updates_and_the_states_survive_a_file(way: str) -> None:
    joint = step_of("adamw")
    again = ig.parse_text(ig.to_text(joint, "full")) if way == "text" else ig.load(ig.to_onnx(joint))
    assert ig.updates(again) == ig.updates(joint)
    for name, array in ig.initial_state(joint).items():
        np.testing.assert_array_equal(ig.initial_state(again)[name], array)


def test_parameters_that_are_inputs() -> None:
    graph = ig.parse_text(
        "graph g { input %x: f32[N,3] input %w: f32[3,M] %h = MatMul(%x, %w) %loss = ReduceSum(%h, keepdims=0) output loss }"
    )
    joint = ig.apply(ig.grad(graph, wrt=["w"]), "sgd{momentum=0.9}")
    assert ig.updates(joint) == {"w": "w_next", "w.sgd.v": "w.sgd.v_next"}
    with pytest.raises(UsageError, match=r"the state 'w\.sgd\.v' is f32\[3,M\]"):
        ig.initial_state(joint)
    assert ig.initial_state(ig.apply(ig.grad(graph, wrt=["w"]), "sgd")) == {}


def test_running_statistics_are_state_too() -> None:
    graph = ig.parse_text(
        "graph g { input %x: f32[N,2] param %s: f32[2]{1.0} param %b: f32[2]{0.0}"
        " param %m: f32[2]{0.0} param %v: f32[2]{1.0} %y = BatchNormalization(%x, %s, %b, %m, %v) output y }"
    )
    joint = ig.apply(ig.grad(ig.apply(graph, "train_mode"), loss="mse"), "sgd")
    assert list(ig.initial_state(joint)) == list(ig.updates(joint)) == ["m", "v", "s", "b"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("adamw{beta1=1}", r"beta1=1 is out of range: it has to be at least 0 and less than 1"),
        ("adam{eps=-1}", r"eps=-1 is out of range: it has to be at least 0$"),
        ("sgd{weight_decay=-0.1}", r"weight_decay=-0\.1 is out of range"),
        ("sgd{nesterov=true}", r"nesterov=true needs a momentum and no dampening"),
        ("sgd{momentum=0.9,dampening=0.1,nesterov=true}", r"nesterov=true needs"),
        ("rmsprop{alpha=nan}", r"alpha=nan is out of range"),
        ("sgd{only=nothing.*}", r"only= and skip= leave none of the gradients, which are those of w, b, idle"),
        ("sgd{learning_rate=x}", r"the name 'x', which the optimizer needs for an input of f32\[\], is taken"),
        ("adam{step=w}", r"the name 'w', which the optimizer needs for an input of i64\[\], is taken"),
        ("lino", r"there is no pass 'lino'; did you mean 'lion'"),
    ],
)
def test_options_out_of_range(pipeline: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        ig.apply(ig.grad(LINE, loss="mse"), pipeline)


def test_graphs_that_cannot_be_updated() -> None:
    with pytest.raises(PassError, match="the graph returns no gradients; differentiate it first"):
        ig.apply(LINE, "adamw")
    with pytest.raises(PassError, match=r"%h: f32\[N,2\] is computed, so that no update can be put back; leave it out"):
        ig.apply(ig.grad(LINE, wrt=["w", "h"], loss="mse"), "adamw")
    ig.apply(ig.grad(LINE, wrt=["w", "h"], loss="mse"), "adamw{skip=h}")
    taken = ig.grad(LINE, loss="mse")
    taken.add_input("w_next", taken.inputs["x"].type)
    with pytest.raises(PassError, match="the name 'w_next', which the update of 'w' needs, is taken"):
        ig.apply(taken, "adamw")
