"""Plugins: an installed one that brings an operation, a pass and a frontend; collisions, broken ones, laziness."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from irgrad.builtin import plugin as builtin
from irgrad.errors import PluginError
from irgrad.plugin import KINDS, Plugin, Registry

ROOT = Path(__file__).parent.parent
EXAMPLE = Path(__file__).parent / "plugin_example"


# --- the example, installed -------------------------------------------------------------------------------------------


def install_with_pip(source: Path, target: Path) -> None:
    if not find_spec("pip") or not find_spec("setuptools"):
        pytest.skip("pip or setuptools is not installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)


def install_by_hand(source: Path, target: Path) -> None:
    """What pip would leave behind, without pip, setuptools or a build."""
    shutil.copytree(source / "irgrad_example", target / "irgrad_example")
    info = target / "irgrad_example-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: irgrad-example\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[irgrad.plugins]\nexample = irgrad_example:plugin\n", encoding="utf-8")


@pytest.fixture(scope="module", params=[install_with_pip, install_by_hand])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")  # building leaves files beside what is built
    request.param(folder / "source", folder / "site")
    return folder / "site"


def run(script: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def succeed(script: str, *paths: Path) -> str:
    done = run(script, *paths)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_example_offers_all_it_has(installed: Path, tmp_path: Path) -> None:
    formula = tmp_path / "clip.rpn"
    formula.write_text("x 2 / tanh 2 * y +", encoding="utf-8")
    script = f"""
import numpy as np
import irgrad
from irgrad.frontend import load
from irgrad.gradcheck import check_grads
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.pipeline import Pipeline
from irgrad.plugin import registry
from irgrad.runtime import compile
from irgrad.text import parse_text, to_text

assert registry.provider("passes", "fuse_soft_clip") == "irgrad-example"
assert registry.provider("passes", "simplify") == "irgrad"
graph = load({str(formula)!r})
fused = Pipeline("fuse_soft_clip,simplify").apply(graph)
print([node.op.qualified_name for node in fused.nodes()])
feeds = {{"x": np.array([0.1, 5, -9], np.float32), "y": np.array([1, 2, 3], np.float32)}}
np.testing.assert_allclose(compile(fused)(feeds)["result"], compile(graph)(feeds)["result"], rtol=1e-6)
check_grads(fused, feeds, ["x", "y"])
joint = Pipeline([Vjp()]).apply(fused)
print(sorted(joint.gradients), "example.SoftClip(%x, limit=2.0)" in to_text(parse_text(to_text(joint))))
"""
    assert succeed(script, installed).splitlines() == ["['example.SoftClip', 'Add']", "['x', 'y'] True"]


def test_without_it_the_names_are_unknown() -> None:
    script = "import irgrad; from irgrad.pipeline import Pipeline; Pipeline('fuse_soft_clip')"
    done = run(script)
    assert done.returncode == 1
    assert "there is no pass 'fuse_soft_clip'" in done.stderr


def test_its_modules_are_imported_when_they_are_asked_for(installed: Path) -> None:
    script = """
import sys
import irgrad
from irgrad.plugin import registry
def loaded(): return sorted(name for name in sys.modules if name.startswith("irgrad_example"))
print(loaded())
print("fuse_soft_clip" in registry.names("passes"), loaded())
registry.get("frontends", "polish")
print(loaded())
"""
    assert succeed(script, installed).splitlines() == [
        "[]",
        "True ['irgrad_example']",
        "['irgrad_example', 'irgrad_example.polish']",
    ]


def test_importing_irgrad_imports_no_operations_and_no_passes() -> None:
    script = """
