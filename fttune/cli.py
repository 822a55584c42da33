"""The commands. Each reads its arguments, calls one floor down and prints; heavy imports wait until they are needed."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fttune.errors import FttuneError
from fttune.interrupt import terminated_as_interrupted
from fttune.text import inert

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How many layers of a pre-trained network to copy, and whether to freeze or fine-tune them: with evidence.",
)

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


def main() -> None:
    """Entry point of the command `fttune`: errors on purpose become one line and an exit code."""
    try:
        with terminated_as_interrupted():
            app()
    except FttuneError as error:
        print(f"error: {inert(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command()
def run(
    sweep_file: SweepFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Count, run nothing, write nothing.")] = False,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster: auto or HOST:PORT.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Run the failed trials, and only these.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Run only trials like this.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Run at most so many trials.")] = None,
    fail_fast: Annotated[bool, typer.Option(help="Stop at the first failed trial.")] = False,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Stop when gpu_hours, hours or trials are used up; what runs is saved."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; runs/NAME unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run what a sweep still misses, then print the recommendation table."""
    from fttune.config import load_sweep
    from fttune.session import Call, plan_sweep, run_sweep
    from fttune.sweep.budget import Budget
    from fttune.sweep.driver import Choice
    from fttune.terminal import say

    sweep = load_sweep(sweep_file, overrides or ())
    limits = Budget.parse(budget or ())
    choice = Choice(retry_failed=retry_failed, only=tuple(only or ()), limit=limit)
    if dry_run:
        plan_sweep(sweep, choice, as_json=as_json)
        return
    words = ["fttune", "run", str(sweep_file), *(overrides or ())]
    call = Call(words=words, address=address, fail_fast=fail_fast, budget=limits, out=out, as_json=as_json)
    try:
        raise typer.Exit(run_sweep(sweep, choice, call))
    except KeyboardInterrupt:  # before the first trial or after the last
        say(f"interrupted; what is finished is logged, and this goes on: {call.again()}")
        raise typer.Exit(130) from None


