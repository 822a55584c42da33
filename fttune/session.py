"""What the sweep commands do: plan, run, status, report; each from a checked sweep to what is printed."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune import caching
from fttune.analysis.report import Report, Wanted, analyse, summary, write_report
from fttune.bundle import bundle
from fttune.config import Sweep
from fttune.cost import CostModel, longest_first, price
from fttune.plan import Plan, pending
from fttune.record import DistanceRecord, RunRecord
from fttune.runtime import Runtime
from fttune.secrets import masked
from fttune.sweep.driver import (
    Choice,
    alone,
    check_cores,
    choose,
    cost_model,
    estimate,
    is_running,
    machine,
    open_tracker,
    room,
    state_file,
)
from fttune.sweep.ground import Ground, prepare, survey
from fttune.sweep.progress import Display, clock
from fttune.sweep.supply import Supply
from fttune.terminal import Decoding, print_json, say
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
    out: Path | None = None  # folder of the report
    as_json: bool = False

    def again(self, *extra: str) -> str:
        return shlex.join([*self.words, *extra])


def plan_sweep(sweep: Sweep, choice: Choice, *, as_json: bool) -> None:
    """Count the trials; nothing is decoded, trained or written."""
    runtime = machine(sweep)
    ground, records = survey(sweep, runtime), open_tracker(sweep).records()
    model = cost_model(sweep, ground, runtime, records)
    whole = pending(ground.trials, records, price(model, ground.trials))
    chosen = choose(whole, choice)
    layers = caching.choose(model, chosen, sweep.resources.cache_gb * 1e9)
    facts = {
        **_counts(whole, chosen),
        "not_prepared": [row.name for row in ground.undecoded],
        "absent_weights": list(ground.absent),
        "store_bytes": room(ground),
        "cache": [asdict(layer) for layer in layers],
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
    runtime, tracker = machine(sweep), open_tracker(sweep)
    if not call.address:
        check_cores(sweep)
    with alone(sweep):
        with Decoding() as progress:
            ground = prepare(sweep, runtime, progress)
        for line in ground.remarks:
            say(line)
        with Writer(tracker, state_file(sweep, ".spool"), sweep.name) as writer:
            records = tracker.records()
            model = cost_model(sweep, ground, runtime, records)
            whole = pending(ground.trials, records, price(model, ground.trials))
            chosen = choose(whole, choice)
            say(_line(sweep, whole, chosen))
            expected = estimate(sweep, chosen, whole, records, model).seconds if chosen else None
            writer.adopt(whole.done)
            if not chosen and (choice.retry_failed or whole.to_run):
                say("no trial meets these conditions")
                return NOTHING
            start = time.monotonic()
            outcome = _work(sweep, runtime, ground, tracker, writer, chosen, call, model)
            if expected and outcome.complete:
                say(_compared(expected, time.monotonic() - start))
            waiting = writer.close()
            for note in (*writer.notes, *outcome.notes):
                say(note)
        return _verdict(sweep, ground, tracker, outcome, waiting, call)


def show_status(sweep: Sweep, *, as_json: bool) -> None:
    """Count what is done, running and failed; reads only."""
    runtime, tracker = machine(sweep), open_tracker(sweep)
    ground, records = survey(sweep, runtime), tracker.records()
    whole = pending(ground.trials, records)
    busy = is_running(sweep)
    wanted = {trial.id: trial.name for trial in whole.to_run}
    running = [wanted[trial_id] for trial_id in tracker.running() if trial_id in wanted] if busy else []
    model = cost_model(sweep, ground, runtime, records)
    left = estimate(sweep, whole.to_run, whole, records, model).seconds
    failed = [{"trial": trial.name, "id": trial.id, "error": _errors(records)[trial.id]} for trial in whole.failed]
    if as_json:
        facts = _counts(whole, whole.to_run) | {"running": running, "active": busy, "seconds": left, "failures": failed}
        return print_json({"sweep": sweep.name, **facts})
    say(f"{sweep.name}: {len(whole.done)} of {whole.total} done, {len(running)} running, {len(whole.failed)} failed")
    for name in running:
        say(f"  running  {name}")
    for failure in failed:
        say(f"  FAILED   {failure['trial']}: {failure['error']}")
    if whole.to_run and left is not None:
        say(f"about {clock(left)} to go" if busy else f"about {clock(left)} to go once it runs again")
    return None


def make_report(sweep: Sweep, *, out: Path | None, as_json: bool, others: Sequence[Sweep] = ()) -> None:
    """Regenerate the report from the logged runs of a sweep, and of others with it; attach it to the sweep's run."""
    parts = [(one, survey(one, machine(one)), open_tracker(one)) for one in (sweep, *others)]
    for one, ground, _ in parts:
        if not ground.whole:
            missing = ", ".join(ground.unprepared) or "the weights"
            say(f"not prepared on this machine: {missing}; taking every run logged for sweep {one.name}")
    report, folder = _report(parts, out)
    _print_report(sweep, parts[0][2], report, folder, as_json=as_json, code=DONE)


