"""The report as one HTML page that needs nothing but itself: it works offline, and its policy forbids the network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from typing import Protocol

from fttune.analysis.boxes import NARROWED, pairs, pairs_of_boxes, verdicts
from fttune.analysis.facets import Facets, tops_of
from fttune.analysis.figure_data import Evidence
from fttune.analysis.figures import FIGURES, behind
from fttune.analysis.filters import filters
from fttune.analysis.gaps import Found, gaps, provenance
from fttune.analysis.legend import legend
from fttune.analysis.markup import Code, Section, embedded, folded, listed, plain, row, table
from fttune.analysis.origins import origins
from fttune.analysis.panels import Panel, panels
from fttune.analysis.recommend import Table
from fttune.analysis.sheet import Sheet
from fttune.record import RunRecord

_STYLES = "style-src 'unsafe-inline'; img-src data: blob:"  # what Plotly draws with, and saves a picture through
# Sheets that have a section of their own; any other stands with the tables.
_PLACED = ("regret", "trend", "table2", "costs")


class Findings(Found, Protocol):
    """What of a report the page shows."""

    @property
    def name(self) -> str: ...

    @property
    def table(self) -> Table: ...

    @property
    def evidence(self) -> Evidence: ...


def render_page(
    report: Findings, lines: Sequence[str], sheets: Mapping[str, Sheet], drawings: Mapping[str, str]
) -> str:
    """A page from a report, the lines under its table, its sheets, and its figures as SVG for who runs no scripts."""
    facets = Facets.of(report.records, report.table.image_edges)
    evidence, known = report.evidence, origins(report.records)
    drawn = panels(evidence, facets)
    tables = [f"<h3>{plain(s.title)}</h3>{s.html()}" for name, s in sheets.items() if name not in _PLACED]
    parts = [
        *_advice(sheets),
        Section(place="verdicts", title="Recommendation", content=verdicts(report.table) + listed(lines)),
        *_placed("trend", "The smooth model beside the table", sheets),
        filters(facets),
        Section(place="pairs", title="The pairs behind each box", content=_pairs_of_table(report, facets)),
        *(_figure(name, drawn[name], drawings[name], report, facets) for name in FIGURES),
        *_placed("table2", "Distances", sheets),
        *_placed("costs", "What it cost", sheets),
        Section(place="gaps", title="What is missing or stale", content=gaps(report, known)),
        Section(place="tables", title="Tables beside the paper's", content="".join(tables)),
        Section(place="origins", title="Where it comes from", content=_origins(provenance(known))),
        Section(place="runs", title="Every run", content=_runs(report.records, facets)),
    ]
    return _document(f"Freeze or tune: {plain(report.name)}", parts, embedded(drawn))


def _document(title: str, parts: Sequence[Section | str], data: str) -> str:
    """The whole; scripts are allowed by digest, so a name that became markup against all care would still not run."""
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), _file("page.js")]
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {allowed}; {_STYLES}; base-uri 'none'; form-action 'none'"
    links = "".join(part.link for part in parts if isinstance(part, Section))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_file('page.css')}</style></head>",
            f'<body><a class="skip" href="#content">Skip to the content</a><header><h1>{title}</h1>',
            f'<nav aria-label="Contents">{links}</nav></header><main id="content" tabindex="-1">',
            *map(str, parts),
            '</main><p id="told" class="unseen" aria-live="polite"></p>',
            f'<script type="application/json" id="data">{data}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def _placed(name: str, title: str, sheets: Mapping[str, Sheet]) -> list[Section]:
    """A sheet as a section of its own."""
    return [Section(place=name, title=title, content=sheets[name].html())] if name in sheets else []


def _advice(sheets: Mapping[str, Sheet]) -> list[Section]:
    """What the advice is worth, its headline, which is the sheet's first note, before its rows."""
    if "regret" not in sheets:
        return []
    headline, *notes = sheets["regret"].notes
    rows = replace(sheets["regret"], notes=()).html()
    content = f'<p class="headline">{plain(headline)}</p>{rows}{folded("How this was found", listed(notes))}'
    return [Section(place="regret", title="What the advice is worth", content=content)]


def _figure(name: str, drawn: Sequence[Panel], drawing: str, report: Findings, facets: Facets) -> Section:
    """Panels for the script to draw; where there are none, or no script, the printed figure."""
    caption, printed = FIGURES[name].caption, drawing[drawing.index("<svg") :]
    if drawn:
        panels = f'<div class="panels" data-figure="{name}"></div>{legend(drawn, facets)}'
        printed = f"{panels}<noscript>{printed}</noscript>"
    told = f"<figcaption>{plain(caption)} {plain(behind(report.evidence))}.</figcaption>"
    content = f"<figure>{printed}{told}</figure>"
    if name == "fig1":
        content += _copying(report, facets)
    title = f"Fig. {name.removeprefix('fig')}: {caption.partition(':')[0].lower()}"
    return Section(place=name, title=title, content=content)


def _copying(report: Findings, facets: Facets) -> str:
    """The pairs of Fig. 1."""
    return "".join(
        pairs(
            f"{d.mode}: top {d.top} new / top {d.random_top} new",
            d.pairing.pairs,
            tops_of(d),
            facets,
            names=(f"{d.top} new", f"{d.random_top} new"),
        )
        for d in report.copying
    )


def _pairs_of_table(report: Findings, facets: Facets) -> str:
    unplaced = [pair for pair in report.pairing.pairs if pair.distance is None]
    title = "Distance not measured, so in no box"
    return pairs_of_boxes(report.table, facets) + pairs(title, unplaced, [1], facets, names=("tuned", "frozen"))


def _runs(records: Sequence[RunRecord], facets: Facets) -> str:
    columns = ("dataset", "images per class", "backbone", "spec", "mode", "seed", "lr", "val", "test", "seconds")
    rows = [
        row(
            (
                *(one.dataset, one.images_per_class, one.backbone, one.spec, one.mode, one.seed, one.lr),
                *(one.val_accuracy, one.test_accuracy, one.seconds, one.status, Code(one.trial_id)),
            ),
            id=f"run-{one.trial_id}",
            data_code=facets.of_run(one),
        )
        for one in records
    ]
    content = table((*columns, "status", "run"), rows, name="Every run")
    asked = "<p>What else was logged of a run: <code>fttune runs --filter trial_id=RUN --json</code>.</p>"
    return asked + folded(f"All runs ({len(rows)})", content, lead=NARROWED)


def _origins(rows: str) -> str:
    return f"{rows}<p>Page made by fttune {version('fttune')}.</p>"


def _file(name: str) -> str:
    return files("fttune.analysis").joinpath(name).read_text()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
