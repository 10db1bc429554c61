"""Compiling the body of a fused node to one kernel, with numba (the extra `irgrad[fast]`).

    reason = unsupported(body)        # None where it can be compiled
    kernel = build_kernel(body)       # kernel(*operands, out=None)
    print(source(body))               # what numba compiles

A body is a graph of static shapes: operations on elements with broadcasting, changes of shape that leave the elements where
they are, reductions, and composite operations (softmax, normalisation, classification losses, with their adjoints) that are
taken apart into these. See `irgrad.codegen.plan` for how loops are made of it.
"""

from irgrad.codegen.kernel import build_kernel, source, unsupported

__all__ = ["build_kernel", "source", "unsupported"]
