"""Simplification: canonical forms, constants folded, common subexpressions merged, dead nodes removed."""
