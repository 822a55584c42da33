"""Trials, from their values to their records, in any process: needs neither Ray nor MLflow."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from fttune.bundle import Bundle
from fttune.errors import StoppedError
from fttune.footprint import CONTEXT
from fttune.record import CurvePoint, RunRecord
from fttune.runtime import Runtime
from fttune.training import checkpoint
from fttune.training.bench import Bench, network
from fttune.training.convex import solve
from fttune.training.device import device_name, give_back, keep_to, own_generators, peak_memory, pick_device
from fttune.training.keeper import Keeper, never
from fttune.training.leaving import leave
from fttune.training.loop import Fit, Scores, fit_legs, score
from fttune.training.probe import measure_once
from fttune.training.together import Seat, fit_together, fits
from fttune.trial import Trial
from fttune.ways import is_convex

Report = Callable[[Trial, CurvePoint], None]


def run_trial(trial: Trial, runtime: Runtime, report: Callable[[CurvePoint], None]) -> RunRecord:
    """Train and test one trial; `report` is called after every `report_every` steps.

    Deterministic by seed on a CPU with a fixed number of threads. The test set is opened once, after training.
    """
    (record,) = run_bundle(Bundle.alone(trial), runtime, lambda _, point: report(point))
    if runtime.checkpoints:
        checkpoint.file_of(runtime.checkpoints, trial.id).unlink(missing_ok=True)
    return record


def run_bundle(
    bundle: Bundle, runtime: Runtime, report: Report, stopped: Callable[[], bool] = never
) -> list[RunRecord]:
    """Train and test the trials of a bundle, at once where there are several; their records in the same order.

    No records where they cannot train at once: each is to be run alone then. StoppedError soon after `stopped`: a trial
    alone has then been saved, those that train together start anew. What was saved stays, for whoever learns of
    the end and lives on to remove it.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        keep_to(runtime.gpu_share, CONTEXT)
    first = bundle.trials[0]
    known = network(first.cell.backbone, runtime)
    measure_once(known, first.cell.backbone, first.hparams.image_size, pick_device(runtime.device), runtime)
    try:
        if len(bundle.trials) > 1:
            return _together(bundle, runtime, report, stopped)
        return [_alone(first, bundle.depths, runtime, report, stopped)]
    finally:
        give_back()


def _alone(
    trial: Trial, depths: Sequence[int], runtime: Runtime, report: Report, stopped: Callable[[], bool]
) -> RunRecord:
    watch, keeper = _Watch(), _keeper(trial, runtime, stopped)
    with own_generators(trial.seed_for("order")):
        bench = Bench.set_up(trial, runtime, depths)
        watch.lap("data")
        first = bench.leg(0)
        watch.lap("feature")
        if is_convex(trial.cell.way):
            end, leg = solve(first, stopped), first
        else:
            end, leg = fit_legs(
                bench.route(first),
                trial.hparams,
                seed=trial.seed_for("order"),
                report=lambda point: report(trial, point),
                keeper=keeper,
                bar=dict(trial.bar),
            )
        watch.lap("fit")
        bench = replace(bench, student=leg.student)
        test = bench.test()
        watch.lap("feature")
        scored = score(bench.student, test), score(bench.student, leg.train)
        watch.lap("eval")
    leave(bench, bench.student.trained.state_dict(), end.val)
    return _record(trial, bench, end, scored, watch, together=1)


def _keeper(trial: Trial, runtime: Runtime, stopped: Callable[[], bool]) -> Keeper:
    """Under the trial's id, which holds all that its outcome follows from but the code that computes it."""
    if runtime.checkpoints is None:
        return Keeper(stopped=stopped)
    return Keeper(
        path=checkpoint.file_of(runtime.checkpoints, trial.id),
        terms={"trial": trial.id, "torch": torch.__version__, "device": pick_device(runtime.device).type},
        every=runtime.checkpoint_seconds,
        stopped=stopped,
    )


