"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Values to change in it.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Target = Annotated[
    str,
    typer.Argument(
        help="A dataset of the catalog, a folder of class folders, torchvision:NAME, hf:NAME, parquet:FILE."
    ),
]
Root = Annotated[
    Path | None, typer.Option("--data-root", metavar="DIR", help="Folder of official downloads; FTTUNE_DATA.")
]
Where = Annotated[list[str] | None, typer.Option("--filter", metavar="FIELD=VALUE", help="Also != < <= > >=.")]
OfSweep = Annotated[str | None, typer.Option(help="Only runs that a sweep of this name asked for.")]
Experiment = Annotated[str, typer.Option(help="The MLflow experiment; the tracker is MLFLOW_TRACKING_URI.")]
TableFile = Annotated[Path | None, typer.Option(metavar="FILE", help="A .csv or .parquet file with every column.")]
Size = Annotated[int | None, typer.Option("--image-size", min=1, metavar="PX", help="Side of the network's input.")]
PartOf = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="How the set is read, which part of it.")
]
