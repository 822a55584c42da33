"""How a sweep goes, told from anywhere that its tracker can be seen from; reads only."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fttune.config import Sweep
from fttune.record import RunRecord
from fttune.secrets import masked
from fttune.sweep.driver import is_running, last_tracked, machine, open_tracker, planned
from fttune.sweep.forecast import estimate
from fttune.sweep.ground import Ground, survey
from fttune.sweep.progress import clock
from fttune.sweep.turn import ago, heard
from fttune.terminal import print_json, say
from fttune.tracking.claim import Claim
from fttune.tracking.fields import record_name
from fttune.tracking.runs import Tracker


def show_status(sweep: Sweep, *, as_json: bool) -> None:
    """Count what is done, running and failed, and say who runs it."""
    sweep = last_tracked(sweep)
    tracker, ground = open_tracker(sweep), survey(sweep, machine(sweep))
    driver, here = tracker.claim(sweep.name), is_running(sweep)
    alive = here or (driver is not None and driver.fresh)
    facts = _known(ground, tracker) if ground.whole else _logged(ground, tracker, driver)
    facts |= {"active": alive} if alive else {"active": alive, "running": []}
    if alive and driver and driver.counts.seconds is not None:
        facts["seconds"] = driver.counts.seconds
    if as_json:
        told = asdict(driver) | {"fresh": driver.fresh, "age": driver.age} if driver else None
        return print_json({"sweep": sweep.name, **facts, "driver": told, "tracker": masked(tracker.uri)})
    return _print(ground, tracker, facts, _driver(driver, here=here))


def _known(ground: Ground, tracker: Tracker) -> dict[str, Any]:
    """Of the trials of this sweep as it stands in the file, each by its id."""
    sweep, records = ground.sweep, tracker.records()
    whole, model = planned(ground, machine(sweep), records)
    wanted = {trial.id: trial.name for trial in whole.to_run}
    failed = {trial.id for trial in whole.failed}
    return {
        **whole.counts(whole.to_run),
        "running": [wanted[key] for key in tracker.running() if key in wanted],
        "seconds": estimate(sweep, whole.to_run, whole, records, model).seconds,
        "failures": _failures(tracker, [record for record in records if record.trial_id in failed]),
    }


def _logged(ground: Ground, tracker: Tracker, driver: Claim | None) -> dict[str, Any]:
    """Where the ids cannot be told, for want of images or weights: what its driver counts, or the runs it has."""
    records = tracker.records(ground.sweep.name)
    failed = [record for record in records if record.status == "failed"]
    counts = driver.counts if driver and driver.counts.total else None
    asked = ground.asked(())
    total, done = len(asked.trials) + asked.unknown, len(records) - len(failed)
    if counts:
        total, done = counts.total, counts.done
    left = total - done - (counts.failed if counts else len(failed))
    return {
        "total": total,
        "done": done,
        "failed": counts.failed if counts else len(failed),
        "to_run": left,
        "chosen": left,
        "running": tracker.running(ground.sweep.name),
        "seconds": None,
        "failures": _failures(tracker, failed),
    }


def _failures(tracker: Tracker, records: Sequence[RunRecord]) -> list[dict[str, str]]:
    traces = tracker.tracebacks() if records else {}
    return [
        {"trial": record_name(one), "id": one.trial_id, "error": one.error, "traceback": traces.get(one.trial_id, "")}
        for one in records
    ]


def _driver(driver: Claim | None, *, here: bool) -> str:
    """Who runs the sweep, in one line; empty: nobody, and nobody was killed at it."""
    if driver and driver.fresh:
        since = driver.since.astimezone().strftime("%Y-%m-%d %H:%M")
        return f"running on {driver.host} (process {driver.pid}) since {since}, last heard {ago(driver.age)}"
    if here:
        since = f" since {ago(driver.age)}" if driver else ""
        return f"running on this machine; its tracker has not heard of it{since}"
    if driver and driver.ahead and not driver.gone:
        return f"{heard(driver)}: whether it lives cannot be told"
    return f"{heard(driver)}: it is gone" if driver else ""


def _print(ground: Ground, tracker: Tracker, facts: dict[str, Any], driver: str) -> None:
    name = ground.sweep.name
    say(f"{name}: {facts['done']} of {facts['total']} done, {len(facts['running'])} running, {facts['failed']} failed")
    if driver:
        say(driver)
    if not ground.whole:
        missing = ", ".join(ground.unprepared) or "the weights"
        say(f"not prepared on this machine: {missing}; counting what was logged for sweep {name}")
    for running in facts["running"]:
        say(f"  running  {running}")
    shown: set[str] = {""}
    for failure in facts["failures"]:
        say(f"  FAILED   {failure['trial']}: {failure['error']}")
        if failure["traceback"] not in shown:  # many trials may fail of one thing
            for line in failure["traceback"].splitlines():
                say(f"{'':11}{line}")
        shown.add(failure["traceback"])
    if facts["to_run"] and facts["seconds"] is not None:
        say(f"about {clock(facts['seconds'])} to go{'' if facts['active'] else ' once it runs again'}")
    if not facts["done"]:
        say(f"tracker: {masked(tracker.uri)}")
