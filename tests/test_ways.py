"""A way to adapt is a spec trained in phases: equal to its parts, fair to the others, resumed bit for bit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fttune.analysis.compare import compare
from fttune.analysis.modes import modes_sheet
from fttune.analysis.select import select, setting_of
from fttune.backbones import catalog as backbones
from fttune.bundle import Bundle, bundle
from fttune.config import load_sweep
from fttune.data.store import ImageStore
from fttune.describe import spec_rows
from fttune.errors import ConfigError, StoppedError
from fttune.layers import LayerSpec
from fttune.plan import BackboneFacts, DatasetFacts, Facts, cost, expand
from fttune.record import CurvePoint, RunRecord
from fttune.runtime import Runtime
from fttune.training.bench import Bench
from fttune.training.convex import STRENGTHS, Regression, scaled, training_set
from fttune.training.inputs import Inputs, Labelled
from fttune.training.loop import Leg, Route, fit_legs
from fttune.training.run import run_bundle
from fttune.trial import Trial, Views
from fttune.ways import WAYS, Phase, Way, phases
from small_sweeps import write_sweep
from values import HPARAMS, make_trial

CLOCKED = {"seconds", "data_seconds", "feature_seconds", "train_seconds", "eval_seconds", "images_per_second"}
IDENTITY = {"trial_id", "spec", "mode", "way"}
FROZEN, TUNED = "F(1-3)R(4)", "T(1-3)R(4)"
DEEP = LayerSpec.parse("T(1-9)R(10)")


def trial_on(store: ImageStore, spec: str, way: str = "plain", *, views: Views = "flip", **changes: Any) -> Trial:
    hparams = replace(HPARAMS, **{"views": views, "steps": 12, "report_every": 5, "lr_drop_steps": (7,)} | changes)
    weights = backbones.weights_digest("tiny")
    return make_trial(spec, way=way, hparams=hparams, data_digest=store.digest, weights_digest=weights)


def run(
    trial: Trial, runtime: Runtime, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, object], list[CurvePoint]]:
    """The record without its clocks and what it is called, and the curve."""
    points: list[CurvePoint] = []
    (done,) = run_bundle(Bundle.alone(trial), runtime, lambda _, point: points.append(point), stopped)
    left_out = CLOCKED | IDENTITY | {"peak_memory_mb", "resumed_step"}
    return {name: value for name, value in asdict(done).items() if name not in left_out}, points


def row(name: str, made: Callable[[LayerSpec, int], list[Phase]]) -> Way:
    return Way(name=name, about="", phases=lambda spec, steps, number: made(spec, steps))


def as_frozen(spec: LayerSpec) -> LayerSpec:
    return LayerSpec(frozen=spec.frozen + spec.tuned, tuned=0, random=spec.random)


@pytest.fixture
def more_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(spec: LayerSpec, steps: int) -> list[Phase]:
        return [Phase(spec=spec, steps=steps // 2), Phase(spec=spec, steps=steps - steps // 2)]

    def refreezing(spec: LayerSpec, steps: int) -> list[Phase]:
        return [Phase(spec=spec, steps=steps - 1), Phase(spec=as_frozen(spec), steps=1)]

    def short(spec: LayerSpec, steps: int) -> list[Phase]:
        return [Phase(spec=spec, steps=steps - 1)]

    # lpft without a head phase, with nothing but it, and trainings that are cut where nothing changes.
    for name, made in {
        "no_head": lambda spec, steps: WAYS["lpft"].phases(spec, steps, 0),
        "head_alone": lambda spec, steps: WAYS["lpft"].phases(spec, steps, 100),
        "halves": half,
        "refreezing": refreezing,
        "short": short,
    }.items():
        monkeypatch.setitem(WAYS, name, row(name, made))


def told(way: str, steps: int = 100, spec: LayerSpec = DEEP) -> list[tuple[str, int]]:
    return [(str(phase.spec), phase.steps) for phase in phases(way, spec, steps)]


def test_the_phases_of_each_way_are_what_its_paper_says() -> None:
    assert told("plain") == [("T(1-9)R(10)", 100)]
    assert told("lpft") == [("F(1-9)R(10)", 50), ("T(1-9)R(10)", 50)]
    assert told("lpft-25") == [("F(1-9)R(10)", 25), ("T(1-9)R(10)", 75)]
    assert told("lpft", spec=LayerSpec.parse("F(1-3)T(4-7)R(8-10)")) == [
        ("F(1-7)R(8-10)", 50),
        ("F(1-3)T(4-7)R(8-10)", 50),
    ]
    assert told("gradual") == [
        (spec, 25) for spec in ("F(1-9)R(10)", "F(1-6)T(7-9)R(10)", "F(1-3)T(4-9)R(10)", str(DEEP))
    ]
    assert told("gradual-2", 5) == [("F(1-9)R(10)", 2), ("T(1-9)R(10)", 3)]
    assert told("tune_bn") == told("plain")


@pytest.mark.parametrize("way", [*WAYS, "lpft-1", "lpft-99", "gradual-9", "gradual-40"])
def test_every_way_takes_all_steps_thaws_from_the_top_and_ends_as_its_spec_says(way: str) -> None:
    for steps in (1, 2, 7, 500):
        made = phases(way, DEEP, steps)
        assert sum(phase.steps for phase in made) == steps
        assert min(phase.steps for phase in made) > 0
        assert made[-1].spec == DEEP
        assert all(one.spec.frozen >= other.spec.frozen for one, other in pairwise(made))
        assert {phase.spec.random for phase in made} == {1}


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("lptf", "unknown way 'lptf'; did you mean 'lpft'?"),
        ("lpft-0", "lpft-N: N is percent of the steps for the new layers alone, from 1 to 99, but got lpft-0"),
        ("lpft-050", "from 1 to 99, but got lpft-050"),
        ("gradual-x", "gradual-N: N is stages, from 2 to 99, but got gradual-x"),
        ("lpft-50", "lpft-50 is lpft: leave the number out"),
        ("probe-3", "probe takes no number, but got probe-3"),
    ],
)
def test_a_way_that_is_none_is_one_line(way: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_trial(way=way)


@pytest.mark.parametrize("way", ["refreezing", "short"])
def test_phases_that_break_the_rule_are_refused(more_ways: None, way: str) -> None:
    with pytest.raises(ConfigError, match=f"the phases of {way} must take 12 steps in all and never freeze a layer"):
        phases(way, LayerSpec.parse(TUNED), 12)


def test_the_ids_of_trials_from_before_there_were_ways_stand() -> None:
    assert [make_trial(spec).id for spec in (TUNED, FROZEN, "F(1)T(2-3)R(4)")] == [
        "c846999f0bf45d34", "52a896dc899dee27", "afc6b3616d9ef003"
    ]  # fmt: skip
    ways = [way for way in (*WAYS, "lpft-25") if way != "probe"]
    assert len({make_trial(way=way).id for way in ways}) == len(ways)
    assert make_trial(FROZEN, way="probe").id != make_trial(FROZEN).id
    assert make_trial(way="lpft").name == "digits/5 T(1-3)R(4) lpft s0"
    assert make_trial(way="lpft").seed_for("order") == make_trial().seed_for("order")


@pytest.mark.parametrize(("views", "momentum"), [("flip", 0.9), ("crop", 0.9), ("crop", 0.0)])
@pytest.mark.parametrize(("way", "spec"), [("no_head", TUNED), ("head_alone", FROZEN), ("halves", TUNED)])
def test_a_way_with_one_phase_is_bit_for_bit_that_phase(
    store: ImageStore, runtime: Runtime, more_ways: None, way: str, spec: str, views: Views, momentum: float
) -> None:
    changes = {"views": views, "momentum": momentum, "biases": "caffe", "bn": "batch"}
    assert run(trial_on(store, TUNED, way, **changes), runtime) == run(trial_on(store, spec, **changes), runtime)


def test_halves_of_a_head_on_cached_features_are_the_whole(
    store: ImageStore, runtime: Runtime, more_ways: None
) -> None:
    assert run(trial_on(store, FROZEN, "halves"), runtime) == run(trial_on(store, FROZEN), runtime)


@pytest.mark.parametrize("views", ["flip", "crop"])
def test_lpft_is_freeze_until_it_tunes(store: ImageStore, runtime: Runtime, views: Views) -> None:
    _, frozen = run(trial_on(store, FROZEN, views=views, report_every=3), runtime)
    _, both = run(trial_on(store, TUNED, "lpft", views=views, report_every=3), runtime)
    assert [point.step for point in both] == [3, 6, 9, 12]
    assert both[:2] == frozen[:2]
    assert both[2] != frozen[2]


def state(parts: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in parts.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The names of equal values."""
    return [name for name, value in one.items() if torch.equal(value, other[name])]


