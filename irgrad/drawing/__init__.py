"""Pictures of graphs: DOT, SVG, PNG and PDF through Graphviz, Mermaid, and what notebooks show."""

from __future__ import annotations

from irgrad.drawing.draw import FORMATS, draw, to_dot, to_mermaid
from irgrad.drawing.html import html_of, svg_of
from irgrad.drawing.options import Options
from irgrad.graph import Graph

__all__ = ["FORMATS", "Options", "draw", "html_of", "svg_of", "to_dot", "to_mermaid"]

Graph.drawer = draw
Graph.notebook = html_of
