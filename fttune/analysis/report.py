"""A report from logged records alone: table, figures, page and the records themselves, in one folder."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fttune.analysis.figure_data import Evidence
from fttune.analysis.figures import FIGURES, rendered
from fttune.analysis.notes import against_the_paper, tests_told, tilt
from fttune.analysis.page import render_page
from fttune.analysis.published import published_verdict
from fttune.analysis.ratios import DepthPairing, Pair, Pairing, compare_depths, distances_of, spent, tune_to_freeze
from fttune.analysis.recommend import Box, Table, markdown, recommend
from fttune.analysis.regret import Regret, families_of, regret
from fttune.analysis.regret_sheet import headline, regret_sheet
from fttune.analysis.select import Setting, choices, select, setting_of
from fttune.analysis.sheets import sheets_of
from fttune.analysis.tables import PAPER
from fttune.analysis.trend import Trend
from fttune.analysis.trend_sheet import trend_sheet
from fttune.files import replacing, writing
from fttune.record import DistanceRecord, RunRecord
from fttune.tracking.table import to_table, write_parquet
from fttune.trial import HParams

Wanted = tuple[str, int, str, str, int]  # dataset, images per class, backbone, spec with its way, seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found, before it is written anywhere."""

    name: str
    records: tuple[RunRecord, ...]
    distances: tuple[DistanceRecord, ...]
    pairing: Pairing  # tuned against frozen, one new layer: what the table and Fig. 2 rest on
    copying: tuple[DepthPairing, ...]  # few new layers against more, within a mode: what Fig. 1 rests on
    table: Table
    trend: Trend  # the smooth model beside the table
    regret: Regret  # what the table's advice loses on a dataset that it has not seen
    missing: tuple[str, ...] = ()  # a line for each cell and seed that was asked for and has no finished run
    defaults: frozenset[Setting] = frozenset()  # the settings of the sweeps' files

    @property
    def document(self) -> dict[str, Any]:
        """Everything as JSON-able values: each box with its pairs and their trial ids."""
        return {
            "name": self.name,
            "regret": regret_sheet(self.regret, confidence=self.table.confidence).document,
            "counts": self.counts,
            "notes": notes(self).splitlines(),
            "image_edges": self.table.image_edges,
            "distance_edges": self.table.distance_edges,
            "confidence": self.table.confidence,
            "tested": self.table.tested,
            "boxes": [_box(box) for box in self.table.boxes],
            "trend": trend_sheet(self.trend, self.table).document,
            "unplaced": self.table.unplaced,
            "straddling": self.table.straddling,
            "unplaced_pairs": [_pair(pair) for pair in self.pairing.pairs if pair.distance is None],
            "copying": [_copying(depths) for depths in self.copying],
            "unpaired": self.unpaired,
            "missing": self.missing,
            "distances": [asdict(record) for record in self.distances],
            "failed": [{"trial_id": r.trial_id, "error": r.error} for r in self.records if r.status == "failed"],
            "seconds": seconds_by_mode(self.records),
            "provenance": provenance(self.records),
        }

    @property
    def evidence(self) -> Evidence:
        """What the figures are drawn from."""
        return Evidence(
            results=select(self.records),
            distances=distances_of(self.distances),
            image_edges=self.table.image_edges,
            missing=self.missing,
            failed=tuple(f"{_name(_cell(r))}: {r.error}" for r in self.records if r.status == "failed"),
        )

    @property
    def unpaired(self) -> tuple[str, ...]:
        """A line for each result without a fair partner, in the table or in Fig. 1."""
        return (*self.pairing.unpaired, *(line for depths in self.copying for line in depths.pairing.unpaired))

    @property
    def counts(self) -> dict[str, int]:
        done = sum(record.status == "done" for record in self.records)
        flagged = len(self.pairing.pairs) - len(self.pairing.counted)
        return {
            "done": done,
            "failed": len(self.records) - done,
            "pairs": len(self.pairing.pairs),
            "flagged": flagged,
            "unpaired": len(self.unpaired),
            "missing": len(self.missing),
        }


