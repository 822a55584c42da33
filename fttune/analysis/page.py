"""The report as one HTML page that needs nothing but itself: no script, no font, no address is fetched."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fttune.analysis.sheet import Sheet

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
.sheet { font-size: .8rem; }
.sheet th, .sheet td { padding: .2rem .4rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.box strong { display: block; font-size: 1.1rem; }
.box small { display: block; opacity: .8; }
figure { margin: 1.5rem 0; background: white; color: black; padding: .5rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
code { font-size: .9em; overflow-wrap: anywhere; }
@media print { details { display: block; } body { max-width: none; } }
"""
_BANDS = ("L", "M", "H")


def render_page(document: Mapping[str, Any], figures: Mapping[str, tuple[str, str]], sheets: Sequence[Sheet]) -> str:
    """A page from a report's document, for each figure its caption and its SVG, and the tables, the regret first."""
    name = escape(document["name"])
    worth, *beside = sheets
    body = [
        f"<h1>Freeze or tune: {name}</h1>",
        worth.html(),
        _recommendations(document),
        *(f"<p>{escape(line)}</p>" for line in document["notes"]),
        *(_figure(caption, svg) for caption, svg in figures.values()),
        *(sheet.html() for sheet in beside),
        "<h2>The pairs behind each box</h2>",
        *(_pairs(_title(box), box["pairs"]) for box in document["boxes"] if box["pairs"]),
        _pairs("Distance not measured, so in no box", document["unplaced_pairs"]),
        "<h2>The pairs behind copying more layers</h2>",
        *(
            _pairs(f"{d['mode']}: top {d['top']} new / top {d['random_top']} new", d["pairs"])
            for d in document["copying"]
        ),
        _lines("Runs without a fair partner", document["unpaired"]),
        _lines("Asked for and not there", document["missing"]),
        _lines("Failed trials", [f"{row['trial_id']}: {row['error']}" for row in document["failed"]]),
        "<h2>What it cost</h2>",
        _table(_COST, [{"mode": mode, **row} for mode, row in document["seconds"].items()]),
        "<h2>Where it comes from</h2>",
        _provenance(document["provenance"]),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fttune: {name}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


_COST = ("mode", "trials", "seconds", "data_seconds", "feature_seconds", "train_seconds", "eval_seconds")
_PAIR = (
    "dataset",
    "images_per_class",
    "seed",
    "numerator",
    "denominator",
    "ratio",
    "flagged",
    "numerator_id",
    "denominator_id",
)


def _recommendations(document: Mapping[str, Any]) -> str:
    images, distances = document["image_edges"], document["distance_edges"]
    columns = _spans(images[0], images[1], "1", 1)
    rows = _spans(distances[0], distances[1], "0", 0)
    head = "".join(f"<th scope=col>{band} ({span})</th>" for band, span in zip(_BANDS, columns, strict=True))
    boxes = {(box["distance"], box["images"]): box for box in document["boxes"]}
    body = "".join(
        f"<tr><th scope=row>{band} ({span})</th>{''.join(_box(boxes[band, column]) for column in _BANDS)}</tr>"
        for band, span in zip(_BANDS, rows, strict=True)
    )
    return (
        "<h2>Recommendation</h2><div class=wide><table><thead><tr><th>cosine distance \\ images per class</th>"
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _box(box: Mapping[str, Any]) -> str:
    lines = []
    if box["ratio"] is not None:
        interval = (
            f" [{box['low']:.3f}, {box['high']:.3f}]"
            if box["low"] is not None
            else " (no interval: one seed of one dataset)"
        )
        lines.append(f"{box['ratio']:.3f}{interval}")
        lines.append(f"n = {box['counted']} pairs of {len(box['datasets'])} datasets")
    if box["flagged"]:
        lines.append(f"{box['flagged']} near chance, left out")
    if box["thin"]:
        lines.append("thin: one dataset alone")
    lines.append(f"paper: {escape(box['published'])}")
    small = "".join(f"<small>{line}</small>" for line in lines)
    return f"<td class=box><strong>{escape(box['verdict'])}</strong>{small}</td>"


def _figure(caption: str, svg: str) -> str:
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{escape(caption)}</figcaption></figure>"


def _title(box: Mapping[str, Any]) -> str:
    return f"Distance {box['distance']}, images {box['images']}: {box['verdict']}"


def _pairs(title: str, pairs: Sequence[Mapping[str, Any]]) -> str:
    if not pairs:
        return ""
    return f"<details><summary>{escape(title)} ({len(pairs)} pairs)</summary>{_table(_PAIR, pairs)}</details>"


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f"<th scope=col>{escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_field(row[column]) for column in columns)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _field(value: Any) -> str:
    if isinstance(value, int | float):
        return f"<td class=number>{value if isinstance(value, int) else format(value, '.4g')}</td>"
    return f"<td>{escape('-' if value is None else str(value))}</td>"


def _lines(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>" if lines else ""


def _provenance(facts: Mapping[str, Sequence[str]]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(name.replace('_', ' '))}</th><td>"
        f"{'<br>'.join(f'<code>{escape(value)}</code>' for value in values) or '-'}</td></tr>"
        for name, values in facts.items()
    )
    return f"<div class=wide><table>{rows}</table></div>"


def _spans(low: float, high: float, start: str, step: int) -> tuple[str, str, str]:
    dash = "\N{EN DASH}"
    if step:
        return f"{start}{dash}{low - step:g}", f"{low:g}{dash}{high - step:g}", f"≥ {high:g}"
    return f"{start}{dash}{low:g}", f"{low:g}{dash}{high:g}", f"≥ {high:g}"
