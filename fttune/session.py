"""What the commands on a sweep do: plan it, run it; each from a checked sweep to what is printed."""

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fttune import caching
from fttune.config import Sweep
from fttune.cost import CostModel
from fttune.errors import UsageError
from fttune.interrupt import INTERRUPTED
from fttune.plan import Plan, only, pending
from fttune.pledge import check_space, pledge
from fttune.record import RunRecord
from fttune.reporting import print_report, regenerate
from fttune.runtime import Runtime
from fttune.sweep.budget import Brake, Budget
from fttune.sweep.driver import (
    Choice,
    alone,
    check_cores,
    choose,
    distances,
    follow,
    machine,
    open_tracker,
    planned,
    seek_cluster,
    state_file,
    work,
)
from fttune.sweep.forecast import Estimate, estimate, room, time_networks
from fttune.sweep.ground import Ground, prepare, survey
from fttune.sweep.hindsight import Hindsight
from fttune.sweep.hook import Hook
from fttune.sweep.keeping import Keeping, expected
from fttune.sweep.leftovers import Leftovers
from fttune.sweep.meter import Meter
from fttune.sweep.progress import Display, clock
from fttune.sweep.tally import Tally, prices
from fttune.sweep.turn import await_turn, take_turn
from fttune.sweep.workshop import Workshop
from fttune.terminal import Decoding, print_json, say
from fttune.tracking.claim import Claim
from fttune.tracking.models import Models
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from fttune.trial import Trial

if TYPE_CHECKING:
    from fttune.sweep.ledger import Job, Outcome

# Exit codes of `fttune run`.
DONE, FAILED, NOTHING, UNDELIVERED = 0, 1, 3, 4  # and INTERRUPTED


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """How `fttune run` was called."""

    words: Sequence[str]  # the command to give again, but for what it was about
    about: Sequence[str] = ()  # which trials it was about, as options
    address: str | None = None  # of a Ray cluster
    fail_fast: bool = False
    budget: Budget = field(default_factory=Budget)
    out: Path | None = None  # folder of the report
    as_json: bool = False
    quiet: bool = False  # the table is not printed; its caller says what was found

    def again(self, *other: str) -> str:
        """The same command, or one that is about `other` trials."""
        # What stands under `notify` may hold a password.
        words = [re.sub(r"^(notify[.\w]*)=.*", r"\1=...", word, flags=re.DOTALL) for word in self.words]
        return shlex.join([*words, *(other or self.about)])


def plan_sweep(sweep: Sweep, choice: Choice, *, as_json: bool) -> None:
    """Count the trials; nothing is decoded, trained or written."""
    runtime, tracker = machine(sweep), open_tracker(sweep)
    check_space(sweep, tracker)
    ground, records = survey(sweep, runtime), tracker.records()
    whole, model = planned(ground, runtime, records)
    chosen = choose(whole, choice)
    every = [*whole.done, *whole.failed, *whole.to_run]
    layers = caching.choose(model, every, sweep.resources.cache_gb * 1e9)
    networks, room_of_networks = expected(sweep, ground.trials)
    last = Hindsight.read(state_file(sweep, ".estimate"))
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
        "last_run": {**asdict(last), "off": last.off} if last else None,
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
    if last:
        say(f"the last run here that came to its end, {last.trials} trials: {last.words}")
    left = facts["seconds"]
    return say(
        "no finished trial to estimate the time by" if left is None else f"about {clock(left)} to go on this machine"
    )


def run_sweep(sweep: Sweep, choice: Choice, call: Call) -> int:
    """Run what is missing, log it, report on it; gives the exit code."""
    only((), choice.only)  # a mistake in it is told before anything is made
    if call.address:
        seek_cluster(call.address)
    else:
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
    ground = _prepared(sweep, runtime, call)
    with Writer(tracker, state_file(sweep, ".spool"), sweep.name) as writer:
        take_turn(writer, tracker, sweep.name, over)
        check_space(sweep, tracker)
        records = tracker.records()
        whole, model = planned(ground, runtime, records)
        chosen = choose(whole, choice)
        say(_line(sweep, whole, chosen))
        writer.adopt(whole.done)
        pledge(sweep, writer)
        if not chosen and (choice.retry_failed or whole.to_run):
            say("no trial meets these conditions")
            return NOTHING
        brake = Brake(call.budget, Meter(), fail_fast=call.fail_fast, lost=lambda: writer.lost, since=since)
        found = _Found(ground=ground, runtime=runtime, records=records, plan=whole, model=model, chosen=chosen)
        measurements, impossible = distances(ground, tracker)
        keeping = Keeping(sweep, runtime.networks, [*whole.done, *whole.failed, *whole.to_run], records)
        keeping.keep_when_decided(chosen, Models(tracker), writer.then)
        outcome = _train(found, measurements, choice, call, brake, writer, hook, keeping)
        waiting = writer.close()
        for note in (*writer.notes, *impossible, *brake.notes):
            say(note)
        if not waiting and not writer.lost:
            keeping.settle(Models(tracker), call.again, say)
    if writer.lost:
        raise UsageError(f"another driver took sweep '{sweep.name}' over, so this one ended; `fttune status` shows it")
    return _verdict(found, tracker, outcome, waiting, writer.problem, call, brake)


