"""What searches chose, what it gained, and how far a few val images misled them; from logged runs alone.

The last is hindsight: the test accuracies of runs that are recorded anyway, read once the choice is made, fed back to
nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from fttune.analysis.select import Searched, Setting, measured, searched, setting_of
from fttune.analysis.sheet import Row, Sheet, Value
from fttune.record import RunRecord
from fttune.trial import SEARCHED

_CELL = ("dataset", "images", "backbone", "spec")


def search_sheet(records: Sequence[RunRecord], defaults: Collection[Setting]) -> Sheet:
    """For each searched cell the setting chosen, and its test accuracy beside that of the sweep's own setting."""
    cells = _cells(records)
    columns = (*_CELL, "settings", "trials", "steps", "seconds", "GPU-seconds", "chosen", "val")
    return Sheet(
        title="What was chosen in each cell, and what it gained",
        columns=(*columns, "test", "test of default", "gain", "seeds"),
        rows=tuple(_row(cell, defaults) for cell in cells),
        notes=(
            "Settings are chosen by mean val accuracy over the draws of the search, which no other number here rests"
            " on; test is the mean over the seeds that the chosen setting and the sweep's own (default) are repeated"
            " on, gain the mean difference over the seeds that both have.",
        ),
        facts={"tried": [member for cell in cells for member in _members(cell)]},
    )


def illusion_sheet(records: Sequence[RunRecord]) -> Sheet:
    """For each searched cell what choosing by val left on the table, in hindsight."""
    columns = (*_CELL, "held out", "settings", "val of chosen", "test of chosen", "best test in hindsight", "gap")
    return Sheet(
        title="The illusion of a few validation images (hindsight)",
        columns=columns,
        rows=tuple(_hindsight(cell) for cell in _cells(records)),
        notes=(
            "All four accuracies are means over the draws of the search. The best on test is read after the choice and"
            " decides nothing: nobody could have chosen it, and being a maximum it flatters itself. Held out are the"
            " images of each class that a setting is judged by in all.",
        ),
    )


def describe(setting: Setting, others: Collection[Setting]) -> str:
    """What of a setting differs among those tried: `lr 0.03, weight_decay 0.0005`."""
    varied = [place for place in range(len(SEARCHED)) if len({other[place] for other in others}) > 1]
    return ", ".join(f"{SEARCHED[place]} {_text(setting[place])}" for place in varied) or "the only one"


def _cells(records: Sequence[RunRecord]) -> list[Searched]:
    found = searched(records)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1], key[2], repr(key[3:])))]


def _row(cell: Searched, defaults: Collection[Setting]) -> Row:
    chosen, spent = cell.chosen, cell.given
    own = min((setting for setting in cell.repeats if setting in defaults), default=None)
    tests, default = _tests(cell, chosen), _tests(cell, own)
    both = tests.keys() & default.keys()
    return _named(cell) | {
        "settings": cell.settings,
        "trials": spent.trials,
        "steps": spent.steps,
        "seconds": round(spent.seconds),
        "GPU-seconds": round(spent.gpu_seconds) if spent.gpu_seconds else None,
        "chosen": "default" if chosen == own else describe(chosen, cell.tried),
        "val": _mean(cell.tried[chosen], "val_accuracy"),
        "test": fmean(tests.values()) if tests else None,
        "test of default": fmean(default.values()) if default else None,
        # Rounded: equal means of other seeds' accuracies may differ in the last binary digit.
        "gain": round(fmean(tests[seed] - default[seed] for seed in both), 12) + 0.0 if both else None,
        "seeds": len(tests),
    }


def _hindsight(cell: Searched) -> Row:
    chosen = cell.chosen
    full = [runs for runs in cell.tried.values() if len(runs) == len(cell.tried[chosen])]
    best, test = max(_mean(runs, "test_accuracy") for runs in full), _mean(cell.tried[chosen], "test_accuracy")
    one = cell.tried[chosen][0]
    held = sum(run.val_images or 0 for run in cell.tried[chosen] if run.seed == one.seed)
    return _named(cell) | {
        "held out": held // one.classes if one.classes else None,
        "settings": cell.settings,
        "val of chosen": _mean(cell.tried[chosen], "val_accuracy"),
        "test of chosen": test,
        "best test in hindsight": best,
        "gap": best - test,
    }


def _members(cell: Searched) -> list[dict[str, object]]:
    """The whole list that was tried, a row for each run of the search, the chosen one marked, those that failed too."""
    chosen, runs = cell.chosen, [*(run for runs in cell.tried.values() for run in runs), *cell.failed]
    return [
        {
            "trial_id": run.trial_id,
            "status": run.status,
            **_named(cell),
            "seed": run.seed,
            "fold": run.fold,
            **{name: getattr(run, name) for name in SEARCHED},
            "val_accuracy": run.val_accuracy,
            "test_accuracy": run.test_accuracy,
            "pruned_step": run.pruned_step,
            "chosen": setting_of(run) == chosen,
        }
        for run in sorted(runs, key=lambda run: (setting_of(run), -run.seed, run.fold or 0))
    ]


def _tests(cell: Searched, setting: Setting | None) -> Mapping[int, float]:
    """Test accuracy by seed."""
    return {run.seed: measured(run, "test_accuracy") for run in cell.repeats.get(setting, ())} if setting else {}


def _named(cell: Searched) -> dict[str, Value]:
    run = next(iter(cell.tried.values()))[0]
    return dict(zip(_CELL, (run.dataset, run.images_per_class, run.backbone, run.label), strict=True))


def _mean(runs: Sequence[RunRecord], name: str) -> float:
    return fmean(measured(run, name) for run in runs)


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