@pytest.mark.parametrize("views", ["flip", "crop"])
def test_gradual_moves_no_frozen_value_by_a_bit_and_ends_with_everything_tuned(
    store: ImageStore, runtime: Runtime, views: Views
) -> None:
    trial = trial_on(store, TUNED, "gradual", views=views, steps=8, report_every=2, weight_decay=0.1, bn="batch")
    bench = Bench.set_up(trial, runtime, trial.depths)
    source, seen = state(bench.net), []
    route = bench.route(bench.leg(0))
    legs: list[Any] = []

    def look(number: int) -> Any:
        legs.append(route.set_up(number))
        return legs[-1]

    def report(point: CurvePoint) -> None:
        whole = state(legs[-1].student.frozen) | state(legs[-1].student.trained)
        seen.append({int(name.split(".")[0]) for name in equal(source, whole) if "weight" in name or "mean" in name})

    fit_legs(replace(route, set_up=look), trial.hparams, seed=0, report=report)
    assert route.stops == (2, 4, 6, 8)
    # Of four stages: those whose values are the source's after each phase.
    assert seen == [{0, 1, 2}, {0, 1}, {0}, set()]


def test_the_best_report_of_all_phases_is_what_is_tested(store: ImageStore, runtime: Runtime) -> None:
    """A rate that ruins the copied layer once it is tuned: what val prefers is a report of the first phase."""
    changes = {"copied_lr_scale": 1e6, "report_every": 10, "lr_drop_steps": ()}
    record, points = run(trial_on(store, "T(1)R(2-4)", "lpft", steps=60, **changes), runtime)
    head, alone = run(trial_on(store, "F(1)R(2-4)", steps=30, **changes), runtime)
    assert points[:3] == alone
    assert max(point.val_accuracy for point in alone) > max(point.val_accuracy for point in points[3:])
    for name in ("best_step", "val_accuracy", "test_accuracy", "test_mean_class_accuracy", "train_accuracy"):
        assert record[name] == head[name], name


