"""What a run may take, and that it ends when it has taken it."""

import time

import pytest
from played import TRIALS, Sweep

from fttune.errors import ConfigError
from fttune.record import RunRecord
from fttune.sweep.budget import Brake, Budget
from fttune.sweep.ledger import Outcome
from fttune.sweep.meter import Meter


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu_hour=20", "did you mean 'gpu_hours'?"),
        ("days=1", "known: gpu_hours, hours, trials"),
        ("hours", "must read key=value, such as hours=20"),
        ("hours=0", "hours must be a number above 0, but got '0'"),
        ("gpu_hours=-3", "gpu_hours must be a number above 0, but got '-3'"),
        ("gpu_hours=lots", "but got 'lots'"),
        ("hours=nan", "but got 'nan'"),
        ("hours=inf", "but got 'inf'"),
        ("trials=2.5", "trials must be a whole number above 0, but got '2.5'"),
        ("hours=", "but got ''"),
    ],
)
def test_a_bad_budget_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Budget.parse([text])
    assert words in str(error.value)
    assert str(error.value).startswith("--budget")
    assert "\n" not in str(error.value)


def test_a_budget_is_read_key_by_key_and_each_once() -> None:
    assert Budget.parse(["gpu_hours=20", "trials=7"]) == Budget(gpu_hours=20, trials=7)
    with pytest.raises(ConfigError, match="'hours' stands twice"):
        Budget.parse(["hours=1", "hours=2"])


def test_gpu_hours_are_shares_times_seconds_of_all_that_ran_and_runs() -> None:
    sweep = Sweep(share=0.25)
    brake = Brake(Budget(gpu_hours=1), sweep.meter)
    sweep.start(0)
    sweep.start(1)
    sweep.now += 3600
    assert sweep.meter.gpu_hours == pytest.approx(0.5)
    sweep.end(0)
    sweep.ledger.died(sweep.ledger.runs[1])
    sweep.now += 3600
    assert sweep.meter.gpu_hours == pytest.approx(0.5), "nothing runs"
    assert not brake(sweep.ledger.outcome)
    sweep.start(2)
    sweep.now += 7199
    assert not brake(sweep.ledger.outcome)
    sweep.now += 1
    assert brake(sweep.ledger.outcome)
    assert brake.reached == "gpu_hours=1 (1 taken)"


def test_the_brake_is_pulled_by_trials_hours_a_failure_and_the_loss_of_the_sweep() -> None:
    record = RunRecord.of(TRIALS[0], status="done")
    assert Brake(Budget(trials=2), Meter())(Outcome(finished=[record], failed=[record]))
    assert not Brake(Budget(trials=2), Meter())(Outcome(finished=[record]))
    assert Brake(Budget(hours=1), Meter(), since=time.monotonic() - 3601)(Outcome())
    assert not Brake(Budget(hours=1), Meter())(Outcome())
    assert Brake(Budget(), Meter(), fail_fast=True)(Outcome(failed=[record]))
    assert not Brake(Budget(), Meter())(Outcome(failed=[record]))
    assert Brake(Budget(), Meter(), lost=lambda: True)(Outcome())


def test_a_budget_of_gpu_hours_where_nothing_runs_on_a_gpu_is_told() -> None:
    assert "ended nothing" in Brake(Budget(gpu_hours=1), Meter()).notes[0]
    assert not Brake(Budget(hours=1), Meter()).notes
