"""From TensorProtos to arrays, external data included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["tensor_to_array"]


def tensor_to_array(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """The array that a TensorProto holds."""
    return numpy_helper.to_array(tensor, base_dir=str(folder or ""))