@dataclass(frozen=True)
class Seen:
    """Inputs that write down which images were drawn, and with which draws still to come."""

    inputs: Inputs
    rows: list[tuple[list[int], bytes]]

    def __len__(self) -> int:
        return len(self.inputs)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        drawn = self.inputs.draw(rows, generator)
        self.rows.append((rows.tolist(), generator.get_state().numpy().tobytes()))
        return drawn

    def show(self, rows: slice) -> Tensor:
        return self.inputs.show(rows)


@pytest.mark.parametrize("views", ["fixed-3", "crop"])
def test_every_way_is_shown_the_same_images_in_the_same_views_and_order(
    store: ImageStore, runtime: Runtime, views: Views
) -> None:
    seen = []
    for spec, way in ((FROZEN, "plain"), (TUNED, "plain"), (TUNED, "lpft"), (TUNED, "gradual"), (TUNED, "tune_bn")):
        trial = trial_on(store, spec, way, views=views)
        bench, rows = Bench.set_up(trial, runtime, trial.depths), []
        route = bench.route(bench.leg(0))

        def watched(phase: int, route: Route = route, rows: list[tuple[list[int], bytes]] = rows) -> Leg:
            leg = route.set_up(phase)
            return replace(leg, train=replace(leg.train, inputs=Seen(leg.train.inputs, rows)))

        fit_legs(replace(route, set_up=watched), trial.hparams, seed=3, report=lambda _: None)
        seen.append(rows)
    assert len(seen[0]) == 12
    assert all(rows == seen[0] for rows in seen)


