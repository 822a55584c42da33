"""The ledger: every trial ends once, its own failures are counted, those of its machine are not."""

import time
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.bundle import Bundle
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.sweep.ledger import TRIES, Ledger, Run
from fttune.trial import Trial
from values import make_trial

TRIALS = [replace(make_trial("F(1-3)R(4)"), seed=seed) for seed in range(3)]
POINT = asdict(CurvePoint(step=5, train_loss=1.0, val_loss=1.0, val_accuracy=0.5))


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.points: list[str] = []
        self.ends: list[tuple[str, str, str]] = []
        self.lines: list[str] = []  # for the user

    def started(self, trial: Trial) -> None:
        self.starts.append(trial.id)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def point(self, trial_id: str, point: CurvePoint) -> None:
        self.points.append(trial_id)

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        self.ends.append((record.trial_id, record.status, traceback))

    def distance(self, record: DistanceRecord) -> None:
        raise AssertionError("no distance was asked for")


def begin(*bundles: tuple[Trial, ...], share: float = 0.0) -> tuple[Ledger, Heard]:
    heard = Heard()
    jobs = [Bundle(trials=trials) for trials in bundles or [(trial,) for trial in TRIALS]]
    return Ledger(jobs, [heard], "abc", shares=[share] * len(jobs), say=heard.say), heard


def done(trial: Trial) -> dict[str, Any]:
    return {"trial": trial.id, "record": asdict(RunRecord.of(trial, status="done", git_commit="abc"))}


def error(trial: Trial, *, final: bool = False, memory: bool = False) -> dict[str, Any]:
    return {"trial": trial.id, "error": "Oops: no", "traceback": "Trace\nback", "final": final, "memory": memory}


def of(ledger: Ledger, trial: Trial) -> Run:
    (run,) = [run for run in ledger.runs if isinstance(run.job, Bundle) and trial in run.job.trials]
    return run


def end(ledger: Ledger, *trials: Trial) -> None:
    for trial in trials:
        ledger.hear(of(ledger, trial), "n", [done(trial)])


def test_a_round_that_ends_everything_is_complete() -> None:
    ledger, heard = begin()
    end(ledger, *TRIALS)
    assert ledger.close(())
    assert ledger.outcome.complete
    assert not ledger.runs
    assert [status for _, status, _ in heard.ends] == ["done"] * 3


def test_a_trial_that_fails_by_itself_three_times_has_failed_and_its_traceback_is_told() -> None:
    ledger, heard = begin()
    end(ledger, *TRIALS[1:])
    for tried in range(TRIES):
        assert not [one for one in heard.ends if one[0] == TRIALS[0].id], tried
        ledger.hear(of(ledger, TRIALS[0]), "n", [error(TRIALS[0])])
        assert ledger.close(())
    assert heard.ends[-1] == (TRIALS[0].id, "failed", "Trace\nback")
    assert ledger.outcome.complete


def test_what_the_user_gave_wrong_is_not_tried_again() -> None:
    ledger, heard = begin((TRIALS[0],))
    ledger.hear(ledger.runs[0], "n", [error(TRIALS[0], final=True)])
    assert ledger.close(())
    assert [status for _, status, _ in heard.ends] == ["failed"]


@pytest.mark.parametrize("told", [True, False])
def test_a_machine_that_goes_takes_no_try_from_its_trials(told: bool) -> None:
    ledger, heard = begin((TRIALS[0],))
    for _ in range(3 * TRIES):
        if told:
            ledger.hear(ledger.runs[0], "gone", [{"trial": TRIALS[0].id, "point": POINT}])
        ledger.runs[0].died = True
        assert ledger.close({"gone"})
    assert not heard.ends
    end(ledger, TRIALS[0])
    assert ledger.close(())
    assert [status for _, status, _ in heard.ends] == ["done"]


def test_nor_does_being_told_to_stop() -> None:
    ledger, heard = begin((TRIALS[0],))
    for _ in range(3 * TRIES):
        ledger.hear(ledger.runs[0], "n", [{"stopped": True}])
        ledger.runs[0].died = True
        assert ledger.close(())
    assert not heard.ends
    assert len(ledger.runs) == 1


def test_the_loss_of_another_machine_excuses_nothing() -> None:
    ledger, heard = begin((TRIALS[0],))
    for _ in range(TRIES):
        ledger.hear(ledger.runs[0], "here", [])
        ledger.runs[0].died = True
        assert ledger.close({"elsewhere"})
    assert [status for _, status, _ in heard.ends] == ["failed"]


def test_trials_whose_process_dies_together_go_on_alone_so_that_one_cannot_take_the_others_down() -> None:
    ledger, heard = begin(tuple(TRIALS))
    end(ledger, TRIALS[1])
    ledger.runs[0].died = True
    assert ledger.close(())
    assert sorted(run.job.trials[0].seed for run in ledger.runs if isinstance(run.job, Bundle)) == [0, 2]
    end(ledger, TRIALS[2])
    for _ in range(TRIES - 1):
        of(ledger, TRIALS[0]).died = True
        assert ledger.close(())
    assert {trial_id: status for trial_id, status, _ in heard.ends} == {
        TRIALS[1].id: "done",
        TRIALS[2].id: "done",
        TRIALS[0].id: "failed",
    }