@app.command()
def plan(sweep_file: SweepFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Count a sweep's trials: in all, done, failed, to run, and what they will take. Writes nothing."""
    from fttune.config import load_sweep
    from fttune.session import plan_sweep
    from fttune.sweep.driver import Choice

    plan_sweep(load_sweep(sweep_file, overrides or ()), Choice(), as_json=as_json)


@app.command()
def status(sweep_file: SweepFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """How a sweep goes, seen from another terminal: done, running, failed, time left."""
    from fttune.config import load_sweep
    from fttune.status import show_status

    show_status(load_sweep(sweep_file, overrides or ()), as_json=as_json)


@app.command()
def report(
    sweep_file: SweepFile,
    overrides: Overrides = None,
    others: Annotated[
        list[Path] | None, typer.Option("--with", metavar="SWEEP.yaml", help="Another sweep in the same tables.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; runs/NAME unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Regenerate table, figures and page from the logged runs alone."""
    from fttune.config import load_sweep
    from fttune.session import make_report

    beside = [load_sweep(path) for path in others or ()]
    make_report(load_sweep(sweep_file, overrides or ()), out=out, as_json=as_json, others=beside)


@app.command()
def runs(
    where: Where = None,
    sweep: OfSweep = None,
    experiment: Experiment = "fttune",
    out: TableFile = None,
    as_json: AsJson = False,
) -> None:
    """The finished trials, a line each; every field of them with --json or --out."""
    from fttune import query
    from fttune.asking import show_runs

    query.check_suffix(out)
    show_runs(query.find(where or (), experiment=experiment, sweep=sweep), out=out, as_json=as_json)


@app.command()
def compare(
    by: Annotated[str, typer.Option(help="The axis whose levels are compared, such as mode or images_per_class.")],
    hold: Annotated[str, typer.Option(help="Axes that are equal within a group, comma-separated.")] = "",
    where: Where = None,
    metric: Annotated[str, typer.Option(help="What is compared.")] = "test_accuracy",
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    unequal: Annotated[bool, typer.Option("--unequal", help="Pair cells searched with unequal budgets too.")] = False,
    sweep: OfSweep = None,
    experiment: Experiment = "fttune",
    out: TableFile = None,
    as_json: AsJson = False,
) -> None:
    """Levels of one axis against each other: means, and differences within pairs that are equal in everything else."""
    from fttune import query
    from fttune.asking import show_comparison

    query.check_suffix(out)
    records = query.find(where or (), experiment=experiment, sweep=sweep)
    held = tuple(axis for axis in hold.split(",") if axis)
    defaults = query.default_settings(experiment=experiment)
    found = query.compared(records, by, held, metric, confidence, defaults=defaults, unequal=unequal)
    show_comparison(found, metric=metric, out=out, as_json=as_json)


@app.command()
def spec(
    backbone: Annotated[str, typer.Argument(help="A backbone of the catalog.")],
    layer_spec: Annotated[str, typer.Argument(metavar="SPEC", help="Such as 'T(1-7)R(8)'.")],
    image_size: Size = None,
    classes: Annotated[int, typer.Option(min=2, help="Classes of the new classifier.")] = 10,
    scale: Annotated[float, typer.Option("--copied-lr-scale", min=0, help="Rate of tuned layers / of new ones.")] = 0.2,
    as_json: AsJson = False,
) -> None:
    """What a layer spec does to a backbone, layer by layer."""
    from fttune.describe import spec_rows
    from fttune.terminal import print_rows

    print_rows(spec_rows(backbone, layer_spec, image_size, classes, scale), as_json=as_json)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """The datasets of the catalog; any folder of class folders is one more."""
    from fttune.describe import dataset_rows
    from fttune.terminal import print_rows

    print_rows(dataset_rows(), as_json=as_json)


@app.command()
def backbones(as_json: AsJson = False) -> None:
    """The backbones of the catalog, and whether their weights are on this machine."""
    from fttune.describe import backbone_rows
    from fttune.terminal import print_rows

    print_rows(backbone_rows(), as_json=as_json)


@app.command()
def prepare(
    target: Target,
    root: Root = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="How the set is read, which part of it.")
    ] = None,
    fetch: Annotated[bool, typer.Option("--download", help="Fetch it first, where torchvision can.")] = False,
    image_size: Size = None,
    resize: Annotated[Literal["crop", "warp"], typer.Option(help="Short side and centre, or to a square.")] = "crop",
    skip_corrupt: Annotated[bool, typer.Option(help="Leave out images that cannot be decoded.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a dataset's layout, count it, and decode it into the store; goes on where it was interrupted."""
    from fttune.data.catalog import locate
    from fttune.inventory import download, found, prepared, remarks, summary
    from fttune.terminal import print_facts, say
    from fttune.tree import read_options

    options = read_options(option or ())
    if fetch:
        download(locate(target, root=root, options=options), root)
    row = locate(target, root=root, options=options)
    facts = found(row, row.source())
    say(summary(facts))
    for line in remarks(facts):
        say(f"{row.name}: {line}")
    try:
        facts |= prepared(row, image_size=image_size, resize=resize, skip_corrupt=skip_corrupt)
    except KeyboardInterrupt:
        say("interrupted; what is decoded is kept, and the same command goes on")
        raise typer.Exit(130) from None
    print_facts(facts, as_json=as_json)


@app.command()
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


@app.command()
def distance(
    target: Target,
    source: Annotated[str | None, typer.Option(help="The images to measure from, named as a target is.")] = None,
    backbone: Annotated[str, typer.Option(help="Whose features are compared.")] = "efficientnet_lite0",
    image_size: Size = None,
    metric: Annotated[
        Literal["all", "cosine", "mmd", "svm", "cnn"], typer.Option(help="The last two need --source.")
    ] = "all",
    images: Annotated[int, typer.Option(min=0, help="Of either side at most, balanced over classes; 0: all.")] = 2000,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """How far a target's images lie from those a backbone was trained on, with its band in the table."""
    from fttune.describe import Measurement, measured, measured_lines
    from fttune.terminal import print_json, print_lines

    asked = Measurement(
        target=target, source=source, backbone=backbone, image_size=image_size, images=images or None, root=root
    )
    facts = measured(asked, metric)
    if as_json:
        print_json(facts)
    else:
        print_lines(measured_lines(facts))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What this machine has: cores, GPUs, memory, room, versions, weights, the tracker."""
    from fttune.describe import checks
    from fttune.terminal import print_facts

    print_facts(checks(), as_json=as_json)


if __name__ == "__main__":
    main()
