"""What the sweep commands do: plan, run, report; each from a checked sweep to what is printed."""

import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune import caching
from fttune.analysis.report import Report, Wanted, analyse, summary, write_report
from fttune.analysis.select import setting_of
from fttune.bundle import bundle
from fttune.config import Sweep
from fttune.cost import CostModel
from fttune.errors import UsageError
from fttune.plan import Plan, cells, only, pending
from fttune.record import DistanceRecord, RunRecord
from fttune.secrets import masked
from fttune.sweep.budget import Brake, Budget
from fttune.sweep.driver import (
    Choice,
    Estimate,
    Workshop,
    alone,
    check_cores,
    choose,
    distances,
    estimate,
    follow,
    machine,
    open_tracker,
    planned,
    room,
    state_file,
    work,
)
from fttune.sweep.ground import Ground, prepare, survey
from fttune.sweep.hook import Hook
from fttune.sweep.keeping import Keeping, expected
from fttune.sweep.meter import Meter
from fttune.sweep.progress import Display, clock
from fttune.sweep.tally import Tally, prices
from fttune.sweep.turn import await_turn, take_turn
from fttune.terminal import Decoding, print_json, print_lines, say
from fttune.tracking.claim import Claim
from fttune.tracking.models import Models
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from fttune.trial import Trial

if TYPE_CHECKING:
    from fttune.sweep.ledger import Outcome

# Exit codes of `fttune run`.
DONE, FAILED, NOTHING, UNDELIVERED, INTERRUPTED = 0, 1, 3, 4, 130


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """How `fttune run` was called."""

    words: Sequence[str]  # the command to give again
    address: str | None = None  # of a Ray cluster
    fail_fast: bool = False
    budget: Budget = field(default_factory=Budget)
    out: Path | None = None  # folder of the report
    as_json: bool = False
    quiet: bool = False  # the table is not printed; its caller says what was found

    def again(self, *extra: str) -> str:
        # What stands under `notify` may hold a password.
        words = [re.sub(r"^(notify[.\w]*)=.*", r"\1=...", word, flags=re.DOTALL) for word in self.words]
        return shlex.join([*words, *extra])


def plan_sweep(sweep: Sweep, choice: Choice, *, as_json: bool) -> None:
    """Count the trials; nothing is decoded, trained or written."""
    runtime = machine(sweep)
    ground, records = survey(sweep, runtime), open_tracker(sweep).records()
    whole, model = planned(ground, runtime, records)
    chosen = choose(whole, choice)
    layers = caching.choose(model, chosen, sweep.resources.cache_gb * 1e9)
    networks, room_of_networks = expected(sweep, ground.trials)
    facts = {
        **whole.counts(chosen),
        "not_prepared": [row.name for row in ground.undecoded],
        "absent_weights": list(ground.absent),
        "store_bytes": room(ground),
        "cache": [asdict(layer) for layer in layers],
        "kept_networks": networks,
        "kept_bytes": room_of_networks,
        "training_images": sum(trial.hparams.steps * trial.hparams.batch_size for trial in chosen),
        **asdict(estimate(sweep, chosen, whole, records, model)),
    }
    if as_json:
        return print_json({"sweep": sweep.name, **facts})
    say(_line(sweep, whole, chosen, "would start"))
    if ground.undecoded:
        say(f"not prepared on this machine, so counted as to run: {', '.join(row.name for row in ground.undecoded)}")
        say(f"decoding them will take {facts['store_bytes'] / 1e6:,.0f} MB in the store")
    for line in (*ground.remarks, *ground.absent, *caching.told(layers)):
        say(line)
    if networks:
        say(f"at most {networks:,} trained networks are kept ({room_of_networks / 1e6:,.0f} MB; train.keep)")
    if chosen:
        say(f"training shows at most {facts['training_images']:,} images of {_sides(chosen)} px")
    if facts["gpu_hours"]:
        say(f"about {facts['gpu_hours']:.2g} GPU-hours")
    left = facts["seconds"]
    return say(
        "no finished trial to estimate the time by" if left is None else f"about {clock(left)} to go on this machine"
    )


def run_sweep(sweep: Sweep, choice: Choice, call: Call) -> int:
    """Run what is missing, log it, report on it; gives the exit code."""
    only((), choice.only)  # a mistake in it is told before anything is made
    if not call.address:
        check_cores(sweep)
    tracker = open_tracker(sweep)
    hook = Hook(sweep.notify, {"sweep": sweep.name, "resume": call.again()}, say)
    with alone(sweep):
        over = await_turn(tracker, sweep.name, say)
        with hook:
            hook.exit_code = _run(sweep, tracker, over, choice, call, hook)
    return hook.exit_code