class After:
    """Asks to stop once it was asked itself more often than `steps` times."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("way", "stop", "momentum"), [("lpft", 2, 0.9), ("lpft", 4, 0.0), ("gradual", 2, 0.9), ("gradual", 3, 0.9)]
)
def test_a_training_stopped_in_any_phase_ends_bit_for_bit_as_one_left_alone(
    store: ImageStore, runtime: Runtime, tmp_path: Path, way: str, stop: int, momentum: float
) -> None:
    trial = trial_on(store, TUNED, way, momentum=momentum, bn="batch", steps=12)
    whole = run(trial, replace(runtime, state=tmp_path / "undisturbed"))
    again, stops = None, 0
    while again is None:
        try:
            again = run(trial, runtime, After(stop))
        except StoppedError:
            stops += 1
    assert stops >= 12 // stop - 1
    assert again == whole


def test_what_is_frozen_in_any_phase_is_cached_where_views_are_fixed(store: ImageStore, runtime: Runtime) -> None:
    assert trial_on(store, TUNED, "gradual").depths == (1, 2, 3)
    assert trial_on(store, TUNED, "lpft").depths == (3,)
    assert trial_on(store, TUNED, "lpft", views="crop").depths == trial_on(store, TUNED).depths == ()
    run(trial_on(store, TUNED, "lpft"), runtime)
    files = {path: path.stat().st_ino for path in runtime.cache.glob("*/*.arrow")}
    run(trial_on(store, FROZEN), runtime)
    after = {path: path.stat().st_ino for path in runtime.cache.glob("*/*.arrow")}
    assert files.items() <= after.items()
    assert len(after) <= len(files) + 1, "a tuned network was tested, so the test images had not been passed"


def test_only_plain_heads_are_trained_together() -> None:
    trials = [make_trial(FROZEN, way=way, seed=seed) for way in ("plain", "probe") for seed in (0, 1)]
    assert [len(job.trials) for job in bundle(trials)] == [2, 1, 1]
    assert {job.depths for job in bundle([*trials, make_trial(way="lpft")])} == {(3,)}


def test_lpft_costs_between_freeze_and_tune() -> None:
    trials = [make_trial(FROZEN), make_trial(way="lpft-75"), make_trial(way="lpft"), make_trial()]
    assert [cost(trial) for trial in trials] == sorted({cost(trial) for trial in trials})


def test_tune_bn_is_tune_with_statistics_of_the_batch(store: ImageStore, runtime: Runtime) -> None:
    named, set_so = run(trial_on(store, TUNED, "tune_bn"), runtime), run(trial_on(store, TUNED, bn="batch"), runtime)
    assert named[1] == set_so[1]
    assert named[0]["bn"] == "source", "the sweep's setting, equal for all its modes"
    assert named[0] | {"bn": "batch"} == set_so[0]


def shown(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Features of the centre views, and classes."""
    return data.inputs.show(slice(None)).flatten(1).double().numpy(), data.labels.numpy()