def _together(bundle: Bundle, runtime: Runtime, report: Report, stopped: Callable[[], bool]) -> list[RunRecord]:
    """Every combination of the bundle's seeds and settings is trained; those that are its trials are told of."""
    watch = _Watch()
    firsts = {trial.seed: trial for trial in reversed(bundle.trials)}
    settings = list(dict.fromkeys(trial.hparams for trial in bundle.trials))
    asked = {(trial.seed, trial.hparams): trial for trial in bundle.trials}

    def tell(seat: int, setting: int, point: CurvePoint) -> None:
        if stopped():
            raise StoppedError("trials that train together were asked to stop")
        if trial := asked.get((seeds[seat], settings[setting])):
            report(trial, point)

    seeds, benches, seats = list(firsts), [], []
    for trial in firsts.values():
        with own_generators(trial.seed_for("order")):
            benches.append(Bench.set_up(trial, runtime, bundle.depths))
            state = torch.get_rng_state()
        if not (benches[0].cached and fits(benches[0].student)):
            return []
        watch.lap("data")
        train, val = benches[-1].train(), benches[-1].val()
        seats.append(
            Seat(student=benches[-1].student, train=train, val=val, seed=trial.seed_for("order"), dropout=state)
        )
        watch.lap("feature")
    end = fit_together(seats, settings, tell)
    watch.lap("fit")
    tests = [bench.test() for bench in benches]
    watch.lap("feature")
    tested, trained = end.score(tests), end.score([seat.train for seat in seats])
    watch.lap("eval")
    places = [(seeds.index(trial.seed), settings.index(trial.hparams)) for trial in bundle.trials]
    for trial, (s, r) in zip(bundle.trials, places, strict=True):
        leave(replace(benches[s], trial=trial), end.state(s, r), end.ends[s][r].val)
    return [
        _record(trial, benches[s], end.ends[s][r], (tested[s][r], trained[s][r]), watch, together=len(places))
        for trial, (s, r) in zip(bundle.trials, places, strict=True)
    ]


def _record(
    trial: Trial, bench: Bench, end: Fit, scored: tuple[Scores, Scores], watch: "_Watch", *, together: int
) -> RunRecord:
    """`scored` on test and on train; what was spent on all is shared out equally."""
    test, train = scored
    labels, split = bench.store.labels, bench.split
    seconds = watch.total() / together + end.seconds_before
    return RunRecord.of(
        trial,
        status="done",
        git_commit=bench.runtime.git_commit,
        classes=len(bench.store.classes),
        dropped_classes=len(bench.store.dropped),
        dataset_images=len(labels),
        smallest_class=int(np.bincount(labels).min()),
        train_images=len(split.train),
        val_images=len(split.val),
        test_images=len(split.test),
        val_accuracy=end.val.accuracy,
        val_mean_class_accuracy=end.val.mean_class_accuracy,
        test_accuracy=test.accuracy,
        test_mean_class_accuracy=test.mean_class_accuracy,
        train_accuracy=train.accuracy,
        best_step=end.best_step or None,
        convex_c=end.strength,
        val_curve=",".join(map(repr, end.curve)),
        pruned_step=end.pruned_step,
        resumed_step=end.resumed_step,
        seconds=seconds,
        gpu_seconds=bench.runtime.gpu_share * seconds if bench.device.type == "cuda" else None,
        data_seconds=watch.laps["data"] / together,
        feature_seconds=watch.laps["feature"] / together + end.feature_seconds,
        train_seconds=end.train_seconds,
        eval_seconds=end.eval_seconds + watch.laps["eval"] / together,
        images_per_second=end.steps * min(trial.hparams.batch_size, len(split.train)) / end.train_seconds or None,
        together=together,
        peak_memory_mb=peak_memory(bench.device),
        device=device_name(bench.device),
    )


class _Watch:
    """Wall seconds by what they went to."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = dict.fromkeys(("data", "feature", "fit", "eval"), 0.0)
        self._start = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] += now - self._last
        self._last = now

    def total(self) -> float:
        return time.perf_counter() - self._start
