"""A grid is a set of trials: each once, held against what is already logged."""

from dataclasses import replace

import pytest

from fttune.config import Sweep
from fttune.errors import ConfigError
from fttune.plan import BackboneFacts, DatasetFacts, Facts, cost, expand, only, pending
from fttune.record import RunRecord
from fttune.trial import Trial
from values import make_trial

FACTS = Facts(
    datasets={
        "digits": DatasetFacts(digest="a", val=2, test=5),
        "glyphs": DatasetFacts(digest="b", val=2, test=None),
    },
    backbones={"tiny": BackboneFacts(depth=4, weights_digest="w")},
)


def make_sweep(**grid: object) -> Sweep:
    axes = {"datasets": {"digits": [5, 20], "glyphs": [5]}, "backbones": ["tiny"], "random_top": [1, 2]} | grid
    return Sweep.model_validate({"name": "small", "grid": axes})


def trials_of(sweep: Sweep) -> list[Trial]:
    return expand(sweep, FACTS, [sweep.train.hparams()])


def test_a_grid_is_the_product_of_its_axes() -> None:
    trials = trials_of(make_sweep(seeds=[0, 1, 2]))
    assert len(trials) == 3 * 2 * 2 * 3
    assert len({trial.id for trial in trials}) == len(trials)


def test_the_papers_grid_has_138_cells() -> None:
    splits = {
        "a": [1, 10, 25, 53],
        "b": [1, 10, 50, 70],
        "c": [1, 10, 25, 75],
        "d": [5, 20, 35],
        "e": [10, 50, 200, 450],
    }
    splits["f"] = [1, 10, 300, 550]
    facts = Facts(
        datasets={name: DatasetFacts(digest=name, val=2, test=None) for name in splits},
        backbones={"caffenet": BackboneFacts(depth=8, weights_digest="w")},
    )
    grid = {"datasets": splits, "backbones": ["caffenet"], "random_top": [1, 3, 5]}
    sweep = Sweep.model_validate({"name": "paper", "grid": grid})
    trials = expand(sweep, facts, [sweep.train.hparams()])
    assert len(trials) == 138
    assert {str(trial.cell.spec) for trial in trials} == {
        "T(1-7)R(8)", "F(1-7)R(8)", "T(1-5)R(6-8)", "F(1-5)R(6-8)", "T(1-3)R(4-8)", "F(1-3)R(4-8)",
    }  # fmt: skip


def test_extending_the_grid_keeps_the_old_ids() -> None:
    before = {trial.id for trial in trials_of(make_sweep())}
    after = {trial.id for trial in trials_of(make_sweep(datasets={"digits": [5, 10, 20], "glyphs": [5]}))}
    assert before < after
    assert len(after - before) == 4


def test_a_spec_written_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"digits/5 F\(1-3\)R\(4\) s0 stands twice"):
        trials_of(make_sweep(specs=["F(1-3)R(4)"]))


def test_failed_is_not_done() -> None:
    trials = trials_of(make_sweep())
    records = [RunRecord.of(trials[0], status="done"), RunRecord.of(trials[1], status="failed", error="no")]
    plan = pending(trials, records)
    assert (plan.done, plan.failed) == ((trials[0],), (trials[1],))
    assert set(plan.to_run) == set(trials[2:])
    assert plan.total == len(trials)


def test_the_costliest_trial_goes_first() -> None:
    to_run = pending(trials_of(make_sweep()), []).to_run
    assert [cost(trial) for trial in to_run] == sorted(map(cost, to_run), reverse=True)
    assert cost(make_trial("T(1-3)R(4)")) > cost(make_trial("F(1-2)R(3-4)")) > cost(make_trial("F(1-3)R(4)"))


def test_only_keeps_what_meets_every_condition() -> None:
    trials = trials_of(make_sweep())
    kept = only(trials, ["dataset=digits", "mode=freeze", "images_per_class=20"])
    assert {str(trial.cell.spec) for trial in kept} == {"F(1-3)R(4)", "F(1-2)R(3-4)"}
    with pytest.raises(ConfigError, match="did you mean 'dataset'"):
        only(trials, ["datset=digits"])


def test_machine_settings_never_reach_an_id() -> None:
    trials = trials_of(make_sweep())
    sweep = make_sweep().model_copy(update={"name": "renamed"})
    machine = sweep.resources.model_copy(update={"cpu": 7, "max_concurrent": 1})
    again = expand(sweep.model_copy(update={"resources": machine}), FACTS, [sweep.train.hparams()])
    assert [trial.id for trial in again] == [trial.id for trial in trials]
    assert replace(trials[0]).id == trials[0].id
