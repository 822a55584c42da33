"""What is seen of a running sweep, what ends it early, and who is told."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played import TRIALS, Sweep
from rich.console import Console

from fttune.plan import Plan
from fttune.sweep.meter import Meter
from fttune.sweep.progress import Display
from fttune.sweep.tally import Tally
from stores import wait_until
from values import HPARAMS


def test_trials_are_counted_as_what_they_are() -> None:
    sweep = Sweep()
    for number in range(4):
        sweep.start(number)
    sweep.end(0)
    sweep.fail(1)
    counts = sweep.tally.counts()
    assert (counts.total, counts.done, counts.running, counts.failed) == (12, 1, 2, 1)


def test_what_was_done_before_is_counted_and_what_is_tried_again_has_not_failed_yet() -> None:
    plan = Plan(done=TRIALS[:3], failed=TRIALS[3:6], to_run=TRIALS[6:])
    assert Tally(plan, TRIALS[6:], Meter()).counts().failed == 3
    again = Tally(plan, TRIALS[3:5], Meter()).counts()
    assert (again.total, again.done, again.failed) == (12, 3, 1)


def test_a_trial_whose_process_died_is_not_running_until_it_is_tried_again() -> None:
    sweep = Sweep(share=0.5)
    sweep.start(0)
    sweep.start(1)
    assert sweep.tally.look().gpus == 1.0
    sweep.ledger.died(sweep.ledger.runs[0])
    assert sweep.tally.counts().running == 1
    assert sweep.tally.look().gpus == 0.5


@given(slots=st.sampled_from([1, 2, 3, 4, 6, 12]), seconds=st.floats(300, 1e5), reports=st.integers(1, 9))
def test_the_time_left_is_right_from_the_first_reports_on_however_many_run_side_by_side(
    slots: int, seconds: float, reports: int
) -> None:
    sweep = Sweep()
    for number in range(slots):
        sweep.start(number)
    sweep.now += seconds * reports / 10
    for number in range(slots):
        sweep.step(number, 10 * reports)
    assert sweep.left() == pytest.approx(seconds * (12 / slots - reports / 10))
    sweep.now += seconds * (1 - reports / 10)
    for number in range(slots):
        sweep.step(number, 100)
        sweep.end(number)
    assert sweep.left() == pytest.approx(seconds * (12 / slots - 1))


def test_the_first_of_many_to_end_does_not_stand_for_all_that_was_done() -> None:
    sweep = Sweep()
    for number in range(6):
        sweep.start(number)
    sweep.now += 100
    for number in range(6):
        sweep.step(number, 100)
    sweep.end(0)
    assert sweep.left() == pytest.approx(100), "six more beside each other, not eleven after one another"


def test_the_last_trial_alone_takes_its_own_time() -> None:
    sweep = Sweep(TRIALS[:5])
    for start in (0, 2):
        for number in (start, start + 1):
            sweep.start(number)
        sweep.now += 100
        for number in (start, start + 1):
            sweep.step(number, 100)
            sweep.end(number)
    sweep.start(4)
    assert sweep.left() == pytest.approx(100), "although two ran side by side until then"


def test_before_anything_is_seen_the_cost_model_has_the_word_and_then_gives_way() -> None:
    sweep = Sweep(expected=600.0)
    assert sweep.left() == 600.0
    sweep.start(0)
    sweep.now += 1
    sweep.step(0, 10)
    assert 450 < sweep.left() < 600, "a hundredth of the sweep in a second says little"
    for number in range(6):
        sweep.start(number)
        sweep.now += 10
        sweep.step(number, 100)
        sweep.end(number)
    assert sweep.left() == pytest.approx(61), "half of the sweep says all"


def test_where_nothing_was_expected_nothing_is_said_until_processes_have_started() -> None:
    sweep = Sweep()
    assert sweep.tally.counts().seconds is None
    sweep.start(0)
    sweep.now += 8
    sweep.step(0, 10)
    assert sweep.tally.counts().seconds is None
    sweep.now += 22
    assert sweep.left() == pytest.approx(30 * 119)


def test_a_trial_that_goes_on_where_it_was_saved_makes_the_sweep_look_no_faster() -> None:
    sweep = Sweep(TRIALS[:2])
    sweep.start(0)
    sweep.now += 40
    sweep.step(0, 90, after=80)
    assert sweep.left() == pytest.approx(40 + 400), "ten steps took forty seconds; eighty were made before"
    assert sweep.tally.look().images_per_second == pytest.approx(HPARAMS.batch_size / 4)


def terminal(file: io.StringIO) -> Console:
    return Console(file=file, force_terminal=True, width=120, height=40, highlight=False)


def screen(sweep: Sweep) -> str:
    """What is on the terminal now."""
    display = sweep.listeners[1]
    assert isinstance(display, Display)
    file = io.StringIO()
    Console(file=file, width=120, height=40).print(display._render())
    return file.getvalue()


def test_a_terminal_shows_counts_speed_gpus_time_left_and_the_last_failure() -> None:
    sweep, file = Sweep(share=0.25), io.StringIO()
    display = Display(sweep.tally, terminal(file))
    sweep.listeners.append(display)
    with display:
        for number in range(4):
            sweep.start(number)
        sweep.now += 50
        for number in range(4):
            sweep.step(number, 50)
        lines = screen(sweep).splitlines()
        assert lines[0].startswith("trials")
        assert "0/12" in lines[0]
        assert len([line for line in lines if "val 0.250  loss 1.500" in line]) == 4
        assert lines[-1] == "  0 done, 4 running, 0 failed, 32 images/s, 1 GPUs taken, about 4:10 left"
        sweep.fail(2)
        sweep.end(3)
        lines = screen(sweep).splitlines()
        assert lines[-1].startswith(f"last failure: {TRIALS[2].name}: ValueError: no such layer")
        sweep.fail(1, "OSError: [Errno 28] " + "far " * 99)
        lines = screen(sweep).splitlines()
        assert lines[-1].startswith(f"last failure: {TRIALS[1].name}: OSError: [Errno 28] far")
        assert len(lines[-1]) <= 120
    shown = file.getvalue()
    assert f"{TRIALS[2].name}" in shown
    assert "FAILED  ValueError: no such layer" in shown, "said at once, in full"
    assert "last failure" in shown
    assert "\x1b[" in shown


CROWD = tuple(replace(TRIALS[0], seed=seed) for seed in range(10, 25))


@contextmanager
def crowded() -> Iterator[Sweep]:
    """A sweep on a terminal with fifteen trials under way, more than have room."""
    sweep = Sweep(CROWD)
    display = Display(sweep.tally, terminal(io.StringIO()))
    sweep.listeners.append(display)
    with display:
        for number in range(15):
            sweep.start(number)
        yield sweep


def assert_last_three_alone(sweep: Sweep) -> None:
    shown = screen(sweep)
    assert [trial.name in shown for trial in CROWD] == [False] * 12 + [True] * 3
    assert "more" not in shown


def test_of_more_trials_side_by_side_than_have_room_the_oldest_are_shown() -> None:
    with crowded() as sweep:
        shown = screen(sweep)
        assert [trial.name in shown for trial in CROWD] == [True] * 12 + [False] * 3
        assert "and 3 more" in shown
        for number in range(12):
            sweep.end(number)
        assert_last_three_alone(sweep)


def test_trials_whose_process_is_gone_hide_none_that_run() -> None:
    with crowded() as sweep:
        for run in sweep.ledger.runs[:12]:
            sweep.ledger.died(run)
        assert_last_three_alone(sweep)
        sweep.start(0)
        assert CROWD[0].name in screen(sweep)


def test_what_keeps_results_from_the_tracker_is_shown_while_it_lasts() -> None:
    sweep, file, trouble = Sweep(), io.StringIO(), ["3 events wait for the tracker: 401 Unauthorized"]
    display = Display(sweep.tally, terminal(file), trouble=lambda: trouble[0])
    sweep.listeners.append(display)
    with display:
        assert screen(sweep).splitlines()[-1] == trouble[0]
        trouble[0] = ""
        assert "events wait" not in screen(sweep)
    plain = io.StringIO()
    with Display(Sweep().tally, Console(file=plain), between=0.05, trouble=lambda: "3 events wait"):
        wait_until(lambda: "3 events wait\n" in plain.getvalue())


def test_where_there_is_no_terminal_there_is_a_line_for_each_trial_and_one_now_and_then() -> None:
    sweep, file = Sweep(), io.StringIO()
    display = Display(sweep.tally, Console(file=file, width=40), between=0.05)
    sweep.listeners.append(display)
    with display:
        sweep.start(0)
        sweep.start(1)
        sweep.now += 40
        sweep.step(0, 20)
        wait_until(lambda: "about" in file.getvalue())
        sweep.end(0)
        sweep.fail(1)
    lines = file.getvalue().splitlines()
    assert "     0/12  0 done, 2 running, 0 failed, 4 images/s, about 39:20 left" in lines
    assert f"     1/12  {TRIALS[0].name:<36} val 0.500  test 0.750  3.0 s" in lines
    assert f"     2/12  {TRIALS[1].name:<36} FAILED  ValueError: no such layer" in lines
    assert "\x1b" not in file.getvalue()
    time.sleep(0.15)
    assert file.getvalue().splitlines() == lines, "nothing more once it has ended"


def test_a_short_sweep_has_no_lines_between_its_trials() -> None:
    sweep, file = Sweep(), io.StringIO()
    display = Display(sweep.tally, Console(file=file))
    sweep.listeners.append(display)
    with display:
        sweep.start(0)
        sweep.end(0)
    assert len(file.getvalue().splitlines()) == 1


def test_what_a_search_asks_for_later_is_counted_before_it_is_known_and_once() -> None:
    plan = Plan(done=TRIALS[:2], failed=(), to_run=TRIALS[2:4], unknown=6)
    tally = Tally(plan, TRIALS[2:4], Meter())
    assert tally.counts().total == 10
    tally.more(TRIALS[4:6], TRIALS[6:7], 2)
    look = tally.look()
    assert (look.counts.total, look.counts.done, look.chosen) == (9, 3, 4), "one of four that might have come did not"
    tally.more((), (), 0)
    assert tally.counts().total == 7
