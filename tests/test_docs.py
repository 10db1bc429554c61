"""What the documentation shows is what happens: every Python block and every example runs as it stands."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page run in order, in one namespace, in an empty folder.

    One that begins with "```python needs=package" runs where that is installed.
    """
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    fence = re.compile(r"^```python(?: needs=(\w+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for package, block in fence.findall(page.read_text(encoding="utf-8")):
        if not package or find_spec(package) is not None:
            exec(compile(block, str(page), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_run(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")


def test_importing_irgrad_is_light() -> None:
    """No operation family and no torch is imported before something needs it."""
    code = "import sys, irgrad; print([m for m in sys.modules if m.startswith(('irgrad.ops.', 'torch', 'matplotlib'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