def _prepared(sweep: Sweep, runtime: Runtime, call: Call) -> Ground:
    """What the sweep stands on, decoded and, where trials run on this machine's processor, timed."""
    with Decoding() as progress:
        ground = prepare(sweep, runtime, progress)
    for line in ground.remarks:
        say(line)
    if not call.address:
        time_networks(sweep, runtime)
    return ground


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What a run has found of its sweep, and what it has chosen of that."""

    ground: Ground
    runtime: Runtime
    records: Sequence[RunRecord]  # of the sweep's experiment
    plan: Plan
    model: CostModel
    chosen: Sequence[Trial]


def _train(
    found: _Found,
    measurements: Sequence["Job"],
    choice: Choice,
    call: Call,
    brake: Brake,
    writer: Writer,
    hook: Hook,
    keeping: Keeping,
) -> "Outcome":
    """Run the chosen trials, what follows from them, and measurements of distances; tell all who listen."""
    ground, runtime, whole, model, chosen = found.ground, found.runtime, found.plan, found.model, found.chosen
    seconds = estimate(ground.sweep, chosen, whole, found.records, model).seconds if chosen else None
    # How many trials a cluster has room for is not known before they run.
    costs, told = prices(model, caching.bundles(model, chosen)), None if call.address else seconds
    tally = Tally(whole, chosen, brake.meter, costs, told)
    writer.counts = hook.counts = tally.counts
    start = time.monotonic()
    workshop = Workshop(ground, runtime, model, done=whole.done, records=found.records)
    hearers = [tally.more, keeping.more, lambda _, done, __: writer.adopt(done)]
    more = follow(ground, found.records, workshop.jobs, chosen, choice, hearers)
    # Distances last: of the images that trials have passed to the classifier, they then find the features.
    jobs = [*workshop.jobs(chosen), *measurements]
    ended = {*whole.done} - {*chosen}  # one that runs again goes on where it was saved
    listeners = [writer, tally, hook, keeping, Leftovers(runtime, ended)]
    display = Display(tally, trouble=lambda: writer.trouble)
    outcome = work(jobs, ground, runtime, call.address, listeners, display, brake, more, workshop.order)
    if more and more.over and outcome.complete:
        outcome.complete, outcome.stranded = False, "a search cannot ask for it"
    if told and outcome.complete and (taken := tally.until_last(start)):
        seen = Hindsight(trials=tally.look().chosen, expected=told, taken=taken)
        seen.save(state_file(ground.sweep, ".estimate"))
        say(seen.words)
    for note in more.notes if more else ():
        say(note)
    return outcome


def _verdict(
    found: _Found,
    tracker: Tracker,
    outcome: "Outcome",
    waiting: int,
    problem: str,
    call: Call,
    brake: Brake,
) -> int:
    """Say how it ended; the exit code."""
    ground = found.ground
    if waiting:
        say(f"{waiting} events wait in {state_file(ground.sweep, '.spool')}: {problem}")
        say(f"once that is mended, this delivers them: {call.again()}")
        return UNDELIVERED
    if not outcome.complete and not brake.pulled and not outcome.stranded:
        say(f"interrupted; what is finished is logged, and this goes on: {call.again()}")
        return INTERRUPTED
    records = tracker.records()
    asked = ground.asked(records)
    whole = pending(asked.trials, records, unknown=asked.unknown)
    errors = {record.trial_id: record.error for record in records}
    for trial in whole.failed:
        say(f"FAILED  {trial.name}: {errors[trial.id]}")
    if whole.failed:
        say(f"to run the failed trials again: {call.again('--retry-failed')}")
    code = FAILED if whole.failed or outcome.lost or outcome.stranded else DONE
    if outcome.stranded:
        say(f"the rest cannot run now: {outcome.stranded}; {_left(whole)}")
        say(f"once that is mended: {call.again()}")
    if brake.reached and not outcome.complete:
        left = estimate(ground.sweep, whole.to_run, whole, records, found.model)
        say(f"budget reached: {brake.reached}; {_left(whole, left)}; what was under way is saved")
        say(f"to go on: {call.again()}")
        code = NOTHING
    if not whole.done:
        return code
    ids = {trial.id for trial in asked.trials}
    own = [record for record in records if record.trial_id in ids]
    report, folder = regenerate([(ground.sweep, ground, tracker)], call.out, own)
    if call.quiet:
        say(f"report: {folder / 'report.html'}")
    else:
        print_report(ground.sweep, tracker, report, folder, as_json=call.as_json, code=code)
    return code


def _sides(trials: Sequence[Trial]) -> str:
    return ", ".join(map(str, sorted({trial.hparams.image_size for trial in trials})))


def _left(plan: Plan, left: Estimate | None = None) -> str:
    parts = [f"{plan.left} of {plan.total} trials left"]
    if left and left.seconds is not None:
        parts.append(f"about {clock(left.seconds)} on this machine")
    if left and left.gpu_hours:
        parts.append(f"about {left.gpu_hours:.2g} GPU-hours")
    return ", ".join(parts)


def _line(sweep: Sweep, plan: Plan, chosen: Sequence[Trial], verb: str = "starting") -> str:
    counts = f"{plan.total} trials: {len(plan.done)} done, {len(plan.failed)} failed, {plan.left} to run"
    if plan.unknown:
        counts += f" (of {plan.unknown} at most a search asks later)"
    if not chosen:
        return f"{sweep.name}: {counts}; nothing to start"
    return f"{sweep.name}: {counts}; {verb} {len(chosen)}"
