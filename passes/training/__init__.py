"""What makes a training graph: training mode, running statistics, random numbers with explicit keys."""