def _run(sweep: Sweep, tracker: Tracker, over: Claim | None, choice: Choice, call: Call, hook: Hook) -> int:
    runtime, since = machine(sweep), time.monotonic()
    with Decoding() as progress:
        ground = prepare(sweep, runtime, progress)
    for line in ground.remarks:
        say(line)
    with Writer(tracker, state_file(sweep, ".spool"), sweep.name) as writer:
        take_turn(writer, tracker, sweep.name, over)
        records = tracker.records()
        whole, model = planned(ground, runtime, records)
        chosen = choose(whole, choice)
        say(_line(sweep, whole, chosen))
        expected = estimate(sweep, chosen, whole, records, model).seconds if chosen else None
        writer.adopt(whole.done)
        if sweep.search.sampler != "fixed":
            writer.note_default(json.dumps(setting_of(sweep.train.hparams())))
        if not chosen and (choice.retry_failed or whole.to_run):
            say("no trial meets these conditions")
            return NOTHING
        brake = Brake(call.budget, Meter(), fail_fast=call.fail_fast, lost=lambda: writer.lost, since=since)
        # How many trials a cluster has room for is not known before they run.
        tally = Tally(whole, chosen, brake.meter, prices(model, bundle(chosen)), None if call.address else expected)
        writer.counts = hook.counts = tally.counts
        keeping = Keeping(sweep, runtime.networks, [*whole.done, *whole.failed, *whole.to_run], records)
        start = time.monotonic()
        workshop = Workshop(ground, chosen, model)
        measurements, impossible = distances(ground, tracker)
        more = follow(ground, records, workshop, chosen, choice, [tally.more, lambda _, done, __: writer.adopt(done)])
        # Distances last: of the images that trials have passed to the classifier, they then find the features.
        jobs = [*workshop.jobs(chosen), *measurements]
        listeners = [writer, tally, hook, keeping]
        outcome = work(jobs, ground, runtime, call.address, listeners, Display(tally), brake, more)
        if expected and outcome.complete:
            say(_compared(expected, time.monotonic() - start))
        waiting = writer.close()
        for note in (*(more.notes if more else ()), *writer.notes, *outcome.notes, *impossible, *brake.notes):
            say(note)
        if not waiting and not writer.lost:
            keeping.settle(Models(tracker), call.again, say)
    if writer.lost:
        raise UsageError(f"another driver took sweep '{sweep.name}' over, so this one ended; `fttune status` shows it")
    return _verdict(ground, tracker, outcome, waiting, call, brake, model)


def make_report(sweep: Sweep, *, out: Path | None, as_json: bool, others: Sequence[Sweep] = ()) -> None:
    """Regenerate the report from the logged runs of a sweep, and of others with it; attach it to the sweep's run."""
    parts = [(one, survey(one, machine(one)), open_tracker(one)) for one in (sweep, *others)]
    for one, ground, _ in parts:
        if not ground.whole:
            missing = ", ".join(ground.unprepared) or "the weights"
            say(f"not prepared on this machine: {missing}; taking every run logged for sweep {one.name}")
    report, folder = _report(parts, out)
    _print_report(sweep, parts[0][2], report, folder, as_json=as_json, code=DONE)


def _verdict(
    ground: Ground, tracker: Tracker, outcome: "Outcome", waiting: int, call: Call, brake: Brake, model: CostModel
) -> int:
    """Say how it ended; the exit code."""
    if waiting:
        say(f"the tracker is away: {waiting} events wait in {state_file(ground.sweep, '.spool')}")
        say(f"once it is back, this delivers them: {call.again()}")
        return UNDELIVERED
    if not outcome.complete and not brake.pulled:
        say(f"interrupted; what is finished is logged, and this goes on: {call.again()}")
        return INTERRUPTED
    records = tracker.records()
    asked = ground.asked(records)
    whole = pending(asked.trials, records, unknown=asked.unknown)
    for trial in whole.failed:
        say(f"FAILED  {trial.name}: {_errors(records)[trial.id]}")
    if whole.failed:
        say(f"to run the failed trials again: {call.again('--retry-failed')}")
    code = FAILED if whole.failed or outcome.lost else DONE
    if brake.reached and not outcome.complete:
        left = estimate(ground.sweep, whole.to_run, whole, records, model)
        say(f"budget reached: {brake.reached}; {_left(whole, left)}; what was under way is saved")
        say(f"to go on: {call.again()}")
        code = NOTHING
    if not whole.done:
        return code
    report, folder = _report([(ground.sweep, ground, tracker)], call.out)
    if call.quiet:
        say(f"report: {folder / 'report.html'}")
    else:
        _print_report(ground.sweep, tracker, report, folder, as_json=call.as_json, code=code)
    return code


