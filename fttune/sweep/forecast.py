"""What a sweep will take on this machine: seconds, GPU-hours, room on the disk; and what says so."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fttune import caching
from fttune.config import Sweep
from fttune.cost import START, CostModel, Images, Output, StageTimes, jobs, makespan
from fttune.data.dataset import Dataset
from fttune.errors import AbsentDataError
from fttune.files import place
from fttune.plan import DatasetFacts, Plan, cost
from fttune.record import RunRecord
from fttune.runtime import Runtime, cores
from fttune.sweep.ground import Ground
from fttune.trial import Trial, stored_size


def cost_model(
    ground: Ground,
    runtime: Runtime,
    records: Sequence[RunRecord],
    trials: Sequence[Trial] = (),
    computed: Collection[Output] | None = None,
) -> CostModel:
    """What is known of this sweep's costs on this machine, held against those of `trials` that are finished.

    `computed`: of the frozen layers, where that was settled before; else it is settled now, for these trials.
    """
    sweep = ground.sweep
    size, threads = sweep.train.image_size, runtime.threads or 1
    folder = runtime.state or place("state")
    read = {name: StageTimes.known(folder, name, size, threads, sweep.resources.gpu) for name in sweep.grid.backbones}
    counted = {name: _images(facts) for name, facts in ground.facts.datasets.items()}
    model = CostModel(
        times={(name, size): times for name, times in read.items() if times},
        images={name: images for name, images in counted.items() if images},
    )
    if computed is None:
        model = caching.settle(model, trials, sweep.resources.cache_gb * 1e9)
    else:
        model = replace(model, computed=computed)
    return model.corrected(records, trials)


def _images(facts: DatasetFacts) -> Images | None:
    if facts.classes is None or facts.test_images is None:
        return None
    held_out = facts.test_images + facts.classes * facts.val
    rest = None if facts.images is None else max(0, facts.images - held_out)
    return Images(classes=facts.classes, test=facts.test_images, rest=rest)


def time_networks(sweep: Sweep, runtime: Runtime) -> None:
    """Time those that were never timed here, so that what is kept and what starts first is settled by measurement.

    Where there is a GPU the first trials do that: what a process takes of one stays with it.
    """
    size, threads, folder = sweep.train.image_size, runtime.threads or 1, runtime.state or place("state")
    known = partial(StageTimes.known, folder, image_size=size, threads=threads, share=sweep.resources.gpu)
    if not (missing := [name for name in sweep.grid.backbones if known(backbone=name) is None]):
        return
    from torch.cuda import is_available

    from fttune.training.probe import time_stages

    if not is_available():
        time_stages(missing, size, runtime)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What trials will take; None where nothing is known of them yet."""

    seconds: float | None  # on this machine, as many side by side as fit
    gpu_hours: float | None  # None too where the share of a GPU is not a number


def estimate(
    sweep: Sweep, trials: Sequence[Trial], plan: Plan, records: Sequence[RunRecord], model: CostModel
) -> Estimate:
    """From measured stage times; without them, the seconds of finished trials scaled by relative cost."""
    spent = jobs(model, caching.bundles(model, trials)) or _scaled(trials, plan, records)
    if spent is None:
        return Estimate(seconds=None, gpu_hours=None)
    if plan.unknown and len(trials) == len(plan.to_run):
        # What a search asks for later costs on average what it asks for now.
        known = [*plan.done, *plan.to_run]
        every = jobs(model, caching.bundles(model, known)) or _scaled(known, plan, records) or spent
        spent = [*spent, *[sum(every) / max(1, len(known))] * plan.unknown]
    fit = max(1, int(cores() / sweep.resources.cpu))
    side_by_side = min(sweep.resources.max_concurrent or fit, fit)
    gpu = sweep.resources.gpu
    whole = makespan(sorted(spent, reverse=True), side_by_side) + (START if trials else 0.0)
    return Estimate(seconds=whole, gpu_hours=None if isinstance(gpu, str) else sum(spent) * gpu / 3600)


def _scaled(trials: Sequence[Trial], plan: Plan, records: Sequence[RunRecord]) -> list[float] | None:
    seconds = {record.trial_id: record.seconds or 0.0 for record in records}
    done = sum(cost(trial) for trial in plan.done)
    spent = sum(seconds[trial.id] for trial in plan.done)
    return [cost(trial) * spent / done for trial in trials] if done else None


def room(ground: Ground) -> int:
    """Bytes that the datasets not decoded yet will take in the store, as far as their images can be counted."""
    side = stored_size(ground.sweep.train.image_size)
    return sum(map(_count, ground.undecoded)) * side * side * 3


def _count(row: Dataset) -> int:
    try:
        return len(row.source().images)
    except AbsentDataError:
        return row.images or 0
