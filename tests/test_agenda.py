"""A search asks in waves, each from what earlier ones came to; its choice is repeated on seeds that chose nothing."""

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

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
    values = [val * part / 10 for part in range(1, 11)]
    bar = dict(trial.bar)
    below = next((n for n, value in enumerate(values, 1) if value < bar.get(n * trial.hparams.steps // 10, 0.0)), None)
    values = values[:below]
    return RunRecord.of(
        trial,
        status="failed" if failed else "done",
        val_accuracy=None if failed else values[-1],
        test_accuracy=None if failed else values[-1] / 2,
        classes=10,
        val_curve=",".join(map(repr, values)),
        pruned_step=below and below * trial.hparams.steps // 10,
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


@pytest.mark.parametrize(
    "other",
    [{"train": {"keep": "none"}}, {"train": {"lr": 0.01, "report_every": 50}}, {"search": {"folds": 5}}],
    ids=["networks kept", "spelling", "folds that are not asked for"],
)
def test_what_is_no_part_of_a_trial_changes_no_search(
    whole: dict[str, RunRecord], tmp_path: Path, other: dict[str, dict[str, Any]]
) -> None:
    terms = make_sweep().model_dump(mode="json", exclude_unset=True)
    sweep = Sweep.model_validate(terms | {key: terms.get(key, {}) | value for key, value in other.items()})
    assert sweep != make_sweep()
    assert play(sweep, tmp_path).keys() == whole.keys()


@pytest.mark.parametrize("cut", [False, True], ids=["a broken line", "half a line at the end"])
def test_damaged_studies_are_put_aside_and_made_anew(whole: dict[str, RunRecord], tmp_path: Path, cut: bool) -> None:
    part = play(make_sweep(), tmp_path, upto=10)
    file = tmp_path / "studies"
    file.write_bytes(file.read_bytes()[:-9] if cut else b"{ not json\n" + file.read_bytes())
    studies = Studies(file, "fttune/small", keep=True)
    assert studies.notes == [f"{file} was damaged: kept as studies.damaged, and made anew from the tracker"]
    assert play(make_sweep(), tmp_path, before=part).keys() == whole.keys()
    file.write_bytes(b"{ not json\n" + file.read_bytes())
    assert "kept as studies.damaged-2" in Studies(file, "fttune/small", keep=True).notes[0], "the first is kept too"


def test_studies_that_another_driver_is_writing_to_are_not_taken_for_damaged(tmp_path: Path) -> None:
    play(make_sweep(), tmp_path, upto=10)
    file = tmp_path / "studies"
    line, lock = file.read_bytes().splitlines(keepends=True)[-1], JournalFileOpenLock(str(file))
    lock.acquire()
    with ThreadPoolExecutor(1) as pool, file.open("ab") as journal:
        journal.write(line[:-9])
        journal.flush()
        opened = pool.submit(Studies, file, "fttune/small", keep=True)
        with pytest.raises(TimeoutError):
            opened.result(timeout=0.5)
        journal.write(line[-9:])
        journal.flush()
        lock.release()
        assert opened.result().notes == []


@pytest.mark.parametrize(
    "space",
    [
        {"lr": [0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]},
        {"lr": [0.01, 0.1, 0.5, 1.0], "batch_size": {"choices": [4, 8]}},
    ],
    ids=["eight rates", "four rates by two sizes"],
)
def test_a_space_of_as_many_settings_as_are_asked_for_is_tried_whole(tmp_path: Path, space: dict[str, Any]) -> None:
    done = play(make_sweep(space=space), tmp_path)
    assert [one.settings for one in searched(done.values()).values()] == [8, 8]


def test_a_choice_of_the_two_ends_of_a_range_is_another_space(tmp_path: Path) -> None:
    play(make_sweep(space={"lr": [0.1, 0.9]}), tmp_path, upto=4)
    with pytest.raises(ConfigError, match=r"lr \[0.1, 0.9\] -> {'choices': \[0.1, 0.9\]}"):
        play(make_sweep(space={"lr": {"choices": [0.1, 0.9]}}, settings=2), tmp_path)


def test_what_tpe_suggests_is_better_than_a_list_as_long(tmp_path: Path) -> None:
    sweep = make_sweep(settings=24)
    first = {setting_of(hparams) for tuned in (True, False) for hparams in draw_settings(sweep, tuned=tuned)[:4]}
    mean: dict[str, list[list[float]]] = {"tpe": [], "shared": []}
    for sampler, mix in product(mean, range(5)):  # orders in which trials end, which suggestions follow from
        folder = tmp_path / str(mix)
        folder.mkdir(exist_ok=True)
        cells = searched(play(make_sweep(sampler=sampler, settings=24), folder, mix=mix).values()).values()
        later = [[runs for setting, runs in cell.tried.items() if setting not in first] for cell in cells]
        assert [len(runs) for runs in later] == [20, 20]
        mean[sampler].append([fmean(run.val_accuracy or 0.0 for (run,) in settings) for settings in later])
    tpe, shared = (list(map(fmean, zip(*means, strict=True))) for means in mean.values())
    assert all(one > other + 0.01 for one, other in zip(tpe, shared, strict=True)), mean


def test_a_longer_search_goes_on_with_the_shorter_ones_study(whole: dict[str, RunRecord], tmp_path: Path) -> None:
    play(make_sweep(), tmp_path)
    longer = play(make_sweep(settings=12), tmp_path, before=whole)
    assert longer.keys() > whole.keys()
    assert {len(cell.tried) for cell in searched(longer.values()).values()} == {12}


@pytest.mark.parametrize("wished", [False, True], ids=["asked of TPE", "wished for"])
def test_sixteen_suggestions_at_once_lose_none(tmp_path: Path, wished: bool) -> None:
    file, space = tmp_path / "studies", make_sweep().search.space.of(tuned=True)
    Studies(file, "s", keep=True).of("cell", {}, space)
    studies = [Studies(file, "s", keep=True).of("cell", {}, space) for _ in range(16)]  # each as of a driver of its own

    def ask_and_tell(index: int) -> dict[str, Any]:
        wish = {"lr": 0.01 + index / 100, "copied_lr_scale": 0.1} if wished else None
        setting = studies[index].setting(index, wish, ())
        studies[index].tell(index, index / 16)
        return setting

    with ThreadPoolExecutor(16) as pool:
        values = list(pool.map(ask_and_tell, range(16)))
    again = Studies(file, "s", keep=True).of("cell", {}, space)
    assert [again.setting(index, None, ()) for index in range(16)] == values
    (study,) = optuna.study.get_all_study_summaries(JournalStorage(JournalFileBackend(str(file))))
    trials = optuna.load_study(
        study_name=study.study_name, storage=JournalStorage(JournalFileBackend(str(file)))
    ).trials
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert sorted(trial.value or 0.0 for trial in trials) == [index / 16 for index in range(16)]


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
    ended_early = [trial for trial in second if done[trial.id].pruned_step]
    assert 0 < len(ended_early) < len(second)
    for cell in searched(done.values()).values():
        assert cell.given.steps == 8 * sweep.train.hparams().steps, "what was asked for was given"
        assert {run.seed for runs in cell.repeats.values() for run in runs} == {0, 1}, "no half of a pair is missing"


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


def test_studies_that_cannot_be_written_end_the_asking_in_one_line_and_the_next_run_goes_on(
    whole: dict[str, RunRecord], tmp_path: Path
) -> None:
    file = tmp_path / "studies"
    agenda = Agenda(make_sweep(), FACTS, Studies(file, "fttune/small", keep=True))
    waiting = list(agenda.asked({}).trials)
    sequel = Sequel(
        Agenda(make_sweep(), FACTS, Studies(file, "fttune/small", keep=True)),
        [],
        lambda trials: [Bundle.alone(trial) for trial in trials],
    )
    file.unlink()
    file.mkdir()
    done = {trial.id: ended(trial) for trial in waiting}
    assert [job for record in done.values() for job in sequel(record)] == []
    assert sequel.over, "the run does not end as if its search had"
    (note,) = sequel.notes
    assert note.startswith("the studies cannot be written: [Errno 21] Is a directory")
    file.rmdir()
    assert play(make_sweep(), tmp_path, before=done).keys() == whole.keys()
