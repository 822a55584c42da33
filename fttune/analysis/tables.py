"""The paper's tables from logged records, each beside the published one, with differences marked."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from fttune.analysis.agreement import Agreement, Values, agreements
from fttune.analysis.costs import costs_sheet
from fttune.analysis.foretold import foretold_sheet
from fttune.analysis.modes import modes_sheet
from fttune.analysis.published import published_verdict, tables
from fttune.analysis.ratios import Pairing
from fttune.analysis.recommend import BANDS, Box, Table, Verdict, band
from fttune.analysis.regret import Regret
from fttune.analysis.regret_sheet import regret_sheet
from fttune.analysis.select import Setting
from fttune.analysis.sheet import Measure, Row, Sheet, Value
from fttune.analysis.trend import Trend
from fttune.analysis.trend_sheet import trend_sheet
from fttune.record import DistanceRecord, RunRecord

# The paper's name for each of its datasets; both cuts of the birds are held against its one.
PAPER = {
    "caltech256": "Caltech256",
    "sun397": "SUN397",
    "mit67": "MITIndoor",
    "cub200": "CUB-200",
    "cub200_paper": "CUB-200",
    "coral": "Coral",
    "plankton": "Plankton",
    "imagenet500b": "Yosinski",
}
OWN_TEST = ("cub200_paper",)  # cut from all images, where the paper took the official test set
METRICS = ("cosine", "mmd", "svm", "cnn")
SAME, OTHER = "as published", "differs"
BUT_TEST = "as published but test, not compared"
NOTHING, UNSURE, FOREIGN = "no evidence of ours", "no interval of ours", "not in the paper"

Published = Mapping[str, Any] | None  # a row of a published table


class Findings(Protocol):
    """What of a report the tables read."""

    @property
    def records(self) -> Sequence[RunRecord]: ...

    @property
    def distances(self) -> Sequence[DistanceRecord]: ...

    @property
    def pairing(self) -> Pairing: ...

    @property
    def table(self) -> Table: ...

    @property
    def trend(self) -> Trend: ...

    @property
    def regret(self) -> Regret: ...

    @property
    def missing(self) -> Sequence[str]: ...

    @property
    def defaults(self) -> Collection[Setting]: ...


def datasets_sheet(records: Sequence[RunRecord]) -> Sheet:
    """Table 1: the datasets as the finished runs found them."""
    done = [record for record in records if record.status == "done" and not record.fold]
    names = sorted({record.dataset for record in done}, key=_paper_order)
    columns = ("dataset", "classes", "too small", "images", "smallest class", "train", "val", "test")
    return Sheet(
        title="Table 1: datasets and splits, as found on disk",
        columns=(*columns, *(f"paper: {key}" for key in ("classes", "too small", "train", "val", "test")), "compared"),
        rows=tuple(_dataset_row(name, [record for record in done if record.dataset == name]) for name in names),
        notes=(
            "Train, val and test are images of each class; an official test set need not be even, and is shown but"
            " not compared. Images and the smallest class count what is used, in all parts.",
        ),
    )


def distances_sheet(distances: Sequence[DistanceRecord], edges: Sequence[float]) -> Sheet:
    """Table 2: distances from the source, and in how far the metrics agree on the order."""
    by_place: dict[tuple[str, ...], list[DistanceRecord]] = {}
    distances = [record for record in distances if record.metric in METRICS]  # a score is no distance
    for record in sorted(distances, key=lambda record: (_paper_order(record.dataset), record.id)):
        by_place.setdefault((*_way(record), *_images(record)), []).append(record)
    ours, published = _measured_agreements(distances), published_agreements()
    columns = ("dataset", "backbone", "source", "image size", "band", *METRICS)
    return Sheet(
        title="Table 2: distances from the source",
        columns=(*columns, *(f"paper: {metric}" for metric in METRICS), "compared"),
        rows=tuple(_distance_row(records, edges) for records in by_place.values()),
        notes=(
            "Brackets: a 95 % interval over resampled images (cosine, mmd), or the range over repeated draws (svm, cnn,"
            " whose chance is 0.5); n: target images. Compared is the band of the cosine distance.",
            *map(_told, ours),
            *(f"The paper's own table. {_told(agreement)}" for agreement in published if agreement.reversed),
            f"{len(distances)} measurements; a dash was not measured.",
        ),
        facts={"agreement": [asdict(one) for one in ours], "paper: agreement": [asdict(one) for one in published]},
    )


def verdicts_sheet(table: Table) -> Sheet:
    """Table 3: our word and the paper's for each box."""
    columns = ("distance", "images", "ours", "ratio", "low", "high", "pairs", "datasets", "splits")
    return Sheet(
        title="Table 3 beside the published one",
        columns=(*columns, "paper", "compared", "flip p", "flip p, Holm", "sign p", "sign p, Holm"),
        rows=tuple(_verdict_row(table.box(distance, images)) for distance in BANDS for images in BANDS),
        notes=(
            "* one dataset alone. Without an interval (one seed of one dataset) nothing is decided.",
            "In the paper's grid the box of distance M and images H rests on no run; those of L and H, and of H and M,"
            " rest on one split each.",
            "p: two-sided tests that flip whole datasets, of the mean (flip) and of the signs alone. Boxes of two"
            f" datasets or more were tested, {table.tested} of them, and Holm's values hold for all of those together."
            " The verdict rests on the interval, not on p; five datasets cannot come below 0.06.",
        ),
    )


