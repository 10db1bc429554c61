"""The real models that ship inside the onnx package: something to try irgrad on without a download."""

from __future__ import annotations

from pathlib import Path

import onnx

from irgrad.errors import UsageError

__all__ = ["BUNDLED", "bundled_model", "bundled_output"]

_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

BUNDLED = {
    "alexnet": "bvlc_alexnet",
    "densenet121": "densenet121",
    "inception_v1": "inception_v1",
    "inception_v2": "inception_v2",
    "resnet50": "resnet50",
    "shufflenet": "shufflenet",
    "squeezenet": "squeezenet",
    "vgg19": "vgg19",
    "zfnet512": "zfnet512",
}
"""Our name → the stem of the file. Their architectures are the real ones; their weights are constants."""


def bundled_model(name: str) -> Path:
    """The path of a bundled model.

    Raises:
        UsageError: there is none of that name, or this installation of onnx left its test data out.
    """
    return _file(name, ".onnx")


def bundled_output(name: str) -> Path:
    """The path of the expected output (a serialized TensorProto) that ships with a bundled model; see `bundled_model`."""
    return _file(name, "_output_0.pb")


def _file(name: str, suffix: str) -> Path:
    if name not in BUNDLED:
        raise UsageError(f"there is no bundled model {name!r}; there are: {', '.join(BUNDLED)}")
    path = _FOLDER / f"light_{BUNDLED[name]}{suffix}"
    if not path.is_file():
        raise UsageError(f"the installed onnx package lacks its test data ({path.name}); reinstall onnx")
    return path
