"""A transferability score is what its paper says, of labels and features alone, and no distance."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from constructed import make_distance, make_pairs_of_runs
from fttune.analysis.report import Report, analyse
from fttune.analysis.tables import TABLES
from fttune.backbones import catalog
from fttune.config import load_sweep
from fttune.data.catalog import folder
from fttune.data.store import build
from fttune.distance.job import OWN, DistanceJob
from fttune.distance.metrics import METRICS, SCORES, scored
from fttune.distance.sample import Sample
from fttune.distance.scores import hscore, logme
from fttune.errors import DataError
from fttune.record import DistanceRecord
from fttune.runtime import Runtime
from fttune.sweep.ground import prepare
from fttune.trial import stored_size
from images import make_folder
from small_sweeps import write_sweep


def drawn(images: int, width: int, *, classes: int = 3, apart: float = 1.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features [N, D] about means of their classes, and classes [N]."""
    rng = np.random.default_rng([seed, images, width])
    labels = np.arange(images) % classes
    return rng.normal(size=(images, width)) + apart * rng.normal(size=(classes, width))[labels], labels


@pytest.mark.parametrize(("images", "width"), [(12, 3), (20, 5), (10, 14)])
def test_logme_is_the_largest_evidence(images: int, width: int) -> None:
    """The marginal likelihood written out: labels are Gaussian with covariance F F' / alpha + I / beta."""
    features, labels = drawn(images, width, apart=2.0 if width < images else 0.3)
    best = []
    for label in range(3):
        onehot = (labels == label).astype(float)

        def loss(logs: np.ndarray, onehot: np.ndarray = onehot) -> float:
            covariance = features @ features.T / np.exp(logs[0]) + np.eye(images) / np.exp(logs[1])
            return -float(multivariate_normal.logpdf(onehot, np.zeros(images), covariance))

        starts, bounds = [(a, b) for a in (1.0, 5.0) for b in (0.0, 3.0)], [(-5, 12), (-5, 12)]
        best.append(-min(minimize(loss, start, method="Nelder-Mead", bounds=bounds).fun for start in starts))
    assert logme(features, labels) == pytest.approx(np.mean(best) / images, rel=1e-5)


def test_the_h_score_of_many_images_is_the_textbook_s() -> None:
    features, labels = drawn(6000, 4)
    means = np.stack([features[labels == label].mean(0) for label in labels])
    plain = np.trace(np.linalg.inv(np.cov(features.T)) @ np.cov(means.T))
    assert hscore(features, labels) == pytest.approx(plain, rel=0.01)
    assert 0 < hscore(features, labels) < 2, "at most one less than there are classes"


def test_a_shrunk_h_score_is_scikit_learn_s_covariance_inverted() -> None:
    from sklearn.covariance import ledoit_wolf

    features, labels = drawn(30, 50)
    covariance, shrinkage = ledoit_wolf(features)
    means = np.stack([features[labels == label].mean(0) for label in labels])
    expected = (1 - shrinkage) * np.trace(np.linalg.solve(covariance, np.cov(means.T, bias=True)))
    assert hscore(features, labels) == pytest.approx(expected)


@pytest.mark.parametrize("score", [logme, hscore])
@pytest.mark.parametrize(("images", "width"), [(60, 8), (30, 100)])
def test_the_better_features_tell_classes_the_higher_the_score(
    score: Callable[[np.ndarray, np.ndarray], float], images: int, width: int
) -> None:
    values = [score(*drawn(images, width, apart=apart)) for apart in (0.0, 0.7, 2.0, 6.0)]
    assert values == sorted(values)
    features, labels = drawn(images, width, apart=2.0)
    assert score(features, np.random.default_rng(1).permutation(labels)) < values[2]
    assert score(np.ones_like(features), labels) < values[2]


