"""Every error that irgrad raises on purpose.

All of them derive from `IrgradError`, so that a caller can tell "irgrad says no" from a defect. A message is one sentence
that says what was wrong, where, and what to do about it; nothing is half done when one of these is raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

__all__ = [
    "AdjointError",
    "CyclicModelError",
    "DanglingNameError",
    "DuplicateNameError",
    "ExecutionError",
    "ExportError",
    "ExternalDataError",
    "FeedError",
    "FunctionRecursionError",
    "GraphError",
    "IrgradError",
    "ModelError",
    "ModelParseError",
    "ModelSizeError",
    "ModelTypeError",
    "PassError",
    "PluginError",
    "TextError",
    "TypeInferenceError",
    "UnsupportedOpError",
    "UnsupportedOpsetError",
    "UsageError",
    "VerifyError",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: "; did you mean 'w1' or 'w2'?", or "" where no known name is close."""
    close = get_close_matches(name, list(islice(known, 20_000)), n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


class IrgradError(Exception):
    """The root of all errors that irgrad raises on purpose."""


class UsageError(IrgradError):
    """A call was made with something it does not take: an unknown name, an option out of range."""


# --- a model file that cannot be read ---------------------------------------------------------------------------------


class ModelError(IrgradError):
    """A model cannot be imported; the subclass says which kind of defect it has."""


class ModelParseError(ModelError):
    """The bytes are not a whole protobuf ModelProto (truncated, another format, empty)."""


class CyclicModelError(ModelError):
    """Some nodes of the model depend on their own results."""


class DuplicateNameError(ModelError):
    """Two things in one scope of the model carry the same name."""


class DanglingNameError(ModelError):
    """A name is used that nothing in scope defines."""


class ExternalDataError(ModelError):
    """External data is missing, too short, or lies outside the model's folder."""


class ModelSizeError(ModelError):
    """A declared size is negative, absurd, or does not agree with the data that is there."""


class ModelTypeError(ModelError):
    """A type, an attribute or a value of the model has a kind that its operation does not take."""


class FunctionRecursionError(ModelError):
    """A model-local function calls itself, directly or through others."""


class UnsupportedOpsetError(ModelError):
    """The model imports an opset that irgrad does not know, or imports none for a domain it uses."""


# --- a graph that cannot be written -----------------------------------------------------------------------------------


class ExportError(IrgradError):
    """A graph has no form as an ONNX model, or none in the opset that was asked for.

    Attributes:
        nodes: one description per node that stands in the way, all of them and not just those that the message names.
    """

    def __init__(self, message: str, nodes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nodes = tuple(nodes)


# --- graphs -----------------------------------------------------------------------------------------------------------


class GraphError(IrgradError):
    """A mutator of a graph was asked for something that would break an invariant."""


class VerifyError(GraphError):
    """`verify` found broken invariants; the message shows the offending lines.

    Attributes:
        problems: one sentence per broken invariant.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class TextError(IrgradError):
    """A text form cannot be parsed; the message names the line and column."""


class TypeInferenceError(IrgradError):
    """The operands of a node do not fit its operation."""


# --- differentiation --------------------------------------------------------------------------------------------------


class AdjointError(IrgradError):
    """A gradient was asked for that does not exist (an integer value, a non-scalar output, ...)."""


class UnsupportedOpError(AdjointError):
    """Nodes on the path have no adjoint rule and no expansion, or use a mode that their rule does not handle.

    Attributes:
        nodes: one description per node, all of those on the path and not just the first.
    """

    def __init__(self, message: str, nodes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nodes = tuple(nodes)


# --- passes and plugins -----------------------------------------------------------------------------------------------


class PassError(IrgradError):
    """A pipeline is misspelt, a pass got a wrong option, or a pass's own conditions do not hold."""


class PluginError(IrgradError):
    """Plugins collide, or a name is asked for that no plugin provides."""


# --- running ----------------------------------------------------------------------------------------------------------


class FeedError(IrgradError):
    """The arrays that were fed do not fit the inputs of the graph."""


class ExecutionError(IrgradError):
    """A node failed while it ran; the message names it."""
