"""A report from logged records alone: table, figures, page and the records themselves, in one folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fttune.analysis.figures import FIGURES, Evidence, rendered
from fttune.analysis.page import render_page
from fttune.analysis.published import published_verdict
from fttune.analysis.ratios import Pair, Pairing, tune_to_freeze
from fttune.analysis.recommend import BANDS, Box, Table, Verdict, recommend
from fttune.analysis.select import select
from fttune.files import replacing, writing
from fttune.record import DistanceRecord, RunRecord
from fttune.tracking.table import write_parquet

_FEW = 6  # datasets; below it a 95 % interval covered 51 to 76 % of simulated truths (benchmarks/coverage.py)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found, before it is written anywhere."""

    name: str
    records: tuple[RunRecord, ...]
    distances: tuple[DistanceRecord, ...]
    pairing: Pairing  # tuned against frozen, one new layer
    table: Table

    @property
    def document(self) -> dict[str, Any]:
        """Everything as JSON-able values: each box with its pairs and their trial ids."""
        return {
            "name": self.name,
            "counts": self.counts,
            "image_edges": self.table.image_edges,
            "distance_edges": self.table.distance_edges,
            "confidence": self.table.confidence,
            "boxes": [_box(box) for box in self.table.boxes],
            "unplaced": self.table.unplaced,
            "straddling": self.table.straddling,
            "unpaired": self.pairing.unpaired,
            "distances": [asdict(record) for record in self.distances],
            "failed": [{"trial_id": r.trial_id, "error": r.error} for r in self.records if r.status == "failed"],
            "seconds": seconds_by_mode(self.records),
            "provenance": provenance(self.records),
        }

    @property
    def counts(self) -> dict[str, int]:
        done = sum(record.status == "done" for record in self.records)
        flagged = len(self.pairing.pairs) - len(self.pairing.counted)
        return {
            "done": done,
            "failed": len(self.records) - done,
            "pairs": len(self.pairing.pairs),
            "flagged": flagged,
            "unpaired": len(self.pairing.unpaired),
        }


def analyse(
    records: Sequence[RunRecord],
    distances: Sequence[DistanceRecord],
    *,
    name: str,
    image_edges: tuple[float, float],
    distance_edges: tuple[float, float],
    confidence: float,
) -> Report:
    """From records to the table."""
    known = {(record.dataset, record.backbone): record.value for record in distances}
    pairing = tune_to_freeze(select(records), known)
    table = recommend(
        pairing.pairs, distances, image_edges=image_edges, distance_edges=distance_edges, confidence=confidence
    )
    return Report(name=name, records=tuple(records), distances=tuple(distances), pairing=pairing, table=table)


def write_report(report: Report, out: Path) -> None:
    """Write table.md, table.json, runs.parquet, distances.parquet, each figure as PNG and SVG, and report.html.

    Each file replaces its predecessor whole.
    """
    known = {(record.dataset, record.backbone): record.value for record in report.distances}
    evidence = Evidence(results=select(report.records), distances=known, large=report.table.image_edges[1])
    figures = {name: draw(evidence) for name, (_, draw) in FIGURES.items()}
    drawn = {name: rendered(figure, "svg") for name, figure in figures.items()}
    with writing(out):
        for name, figure in figures.items():
            _write(out / f"{name}.png", rendered(figure, "png"))
            _write(out / f"{name}.svg", drawn[name])
        _write(out / "table.md", f"# {report.name}\n\n{markdown(report)}\n".encode())
        _write(out / "table.json", json.dumps(report.document, indent=1).encode())
        write_parquet(out / "runs.parquet", report.records, RunRecord)
        write_parquet(out / "distances.parquet", report.distances, DistanceRecord)
        captions = {name: caption for name, (caption, _) in FIGURES.items()}
        page = render_page(report.document, {name: (captions[name], drawn[name].decode()) for name in drawn})
        _write(out / "report.html", page.encode())


def markdown(report: Report) -> str:
    """The table as Markdown, with the published word beside each verdict, and what it rests on."""
    table = report.table
    head = ["distance \\ images", *(f"{name} {span}" for name, span in spans(table.image_edges, whole=True))]
    rows = []
    for name, span in spans(table.distance_edges, whole=False):
        rows.append([f"{name} {span}", *(cell(table.box(name, images)) for images in BANDS)])
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(4)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    rule = " | ".join("-" * width for width in widths)
    body = "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
    return f"{body}\n\n{notes(report)}"


def summary(report: Report) -> str:
    """What a person at a terminal is told."""
    return f"Freeze or tune, one new layer ({report.name}):\n\n{markdown(report)}"


def cell(box: Box) -> str:
    """`Tune 1.12 [1.03, 1.25] n=6/3`: verdict, mean T / F, interval, pairs / datasets; `*` where thin."""
    if box.ratio is None:
        return f"{box.verdict.value}{f' ({box.flagged} flagged)' if box.flagged else ''}"
    interval = f" [{box.low:.2f}, {box.high:.2f}]" if box.low is not None else ""
    mark = "*" if box.thin else ""
    return f"{box.verdict.value}{mark} {box.ratio:.2f}{interval} n={box.counted}/{len(box.datasets)}"


def notes(report: Report) -> str:
    """The lines under the table: how to read it, and what it leaves open."""
    counts, table = report.counts, report.table
    level = f"{table.confidence * 100:g} %"
    lines = [
        f"Each box: verdict, mean ratio of test accuracy tuned / frozen, {level} interval, n = pairs/datasets.",
        f"{counts['done']} runs, {counts['pairs']} pairs, {counts['flagged']} flagged near chance and left out.",
    ]
    if any(box.thin for box in table.boxes):
        lines.append("* thin: one dataset alone; the interval then speaks of its seeds, not of other data.")
    if any(len(box.datasets) < _FEW and box.verdict in (Verdict.TUNE, Verdict.FREEZE) for box in table.boxes):
        lines.append(f"Fewer than {_FEW} datasets make intervals too narrow (docs/science.md says by how much).")
    if counts["failed"] or counts["unpaired"]:
        lines.append(f"{counts['failed']} trials failed, {counts['unpaired']} runs have no partner.")
    if table.unplaced:
        lines.append(f"No distance, so in no box: {', '.join(table.unplaced)}.")
    if table.straddling:
        lines.append(f"Distance interval reaches over a band edge: {', '.join(table.straddling)}.")
    differs = [b for b in table.boxes if b.counted and b.verdict != published_verdict(b.distance_band, b.image_band)]
    told = ", ".join(
        f"distance {b.distance_band} images {b.image_band} ({published_verdict(b.distance_band, b.image_band).value})"
        for b in differs
    )
    lines.append(f"The paper's Table 3 says otherwise at: {told}." if told else "Nowhere against the paper's Table 3.")
    return "\n".join(lines)


def spans(edges: tuple[float, float], *, whole: bool) -> list[tuple[str, str]]:
    """Each band with its range; `whole` numbers start at 1, others at 0."""
    low, high = edges
    if whole:
        return [("L", f"1-{low - 1:g}"), ("M", f"{low:g}-{high - 1:g}"), ("H", f">={high:g}")]
    return [("L", f"0-{low:g}"), ("M", f"{low:g}-{high:g}"), ("H", f">={high:g}")]


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
        "pairs": [_pair(pair) for pair in box.pairs],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return asdict(pair) | {"ratio": None if pair.flagged else pair.ratio}


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