def _with_runs(sheet: Sheet, report: Findings) -> Sheet:
    """The sheet with how many runs stand behind it, and what of the grid is missing."""
    done = sum(record.status == "done" for record in report.records)
    missing = f"; {len(report.missing)} of the grid missing, named in table.json" if report.missing else ""
    return replace(sheet, notes=(*sheet.notes, f"{done} runs{missing}."))


# By the name of their files, in the order of the page.
TABLES: Mapping[str, Callable[[Findings], Sheet]] = {
    "regret": lambda report: regret_sheet(report.regret, confidence=report.table.confidence),
    "table1": lambda report: _with_runs(datasets_sheet(report.records), report),
    "table2": lambda report: distances_sheet(report.distances, report.table.distance_edges),
    "table3": lambda report: _with_runs(verdicts_sheet(report.table), report),
    "costs": lambda report: costs_sheet(report.records, report.pairing.pairs),
    "trend": lambda report: trend_sheet(report.trend, report.table),
    "modes": lambda report: modes_sheet(report.records, report.table.confidence, report.defaults),
    "scores": lambda report: foretold_sheet(report.distances, report.pairing.pairs, report.records),
}


def published_agreements() -> list[Agreement]:
    """In how far the four columns of the published Table 2 put its datasets in one order."""
    rows = tables()["table2"]
    return agreements({metric: {row["dataset"]: row[metric] for row in rows} for metric in METRICS})


def _dataset_row(name: str, done: Sequence[RunRecord]) -> Row:
    classes = _shared(record.classes for record in done)
    ours: dict[str, Value] = {
        "classes": classes,
        "too small": _shared(record.dropped_classes for record in done),
        "train": ", ".join(map(str, sorted({record.images_per_class for record in done}))),
        "val": _per_class(_shared(record.val_images for record in done), classes),
        "test": _per_class(_shared(record.test_images for record in done), classes),
    }
    counts: dict[str, Value] = {
        "dataset": name,
        "images": _shared(record.dataset_images for record in done),
        "smallest class": _shared(record.smallest_class for record in done),
    }
    paper = _published("table1", name)
    used = paper.get("used", paper["categories"]) if paper else None
    theirs: dict[str, Value] = {
        "classes": used,
        "too small": paper["categories"] - used if paper else None,
        "train": ", ".join(map(str, paper["train"])) if paper else None,
        "val": paper["val"] if paper else None,
        "test": (paper["test"] or "official") if paper else None,
    }
    # Records do not tell whether a test set is the official one, so its size is shown and not judged.
    official = theirs["test"] == "official"
    checked = [key for key in theirs if key != "test" or not official or name in OWN_TEST]
    differs = [key for key in checked if ours[key] != theirs[key]]
    same = BUT_TEST if official else SAME
    verdict = (f"{OTHER}: {', '.join(differs)}" if differs else same) if paper else FOREIGN
    return counts | ours | {f"paper: {key}": value for key, value in theirs.items()} | {"compared": verdict}


