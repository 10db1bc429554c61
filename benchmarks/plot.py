"""Plots, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.results import best_of

__all__ = ["draw_scaling", "draw_steps"]

_COLOURS = {
    "irgrad": "#1b6ca8",
    "irgrad[fast]": "#0b3c5d",
    "torch": "#e07a5f",
    "torch.compile": "#b23a1d",
    "jax": "#81b29a",
    "autograd": "#b8b8b8",
    "onnxruntime": "#8e7dbe",
    "onnx-ad": "#c9a227",
}


def draw_steps(path: Path, suites: Mapping[str, Any]) -> None:
    """Bars of the ratios of all suites on a logarithmic scale: up where slower than the best peer, down where faster."""
    figure, axes = _figure(12, 4.5)
    shown = {name: found for name, found in suites.items() if best_of(found.get("peers", {})) is not None}
    who = [name for name in PEERS if any("median" in found["peers"].get(name, {}) for found in shown.values())]
    width = 0.85 / max(len(who), 1)
    for position, name in enumerate(who):
        places, heights = [], []
        for place, found in enumerate(shown.values()):
            if "median" in found["peers"].get(name, {}):
                places.append(place + (position - (len(who) - 1) / 2) * width)
                heights.append(found["peers"][name]["median"] / (best_of(found["peers"]) or 1) - 1)
        axes.bar(places, heights, width, bottom=1, label=name, color=_COLOURS[name])
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(shown)), list(shown), rotation=20)
    axes.set_ylabel("time over the best of PyTorch and JAX")
    axes.legend(ncols=len(who), frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    _save(figure, path)


def draw_scaling(path: Path, scaling: Mapping[str, Any]) -> None:
    """Time by batch and by depth."""
    figure, both = _figure(11, 4, 2)
    for axes, what in zip(both, ("batch", "depth"), strict=True):
        for name in PEERS:
            points = [(int(size), 1e3 * taken[name]) for size, taken in scaling[what].items() if name in taken]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, color=_COLOURS[name])
        axes.set_xscale("log", base=2)
        axes.set_xticks([int(size) for size in scaling[what]], list(scaling[what]))
        axes.set_yscale("log")
        axes.set_xlabel(what)
        axes.set_ylabel("ms a step")
    both[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _figure(width: float, height: float, columns: int = 1) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "irgrad"  # the same numbers make the same file
    return pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