def test_a_probe_is_scikit_learn_on_the_features(store: ImageStore, runtime: Runtime) -> None:
    trial = trial_on(store, FROZEN, "probe")
    record, points = run(trial, runtime)
    bench = Bench.set_up(trial, runtime, trial.depths)
    leg = bench.leg(0)
    features, labels = training_set(leg)
    assert features.shape[0] == 2 * 50, "both views of each image"
    (val, truth), (test, answers) = (shown(bench.val()), shown(bench.test()))
    inputs, mean, scale = scaled(features)
    val, test = (val - mean) / scale, (test - mean) / scale
    machines = [LogisticRegression(C=c, max_iter=20_000, tol=1e-8).fit(inputs, labels) for c in STRENGTHS]
    accuracies = [machine.score(val, truth) for machine in machines]
    chosen = next(m for m, strength in zip(machines, STRENGTHS, strict=True) if strength == record["convex_c"])
    assert record["val_accuracy"] == pytest.approx(max(accuracies))
    assert chosen.score(val, truth) == max(accuracies)
    assert record["train_accuracy"] == pytest.approx(chosen.score(inputs[:50], labels[:50]))
    assert record["test_accuracy"] == pytest.approx(chosen.score(test, answers))
    assert (record["best_step"], points) == (None, [])
    assert run(trial, runtime) == (record, points)


@pytest.mark.parametrize("classes", [2, 5])
def test_what_a_probe_solves_is_blind_to_place_and_size_of_the_features(classes: int) -> None:
    labels = np.arange(60) % classes
    features = np.random.default_rng(0).normal(size=(60, 4)) + labels[:, None]
    machine = LogisticRegression(C=1.0, max_iter=20_000, tol=1e-8).fit(scaled(features)[0], labels)
    assert np.square(scaled(features)[0]).sum(1).mean() == pytest.approx(1)
    for factor, moved in ((1.0, 0.0), (50.0, 700.0)):
        there = features * factor + moved
        weight, bias = Regression(there, labels).at(1.0)
        assert (weight.shape, bias.shape) == ((classes, 4), (classes,))
        likely = np.exp(there @ weight.T + bias)
        likely /= likely.sum(1, keepdims=True)
        np.testing.assert_allclose(likely, machine.predict_proba(scaled(features)[0]), atol=1e-5)


def test_a_probe_stops_when_asked(store: ImageStore, runtime: Runtime) -> None:
    with pytest.raises(StoppedError):
        run(trial_on(store, FROZEN, "probe"), runtime, After(2))


FACTS = Facts(
    datasets={"mine": DatasetFacts(digest="d", val=3, test=5)},
    backbones={"tiny": BackboneFacts(depth=4, weights_digest="w")},
)


def test_a_grid_gives_every_mode_the_same_settings(tmp_path: Path) -> None:
    grid = {
        "datasets": {"mine": {"path": "photos", "images_per_class": [2], "val": 3, "test": 5}},
        "backbones": ["tiny"],
        "random_top": [1, 2],
        "modes": ["freeze", "tune", "lpft", "lpft-25", "gradual", "tune_bn", "probe"],
    }
    sweep = load_sweep(write_sweep(tmp_path, grid=grid))
    settings = [sweep.train.hparams(), sweep.train.hparams(lr=0.5)]
    trials = expand(sweep, FACTS, settings)
    assert {trial.hparams for trial in trials if trial.cell.way != "probe"} == set(settings)
    assert [(trial.cell.label, trial.hparams) for trial in trials if trial.cell.way == "probe"] == [
        ("F(1-3)R(4) probe", settings[0])
    ], "it trains the classifier alone and uses no rate"
    assert sorted({trial.cell.mode for trial in trials}) == sorted(grid["modes"])
    assert len({trial.id for trial in trials}) == len(trials) == 2 * 2 * 6 + 1
    assert sweep.grid.remarks == ["grid.modes: probe is left out for random_top 2"]


