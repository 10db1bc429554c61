"""The models as functions of their parameters, for JAX and HIPS autograd; parameters have PyTorch's names.

Each function takes what differs between the two libraries as its first argument, see `benchmarks.functional.ops.Ops`.
"""
