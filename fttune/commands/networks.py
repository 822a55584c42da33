"""Commands on networks: which there are, what a layer spec does to one, training a source."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fttune.commands.options import AsJson, Overrides, Size


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