def test_spec_tells_when_each_layer_begins_to_learn() -> None:
    def told(way: str, spec: str = TUNED) -> list[object]:
        return [row["learns after"] for row in spec_rows("tiny", spec, 32, 10, 0.2, way)]

    assert told("lpft") == ["50 %", "50 %", "50 %", "0 %"]
    assert told("gradual") == ["75 %", "50 %", "25 %", "0 %"]
    assert told("plain", FROZEN) == [None, None, None, "0 %"]
    assert told("probe", FROZEN) == [None, None, None, "no steps: solved"]
    with pytest.raises(ConfigError, match="probe solves for the classifier alone, so all below it must be frozen"):
        told("probe")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["grid.modes=[freeze,lptf]"], "grid.modes: unknown mode 'lptf'; did you mean 'lpft'?"),
        (["grid.modes=[plain]"], "grid.modes: unknown mode 'plain'"),
        (["grid.modes=[lpft-100]"], "grid.modes: lpft-N: N is percent of the steps"),
        (["grid.modes=[lpft,lpft]"], "'lpft' stands twice"),
        (
            ["grid.modes=[probe]", "grid.random_top=[2]"],
            "probe solves for the classifier alone, so random_top must hold 1",
        ),
        (["grid.modes=[probe]", "train.views=crop"], "but train.views is crop; take center, flip or"),
        (["grid.modes=[tune,tune_bn]", "train.bn=batch"], "tune_bn is tune where train.bn is batch"),
        (
            ["grid.modes=[freeze,tune_bn]", "search={sampler: shared, space: {bn: [source, batch]}}"],
            "grid.modes: tune_bn sets bn itself, but search.space has bn; leave one of them out",
        ),
    ],
)
def test_a_mode_that_cannot_be_is_one_line(tmp_path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_sweep(write_sweep(tmp_path), overrides)


def finished(mode: str, accuracy: float, **changes: Any) -> RunRecord:
    spec, way = {"freeze": (FROZEN, "plain"), "tune": (TUNED, "plain"), "probe": (FROZEN, "probe")}.get(
        mode, (TUNED, mode)
    )
    hparams = replace(HPARAMS, **{name: changes.pop(name) for name in list(changes) if name in HPARAMS.__slots__})
    measured = {"val_accuracy": changes.pop("val", accuracy), "test_accuracy": accuracy, "classes": 10}
    return RunRecord.of(make_trial(spec, way=way, hparams=hparams, **changes), status="done", **measured)


def test_modes_are_compared_with_freeze_within_fair_pairs() -> None:
    told = {"freeze": 0.5, "tune": 0.6, "lpft": 0.7, "gradual": 0.65}
    runs = [finished(mode, accuracy + 0.01 * seed, seed=seed) for mode, accuracy in told.items() for seed in (0, 1)]
    runs += [finished("lpft", 0.9, seed=5), finished("lpft", 0.1, steps=40)]
    found = compare(runs, by="mode", hold=("images_per_class", "spec"), confidence=0.95)
    assert [(level.level, level.pairs) for level in found.levels] == [
        ("freeze", 0), ("tune", 2), ("gradual", 2), ("lpft", 2)
    ]  # fmt: skip
    assert [level.difference for level in found.levels[1:]] == pytest.approx([0.1, 0.15, 0.2])
    (depths,) = (compare(runs, by="spec", confidence=0.95),)
    assert sum(level.runs for level in depths.levels) == len(runs), "ways of one spec are not mistaken for each other"
    assert len({result.trial_id for result in select(runs)}) == len(runs)


def test_a_probe_is_held_against_the_best_of_any_number_of_settings_and_marked() -> None:
    runs = [finished("freeze", test, val=val, lr=lr) for lr, val, test in ((0.1, 0.8, 0.6), (0.2, 0.7, 0.9))]
    found = compare([*runs, finished("probe", 0.5, lr=0.1)], by="mode", confidence=0.95)
    assert [(level.level, level.pairs, level.difference) for level in found.levels[1:]] == [
        ("probe", 1, pytest.approx(-0.1))
    ]
    assert "no steps, but solved to the end, its regularisation chosen on val: probe" in found.notes
    (_, unequal) = compare([*runs, finished("lpft", 0.5, lr=0.1)], by="mode", confidence=0.95).levels
    assert unequal.pairs == 0, "one setting against two is not fair"


def test_a_probe_beside_a_grid_stays_beside_it_where_other_cells_were_searched() -> None:
    searched = [
        *(
            finished(mode, 0.5, val=val, lr=lr, seed=-1)
            for mode in ("freeze", "tune")
            for lr, val in ((0.1, 0.8), (0.2, 0.7))
        ),
        *(finished(mode, 0.6, lr=0.1) for mode in ("freeze", "tune")),
        finished("probe", 0.55, lr=0.1),
    ]
    grid = [finished(mode, test, lr=0.1, images_per_class=20) for mode, test in (("freeze", 0.5), ("probe", 0.4))]
    levels = compare([*searched, *grid], by="mode", hold=["images_per_class"], confidence=0.95).levels
    assert [(one.held["images_per_class"], one.held["setting"], one.level, one.pairs) for one in levels] == [
        (5, "chosen", "freeze", 0), (5, "chosen", "tune", 1), (5, "chosen", "probe", 1),
        (20, "only", "freeze", 0), (20, "only", "probe", 1),
    ]  # fmt: skip


def test_the_modes_tell_what_was_searched_and_what_everything_took() -> None:
    tried = [
        replace(finished(mode, 0.5, val=val, lr=lr, seed=-1), seconds=7.0)
        for mode in ("freeze", "tune")
        for lr, val in ((0.1, 0.8), (0.2, 0.7))
    ]
    repeats = [replace(finished(mode, 0.6, lr=0.1), seconds=2.0) for mode in ("freeze", "tune")]
    others = [replace(finished(mode, 0.4, images_per_class=20), seconds=3.0) for mode in ("freeze", "tune")]
    sheet = modes_sheet([*tried, *repeats, *others], 0.95)
    assert [(row["images per class"], row["setting"], row["mode"], row["given"]) for row in sheet.rows] == [
        (5, "chosen", "freeze", "3 trials, 60 steps, 16 s"),
        (5, "chosen", "tune", "3 trials, 60 steps, 16 s"),
        (20, "only", "freeze", "1 trial, 20 steps, 3 s"),
        (20, "only", "tune", "1 trial, 20 steps, 3 s"),
    ]
    assert {"setting", "given"} <= {*sheet.columns}
    own = [replace(finished(mode, test, lr=0.2), seconds=2.0) for mode, test in (("freeze", 0.5), ("tune", 0.3))]
    both = modes_sheet([*tried, *repeats, *own, *others], 0.95, [setting_of(own[0])]).rows
    assert [(row["setting"], row["mode"], row["accuracy"], row["difference"], row["given"]) for row in both[:4]] == [
        ("chosen", "freeze", 0.6, None, "3 trials, 60 steps, 16 s"),
        ("chosen", "tune", 0.6, 0.0, "3 trials, 60 steps, 16 s"),
        ("default", "freeze", 0.5, None, "1 trial, 20 steps, 2 s"),
        ("default", "tune", 0.3, pytest.approx(-0.2), "1 trial, 20 steps, 2 s"),
    ]
    plain = modes_sheet(others, 0.95)
    assert ("setting" in plain.columns, "given" in plain.columns) == (False, True), "nothing was searched"


def test_the_report_holds_every_mode_against_freeze() -> None:
    runs = [
        replace(finished(mode, accuracy, seed=seed, images_per_class=images), seconds=float(seconds), best_step=best)
        for mode, accuracy, seconds, best in (
            ("freeze", 0.5, 2, 20), ("tune", 0.6, 9, 20), ("lpft", 0.7, 6, 20), ("probe", 0.55, 1, None)
        )
        for seed in (0, 1)
        for images in (5, 20)
    ]  # fmt: skip
    rows = modes_sheet(runs, 0.95).rows
    assert [(row["images per class"], row["mode"], row["against"], row["pairs"], row["steps"]) for row in rows[:4]] == [
        (5, "freeze", None, None, "20"), (5, "tune", "freeze", 2, "20"), (5, "lpft", "freeze", 2, "20"),
        (5, "probe", "freeze", 2, "none"),
    ]  # fmt: skip
    assert [row["difference"] for row in rows[5:]] == pytest.approx([0.1, 0.2, 0.05])
    assert [row["seconds a run"] for row in rows[4:]] == [2, 9, 6, 1]
