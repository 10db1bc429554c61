"""The page docs/performance.md: tables and plots, with the machine named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers import BEST_OF, PEERS
from benchmarks.plot import draw_scaling, draw_steps
from benchmarks.results import Rows, best_of, compile_rows, geometric_means, overhead_rows, scaling_rows, step_rows
from benchmarks.suites import NINE
from benchmarks.tables import markdown

__all__ = ["write"]


def write(path: Path, result: Mapping[str, Any]) -> list[Path]:
    """Write the page, and its plots beside it.

    Returns:
        The files.
    """
    lines = ["# Performance", "", *_preface(result), ""]
    files = [path]
    suites = {name: found for name, found in result["suites"].items() if "failed" not in found}
    if suites:
        picture = path.with_name(f"{path.stem}-steps.svg")
        draw_steps(picture, suites)
        files.append(picture)
        lines += ["## Training steps", "", *_steps(suites), "", f"![ratios by model]({picture.name})", ""]
        for title, rows in step_rows(suites):
            lines += [f"### {title}", "", *markdown(rows), ""]
        lines += ["## From a file to the first step", "", _COMPILING, "", *markdown(compile_rows(suites)), ""]
    if "seconds" in result.get("overhead", {}):
        lines += ["## What a node costs", "", _OVERHEAD, "", *markdown(overhead_rows(result["overhead"])), ""]
    if "batch" in result.get("scaling", {}):
        picture = path.with_name(f"{path.stem}-scaling.svg")
        draw_scaling(picture, result["scaling"])
        files.append(picture)
        lines += ["## Batch and depth", "", _SCALING, "", f"![time by batch and by depth]({picture.name})", ""]
        for what in ("batch", "depth"):
            lines += [*markdown(scaling_rows(result["scaling"][what], what)), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return files


_COMPILING = (
    'Seconds: irgrad\'s phases, "plan" being what the first step takes beyond a later one; for the others all that the '
    "first step takes beyond a later one."
)
_OVERHEAD = (
    'Microseconds a node in a chain of 1,000 additions and multiplications of tensors of 8 elements. "bare ufuncs" is a '
    "Python loop that calls numpy in place and does nothing else. JAX makes one loop of the whole chain."
)
_SCALING = (
    "Milliseconds of a training step of a perceptron of width 256: with 2 hidden layers by batch, with batch 32 by depth."
)


def _preface(result: Mapping[str, Any]) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peaks = [found["gemm"] for found in result["suites"].values() if "gemm" in found]
    peak = f" The best product of large matrices ran at {max(peaks) / 1e9:.0f} GFLOP/s." if peaks else ""
    return [
        "`python -m benchmarks --write docs/performance.md` has written this page.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}; everyone has "
        f"{machine['threads']} threads.{peak}",
        f"Versions: Python {machine['python']}, {versions}.",
        "",
        "A step is the forward pass and the gradients of all parameters, in float32. All libraries run the same model "
        "with the same weights in one process, in turns; one call is not counted after each change of library.",
        "The loss and all gradients of each are first checked against PyTorch's in float64; one that fails is not timed.",
        f"Times are medians, ratios are to the best of {', '.join(BEST_OF)}. 'of peak' is the model's arithmetic, as irgrad "
        "counts it, over the time, as a share of the speed of products of large matrices.",
        "MB is the most that a process of its own held during a step beyond what it held before the model was made ready.",
    ]


def _steps(suites: Mapping[str, Any]) -> list[str]:
    names = [name for name in PEERS if any(name in found.get("peers", {}) for found in suites.values())]
    rows: Rows = [["", ">best peer, ms", *(f">{name}" for name in names)]]
    for suite, found in suites.items():
        peers = found.get("peers", {})
        best = best_of(peers)
        cells = [f"{peers[n]['median'] / best:.2f}" if best and "median" in peers.get(n, {}) else "–" for n in names]
        rows.append([suite, "–" if best is None else f"{1e3 * best:.3g}", *cells])
    means = geometric_means(suites)
    rows.append(["geometric mean", "", *(_mean(means.get(name)) for name in names)])
    rows.append(["worst", "", *(f"{means[name][1]:.2f}" if name in means else "–" for name in names)])
    return [f"Ratios; the means are over those of {', '.join(NINE)} that a library runs.", "", *markdown(rows)]


def _mean(found: tuple[float, float, int] | None) -> str:
    if found is None:
        return "–"
    return f"{found[0]:.2f}" if found[2] == len(NINE) else f"{found[0]:.2f} ({found[2]})"
