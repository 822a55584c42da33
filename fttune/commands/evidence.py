"""Commands on what was logged: runs as rows, levels of an axis against each other, an answer for a set of images."""

from pathlib import Path
from typing import Annotated

import typer

from fttune.commands.options import (
    AsJson,
    Experiment,
    OfSweep,
    PartOf,
    Root,
    Size,
    SkipCorrupt,
    TableFile,
    Target,
    Where,
)


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
    show_runs(query.runs(where or (), experiment=experiment, sweep=sweep), out=out, as_json=as_json)


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
    held = tuple(axis for axis in hold.split(",") if axis)
    found = query.comparison(
        by,
        held,
        where or (),
        metric=metric,
        experiment=experiment,
        sweep=sweep,
        confidence=confidence,
        unequal=unequal,
    )
    show_comparison(found, metric=metric, out=out, as_json=as_json)


def recommend(
    target: Target,
    backbone: Annotated[str, typer.Option(help="The pre-trained network.")] = "efficientnet_lite0",
    images_per_class: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="To train on; what the smallest class allows unless given.")
    ] = None,
    image_size: Size = None,
    images: Annotated[int, typer.Option(min=1, help="That the distance is measured on, balanced over classes.")] = 2000,
    root: Root = None,
    option: PartOf = None,
    skip_corrupt: SkipCorrupt = False,
    experiment: Experiment = "fttune",
    write: Annotated[
        Path | None, typer.Option(metavar="SWEEP.yaml", help="Write the sweep that measures the answer.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Run that sweep, and answer from it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Freeze or tune, copy how much, for these images: the word, what it rests on, what it costs, how to measure it."""
    from fttune.advising import show_recommendation
    from fttune.placing import Question
    from fttune.terminal import say
    from fttune.tree import read_options

    question = Question(
        target=target,
        backbone=backbone,
        images_per_class=images_per_class,
        image_size=image_size,
        maximum=images,
        root=root,
        options=read_options(option or ()),
        skip_corrupt=skip_corrupt,
        experiment=experiment,
    )
    try:
        raise typer.Exit(show_recommendation(question, write=write, verify=verify, as_json=as_json))
    except KeyboardInterrupt:
        say("interrupted; what is decoded and logged is kept, and the same command goes on")
        raise typer.Exit(130) from None
