"""What runs in a process of its own: one module for each task, with a function `run` whose result can be written as JSON."""
