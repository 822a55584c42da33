"""Commands on a sweep file: plan it, run it, see how it goes, report on it."""

from pathlib import Path
from typing import Annotated

import typer

from fttune.commands.options import AsJson, Overrides, SweepFile


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
    again: Annotated[str, typer.Option(metavar="ID", help="Run this done trial once more, to keep its network.")] = "",
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
    choice = Choice(retry_failed=retry_failed, only=tuple(only or ()), limit=limit, again=again)
    if dry_run:
        plan_sweep(sweep, choice, as_json=as_json)
        return
    words = ["fttune", "run", str(sweep_file), *(overrides or ())]
    words += [*(["--address", address] if address else []), *(["--out", str(out)] if out else [])]
    about = [word for condition in choice.only for word in ("--only", condition)]
    about += [*(["--again", again] if again else []), *(["--retry-failed"] if retry_failed else [])]
    call = Call(words=words, about=about, address=address, fail_fast=fail_fast, budget=limits, out=out, as_json=as_json)
    try:
        raise typer.Exit(run_sweep(sweep, choice, call))
    except KeyboardInterrupt:  # before the first trial or after the last
        say(f"interrupted; what is finished is logged, and this goes on: {call.again()}")
        raise typer.Exit(130) from None


def plan(sweep_file: SweepFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Count a sweep's trials: in all, done, failed, to run, and what they will take. Writes nothing."""
    from fttune.config import load_sweep
    from fttune.session import plan_sweep
    from fttune.sweep.driver import Choice

    plan_sweep(load_sweep(sweep_file, overrides or ()), Choice(), as_json=as_json)


def status(sweep_file: SweepFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """How a sweep goes, seen from another terminal: done, running, failed, time left."""
    from fttune.config import load_sweep
    from fttune.status import show_status

    show_status(load_sweep(sweep_file, overrides or ()), as_json=as_json)


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
    from fttune.reporting import make_report

    beside = [load_sweep(path) for path in others or ()]
    make_report(load_sweep(sweep_file, overrides or ()), out=out, as_json=as_json, others=beside)
