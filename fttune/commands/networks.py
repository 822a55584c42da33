"""Commands on networks: which there are, what a layer spec does to one, training a source, using what was kept."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from fttune.commands.options import AsJson, Experiment, Overrides, Size

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="A trial id or an MLflow run id, or how only it begins.")]


def backbones(as_json: AsJson = False) -> None:
    """The backbones of the catalog, and whether their weights are on this machine."""
    from fttune.describe import backbone_rows
    from fttune.terminal import print_rows

    print_rows(backbone_rows(), as_json=as_json)


def spec(
    backbone: Annotated[str, typer.Argument(help="A backbone of the catalog.")],
    layer_spec: Annotated[str, typer.Argument(metavar="SPEC", help="Such as 'T(1-7)R(8)'.")],
    image_size: Size = None,
    classes: Annotated[int, typer.Option(min=2, help="Classes of the new classifier.")] = 10,
    scale: Annotated[float, typer.Option("--copied-lr-scale", min=0, help="Rate of tuned layers / of new ones.")] = 0.2,
    way: Annotated[
        str | None, typer.Option(help="How it is trained, such as lpft: shows after which share of the steps.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a layer spec does to a backbone, layer by layer."""
    from fttune.describe import spec_rows
    from fttune.terminal import print_rows

    print_rows(spec_rows(backbone, layer_spec, image_size, classes, scale, way), as_json=as_json)


def pretrain(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe of a source network.")],
    overrides: Overrides = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the official downloads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a source network from scratch, for sweeps to name as BACKBONE@NAME; goes on where it was stopped."""
    from fttune.pretraining import pretrain_network
    from fttune.recipe import load_recipe

    root = [f"data.root={data_root.absolute()}"] if data_root else []
    recipe = load_recipe(recipe_file, [*(overrides or ()), *root])
    options = ["--data-root", str(data_root)] if data_root else []
    again = shlex.join(["fttune", "pretrain", str(recipe_file), *(overrides or ()), *options])
    raise typer.Exit(pretrain_network(recipe, again=again, as_json=as_json))


def export(
    run_id: RunId,
    format_: Annotated[
        Literal["safetensors", "onnx"], typer.Option("--format", help="onnx needs the extra of that name.")
    ] = "safetensors",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="RUN_ID.FORMAT here unless given.")] = None,
    force: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    experiment: Experiment = "fttune",
    as_json: AsJson = False,
) -> None:
    """Write the kept network of a run to a file, with its classes and how it wants its images."""
    from fttune.trained import export_network

    export_network(run_id, format_, experiment=experiment, out=out, force=force, as_json=as_json)


def predict(
    run_id: RunId,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Files, and folders of images.")],
    top: Annotated[int, typer.Option(min=1, help="Classes told of each image.")] = 3,
    experiment: Experiment = "fttune",
    as_json: AsJson = False,
) -> None:
    """What the kept network of a run makes of images: labels and probabilities."""
    from fttune.trained import predict as show

    raise typer.Exit(show(run_id, images, experiment=experiment, top=top, as_json=as_json))