def analyse(
    records: Sequence[RunRecord],
    distances: Sequence[DistanceRecord],
    *,
    name: str,
    image_edges: tuple[float, float],
    distance_edges: tuple[float, float],
    confidence: float,
    wanted: Sequence[Wanted] = (),
    defaults: Collection[HParams] = (),
) -> Report:
    """From records, oldest first, to the table; `wanted`, the cells and seeds asked for, tells what is missing.

    `defaults`, the settings of the sweeps' files, are what the settings that searches chose are held against.
    """
    results, known = select(records), distances_of(distances)
    pairing = tune_to_freeze(results, known)
    table = recommend(
        pairing.pairs, distances, image_edges=image_edges, distance_edges=distance_edges, confidence=confidence
    )
    return Report(
        name=name,
        records=tuple(records),
        distances=tuple(distances),
        pairing=pairing,
        copying=tuple(compare_depths(results, known)),
        table=table,
        trend=Trend.fit(pairing.pairs, confidence=confidence),
        regret=regret(
            pairing.pairs,
            {result.trial_id: result.val for result in results},
            image_edges=image_edges,
            distance_edges=distance_edges,
            confidence=confidence,
            families=families_of(records, PAPER),
        ),
        missing=_missing(records, wanted),
        defaults=frozenset(map(setting_of, defaults)),
    )


def write_report(report: Report, out: Path) -> None:
    """Write each table as Markdown and JSON, each figure as PNG, SVG and JSON, the records as Parquet, and report.html.

    `table.md` and `table.json` are the recommendations with all that they rest on. Each file replaces its predecessor
    whole.
    """
    evidence, sheets = report.evidence, sheets_of(report)
    figures = {name: row.drawn(evidence) for name, row in FIGURES.items()}
    drawn = {name: rendered(figure, "svg") for name, figure in figures.items()}
    beside = sheets["table3"].markdown()
    with writing(out):
        for name, row in FIGURES.items():
            _write(out / f"{name}.png", rendered(figures[name], "png"))
            _write(out / f"{name}.svg", drawn[name])
            _write_json(out / f"{name}.json", row.document(evidence))
        for name, sheet in sheets.items():
            _write(out / f"{name}.md", f"# {report.name}\n\n{sheet.markdown()}\n".encode())
            _write_json(out / f"{name}.json", sheet.document)
        words = (
            f"# {report.name}\n\n{headline(report.regret)}\n\n{markdown(report.table)}\n\n{notes(report)}\n\n{beside}\n"
        )
        _write(out / "table.md", words.encode())
        _write_json(out / "table.json", report.document)
        chosen = {"chosen": choices(report.records)}
        write_parquet(out / "runs.parquet", to_table(report.records, RunRecord, marks=chosen))
        write_parquet(out / "distances.parquet", to_table(report.distances, DistanceRecord))
        drawings = {name: svg.decode() for name, svg in drawn.items()}
        _write(out / "report.html", render_page(report, notes(report).splitlines(), sheets, drawings).encode())


def summary(report: Report) -> str:
    """What a person at a terminal is told: the table, and what it rests on."""
    title = f"Freeze or tune, one new layer ({report.name}):"
    return "\n\n".join([headline(report.regret), title, markdown(report.table), notes(report)])


