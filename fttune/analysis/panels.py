"""The paper's figures for a reader who points at them: each panel as plain values that the page's script draws."""

from collections.abc import Sequence
from typing import Any

from fttune.analysis.facets import Facets
from fttune.analysis.figure_data import Curve, Evidence, Points
from fttune.analysis.figures import FIGURES, image_scale, ratio_scale
from fttune.analysis.ratios import Pair

# Told apart without colour: Plotly's names of seven markers, and of the dash of each mode.
SYMBOLS = ("circle", "square", "diamond", "triangle-down", "triangle-up", "cross", "x")
DASHES = {"tune": "solid", "freeze": "dash", "mixed": "dot", "scratch": "dashdot"}
_OTHER = "longdashdot"  # of the ways, which colour and marker tell apart
_IMAGES = "training images per class"
_DISTANCE = "cosine distance from the source"

Panel = dict[str, Any]


def panels(evidence: Evidence, facets: Facets) -> dict[str, list[Panel]]:
    """The panels of each figure that have points, from the data that the printed figures show."""
    return {
        name: [panel for panel in _made(row.data(evidence), facets) if panel["series"]] for name, row in FIGURES.items()
    }


def _made(data: Sequence[Any], facets: Facets) -> list[Panel]:
    """None for data of another kind: the page then shows the printed figure."""
    points = [one for one in data if isinstance(one, Points)]
    return ratio_panels(points, facets) or accuracy_panels([one for one in data if isinstance(one, Curve)], facets)


def ratio_panels(points: Sequence[Points], facets: Facets) -> list[Panel]:
    """Ratios on a log axis that the two panels of a row share, a marker for each dataset, one line of averages."""
    made = []
    for place, panel in enumerate(points):
        row = points[place - place % 2 :][:2]
        y = _axis(panel.y_label, *ratio_scale([ratio for one in row for ratio in one.y]), log=True)
        edge = [{"x": panel.edge, "dash": "dot"}] if panel.edge is not None and _reaches(panel) else []
        made.append(
            {
                "title": panel.title,
                "left_out": panel.left_out,
                "x": _places(panel),
                "y": y,
                "mean": "geometric",
                "joint": True,
                "marks": [{"y": 1, "dash": "solid"}, *edge],
                "series": [_of_dataset(name, panel, facets) for name in sorted(set(panel.names))],
            }
        )
    return made


def accuracy_panels(curves: Sequence[Curve], facets: Facets) -> list[Panel]:
    """A panel for each dataset: colour and marker for the number of new layers; frozen ones open, on dashed lines."""
    made, kinds = [], kinds_of(curves)
    for name in sorted({curve.panel for curve in curves}):
        here = [curve for curve in curves if curve.panel == name]
        most = max(value for curve in here for value in curve.y)
        made.append(
            {
                "title": name,
                "left_out": "",
                "x": _axis(_IMAGES, *image_scale([x for curve in here for x in curve.x]), log=True),
                "y": _axis("test accuracy", 0, max(1.08 * most, 1.2 * here[0].chance), [], log=False),
                "mean": "arithmetic",
                "joint": False,
                "marks": [{"y": here[0].chance, "dash": "dot"}],
                "series": [_of_curve(curve, kinds.index(_kind(curve)), facets) for curve in here],
            }
        )
    return made


def kinds_of(curves: Sequence[Curve]) -> list[str]:
    """What the colours and markers of Fig. 3 stand for."""
    return list(dict.fromkeys(map(_kind, curves)))


def style_of(dataset: str, facets: Facets) -> tuple[int, str]:
    """Colour and marker of a dataset, the same in every figure; markers shift at each round through the colours."""
    return _style(facets.datasets.index(dataset))


def address(pair: Pair) -> str:
    """Where a pair stands within the page."""
    return f"pair-{pair.numerator_id}-{pair.denominator_id}"


def _kind(curve: Curve) -> str:
    return curve.new if curve.mode in DASHES else f"{curve.mode}, {curve.new}"


def _style(number: int) -> tuple[int, str]:
    return number % 7, SYMBOLS[(number + number // 7) % 7]


def _of_dataset(name: str, panel: Points, facets: Facets) -> Panel:
    colour, symbol = style_of(name, facets)
    points = [
        {"x": x, "y": y, "code": facets.of_pair(pair, panel.tops), "told": _told(pair, panel), "goes": address(pair)}
        for x, y, pair in zip(panel.x, panel.y, panel.pairs, strict=True)
        if pair.dataset == name
    ]
    return {"name": name, "colour": colour, "symbol": f"{symbol}-open", "dash": None, "points": points}


def _told(pair: Pair, panel: Points) -> list[str]:
    above, below = panel.y_label.split(" / ")
    distance = "not measured" if pair.distance is None else f"{pair.distance:.3f}"
    return [
        f"{pair.dataset}, {pair.images_per_class} per class, seed {pair.seed}",
        f"{pair.backbone}, distance {distance}",
        f"{above} {pair.numerator:.3f}, run {pair.numerator_id}",
        f"{below} {pair.denominator:.3f}, run {pair.denominator_id}",
        f"ratio {pair.ratio:.3f}",
    ]


def _of_curve(curve: Curve, kind: int, facets: Facets) -> Panel:
    points, (colour, symbol) = [], _style(kind)
    for x, y, val, seed, trial_id in zip(curve.x, curve.y, curve.vals, curve.seeds, curve.trial_ids, strict=True):
        code = facets.code(dataset=curve.dataset, backbone=curve.backbone, images=x, tops=[curve.random_top], seed=seed)
        told = [
            f"{curve.dataset}, {x} per class, seed {seed}",
            f"{curve.backbone}, {curve.spec} ({curve.mode})",
            f"test {y:.3f}, val {val:.3f}",
            f"run {trial_id}",
        ]
        points.append({"x": x, "y": y, "code": code, "told": told, "goes": f"run-{trial_id}"})
    name, dash = f"{curve.mode}, {curve.new}", DASHES.get(curve.mode, _OTHER)
    symbol = f"{symbol}-open" if curve.mode == "freeze" else symbol
    return {"name": name, "colour": colour, "symbol": symbol, "dash": dash, "points": points}


def _places(panel: Points) -> Panel:
    if not panel.x:
        return {}
    if panel.by_images:
        return _axis(_IMAGES, *image_scale(panel.x), log=True)
    far = max(0.1, *panel.x)
    return _axis(_DISTANCE, -0.03 * far, 1.1 * far, [], log=False)


def _reaches(panel: Points) -> bool:
    return bool(panel.x) and panel.edge is not None and panel.edge <= 2 * max(panel.x)


def _axis(title: str, low: float, high: float, ticks: Sequence[float], *, log: bool) -> Panel:
    return {"title": title, "low": low, "high": high, "ticks": list(ticks), "log": log}
