"""The recommendation table as a part of a page, and the pairs that its boxes lead to."""

from collections.abc import Sequence

from fttune.analysis.facets import Facets
from fttune.analysis.markup import Code, folded, plain, row, table
from fttune.analysis.panels import address
from fttune.analysis.published import published_verdict
from fttune.analysis.ratios import Pair
from fttune.analysis.recommend import BANDS, Box, Table, Verdict, spans
from fttune.analysis.sheet import text

NARROWED = '<p class="shown" hidden></p>'  # how many rows of a list are shown is told here
_KINDS = {Verdict.TUNE: "tune", Verdict.FREEZE: "freeze", Verdict.BOTH: "both", Verdict.NONE: "none"}


def verdicts(grid: Table) -> str:
    """Nine boxes; each with pairs leads to them. On a narrow screen they stand below each other."""
    columns = dict(spans(grid.image_edges, whole=True))
    head = "".join(
        f"<th scope=col role=columnheader>Images per class {name}: <span>{plain(span)}</span></th>"
        for name, span in columns.items()
    )
    body = "".join(
        f"<tr role=row><th scope=row role=rowheader>Distance {name}: <span>{plain(span)}</span></th>"
        f"{''.join(_box(grid.box(name, images), columns[images]) for images in BANDS)}</tr>"
        for name, span in spans(grid.distance_edges, whole=False)
    )
    return (
        "<table class=boxes role=table><caption>Cosine distance from the source, by training images per class. A box"
        " leads to its pairs and their run ids.</caption><thead><tr role=row><td role=cell></td>"
        f"{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def pairs_of_boxes(grid: Table, facets: Facets) -> str:
    """What the boxes lead to; a box without pairs has nothing to lead to."""
    return "".join(
        pairs(f"{_where(box)}: {box.verdict}", box.pairs, [1], facets, place=_place(box), names=("tuned", "frozen"))
        for box in grid.boxes
    )


def pairs(
    title: str,
    found: Sequence[Pair],
    tops: Sequence[int],
    facets: Facets,
    *,
    names: tuple[str, str],
    place: str = "",
) -> str:
    """Pairs with both accuracies and run ids; `names` are those of numerator and denominator."""
    if not found:
        return ""
    above, below = names
    remarked = any(pair.flagged or pair.remark for pair in found)
    columns = ("dataset", "images per class", "backbone", "seed", above, below, "ratio", "distance")
    took = (f"{above}: given", f"{below}: given")
    runs = (*(["remark"] if remarked else []), *took, f"{above}: run", f"{below}: run")
    rows = [
        row(_fields(pair, remarked=remarked), id=address(pair), data_code=facets.of_pair(pair, tops)) for pair in found
    ]
    content = table((*columns, *runs), rows, name=title)
    return folded(f"{title} ({_counted(len(found), 'pair')})", content, place=place, lead=NARROWED)


def _fields(pair: Pair, *, remarked: bool) -> list[object]:
    ratio = None if pair.flagged else pair.ratio
    what = (pair.dataset, pair.images_per_class, pair.backbone, pair.seed, pair.numerator, pair.denominator)
    why = [f"left out: {pair.flagged}" if pair.flagged else pair.remark or None] if remarked else []
    given = (str(pair.numerator_given), str(pair.denominator_given))
    return [*what, ratio, pair.distance, *why, *given, Code(pair.numerator_id), Code(pair.denominator_id)]


def _box(box: Box, images: str) -> str:
    column = f"Images per class {box.image_band}: {images}"
    word = published_verdict(box.distance_band, box.image_band)
    lines = "".join(f"<small>{plain(line)}</small>" for line in [*_evidence(box), f"paper: {word}"])
    inside = f"<strong>{box.verdict}</strong>{lines}"
    if box.pairs:
        inside = f'<a href="#{_place(box)}">{inside}</a>'
    return f'<td role=cell class="box {_KINDS[box.verdict]}" data-column="{plain(column)}">{inside}</td>'


def _evidence(box: Box) -> list[str]:
    lines = []
    if box.ratio is not None:
        interval = "(no interval: one seed of one dataset)" if box.low is None else f"[{box.low:.3f}, {box.high:.3f}]"
        lines += [f"tuned / frozen {box.ratio:.3f} {interval}"]
        lines += [f"n = {_counted(box.counted, 'pair')} of {_counted(len(box.datasets), 'dataset')}"]
    if box.significance is not None:
        lines.append(f"flip p {text(box.significance.flip_p)}, with Holm {text(box.flip_holm)}")
    if box.flagged:
        lines.append(f"{box.flagged} near chance or 0, left out")
    if box.thin:
        lines.append("thin: one dataset alone")
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _place(box: Box) -> str:
    return f"box-{box.distance_band}-{box.image_band}"


def _where(box: Box) -> str:
    return f"Distance {box.distance_band}, images {box.image_band}"
