"""A search asks in waves, each from what earlier ones came to; its choice is repeated on seeds that chose nothing."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fttune.analysis.select import cell_of, searched, setting_of
from fttune.bundle import Bundle
from fttune.config import Sweep
from fttune.errors import ConfigError
from fttune.plan import BackboneFacts, DatasetFacts, Facts
from fttune.record import RunRecord
from fttune.sweep.agenda import Agenda, check
from fttune.sweep.search import draw_settings
from fttune.sweep.sequel import Sequel
from fttune.sweep.study import Studies
from fttune.trial import Trial, seed_from

FACTS = Facts(
    datasets={"digits": DatasetFacts(digest="d", val=2, test=5)},
    backbones={"tiny": BackboneFacts(depth=4, weights_digest="w")},
)
SPACE = {"lr": [0.001, 1.0], "copied_lr_scale": [0.01, 1.0]}


def make_sweep(**search: Any) -> Sweep:
    grid = {"datasets": {"digits": [5]}, "backbones": ["tiny"], "random_top": [1], "seeds": [0, 1]}
    terms = {"sampler": "tpe", "settings": 8, "wave": 4, "space": SPACE} | search
    return Sweep.model_validate({"name": "small", "grid": grid, "search": terms})


def ended(trial: Trial, *, failed: bool = False) -> RunRecord:
    """A record whose val accuracy follows from the setting and the draw; the best rate differs between modes."""
    best = 0.3 if trial.cell.spec.tuned else 0.01
    noise = seed_from(trial.seed, trial.fold, trial.hparams.lr) % 100 / 1e4
    val = max(0.0, 0.9 - 0.1 * abs(trial.hparams.lr / best - 1) - noise)
    return RunRecord.of(
        trial,
        status="failed" if failed else "done",
        val_accuracy=None if failed else val,
        test_accuracy=None if failed else val / 2,
        classes=10,
        val_curve=",".join(repr(val * part / 10) for part in range(1, 11)),
    )


def play(
    sweep: Sweep,
    folder: Path,
    *,
    keep: bool = True,
    before: dict[str, RunRecord] | None = None,
    upto: int = 10**6,
    mix: int = 0,
    fails: frozenset[str] = frozenset(),
) -> dict[str, RunRecord]:
    """Run a search with records for trainings, in an order that `mix` shuffles, until `upto` of them have ended."""
    studies = Studies(folder / "studies", "fttune/small", keep=keep) if sweep.search.sampler == "tpe" else None
    agenda, done, order = Agenda(sweep, FACTS, studies), dict(before or {}), random.Random(mix)
    waiting = [trial for trial in agenda.asked(done).trials if trial.id not in done]
    asked = {trial.id for trial in waiting} | done.keys()
    while waiting and len(done) < upto:
        trial = waiting.pop(order.randrange(len(waiting)))
        done[trial.id] = ended(trial, failed=trial.id in fails)
        new = agenda.after(done[trial.id], done).trials
        assert not asked & {one.id for one in new if one.id not in (before or {})}, "no trial is asked for twice"
        asked |= {one.id for one in new}
        waiting += [one for one in new if one.id not in done]
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    """A search by TPE that nothing disturbed."""
    return play(make_sweep(), tmp_path_factory.mktemp("whole"))


def test_every_cell_is_given_as_many_settings_the_default_first_and_repeats_its_choice_and_the_default(
    whole: dict[str, RunRecord],
) -> None:
    default = make_sweep().train.lr
    cells = searched(whole.values())
    assert len(cells) == 2
    for cell in cells.values():
        assert len(cell.tried) == 8
        assert {run.seed for runs in cell.tried.values() for run in runs} == {-1}
        assert cell.chosen in cell.repeats, "the analysis chooses what the search repeated"
        assert {setting[0] for setting in cell.repeats} == {cell.chosen[0], default}
        assert all(sorted(run.seed for run in runs) == [0, 1] for runs in cell.repeats.values())


def test_what_is_asked_for_depends_on_results_alone_and_not_on_who_was_first(
    whole: dict[str, RunRecord], tmp_path: Path
) -> None:
    for mix in (1, 2):
        assert play(make_sweep(), tmp_path / str(mix), mix=mix).keys() == whole.keys()


@pytest.mark.parametrize("kept", [True, False], ids=["with its studies", "after its studies were lost"])
def test_a_search_killed_anywhere_goes_on_as_if_it_had_not_been(
    whole: dict[str, RunRecord], tmp_path: Path, kept: bool
) -> None:
    for upto in (1, 6, 13, 17):
        folder = tmp_path / str(upto)
        part = play(make_sweep(), folder, upto=upto, mix=upto)
        if not kept:
            (folder / "studies").unlink()
        assert play(make_sweep(), folder, before=part).keys() == whole.keys()


def test_a_look_gives_the_same_and_makes_no_file(whole: dict[str, RunRecord], tmp_path: Path) -> None:
    assert play(make_sweep(), tmp_path, keep=False).keys() == whole.keys()
    assert not list(tmp_path.iterdir())


def test_damaged_studies_are_put_aside_and_made_anew(whole: dict[str, RunRecord], tmp_path: Path) -> None:
    part = play(make_sweep(), tmp_path, upto=10)
    file = tmp_path / "studies"
    file.write_bytes(b"{ not json\n" + file.read_bytes())
    studies = Studies(file, "fttune/small", keep=True)
    assert studies.notes == [f"{file} was damaged: kept as studies.damaged, and made anew from the tracker"]
    assert play(make_sweep(), tmp_path, before=part).keys() == whole.keys()


def test_tpe_finds_a_better_setting_than_the_default(whole: dict[str, RunRecord]) -> None:
    for cell in searched(whole.values()).values():
        run = cell.tried[cell.chosen][0]
        own = next(one for runs in cell.tried.values() for one in runs if one.lr == make_sweep().train.lr)
        assert run.val_accuracy is not None
        assert own.val_accuracy is not None
        assert run.val_accuracy >= own.val_accuracy


def test_a_longer_search_goes_on_with_the_shorter_ones_study(whole: dict[str, RunRecord], tmp_path: Path) -> None:
    play(make_sweep(), tmp_path)
    longer = play(make_sweep(settings=12), tmp_path, before=whole)
    assert longer.keys() > whole.keys()
    assert {len(cell.tried) for cell in searched(longer.values()).values()} == {12}


def test_sixteen_suggestions_at_once_lose_none(tmp_path: Path) -> None:
    studies = Studies(tmp_path / "studies", "s", keep=True)
    space = make_sweep().search.space.of(tuned=True)
    study = studies.of("cell", {}, space)
    values = [study.setting(index, None, ()) for index in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda index: study.tell(index, index / 16), range(16)))
    again = Studies(tmp_path / "studies", "s", keep=True).of("cell", {}, space)
    assert [again.setting(index, None, ()) for index in range(16)] == values
    assert len({tuple(value.values()) for value in values}) == 16


def test_a_failed_setting_is_no_choice_and_the_search_goes_on(whole: dict[str, RunRecord], tmp_path: Path) -> None:
    (cell, *_) = searched(whole.values()).values()
    best = cell.tried[cell.chosen][0]
    played = play(make_sweep(), tmp_path, fails=frozenset({best.trial_id}))
    again = searched(record for record in played.values() if record.status == "done")[cell_of(best)]
    assert len(again.tried) == 7
    assert again.chosen != setting_of(best)
    assert again.chosen in again.repeats


def test_another_space_under_a_running_study_is_one_line_and_overwrites_nothing(tmp_path: Path) -> None:
    play(make_sweep(), tmp_path, upto=5)
    before = (tmp_path / "studies").read_bytes()
    for keep in (True, False):
        with pytest.raises(
            ConfigError, match=r"lr \[0\.001, 1\.0\] -> \[0\.01, 1\.0\]\); they are kept in .*name=OTHER"
        ):
            play(make_sweep(space=SPACE | {"lr": [0.01, 1.0]}), tmp_path, keep=keep)
    assert (tmp_path / "studies").read_bytes() == before


def test_one_list_is_tried_by_every_cell_and_only_what_is_chosen_is_repeated(tmp_path: Path) -> None:
    sweep = make_sweep(sampler="shared", draws=2)
    first = Agenda(sweep, FACTS).asked({})
    assert len(first.trials) == 2 * 8 * 2
    assert first.unknown == 2 * 2 * 2
    done = play(sweep, tmp_path)
    rates = sorted({hparams.lr for hparams in draw_settings(sweep)})
    for cell in searched(done.values()).values():
        assert sorted(setting[0] for setting in cell.tried) == rates
        assert len({run.seed for runs in cell.repeats.values() for run in runs}) == 2
    assert not Agenda(sweep, FACTS).asked(done).unknown


def test_with_folds_each_setting_is_tried_on_each_part(tmp_path: Path) -> None:
    done = play(make_sweep(sampler="shared", select="cv", folds=3), tmp_path)
    for cell in searched(done.values()).values():
        assert all(sorted(run.fold or 0 for run in runs) == [1, 2, 3] for runs in cell.tried.values())
        assert all(run.fold is None for runs in cell.repeats.values() for run in runs)
    with pytest.raises(
        ConfigError, match="8 parts need as many images of each class, but digits has 5 to train on and 2"
    ):
        check(make_sweep(select="cv", folds=8), FACTS)


def test_bars_are_medians_of_earlier_waves_and_never_stand_before_a_result_that_is_compared(tmp_path: Path) -> None:
    sweep = make_sweep(pruner="median")
    done = play(sweep, tmp_path)
    agenda = Agenda(sweep, FACTS, Studies(tmp_path / "studies", "fttune/small", keep=False))
    trials = agenda.asked(done).trials
    first, second = ([t for t in trials if t.seed < 0 and bool(t.bar) == pruned] for pruned in (False, True))
    assert (len(first), len(second)) == (8, 8)
    assert all(not trial.bar for trial in trials if trial.seed >= 0)
    mine = sorted(done[t.id].val_accuracy or 0 for t in first if t.cell == second[0].cell)
    assert dict(second[0].bar)[50] == pytest.approx((mine[1] + mine[2]) / 2 / 10)
    assert max(step for step, _ in second[0].bar) < second[0].hparams.steps, "the last report saves nothing"


@pytest.fixture
def spread() -> Sweep:
    return make_sweep(space={"steps": [10, 1000], "lr": [0.001, 1.0]})


def test_steps_may_be_searched_and_cost_what_they_cost(spread: Sweep, tmp_path: Path) -> None:
    done = play(spread, tmp_path)
    for cell in searched(done.values()).values():
        assert cell.given.trials == 8
        assert cell.given.steps == sum(run.steps for runs in cell.tried.values() for run in runs) != 8 * 500


def followed(sweep: Sweep, **terms: Any) -> list[Trial]:
    """All that a run is given after its first jobs, the records of which it makes itself."""
    agenda = Agenda(sweep, FACTS)
    waiting = list(agenda.asked({}).trials)
    sequel = Sequel(Agenda(sweep, FACTS), [], lambda trials: [Bundle.alone(trial) for trial in trials], **terms)
    given: list[Trial] = []
    while waiting:
        new = [job.trials[0] for job in sequel(ended(waiting.pop(0)))]
        given += new
        waiting += new
    return given


def test_what_follows_keeps_to_what_a_run_is_about() -> None:
    sweep = make_sweep(sampler="shared", settings=2)
    whole = followed(sweep)
    assert sorted({trial.seed for trial in whole}) == [0, 1]
    assert {trial.cell.spec.mode.value for trial in followed(sweep, conditions=["mode=freeze"])} == {"freeze"}
    assert len(followed(sweep, most=3)) == 3
    assert followed(sweep, most=0) == []
    told: list[int] = []
    assert followed(sweep, tell=lambda new, done, unknown: told.append(unknown)) == whole
    assert told[0] == 2 * 2 * 2
    assert told[-1] == 0, "how many may still follow is told"
