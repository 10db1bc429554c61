"""Passes: transformations of graphs. One file per pass; a folder where a family needs several."""
