"""Single kernels that mostly move memory (pooling, embeddings, losses, resampling), side by side with PyTorch.

    python -m benchmarks.kernels --threads 2

Each of ours runs in memory that is there, as in a planned run, and in both forms: numpy's, and what numba compiles, where
that is installed. PyTorch's functions allocate their results; their backward passes include what autograd does around them.
Runs alternate; the ratio to PyTorch is what counts. Without PyTorch only our own times are shown.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Peer = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """An application of an operation, and what does the same in PyTorch: a function of torch that returns what to call."""

    name: str
    op: str
    operands: Sequence[Any]
    peer: Callable[[Any], Peer]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    return parser.parse_args()


def backward(torch: Any, function: Callable[..., Any], *operands: Any) -> Peer:
    """The gradient of the first operand, for a cotangent of ones."""
    leaf = torch.tensor(operands[0], requires_grad=True)
    result = function(leaf, *operands[1:])
    cotangent = torch.ones_like(result)

    def run() -> Any:
        leaf.grad = None
        result.backward(cotangent, retain_graph=True)
        return leaf.grad

    return run


def pooling_rows() -> Iterator[Row]:
    """Of images of 64 channels."""
    import numpy as np

    generator = np.random.default_rng(0)
    for k, stride, pad, shape in ((2, 2, 0, (8, 64, 112, 112)), (3, 2, 1, (8, 64, 112, 112)), (3, 1, 1, (8, 192, 28, 28))):
        x = generator.standard_normal(shape, np.float32)
        name, attrs = f"{k}x{k}/{stride}", {"kernel_shape": (k, k), "strides": (stride, stride), "pads": (pad,) * 4}
        geometry = {"kernel_size": k, "stride": stride, "padding": pad}
        size, places = np.array(shape), kernel_of(Row("", "MaxPool", [x], lambda t: len, attrs, 2), False)[1][1]
        dy, even = np.ones(places.shape, np.float32), {**attrs, "count_include_pad": 1}
        distinct = {"distinct": int(stride >= k)}

        def of(name: str, x: Any = x, geometry: Any = geometry) -> tuple[Callable[[Any], Peer], Callable[[Any], Peer]]:
            def forward(torch: Any) -> Peer:
                images = torch.tensor(x, requires_grad=name == "max_pool2d")
                return lambda: getattr(torch.nn.functional, name)(images, **geometry)

            return forward, lambda torch: backward(torch, lambda v: getattr(torch.nn.functional, name)(v, **geometry), x)

        yield Row(f"max pool {name}, with places", "MaxPool", [x], of("max_pool2d")[0], attrs, 2)
        yield Row(f"max pool {name}, backward", "irgrad.MaxPoolGrad", [dy, places, size], of("max_pool2d")[1], distinct)
        yield Row(f"average pool {name}", "AveragePool", [x], of("avg_pool2d")[0], even)
        yield Row(f"average pool {name}, backward", "irgrad.AveragePoolGrad", [dy, size], of("avg_pool2d")[1], even)


def index_rows() -> Iterator[Row]:
    """Embeddings, and gathering and scattering of single elements."""
    import numpy as np

    generator = np.random.default_rng(0)
    for tokens, words, width in ((4096, 30522, 768), (8192, 1000, 256)):
        table = generator.standard_normal((words, width), np.float32)
        ids = np.minimum(generator.zipf(1.2, tokens) - 1, words - 1)
        dy, name = np.ones((tokens, width), np.float32), f"{tokens} of {words}x{width}"

        def lookup(torch: Any, table: Any = table, ids: Any = ids) -> Peer:
            words, places = torch.tensor(table), torch.tensor(ids)
            return lambda: torch.nn.functional.embedding(places, words)

        def scatter(torch: Any, table: Any = table, ids: Any = ids) -> Peer:
            return backward(torch, lambda t, i: torch.nn.functional.embedding(torch.tensor(i), t), table, ids)

        yield Row(f"embedding {name}", "Gather", [table, ids], lookup)
        yield Row(f"embedding {name}, backward", "irgrad.GatherGrad", [dy, ids, np.array(table.shape)], scatter)
    x, places = generator.standard_normal((512, 4096), np.float32), generator.integers(0, 4096, (512, 2048))
    updates = np.ones(places.shape, np.float32)

    def gather(torch: Any) -> Peer:
        source, index = torch.tensor(x), torch.tensor(places)
        return lambda: torch.gather(source, 1, index)

    def add(torch: Any) -> Peer:
        source, index, values = torch.tensor(x), torch.tensor(places), torch.tensor(updates)
        return lambda: source.scatter_add(1, index, values)

    yield Row("gather 512x2048 elements", "GatherElements", [x, places], gather, {"axis": 1})
    attrs = {"axis": 1, "reduction": "add"}
    yield Row("scatter-add 512x2048 elements", "ScatterElements", [x, places, updates], add, attrs)


def loss_rows() -> Iterator[Row]:
    """Cross-entropy of scores."""
    import numpy as np

    generator = np.random.default_rng(0)
    for shape in ((2048, 8192), (4096, 1000), (8, 21, 128, 128)):
        scores, labels = (
            generator.standard_normal(shape, np.float32),
            generator.integers(0, shape[1], (shape[0], *shape[2:])),
        )

        def forward(torch: Any, scores: Any = scores, labels: Any = labels) -> Peer:
            x, y = torch.tensor(scores), torch.tensor(labels)
            return lambda: torch.nn.functional.cross_entropy(x, y)

        def adjoint(torch: Any, scores: Any = scores, labels: Any = labels) -> Peer:
            return backward(torch, lambda x, y: torch.nn.functional.cross_entropy(x, torch.tensor(y)), scores, labels)

        name = "x".join(map(str, shape))
        yield Row(f"cross-entropy {name}", "SoftmaxCrossEntropyLoss", [scores, labels], forward)
        operands = [np.ones((), np.float32), scores, labels]
        yield Row(f"cross-entropy {name}, backward", "irgrad.SoftmaxCrossEntropyLossGrad", operands, adjoint)


def resize_rows() -> Iterator[Row]:
    """Doubling images, and back."""
    import numpy as np

    x = np.random.default_rng(0).standard_normal((8, 64, 64, 64), np.float32)
    size, double = np.array(x.shape), np.array((*x.shape[:2], 128, 128))
    dy = np.ones(tuple(double), np.float32)
    for mode, theirs in (("nearest", "nearest"), ("linear", "bilinear")):
        attrs = {"mode": mode, "coordinate_transformation_mode": "half_pixel", "nearest_mode": "floor"}

        def enlarge(torch: Any, x: Any, theirs: str = theirs) -> Any:
            return torch.nn.functional.interpolate(x, scale_factor=2, mode=theirs)

        def forward(torch: Any, enlarge: Any = enlarge) -> Peer:
            images = torch.tensor(x)
            return lambda: enlarge(torch, images)

        def adjoint(torch: Any, enlarge: Any = enlarge) -> Peer:
            return backward(torch, lambda v: enlarge(torch, v), x)

        if mode == "nearest":
            attrs["coordinate_transformation_mode"] = "asymmetric"
        yield Row(f"upsampling {mode}", "Resize", [x, None, None, double], forward, attrs)
        yield Row(f"upsampling {mode}, backward", "irgrad.ResizeGrad", [dy, size, None, None, double], adjoint, attrs)


def kernel_of(row: Row, wanted: bool) -> tuple[Peer, Any]:
    """A call of the kernel in memory that is there, and where its results are."""
    import numpy as np

    from irgrad.builder import typed_call
    from irgrad.op import WorkspaceKernel
    from irgrad.runtime import fast
    from irgrad.runtime.kernels import bind, results_of
    from irgrad.testing import Case

    case = Case(row.op, row.operands, row.attrs, row.outputs)
    (node,) = case.graph().nodes()
    with fast.using(wanted):
        kernel = bind(typed_call(node))
    operands = case.operands()
    results = tuple(np.empty_like(np.asarray(r), order="C") for r in results_of(kernel(*operands), row.outputs))
    out = results if row.outputs > 1 else results[0]
    call: Peer = lambda: kernel(*operands, out=out)  # noqa: E731
    if isinstance(kernel, WorkspaceKernel):
        function, work = kernel.function, np.empty(kernel.workspace, np.uint8)
        call = lambda: function(*operands, out=out, work=work)  # noqa: E731
    for _ in range(3):
        call()
    fast.wait()
    return call, out


def main() -> None:
    """Measure and print."""
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    from benchmarks.timing import interleaved
    from irgrad.runtime import fast

    try:
        import torch
    except ImportError:
        torch = None
    else:
        torch.set_num_threads(options.threads)
    forms = {"numpy": False, "compiled": True} if fast.available() else {"numpy": False}
    ratio = "" if torch is None else f"{'PyTorch':>10}" + "".join(f"{name + '/PyTorch':>18}" for name in forms)
    print(f"{'milliseconds':42}" + "".join(f"{name:>10}" for name in forms) + ratio)
    for rows in (pooling_rows, index_rows, loss_rows, resize_rows):
        for row in rows():
            if options.only not in row.name:
                continue
            calls = {name: kernel_of(row, wanted)[0] for name, wanted in forms.items()}
            if torch is not None:
                calls["PyTorch"] = row.peer(torch)
            times = interleaved(calls, options.rounds)
            line = f"{row.name:42}" + "".join(f"{1e3 * seconds:10.2f}" for seconds in times.values())
            if torch is not None:
                line += "".join(f"{times[name] / times['PyTorch']:18.2f}" for name in forms)
            print(line, flush=True)


if __name__ == "__main__":
    main()
