"""The skeleton of a plugin: what is in it, and that it and the example passes work from an installed wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from irgrad.errors import UsageError
from irgrad.scaffold import KINDS, Kind, new_plugin
from tests.test_cli import run

ROOT = Path(__file__).parent.parent
EXAMPLES = ("fold_batch_norm", "replace_loss", "fake_quantise")


def made(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


ALWAYS = {"pyproject.toml", "README.md", "my_plugin/__init__.py", "tests/test_plugin.py"}
OP = {"my_plugin/soft_clip.py", "tests/test_soft_clip.py"}
PASS = {"my_plugin/merge_factors.py", "tests/test_merge_factors.py"}


@pytest.mark.parametrize(("kind", "files"), [("all", ALWAYS | OP | PASS), ("op", ALWAYS | OP), ("pass", ALWAYS | PASS)])
def test_files(kind: Kind, files: set[str], tmp_path: Path) -> None:
    folder = new_plugin("My-Plugin", kind, tmp_path)
    assert folder == tmp_path / "My-Plugin"
    assert made(folder) == files
    assert [path.name for path in tmp_path.iterdir()] == ["My-Plugin"]
    for path in folder.rglob("*"):
        if path.is_file():
            assert not re.search(r"\$\{?(name|package)\b", path.read_text(encoding="utf-8")), path


NAMES = {
    "irgrad": "there is a module of that name",
    "json": "there is a module of that name",
    "class": "it is a word of Python's own",
    "my plugin": "it has to be letters, digits and dashes",
    "../elsewhere": "it has to be letters, digits and dashes",
    "3d": "it has to be letters, digits and dashes",
    "-plugin": "it has to be letters, digits and dashes",
    "": "it has to be letters, digits and dashes",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_do_not_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=NAMES[name]):
        new_plugin(name, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        new_plugin("mine", folder=tmp_path)
    with pytest.raises(UsageError, match="cannot be made: No such file"):
        new_plugin("mine", folder=tmp_path / "nowhere")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("new-plugin", "mine", "--kind", "pass", "--folder", tmp_path) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"wrote {tmp_path / 'mine' / 'pyproject.toml'}" in told
    assert told[-1] == f"now: cd {tmp_path / 'mine'} && pip install -e '.[test]' && pytest"
    assert run("new-plugin", "mine", "--folder", tmp_path) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


# --- from a wheel -----------------------------------------------------------------------------------------------------


def succeed(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "IRGRAD_UPDATE_GOLDEN")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if re.search("ConnectionError|NewConnectionError|Temporary failure in name resolution", done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_skeletons_and_example_passes_from_a_wheel(tmp_path: Path) -> None:
    """As a user would: nothing of the checkout, nothing of this environment."""
    if not find_spec("pip") or not find_spec("setuptools"):
        pytest.skip("pip or setuptools is not installed")
    left_out = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "source", symlinks=True, ignore=left_out)  # building leaves files beside what is built
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    wheels = tmp_path / "wheels"
    succeed(
        sys.executable, *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, tmp_path / "source", cwd=tmp_path
    )
    (wheel,) = wheels.iterdir()

    succeed(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    succeed(python, *pip, "install", "--no-compile", wheel, "pytest", "setuptools>=77", cwd=tmp_path)

    for kind in KINDS:
        succeed(python, "-m", "irgrad", "new-plugin", f"my-{kind}", "--kind", kind, cwd=tmp_path)
    folders = [tmp_path / f"my-{kind}" for kind in KINDS]
    succeed(python, *pip, "install", "--no-build-isolation", *folders, cwd=tmp_path)
    tests = [folder / "tests" for folder in folders]
    told = succeed(python, "-m", "pytest", "-q", "--import-mode=importlib", *tests, cwd=tmp_path)
    assert re.search(r"^\d+ passed", told, re.MULTILINE)
    for example in EXAMPLES:
        succeed(python, ROOT / "examples" / f"{example}.py", cwd=tmp_path)
