"""Commands on what was logged: runs as rows, levels of an axis against each other."""

from typing import Annotated

import typer

from fttune.commands.options import AsJson, Experiment, OfSweep, TableFile, Where


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