import sys
import irgrad
print(sorted(name for name in sys.modules if name.startswith("irgrad.ops.")))
from irgrad.plugin import registry
registry.names("passes")
print(sorted(name for name in sys.modules if name.startswith("irgrad.ops.")))
"""
    assert succeed(script).splitlines() == ["[]", "[]"]


def test_two_installed_plugins_of_one_name_are_an_error(installed: Path, tmp_path: Path) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[irgrad.plugins]\nother = other_plugin:plugin\n", encoding="utf-8")
    (tmp_path / "other_plugin.py").write_text(
        "from irgrad.plugin import Plugin\nplugin = Plugin('other', passes={'fuse_soft_clip': lambda: None})\n",
        encoding="utf-8",
    )
    assert run("import irgrad", installed, tmp_path).returncode == 0
    done = run("import irgrad; from irgrad.pipeline import Pipeline; Pipeline('simplify')", installed, tmp_path)
    assert "PluginError: the plugins 'irgrad-example' and 'other' both provide 'fuse_soft_clip' under passes" in done.stderr


# --- the registry -----------------------------------------------------------------------------------------------------


def point(name: str, load: Callable[[], Any]) -> EntryPoint:
    """An entry point that loads what it is told to."""
    return cast("EntryPoint", SimpleNamespace(name=name, value=f"{name}_module:plugin", load=load))


def failing() -> Plugin:
    raise ImportError("no module named 'missing'")


def test_discovery_waits_for_the_first_look_up() -> None:
    discovered = []

    def discover() -> list[EntryPoint]:
        discovered.append(1)
        return [point("b", lambda: Plugin("b", passes={"p": lambda: "made"}))]

    registry = Registry(discover)
    registry.register(Plugin("a", passes={"q": lambda: "own"}))
    assert not discovered
    assert registry.names("passes") == ["p", "q"]
    assert registry.get("passes", "p") == "made"
    assert registry.provider("passes", "p") == "b"
    assert registry.provider("passes", "zzz") is None
    assert len(discovered) == 1


def test_factories_are_called_once() -> None:
    calls = []
    registry = Registry(list)
    registry.register(Plugin("a", passes={"p": lambda: calls.append(1) or object()}))
    assert registry.get("passes", "p") is registry.get("passes", "p")
    assert len(calls) == 1


def test_plugins_are_loaded_in_the_order_of_their_names() -> None:
    order: list[str] = []

    def load(name: str) -> Plugin:
        order.append(name)
        return Plugin(name)

    Registry(lambda: [point(name, partial(load, name)) for name in "cab"]).names("passes")
    assert order == ["a", "b", "c"]


def test_unknown_names_are_errors_that_list_the_known_ones() -> None:
    registry = Registry(list)
    registry.register(Plugin("a", frontends={"one": object, "two": object}))
    assert registry.find("frontends", "three") is None
    with pytest.raises(PluginError, match="there is no 'three' among the frontends; known are: one, two"):
        registry.get("frontends", "three")


def test_broken_plugins_are_skipped_with_a_warning() -> None:
    points = [
        point("broken", failing),
        point("fine", lambda: Plugin("fine", passes={"p": lambda: 1})),
        point("wrong", lambda: "no plugin"),
    ]
    registry = Registry(lambda: points)
    with pytest.warns(UserWarning) as caught:
        assert registry.names("passes") == ["p"]
    assert [str(warning.message) for warning in caught] == [
        "the irgrad plugin 'broken' (broken_module:plugin) was skipped: no module named 'missing'",
        "the irgrad plugin 'wrong' (wrong_module:plugin) was skipped: it is no irgrad.Plugin",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.names("passes")  # told once


@pytest.mark.parametrize("kind", KINDS)
def test_collisions_are_errors_that_name_both(kind: str) -> None:
    registry = Registry(list)
    one, other = (Plugin(name, **{kind: {"same": lambda name=name: name}}) for name in ("one", "other"))
    registry.register(one)
    with pytest.raises(PluginError, match=f"the plugins 'one' and 'other' both provide 'same' under {kind}"):
        registry.register(other)
    assert registry.get(kind, "same") == "one"
    registry.unregister(one)
    registry.register(other)
    assert registry.get(kind, "same") == "other"


def test_a_collision_is_told_at_every_look_up() -> None:
    points = [point(name, lambda name=name: Plugin(name, passes={"same": lambda: name})) for name in ("one", "other")]
    registry = Registry(lambda: points)
    for _ in range(2):
        with pytest.raises(PluginError, match="the plugins 'one' and 'other' both provide 'same'"):
            registry.get("passes", "same")


def test_a_plugin_may_look_things_up_while_it_is_loaded() -> None:
    registry = Registry(lambda: [point("curious", lambda: registry.find("passes", "p") or Plugin("curious"))])
    registry.register(Plugin("a", passes={"p": lambda: None}))
    assert registry.names("passes") == ["p"]


@pytest.mark.parametrize("kind", ["passes", "executors"])
def test_everything_built_in_can_be_made(kind: str) -> None:
    for name, factory in getattr(builtin, kind).items():
        assert getattr(factory(), "name", name) == name
