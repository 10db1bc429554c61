"""What the cases of the operations are made with; `irgrad.testing` has what is checked of them, test_ops.py runs it.

Forward: our kernel against onnx.reference (or the oracle that the case names), dtype and shape against type inference.
Backward: against finite differences in float64. Second order: the gradient's own gradient, likewise.
"""

from __future__ import annotations

import numpy as np

from irgrad.testing import Case, leaves, loosened, mapped, type_of

__all__ = ["Case", "leaves", "loosened", "mapped", "rng", "type_of"]


def rng(seed: int = 0) -> np.random.Generator:
    """The random numbers of a case; each case makes its own, so that adding one does not move the others."""
    return np.random.default_rng(seed)