def _distance_row(records: Sequence[DistanceRecord], edges: Sequence[float]) -> Row:
    one, by_metric = records[0], {record.metric: record for record in records}
    paper = _published("table2", one.dataset)
    own = band(by_metric["cosine"].value, edges) if "cosine" in by_metric else None
    row: dict[str, Value] = {
        "dataset": one.dataset,
        "backbone": one.backbone,
        "source": one.source,
        "image size": one.image_size,
        "band": own,
    }
    row |= {metric: _measured(by_metric[metric]) if metric in by_metric else None for metric in METRICS}
    row |= {f"paper: {metric}": paper[metric] if paper else None for metric in METRICS}
    if not paper:
        return row | {"compared": FOREIGN}
    same = own == band(paper["cosine"], edges)
    return row | {"compared": NOTHING if own is None else f"band {SAME if same else OTHER}"}


def _verdict_row(box: Box) -> Row:
    word = published_verdict(box.distance_band, box.image_band)
    same, tests = box.verdict == word, box.significance
    return {
        "distance": box.distance_band,
        "images": box.image_band,
        "ours": f"{box.verdict}{'*' if box.thin else ''}",
        "ratio": box.ratio,
        "low": box.low,
        "high": box.high,
        "pairs": box.counted,
        "datasets": len(box.datasets),
        "splits": len({(pair.dataset, pair.images_per_class) for pair in box.pairs if not pair.flagged}),
        "paper": word.value,
        "compared": NOTHING if box.verdict is Verdict.NONE else UNSURE if box.low is None else SAME if same else OTHER,
        "flip p": tests.flip_p if tests else None,
        "flip p, Holm": box.flip_holm,
        "sign p": tests.sign_p if tests else None,
        "sign p, Holm": box.sign_holm,
    }


def _measured_agreements(distances: Sequence[DistanceRecord]) -> list[Agreement]:
    """Between the metrics of each way of measuring."""
    found: list[Agreement] = []
    for way in sorted({_way(record) for record in distances}):
        here = [record for record in distances if _way(record) == way]
        values: Values = {metric: {_label(r, here): r.value for r in here if r.metric == metric} for metric in METRICS}
        found += agreements({metric: of_metric for metric, of_metric in values.items() if of_metric})
    return found


def _label(record: DistanceRecord, others: Sequence[DistanceRecord]) -> str:
    """The dataset, with its images' digest where several sets of images go by its name."""
    several = len({_images(other) for other in others if other.dataset == record.dataset}) > 1
    return f"{record.dataset} {record.data_digest[:8]}/{record.test_per_class}" if several else record.dataset


def _told(agreement: Agreement) -> str:
    rho = "not defined" if agreement.spearman is None else f"{agreement.spearman:.3f}"
    apart = "; ".join(f"{one} against {other}" for one, other in agreement.reversed)
    told = f"Order by {' and '.join(agreement.metrics)}: Spearman {rho} over {agreement.datasets} datasets"
    return f"{told}; reversed: {apart}." if apart else f"{told}."


def _measured(record: DistanceRecord) -> Measure:
    return Measure(
        value=record.value,
        low=record.low,
        high=record.high,
        spread=record.spread,
        images=record.images,
        source_images=record.source_images,
        repeats=record.repeats,
        chance=record.chance,
    )


def _way(record: DistanceRecord) -> tuple[str, ...]:
    """What measurements must share for their order to say anything."""
    network = (record.backbone, record.weights_digest, str(record.image_size), record.resize)
    return (*network, record.source, record.source_digest, str(record.maximum))


def _images(record: DistanceRecord) -> tuple[str, ...]:
    return record.dataset, record.data_digest, str(record.test_per_class)


def _published(table: str, name: str) -> Published:
    return next((row for row in tables()[table] if row["dataset"] == PAPER.get(name)), None)


def _per_class(images: Value, classes: Value) -> Value:
    """Images of each class: a whole number, or their mean."""
    if not isinstance(images, int) or not isinstance(classes, int):
        return None
    return images // classes if images % classes == 0 else round(images / classes, 1)


def _shared(values: Iterable[int | None]) -> Value:
    """The value that all runs have, or every value that one has."""
    found = sorted({value for value in values if value is not None})
    return found[0] if len(found) == 1 else ", ".join(map(str, found)) or None


def _paper_order(name: str) -> tuple[int, str]:
    order = list(PAPER)
    return (order.index(name) if name in order else len(order)), name