def _work(
    sweep: Sweep,
    runtime: Runtime,
    ground: Ground,
    tracker: Tracker,
    writer: Writer,
    chosen: Sequence[Trial],
    call: Call,
    model: CostModel,
) -> "Outcome":
    """Measure the missing distances, run the chosen trials."""
    from fttune.sweep.ledger import Outcome
    from fttune.sweep.tune import cluster, run_jobs

    distances, missing = ground.distances()
    known = {record.id for record in tracker.distances()}
    wanted = [job for job in distances if job.id not in known]
    if not chosen and not wanted:
        return Outcome(complete=True, notes=missing)
    kept = caching.choose(model, chosen, sweep.resources.cache_gb * 1e9)
    # Distances last: of the images that trials have passed to the classifier, they then find the features.
    queue = [*longest_first(model, caching.without(bundle(chosen), kept)), *wanted]
    with cluster(call.address), Display(chosen, price(model, chosen)) as display:
        outcome = run_jobs(
            queue,
            runtime,
            sweep.resources,
            [writer, display],
            supply=Supply.of(ground),
            fail_fast=call.fail_fast,
        )
    outcome.notes += missing
    return outcome


def _verdict(sweep: Sweep, ground: Ground, tracker: Tracker, outcome: "Outcome", waiting: int, call: Call) -> int:
    """Say how it ended; the exit code."""
    if waiting:
        say(f"the tracker is away: {waiting} events wait in {state_file(sweep, '.spool')}")
        say(f"once it is back, this delivers them: {call.again()}")
        return UNDELIVERED
    if not outcome.complete and not outcome.failed:
        say(f"interrupted; what is finished is logged, and this goes on: {call.again()}")
        return INTERRUPTED
    records = tracker.records()
    whole = pending(ground.trials, records)
    for trial in whole.failed:
        say(f"FAILED  {trial.name}: {_errors(records)[trial.id]}")
    code = FAILED if whole.failed or outcome.lost else DONE
    if whole.failed:
        say(f"to run the failed trials again: {call.again('--retry-failed')}")
    if not whole.done:
        return code
    report, folder = _report([(sweep, ground, tracker)], call.out)
    _print_report(sweep, tracker, report, folder, as_json=call.as_json, code=code)
    return code


def _report(parts: Sequence[tuple[Sweep, Ground, Tracker]], out: Path | None) -> tuple[Report, Path]:
    """From the logged runs of one sweep or several; named, cut and kept as the first says."""
    sweep, _, tracker = parts[0]
    folder = out or Path("runs") / sweep.name
    logged = [_logged(*part) for part in parts]
    report = analyse(
        list({record.trial_id: record for records, _ in logged for record in records}.values()),
        list({record.id: record for _, distances in logged for record in distances}.values()),
        name=" with ".join(one.name for one, _, _ in parts),
        image_edges=sweep.analysis.image_bands,
        distance_edges=sweep.analysis.distance_bands,
        confidence=sweep.analysis.confidence,
        wanted=[_cell(trial) for _, ground, _ in parts for trial in ground.trials],
    )
    write_report(report, folder)
    tracker.log_report(sweep.name, folder)
    return report, folder


def _logged(sweep: Sweep, ground: Ground, tracker: Tracker) -> tuple[list[RunRecord], list[DistanceRecord]]:
    """This sweep's trials and measurements as it stands now, where they can be told on this machine."""
    ids = {trial.id for trial in ground.trials}
    records = [r for r in tracker.records(sweep.name) if not ground.whole or r.trial_id in ids]
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
        table["mlflow"] = masked(tracker.uri)
        return print_json(table | {"table": report.document})
    print(summary(report))
    print(f"report: {folder / 'report.html'}")
    return print(
        f"MLflow: uv run mlflow ui --backend-store-uri {masked(tracker.uri)}   (experiment {sweep.tracking.experiment})"
    )


def _cell(trial: Trial) -> Wanted:
    cell = trial.cell
    return cell.dataset, cell.images_per_class, cell.backbone, str(cell.spec), trial.seed


def _compared(expected: float, taken: float) -> str:
    return f"estimated {clock(expected)}, took {clock(taken)} ({abs(expected - taken) / taken:.0%} off)"


def _sides(trials: Sequence[Trial]) -> str:
    return ", ".join(map(str, sorted({trial.hparams.image_size for trial in trials})))


def _errors(records: Sequence[RunRecord]) -> dict[str, str]:
    return {record.trial_id: record.error for record in records}


def _counts(plan: Plan, chosen: Sequence[Trial]) -> dict[str, int]:
    counts = {"total": plan.total, "done": len(plan.done), "failed": len(plan.failed)}
    return counts | {"to_run": len(plan.to_run), "chosen": len(chosen)}


def _line(sweep: Sweep, plan: Plan, chosen: Sequence[Trial], verb: str = "starting") -> str:
    counts = f"{plan.total} trials: {len(plan.done)} done, {len(plan.failed)} failed, {len(plan.to_run)} to run"
    if not chosen:
        return f"{sweep.name}: {counts}; nothing to start"
    return f"{sweep.name}: {counts}; {verb} {len(chosen)}"
