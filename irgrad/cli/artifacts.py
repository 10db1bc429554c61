"""``irgrad artifacts``: what it takes to train a model on any ONNX runtime, as files."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.artifacts import save_artifacts
from irgrad.cli.common import Steps, counted, load_model, model_argument, parse_wrt, show
from irgrad.errors import UsageError
from irgrad.passes.loss import LOSSES
from irgrad.pipeline import Pipeline

__all__ = ["command"]


@click.command("artifacts", short_help="Write a model's training as files for any ONNX runtime.")
@model_argument
@click.option("--loss", type=click.Choice(sorted(LOSSES)), help="Add this loss.  [default: the model's output is the loss]")
@click.option("--output", metavar="NAME", help="The output that the loss is of, or that is it.  [default: the only one]")
@click.option(
    "--wrt",
    default="parameters",
    show_default=True,
    metavar="WHAT",
    help='What is trained: "parameters", or names of them, separated by commas.',
)
@click.option(
    "--optimizer",
    default="adamw",
    show_default=True,
    metavar="PIPELINE",
    help="sgd, adagrad, rmsprop, adam, adamw or lion, with options as in other pipelines.",
)
@click.option("--training/--no-training", default=True, show_default=True, help="Train with Dropout and batch statistics.")
@click.option("--opset", type=int, metavar="N", help="The opset of the models.  [default: the lowest that means the same]")
@click.option("-o", "--folder", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Where the files go.")
def command(
    model: Path | None,
    example: str | None,
    loss: str | None,
    output: str | None,
    wrt: str,
    optimizer: str,
    training: bool,
    opset: int | None,
    folder: Path,
) -> None:
    """Write a model's training as files that any ONNX runtime executes.

    FOLDER gets training_model.onnx (loss and gradients), eval_model.onnx (loss and outputs), optimizer_model.onnx (the next
    values of parameters), checkpoint.npz (the first values) and artifacts.json (what belongs to what).

    \b
    Examples:
      irgrad artifacts model.onnx --loss cross_entropy -o artifacts
      irgrad artifacts model.onnx --loss mse --wrt head.weight,head.bias --optimizer "sgd{momentum=0.9}" -o artifacts
      irgrad artifacts model.onnx --loss mse --optimizer "clip_grad_norm{max_norm=1},adamw" -o artifacts
      irgrad artifacts --example squeezenet --loss cross_entropy -o artifacts
    """
    if not folder.is_dir() and (folder.exists() or not folder.parent.is_dir()):
        reason = "it is a file" if folder.exists() else f"there is no folder {str(folder.parent)!r}"
        raise UsageError(f"{str(folder)!r} cannot be written: {reason}")
    Pipeline(optimizer)  # what is misspelt is said before a large model is read
    with Steps("load", 2) as steps:
        graph, label = load_model(model, example)
        steps.next("differentiate and write")
        index = save_artifacts(
            graph,
            folder,
            loss=loss,
            output=output,
            wrt=parse_wrt(wrt),
            optimizer=optimizer,
            training=training,
            opset=opset,
        )
    remembered = counted(len(index["statistics"]) + len(index["states"]), "further array")
    show(f"{label}: {counted(len(index['parameters']), 'parameter')} trained by {optimizer}; {remembered} of state")
    if example is not None:
        show("note: bundled models ship without their trained weights; the checkpoint holds what is in the file")
    models = [index[part]["file"] for part in ("training", "eval", "optimizer")]
    for name in (*models, index["checkpoint"], "artifacts.json"):
        show(f"wrote {folder / name}")
