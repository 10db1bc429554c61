"""What was compiled is found again by the next process, and by nobody else's hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

PROGRAM = """
import numpy as np
from tests.codegen.bodies import body
from irgrad.codegen import build_kernel

x = np.linspace(-1, 1, {size}, dtype=np.float32)
kernel = build_kernel(body([x], lambda b, x: b.op("Tanh", x) * 3.0))
assert np.allclose(kernel(x), np.tanh(x) * 3)
print(sum(sum(f.stats.cache_hits.values()) for f in kernel.functions), kernel.functions[0].__code__.co_filename)
"""


def run(cache: Path, size: int = 30) -> tuple[int, str]:
    """Compile a body in a new process: how much came from the cache, and where the source is."""
    return finished(started(cache, size))


def started(cache: Path, size: int = 30) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "IRGRAD_CACHE": str(cache), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(size=size)], env=environment, cwd=root, stdout=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    hits, path = output.split(maxsplit=1)
    return int(hits), path.strip()


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    both = [started(tmp_path), started(tmp_path)]  # at the same time
    for process in both:
        finished(process)
    hits, path = run(tmp_path)
    assert hits == 1
    assert Path(path).parent == tmp_path / "codegen"
    assert [p.name for p in (tmp_path / "codegen").glob("*.py")] == [Path(path).name]
    assert not list((tmp_path / "codegen").glob("*.part"))
    # A file of that name that says something else is neither run nor kept.
    genuine = Path(path).read_text(encoding="utf-8")
    Path(path).write_text("raise SystemExit('run what was found')", encoding="utf-8")
    run(tmp_path)
    assert Path(path).read_text(encoding="utf-8") == genuine


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="looks at permissions")
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "codegen"
    folder.mkdir()
    folder.chmod(0o777)
    hits, path = run(tmp_path)
    assert hits == 0 and path.startswith("<")
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way", encoding="utf-8")
    hits, path = run(file)
    assert hits == 0 and path.startswith("<")