def notes(report: Report) -> str:
    """The lines under the table: how to read it, and what it leaves open."""
    counts, table = report.counts, report.table
    level = f"{table.confidence * 100:g} %"
    lines = [
        f"Each box: verdict, mean ratio of test accuracy tuned / frozen, {level} interval, n = pairs/datasets.",
        f"{counts['done']} runs, {counts['pairs']} pairs, {counts['flagged']} flagged (near chance or 0) and left out.",
    ]
    if counts["pairs"]:
        tuned, frozen = spent(report.pairing.pairs)
        lines.append(f"Given to these pairs, searches included: tuned {tuned}; frozen {frozen}.")
    if any(box.thin for box in table.boxes):
        lines.append("* thin: one dataset alone; the interval then speaks of its seeds, not of other data.")
    if any(len(box.datasets) == 2 for box in table.boxes):
        lines.append("Two datasets leave one degree of freedom: their interval is wide until a third is there.")
    if table.tested:
        lines.append(tests_told(table))
    lines += tilt(report.pairing)
    if counts["failed"] or counts["unpaired"]:
        lines.append(f"Trials failed: {counts['failed']}. Runs without a fair partner: {counts['unpaired']}.")
    if counts["missing"]:
        lines.append(f"Asked for and not there: {counts['missing']} cells and seeds.")
    if table.unplaced:
        lines.append(f"No distance, so in no box: {', '.join(table.unplaced)}.")
    if table.straddling:
        lines.append(f"Distance interval reaches over a band edge: {', '.join(table.straddling)}.")
    pooled = sorted({pair.backbone for box in table.boxes for pair in box.pairs})
    if len(pooled) > 1:
        lines.append(f"Boxes pool the backbones {', '.join(pooled)}.")
    return "\n".join([*lines, *against_the_paper(table)])


def seconds_by_mode(records: Sequence[RunRecord]) -> dict[str, dict[str, float]]:
    """What the trials of each mode took, in seconds, and how many they were."""
    modes = sorted({record.mode for record in records})
    kinds = ("seconds", "data_seconds", "feature_seconds", "train_seconds", "eval_seconds")
    told = {}
    for mode in modes:
        here = [record for record in records if record.mode == mode and record.status == "done"]
        told[mode] = {kind: sum(getattr(record, kind) or 0.0 for record in here) for kind in kinds}
        told[mode]["trials"] = len(here)
    return told


def provenance(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """The distinct versions, commits, devices and digests behind the records."""
    names = ("fttune_version", "git_commit", "torch_version", "device", "data_digest", "weights_digest")
    return {name: sorted({str(getattr(record, name)) for record in records} - {""}) for name in names}


def _box(box: Box) -> dict[str, Any]:
    return {
        "distance": box.distance_band,
        "images": box.image_band,
        "verdict": box.verdict.value,
        "published": published_verdict(box.distance_band, box.image_band).value,
        "ratio": box.ratio,
        "low": box.low,
        "high": box.high,
        "counted": box.counted,
        "flagged": box.flagged,
        "datasets": box.datasets,
        "thin": box.thin,
        "tests": asdict(box.significance) if box.significance else None,
        "sign_holm": box.sign_holm,
        "flip_holm": box.flip_holm,
        "pairs": [_pair(pair) for pair in box.pairs],
    }


def _copying(depths: DepthPairing) -> dict[str, Any]:
    return {
        "mode": depths.mode,
        "top": depths.top,
        "random_top": depths.random_top,
        "pairs": [_pair(pair) for pair in depths.pairing.pairs],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    own = {name: value for name, value in asdict(pair).items() if not name.endswith(("_own", "_searched"))}
    given = {"numerator_given": asdict(pair.numerator_given), "denominator_given": asdict(pair.denominator_given)}
    return own | given | {"ratio": None if pair.flagged else pair.ratio}


def _missing(records: Sequence[RunRecord], wanted: Sequence[Wanted]) -> tuple[str, ...]:
    done = {_cell(record) for record in records if record.status == "done"}
    errors = {_cell(record): record.error for record in records if record.status == "failed"}
    lost = sorted(set(wanted) - done)
    return tuple(f"{_name(cell)}: " + (f"failed: {errors[cell]}" if cell in errors else "no run") for cell in lost)


def _name(cell: Wanted) -> str:
    dataset, images, backbone, spec, seed = cell
    return f"{dataset}/{images} {backbone} {spec} s{seed}"


def _cell(record: RunRecord) -> Wanted:
    return record.dataset, record.images_per_class, record.backbone, record.label, record.seed


def _write_json(path: Path, document: object) -> None:
    _write(path, json.dumps(document, indent=1, allow_nan=False).encode())


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
