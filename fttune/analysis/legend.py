"""What markers and lines of the page's figures stand for, drawn small as they are drawn there."""

from collections.abc import Sequence

from fttune.analysis.facets import Facets
from fttune.analysis.markup import plain
from fttune.analysis.panels import Panel, style_of

# Each marker in a square of sixteen, as Plotly draws it.
_SHAPES = {
    "circle": "<circle cx=8 cy=8 r=5 />",
    "square": '<path d="M3.5 3.5h9v9h-9z"/>',
    "diamond": '<path d="M8 2l6 6-6 6-6-6z"/>',
    "triangle-down": '<path d="M2.5 4.5h11L8 13z"/>',
    "triangle-up": '<path d="M2.5 11.5h11L8 3z"/>',
    "cross": '<path d="M6 2.5h4V6h3.5v4H10v3.5H6V10H2.5V6H6z"/>',
    "x": '<path d="M5 2.5l3 3 3-3L13.5 5l-3 3 3 3-2.5 2.5-3-3-3 3L2.5 11l3-3-3-3z"/>',
}
_STROKES = {"solid": "", "dash": "6 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdashdot": "10 3 2 3"}


def marker(dataset: str, facets: Facets) -> str:
    """The marker of a dataset."""
    colour, symbol = style_of(dataset, facets)
    return f'<svg class="key c{colour}" viewBox="0 0 16 16" aria-hidden=true>{_SHAPES[symbol]}</svg>'


def legend(panels: Sequence[Panel], facets: Facets) -> str:
    """Every series of a figure's panels once, in the order they come in."""
    entries = {series["name"]: series for panel in panels for series in panel["series"]}
    items = [f"<li>{_drawn(one, facets)}{plain(name)}</li>" for name, one in entries.items()]
    if any(panel["joint"] for panel in panels):
        items.append(f"<li>{_line('ink', 'solid', '')}average</li>")
    return f"<ul class=legend>{''.join(items)}</ul>" if items else ""


def _drawn(series: Panel, facets: Facets) -> str:
    if series["dash"] is None:
        return marker(series["name"], facets)
    shape, filled = series["symbol"].removesuffix("-open"), not series["symbol"].endswith("-open")
    return _line(f"c{series['colour']}", series["dash"], _SHAPES[shape], filled=filled)


def _line(colour: str, dash: str, shape: str, *, filled: bool = False) -> str:
    stroke = f'<path d="M0 8h44" stroke-dasharray="{_STROKES[dash]}"/>'
    kind = "filled" if filled else "open"
    drawn = f'<g class={kind} transform="translate(14 0)">{shape}</g>' if shape else ""
    return f'<svg class="key line {colour}" viewBox="0 0 44 16" aria-hidden=true>{stroke}{drawn}</svg>'
