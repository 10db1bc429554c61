"""Convolution and its two adjoints on arrays: several algorithms, and which of them serves for which shapes."""
