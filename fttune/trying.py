"""The sweep that finds out: the candidates on the user's own images, as a sweep file, priced on this machine."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from fttune.analysis.answer import Answer, Option, Trying
from fttune.config import Sweep
from fttune.data.dataset import YOURS
from fttune.errors import UsageError
from fttune.files import replacing, writing
from fttune.mistakes import checked
from fttune.placing import Placed, Question
from fttune.plan import pending
from fttune.record import RunRecord
from fttune.runtime import Runtime
from fttune.sweep.driver import machine, open_tracker
from fttune.sweep.forecast import cost_model, estimate
from fttune.sweep.ground import survey
from fttune.trial import Trial

_SEEDS = [0, 1, 2]
_TRAIN = {"lr": 0.01, "batch_size": 32, "steps": 200, "views": "flip"}
_MARK = "# Written by fttune recommend"


def sweep_tree(question: Question, placed: Placed, specs: Sequence[str]) -> dict[str, Any]:
    """A sweep file of some layer specs on the images of a question, three seeds each, as its tree."""
    tree: dict[str, Any] = {
        "name": sweep_name(placed),
        "grid": {
            "datasets": {_name(placed): _entry(question, placed)},
            "backbones": [question.backbone],
            "specs": list(specs),
            "seeds": _SEEDS,
        },
        "train": _TRAIN | {"image_size": placed.distance.image_size},
        "tracking": {"experiment": question.experiment},
        "distance": {"images": question.maximum},
    }
    data: dict[str, Any] = {"root": str(question.root.absolute())} if question.root else {}
    data |= {"corrupt": "skip"} if question.skip_corrupt else {}
    return tree | ({"data": data} if data else {})


def sweep_name(placed: Placed) -> str:
    """The name of the sweep, and of its file where none is given; folders of one name have their own each."""
    return f"recommend-{re.sub('[^A-Za-z0-9._-]+', '-', _name(placed))[:80]}-{placed.distance.data_digest[:6]}"


def sweep_of(tree: dict[str, Any], question: Question) -> Sweep:
    """The sweep of a tree, as `load_sweep` makes it of a file; it goes to the question's tracker."""
    sweep = checked(Sweep, tree, Path(tree["name"]), "sweep file")
    tracking = sweep.tracking.model_copy(update={"uri": question.uri})
    return sweep.model_copy(update={"tracking": tracking})


def check_file(path: Path) -> None:
    """UsageError for a sweep file that cannot be written, or that somebody else wrote: it stays as it is."""
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--write {path}: a sweep file ends in .yaml")
    if not path.parent.is_dir():
        raise UsageError(f"--write {path}: there is no folder {path.parent}")
    if path.is_dir() or (path.exists() and _MARK not in path.read_text(errors="replace")):
        raise UsageError(f"--write {path}: is there already and was not written by fttune recommend; name another file")


def write_sweep(path: Path, tree: dict[str, Any]) -> None:
    """Write a sweep file whole or not at all."""
    head = f"# fttune run {shlex.quote(str(path))}\n#\n{_MARK}: candidates on these images, fair pairs, three seeds.\n"
    with writing(path.parent), replacing(path) as temporary:
        temporary.write_text(head + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=120))


def priced(answer: Answer, question: Question, placed: Placed, *, file: Path | None, words: Sequence[str]) -> Answer:
    """The answer with what each option costs here, and with the sweep that tries the candidates among them."""
    every = sweep_of(sweep_tree(question, placed, [option.spec for option in answer.options]), question)
    runtime = machine(every)
    _time_stages(question.backbone, placed.distance.image_size, runtime)
    ground, records = survey(every, runtime), open_tracker(every).records()
    model = cost_model(ground, runtime, records, ground.trials)

    def seconds(trial: Trial) -> float | None:
        alone = model.seconds(trial)
        return None if alone is None else alone + model.features([trial]).get(trial, 0.0)

    options = tuple(_priced(option, ground.trials, records, seconds) for option in answer.options)
    tried = [option.spec for option in options if option.tried]
    chosen = [trial for trial in ground.trials if str(trial.cell.spec) in tried]
    plan = pending(chosen, records)
    trying = Trying(
        sweep=sweep_tree(question, placed, tried),
        file=str(file) if file else None,
        command=_command(words, file),
        trials=len(chosen),
        to_run=len(plan.to_run),
        failed=len(plan.failed),
        seconds=estimate(every, plan.to_run, plan, records, model).seconds if plan.to_run else 0.0,
    )
    return replace(answer, options=options, trying=trying)


def _priced(
    option: Option,
    trials: Sequence[Trial],
    records: Sequence[RunRecord],
    seconds: Callable[[Trial], float | None],
) -> Option:
    """By the runs of just these trials, where there are any; by the times of the network's stages elsewhere."""
    mine = [trial for trial in trials if str(trial.cell.spec) == option.spec]
    ids = {trial.id for trial in mine}
    logged = [r.seconds for r in records if r.trial_id in ids and r.status == "done" and r.seconds is not None]
    if logged:
        return replace(option, seconds=median(logged), seconds_from="logged runs")
    return replace(option, seconds=seconds(mine[0]), seconds_from="stage times measured on this machine")


def _time_stages(backbone: str, size: int, runtime: Runtime) -> None:
    """Measure what each stage of the network takes here, once for a machine."""
    import torch

    from fttune.backbones import catalog
    from fttune.training.device import pick_device, placed
    from fttune.training.probe import measure_once

    threads = torch.get_num_threads()
    torch.set_num_threads(runtime.threads or threads)  # as a trial has
    try:
        device = pick_device(runtime.device)
        measure_once(placed(catalog.load(backbone), device), backbone, size, device, runtime)
    finally:
        torch.set_num_threads(threads)


def _command(words: Sequence[str], file: Path | None) -> str:
    if file:
        return shlex.join(["fttune", "run", str(file)])
    return f"{shlex.join([*words, '--write', 'sweep.yaml'])} && fttune run sweep.yaml"


def _name(placed: Placed) -> str:
    """What the sweep calls the dataset: the last part of what names it."""
    return Path(placed.row.name.partition(":")[2] or placed.row.name).stem if _is_yours(placed) else placed.row.name


def _is_yours(placed: Placed) -> bool:
    return placed.row.task == YOURS


def _entry(question: Question, placed: Placed) -> dict[str, Any]:
    """How the sweep file names the images."""
    images = placed.images
    kind, _, place = placed.row.about.partition(":") if _is_yours(placed) else ("", "", "")
    if kind in ("folder", "parquet") or (kind == "hf" and Path(place).is_dir()):
        place = str(Path(place).absolute())
    entry: dict[str, Any] = {{"folder": "path"}.get(kind, kind): place} if kind else {}
    entry |= {"options": dict(question.options)} if question.options else {}
    entry |= {"images_per_class": [images.per_class], "val": images.val}
    return entry | ({} if images.test is None else {"test": images.test})
