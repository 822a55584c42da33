"""What a run's first trials teach of the order of those that wait."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from fttune.bundle import Bundle
from fttune.config import load_sweep
from fttune.cost import StageTimes, jobs
from fttune.distance.job import DistanceJob
from fttune.record import RunRecord
from fttune.sweep.driver import machine, planned
from fttune.sweep.forecast import cost_model
from fttune.sweep.ground import prepare
from fttune.sweep.workshop import Workshop
from fttune.training.run import run_trial
from small_sweeps import write_sweep


def test_waiting_jobs_are_put_in_order_once_a_trial_has_timed_the_network(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path))
    runtime = replace(machine(sweep), state=tmp_path / "state")
    ground = prepare(sweep, runtime, lambda *_: None)
    plan, model = planned(ground, runtime, [])
    workshop = Workshop(ground, runtime, model, done=(), records=())
    waiting = [*ground.distances()[0], *workshop.jobs(plan.to_run)]
    assert not model.times, "the network was never timed"
    bundles = [job for job in waiting if isinstance(job, Bundle)]
    distances = [place for place, job in enumerate(waiting) if isinstance(job, DistanceJob)]
    assert workshop.order(waiting, []) == [*range(len(distances), len(waiting)), *distances]

    record = run_trial(plan.to_run[0], runtime, lambda point: None)
    assert StageTimes.known(tmp_path / "state", "tiny", 32, 1, 0.0)
    order = workshop.order(waiting, [record])
    spent = jobs(cost_model(ground, runtime, [record], plan.to_run), bundles)
    assert spent
    assert order[len(bundles) :] == distances
    ordered = [spent[place - len(distances)] for place in order[: len(bundles)]]
    assert all(after <= before / 0.9 for before, after in pairwise(ordered))
    assert ordered != spent, "what ran has changed the order"


def test_what_was_expected_wrongly_is_expected_better_for_those_like_it(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path))
    runtime = replace(machine(sweep), state=tmp_path / "state")
    ground = prepare(sweep, runtime, lambda *_: None)
    run_trial(ground.trials[0], runtime, lambda point: None)
    plan, model = planned(ground, runtime, [])
    workshop = Workshop(ground, runtime, model, done=(), records=())
    waiting = workshop.jobs(plan.to_run)
    first = workshop.order(waiting, [])
    seconds = {"freeze": 1000.0, "tune": 0.01}
    ran = {trial.cell.mode: trial for trial in plan.to_run}
    told = [RunRecord.of(ran[mode], status="done", seconds=seconds[mode], device="cpu") for mode in seconds]
    then = workshop.order(waiting, told)
    frozen = {place for place, job in enumerate(waiting) if job.trials[0].cell.mode == "freeze"}
    assert {*then[: len(frozen)]} == frozen, "frozen trials take long here"
    assert {*first[: len(frozen)]} != frozen
