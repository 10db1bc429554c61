"""Simplification: constants folded, canonical forms, common subexpressions merged, dead nodes removed."""

from irgrad.passes.simplify.canonicalize import Canonicalize
from irgrad.passes.simplify.cse import CommonSubexpressions
from irgrad.passes.simplify.dce import DeadCode
from irgrad.passes.simplify.fixpoint import Simplify
from irgrad.passes.simplify.fold import Fold

__all__ = ["Canonicalize", "CommonSubexpressions", "DeadCode", "Fold", "Simplify"]