def test_a_score_comes_with_its_range_over_draws_and_is_repeated_by_its_seed() -> None:
    given = drawn(60, 8)
    first, again, other = (scored(logme, *given, repeats=3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.low <= first.value == logme(*given) <= first.high
    assert (first.low, first.high) != (other.low, other.high)
    assert (first.images, first.source_images, first.repeats, first.spread) == (60, 0, 3, "range")


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_too_little_to_score_is_one_line(labels: list[int]) -> None:
    with pytest.raises(DataError, match="a score needs two classes with two images each, but got"):
        scored(logme, np.eye(4), np.array(labels), repeats=1, seed=0)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    source = folder("mine", make_folder(tmp_path / "photos")).source()
    store = build(source, name="mine", size=stored_size(32), resize="crop", root=tmp_path / "store")
    return Sample(
        dataset="mine",
        data_digest=store.digest,
        test_per_class=4,
        backbone="tiny",
        weights_digest=catalog.weights_digest("tiny"),
        image_size=32,
        resize="crop",
    )


@pytest.mark.parametrize("metric", SCORES)
def test_a_score_reads_labels_and_no_source_and_no_test_image(sample: Sample, tmp_path: Path, metric: str) -> None:
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache")
    job = DistanceJob(sample=sample, source=None, metric=metric)
    assert job.possible
    record = job.measure(runtime)
    assert (record.id, record.images, record.source, record.source_images) == (job.id, 3 * (12 - 4), OWN, 0)
    assert replace(job, source=sample).id == job.id, "the same score, whatever distances are measured from"
    score = METRICS[metric].score
    assert score is not None
    assert record.value == score(sample.features(runtime), sample.labels(runtime))
    assert np.bincount(sample.labels(runtime)).tolist() == [8, 8, 8]


def test_a_sweep_without_a_source_still_has_its_scores(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, distance={"metrics": ["cosine", "logme", "hscore"]}))
    runtime = Runtime(store=tmp_path / "store", cache=tmp_path / "cache")
    jobs, missing = prepare(sweep, runtime, lambda *_: None).distances()
    assert [job.metric for job in jobs] == ["logme", "hscore"]
    assert len(missing) == 1
    assert missing[0].startswith("no source mean is shipped for tiny at ")


def measured(dataset: str, metric: str, value: float) -> DistanceRecord:
    return replace(make_distance(dataset, value), metric=metric)


def findings(gains: dict[str, float], scores: dict[str, float], extra: Sequence[DistanceRecord] = ()) -> Report:
    runs = [run for name, effect in gains.items() for run in make_pairs_of_runs(name, 5, effect, seeds=2)]
    distances = [measured(name, "logme", value) for name, value in scores.items()]
    return analyse(
        runs, [*distances, *extra], name="s", image_edges=(21, 100), distance_edges=(0.2, 0.4), confidence=0.95
    )


def test_a_score_is_ranked_against_what_was_gained_and_placed_in_no_band() -> None:
    gains = {"a": 1.1, "b": 1.3, "c": 0.9, "d": 1.6}
    report = findings(gains, {"a": 3.0, "b": 2.0, "c": 4.0, "d": 1.0}, [measured("a", "cosine", 0.3)])
    sheet = TABLES["scores"](report)
    assert [(row["dataset"], row["logme"], row["hscore"], row["pairs"]) for row in sheet.rows] == [
        ("a", 3.0, None, 2), ("b", 2.0, None, 2), ("c", 4.0, None, 2), ("d", 1.0, None, 2)
    ]  # fmt: skip
    ranks = {(one["measure"], one["outcome"]): one for one in sheet.document["ranks"]}
    assert ranks["logme", "log tuned / frozen"]["spearman"] == pytest.approx(-1)
    assert ranks["cosine", "log tuned / frozen"] == {
        "backbone": "net", "image_size": 32, "resize": "crop",
        "measure": "cosine", "outcome": "log tuned / frozen", "datasets": 1, "spearman": None,
    }  # fmt: skip
    assert "net: order by logme and by log tuned / frozen: Spearman -1.000 over 4 datasets." in sheet.notes
    assert report.table.unplaced == ("b", "c", "d"), "a score gives no place in the table"
    distances = TABLES["table2"](report)
    assert [row["dataset"] for row in distances.rows] == ["a"]
    assert "1 measurements; a dash was not measured." in distances.notes


def test_scores_at_another_image_size_stand_apart() -> None:
    larger = [replace(measured(name, "logme", value), image_size=64) for name, value in (("a", 9.0), ("b", 8.0))]
    sheet = TABLES["scores"](findings({"a": 1.1, "b": 1.3}, {"a": 3.0, "b": 2.0}, larger))
    assert [(row["dataset"], row["image size"], row["logme"], row["pairs"]) for row in sheet.rows] == [
        ("a", 32, 3.0, 2), ("a", 64, 9.0, 0), ("b", 32, 2.0, 2), ("b", 64, 8.0, 0)
    ]  # fmt: skip
    ranks = {one["image_size"]: one["datasets"] for one in sheet.document["ranks"] if one["measure"] == "logme"}
    assert ranks == {32: 2, 64: 0}
    assert (
        "net at 32 px, crop: order by logme and by tuned accuracy: Spearman not defined over 2 datasets." in sheet.notes
    )


def test_two_datasets_have_no_rank_correlation_and_none_at_all_is_said() -> None:
    notes = TABLES["scores"](findings({"a": 1.1, "b": 1.3}, {"a": 3.0, "b": 2.0})).notes
    assert "net: order by logme and by tuned accuracy: Spearman not defined over 2 datasets." in notes
    empty = TABLES["scores"](findings({"a": 1.1}, {}))
    assert (empty.rows, empty.notes[0]) == ((), "No score was measured: distance.metrics takes logme and hscore.")