def _report(parts: Sequence[tuple[Sweep, Ground, Tracker]], out: Path | None) -> tuple[Report, Path]:
    """From the logged runs of one sweep or several; named, cut and kept as the first says."""
    sweep, _, tracker = parts[0]
    folder = out or Path("runs") / sweep.name
    logged = [_logged(*part) for part in parts]
    records = {record.trial_id: record for records, _ in logged for record in records}
    report = analyse(
        _oldest_first(records, [tracker for _, _, tracker in parts]),
        list({record.id: record for _, distances in logged for record in distances}.values()),
        name=" with ".join(one.name for one, _, _ in parts),
        image_edges=sweep.analysis.image_bands,
        distance_edges=sweep.analysis.distance_bands,
        confidence=sweep.analysis.confidence,
        defaults=[one.train.hparams() for one, _, _ in parts],
        wanted=[one for _, ground, _ in parts for one in _wanted(ground)],
    )
    write_report(report, folder)
    tracker.log_report(sweep.name, folder)
    return report, folder


def _oldest_first(records: Mapping[str, RunRecord], trackers: Sequence[Tracker]) -> list[RunRecord]:
    """Of several sweeps too, where they share an experiment; different experiments follow each other."""
    if len(trackers) == 1:
        return list(records.values())
    experiments = {(tracker.uri, tracker.experiment): tracker for tracker in trackers}
    order = [record.trial_id for tracker in experiments.values() for record in tracker.records()]
    return [records[trial_id] for trial_id in dict.fromkeys(order) if trial_id in records]


def _logged(sweep: Sweep, ground: Ground, tracker: Tracker) -> tuple[list[RunRecord], list[DistanceRecord]]:
    """This sweep's trials and measurements as it stands now, where they can be told on this machine."""
    records = tracker.records(sweep.name)
    if ground.whole:
        ids = {trial.id for trial in ground.asked(records).trials}
        records = [record for record in records if record.trial_id in ids]
    places = {(record.data_digest, record.weights_digest, record.image_size, record.resize) for record in records}
    here = [d for d in tracker.distances() if (d.data_digest, d.weights_digest, d.image_size, d.resize) in places]
    if not ground.whole or ground.undecoded:
        return records, here
    # A measurement from another source, which another sweep of the experiment asked for, must not place a dataset.
    asked = {job.id for job in ground.distances()[0]}
    return records, [record for record in here if record.id in asked]


def _print_report(sweep: Sweep, tracker: Tracker, report: Report, folder: Path, *, as_json: bool, code: int) -> None:
    if as_json:
        table: dict[str, Any] = {"sweep": sweep.name, "exit_code": code, "report": str(folder)}
        table |= {"mlflow": masked(tracker.uri), "trials": tracker.page(sweep.name)}
        return print_json(table | {"table": report.document})
    place = (
        f"MLflow: uv run mlflow ui --backend-store-uri {masked(tracker.uri)}   (experiment {sweep.tracking.experiment})"
    )
    trials = f"trials: {tracker.page(sweep.name)}"
    return print_lines([*summary(report).split("\n"), f"report: {folder / 'report.html'}", place, trials])


def _wanted(ground: Ground) -> list[Wanted]:
    return [
        (cell.dataset, cell.images_per_class, cell.backbone, cell.label, seed)
        for cell in cells(ground.sweep, ground.facts)
        for seed in ground.sweep.grid.seeds
    ]


def _compared(expected: float, taken: float) -> str:
    return f"estimated {clock(expected)}, took {clock(taken)} ({abs(expected - taken) / taken:.0%} off)"


def _sides(trials: Sequence[Trial]) -> str:
    return ", ".join(map(str, sorted({trial.hparams.image_size for trial in trials})))


def _errors(records: Sequence[RunRecord]) -> dict[str, str]:
    return {record.trial_id: record.error for record in records}


def _left(plan: Plan, left: Estimate) -> str:
    parts = [f"{plan.left} of {plan.total} trials left"]
    if left.seconds is not None:
        parts.append(f"about {clock(left.seconds)} on this machine")
    if left.gpu_hours:
        parts.append(f"about {left.gpu_hours:.2g} GPU-hours")
    return ", ".join(parts)


def _line(sweep: Sweep, plan: Plan, chosen: Sequence[Trial], verb: str = "starting") -> str:
    counts = f"{plan.total} trials: {len(plan.done)} done, {len(plan.failed)} failed, {plan.left} to run"
    if plan.unknown:
        counts += f" (of {plan.unknown} at most a search asks later)"
    if not chosen:
        return f"{sweep.name}: {counts}; nothing to start"
    return f"{sweep.name}: {counts}; {verb} {len(chosen)}"
