"""Benchmarks of irgrad side by side with other libraries: ``python -m benchmarks``."""
