"""What the documentation shows is what happens: every Python block and every example runs as it stands."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import irgrad as ig
from irgrad.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


MODEL = """graph model {
  input %x: f32[N,3]
  param %w: f32[3,4]{...}
  %h: f32[N,4] = MatMul(%x, %w)
  %y: f32[N,4] = Tanh(%h)
  output y
}"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, but for the files that the commands of the documentation read."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    graph = ig.parse_text(MODEL, {"w": generator.standard_normal((3, 4), np.float32)})
    ig.save(graph, "model.onnx")
    np.save("x.npy", generator.standard_normal((5, 3), np.float32))
    np.save("y.npy", generator.integers(0, 4, 5))
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Path, folder: Path) -> None:
    """The Python blocks of one page, in one namespace, and the commands of irgrad, in the order in which they stand.

    A Python block that begins with "```python needs=package" runs where that is installed.
    """
    namespace: dict[str, object] = {}
    fence = re.compile(r"^```(python|console)(?: needs=(\w+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for language, package, block in fence.findall(page.read_text(encoding="utf-8")):
        if package and find_spec(package) is None:
            continue
        if language == "python":
            exec(compile(block, str(page), "exec", dont_inherit=True), namespace)
        else:
            for line in block.splitlines():
                run_command(line)


def run_command(line: str) -> None:
    """Run a line of a console that calls irgrad alone; a picture is made where Graphviz is there."""
    program, *arguments = shlex.split(line, comments=True)
    if program != "irgrad" or "&&" in arguments or (arguments[0] == "draw" and not shutil.which("dot")):
        return
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code, line


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_run(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")


def test_importing_irgrad_is_light() -> None:
    """No operation family and no torch is imported before something needs it."""
    code = "import sys, irgrad; print([m for m in sys.modules if m.startswith(('irgrad.ops.', 'torch', 'matplotlib'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