def test_out_of_memory_doubles_the_share_up_to_a_whole_gpu_and_then_fails() -> None:
    ledger, heard = begin((TRIALS[0],), share=0.3)
    shares = []
    while ledger.runs:
        shares.append(ledger.runs[0].share)
        ledger.hear(ledger.runs[0], "n", [error(TRIALS[0], memory=True)])
        assert ledger.close(())
    assert shares == [0.3, 0.6, *[1.0] * TRIES]
    assert [status for _, status, _ in heard.ends] == ["failed"]
    assert len([note for note in heard.lines if "out of memory in" in note]) == 2


def test_a_bundle_whose_trials_all_run_out_of_memory_gets_twice_the_share_it_had() -> None:
    ledger, _ = begin(tuple(TRIALS), share=0.1)
    (run,) = ledger.runs
    ledger.hear(run, "n", [error(trial, memory=True) for trial in TRIALS])
    assert run.share == 0.1, "what it has is what it was given"
    assert ledger.close(())
    assert [again.share for again in ledger.runs] == [0.2]


def test_what_waits_is_given_the_share_that_its_cell_was_found_to_need_and_what_runs_keeps_its_own() -> None:
    ledger, _ = begin(*((trial,) for trial in TRIALS), share=0.25)
    first, second, third = ledger.runs
    ledger.started(first)
    ledger.started(second)
    ledger.hear(first, "n", [error(TRIALS[0], memory=True)])
    assert (first.share, second.share, third.share) == (0.25, 0.25, 0.5)


def test_what_ray_was_asked_a_place_for_is_judged_by_the_share_it_has() -> None:
    ledger, heard = begin(*((trial,) for trial in TRIALS[:2]), share=0.25)
    first, held = ledger.runs
    ledger.started(first)
    held.given = True
    ledger.hear(first, "n", [error(TRIALS[0], memory=True)])
    assert held.share == 0.25
    ledger.started(held)
    ledger.hear(held, "n", [error(TRIALS[1], memory=True)])
    assert ledger.close(())
    assert [run.share for run in ledger.runs] == [0.5, 0.5]
    assert not heard.ends


def lacking(trial: Trial, what: str) -> dict[str, Any]:
    return error(trial) | {"lacks": what}


def test_a_machine_that_lacks_some_images_is_given_trials_on_others() -> None:
    other = replace(TRIALS[1], data_digest="of another set")
    ledger, heard = begin((TRIALS[0],), (other,))
    first, second = ledger.runs
    ledger.hear(first, "n", [lacking(TRIALS[0], TRIALS[0].data_digest)])
    assert ledger.lacks.unfit(first.job) == {"n": "Oops: no"}
    assert ledger.lacks.unfit(second.job) == {}
    ledger.hear(second, "m", [lacking(other, other.weights_digest)])
    assert [[*ledger.lacks.unfit(run.job)] for run in (first, second)] == [["n", "m"], ["m"]], (
        "the weights are one's own"
    )
    ledger.hear(second, "l", [lacking(other, "")])
    assert [[*ledger.lacks.unfit(run.job)] for run in (first, second)] == [["l", "n", "m"], ["l", "m"]]
    assert len(heard.lines) == 3


def test_machines_are_asked_once_more_before_a_run_is_given_up_and_again_once_something_has_ended() -> None:
    ledger, heard = begin((TRIALS[0],), (TRIALS[1],))
    for _ in range(2):
        for pardoned in (True, False):
            ledger.hear(ledger.runs[0], "n", [lacking(TRIALS[0], "")])
            assert ledger.lacks.unfit(Bundle.alone(TRIALS[0]))
            assert ledger.pardon() is pardoned
            assert bool(ledger.lacks.unfit(Bundle.alone(TRIALS[0]))) is not pardoned
        if ledger.runs[-1].open:
            end(ledger, TRIALS[1])
    assert len(heard.lines) == 1


def test_whatever_a_machine_says_it_lacks_it_is_not_given_that_trial_again() -> None:
    ledger, _ = begin((TRIALS[0],))
    ledger.hear(ledger.runs[0], "n", [lacking(TRIALS[0], "what nobody knows")])
    assert [*ledger.lacks.unfit(ledger.runs[0].job)] == ["n"]


def test_a_machine_is_asked_again_after_a_while_and_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fttune.sweep.lacks.FORGOTTEN", 0.05)
    ledger, heard = begin((TRIALS[0],))
    for _ in range(2):
        ledger.hear(ledger.runs[0], "n", [lacking(TRIALS[0], "")])
        assert [*ledger.lacks.unfit(ledger.runs[0].job)] == ["n"]
        time.sleep(0.06)
        assert not ledger.lacks.unfit(ledger.runs[0].job)
    assert len(heard.lines) == 1


