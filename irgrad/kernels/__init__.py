"""What the kernels of several operations compute with: plain functions on arrays, which know nothing of graphs."""