def test_what_a_search_asks_for_later_gets_the_share_that_its_cell_was_found_to_need() -> None:
    asked = [Bundle.alone(TRIALS[1])]
    ledger = Ledger([Bundle.alone(TRIALS[0])], [], "abc", shares=[0.25], more=lambda record: [asked.pop()])
    ledger.hear(ledger.runs[0], "n", [error(TRIALS[0], memory=True)])
    assert ledger.close(())
    end(ledger, TRIALS[0])
    assert [(run.job, run.share) for run in ledger.runs] == [
        (Bundle.alone(TRIALS[0]), 0.5),
        (Bundle.alone(TRIALS[1]), 0.5),
    ]


def test_what_machines_lack_is_no_failure_however_many_lack_it_and_each_is_told_of_once() -> None:
    ledger, heard = begin(tuple(TRIALS[:2]), (TRIALS[2],))
    for number in range(10 * TRIES):
        for run in ledger.runs:
            ledger.hear(run, f"bad {number // 2}", [lacking(TRIALS[0], TRIALS[0].data_digest)])
            assert not run.open, "whichever trial it is told of"
        assert ledger.close(())
    assert len(heard.lines) == 5 * TRIES
    assert not heard.ends
    end(ledger, *TRIALS)
    assert ledger.close(())
    assert [status for _, status, _ in heard.ends] == ["done"] * 3


def test_what_is_withheld_is_neither_under_way_nor_over() -> None:
    ledger, heard = begin((TRIALS[0],), (TRIALS[1],))
    end(ledger, TRIALS[1])
    ledger.hear(ledger.runs[0], "bad", [lacking(TRIALS[0], "")])
    for _ in range(2):
        assert ledger.close(())
        ledger.runs[0].withheld = True
    assert [run.job for run in ledger.runs] == [Bundle(trials=(TRIALS[0],))]
    ledger.strand("no disk")
    assert (ledger.outcome.stranded, ledger.outcome.complete) == ("no machine is left for it (no disk)", False)
    assert len(heard.ends) == 1


def test_an_interrupted_round_is_neither_complete_nor_a_failure_of_its_trials() -> None:
    ledger, heard = begin()
    end(ledger, TRIALS[0])
    assert not ledger.close(())
    assert not ledger.outcome.complete
    assert len(heard.ends) == 1


STEPS = st.sampled_from(["done", "done again", "error", "die", "lose node", "stop", "point", "lack", "withhold"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 2)), max_size=60), st.booleans())
def test_whatever_happens_each_trial_ends_once(story: list[tuple[str, int]], together: bool) -> None:
    ledger, heard = begin(*([tuple(TRIALS)] if together else []))
    for what, place in story:
        trial = TRIALS[place]
        runs = [run for run in ledger.runs if isinstance(run.job, Bundle) and trial in run.job.trials]
        if not runs:
            continue
        (run,) = runs
        lost = {"n"} if what == "lose node" else set[str]()
        if what in ("done", "done again"):
            ledger.hear(run, "n", [done(trial)] * (1 + (what == "done again")))
        elif what == "error":
            ledger.hear(run, "n", [error(trial)])
        elif what == "point":
            ledger.hear(run, "n", [{"trial": trial.id, "point": POINT}])
        elif what == "lack":
            ledger.hear(run, "n", [lacking(trial, trial.data_digest)])
        elif what == "withhold":
            run.withheld = True
        elif what == "stop":
            ledger.hear(run, "n", [{"stopped": True}])
        run.died = run.died or what in ("die", "lose node")
        ledger.close(lost)
    for run in list(ledger.runs):
        end(ledger, *(run.job.trials if isinstance(run.job, Bundle) else ()))
    ledger.close(())
    assert sorted(trial_id for trial_id, _, _ in heard.ends) == sorted(trial.id for trial in TRIALS)
    assert ledger.outcome.complete


def test_what_follows_from_an_end_is_run_too_on_the_share_of_its_cell() -> None:
    first, second = TRIALS[:2]
    after = {first.id: [Bundle(trials=(second,))]}
    ledger = Ledger(
        [Bundle(trials=(first,))], [], "abc", shares=[0.25], more=lambda record: after.get(record.trial_id, ())
    )
    end(ledger, first)
    assert [run.share for run in ledger.runs] == [0.25, 0.25]
    end(ledger, second)
    assert ledger.close(())
    assert ledger.outcome.complete
    assert [record.trial_id for record in ledger.outcome.finished] == [first.id, second.id]


def test_what_follows_from_a_trial_that_is_given_up_waits_for_the_next_round() -> None:
    first, second = TRIALS[:2]
    after = {first.id: [Bundle(trials=(second,))]}
    ledger = Ledger(
        [Bundle(trials=(first,))], [], "abc", shares=[0.0], more=lambda record: after.get(record.trial_id, ())
    )
    for _ in range(TRIES):
        ledger.died(of(ledger, first))
        assert ledger.close(()), "every run of the round had ended"
    assert [run.job for run in ledger.runs] == after[first.id]
    assert not ledger.outcome.complete
