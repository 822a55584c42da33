"""The paper's three figures as drawings of their data (`fttune.analysis.figure_data`)."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fttune.analysis.figure_data import Curve, Evidence, Points, accuracy_data, copying_data, tuning_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; the markers tell datasets apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_LINES = {"tune": "-", "freeze": "--", "mixed": ":", "scratch": "-."}
_OTHER = (0, (3, 1, 1, 1, 1, 1))  # of the ways, which their label tells apart
_IMAGES = "training images per class"
_LETTER, _LINE = 0.04, 0.09  # of a tick label, as a fraction of the axis it stands on


def draw_ratios(panels: Sequence[Points]) -> "Figure":
    """Two columns of panels, a line at 1, the averages, one marker for each dataset."""
    rows = -(-len(panels) // 2)
    figure = _figure(9, 3.2 * rows + 0.7)
    axes = figure.subplots(rows, 2, squeeze=False, sharey="row")
    names = sorted({name for panel in panels for name in panel.names})
    for place, panel in enumerate(panels):
        axis = axes[place // 2][place % 2]
        _draw_points(axis, panel, names)
        axis.set_ylabel("" if place % 2 else panel.y_label)
    for row in range(rows):
        _scale_ratios(list(axes[row]), [ratio for panel in panels[2 * row : 2 * row + 2] for ratio in panel.y])
    _legend(figure, list(axes.ravel()))
    return figure


def draw_accuracies(curves: Sequence[Curve]) -> "Figure":
    """One panel for each dataset; colour for the number of new layers, dashes for frozen."""
    names = sorted({curve.panel for curve in curves}) or ["no results"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = _figure(4 * columns + 1, 3.2 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = list(dict.fromkeys(curve.new for curve in curves))
    for axis, name in zip(axes, names, strict=False):
        _draw_curves(axis, name, [curve for curve in curves if curve.panel == name], colours)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    _legend(figure, list(axes[: len(names)]))
    return figure


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureRow:
    """A figure: what it shows, its numbers, and the drawing of these."""

    caption: str
    data: Callable[[Evidence], Sequence[Any]]  # panels or curves, dataclasses of plain values
    draw: Callable[[Sequence[Any]], "Figure"]

    def drawn(self, evidence: Evidence) -> "Figure":
        """The drawing of the evidence, headed by what stands behind it."""
        figure = self.draw(self.data(evidence))
        figure.suptitle(behind(evidence), x=0.01, ha="left", fontsize=9, color="0.35")
        return figure

    def document(self, evidence: Evidence) -> dict[str, Any]:
        """The same numbers as JSON-able values."""
        facts = {"caption": self.caption, "runs": len(evidence.results)}
        lost = {"missing": list(evidence.missing), "failed": list(evidence.failed)}
        return facts | lost | {"panels": [panel.document for panel in self.data(evidence)]}


def behind(evidence: Evidence) -> str:
    """What stands behind a figure, in one line."""
    missing = f", {len(evidence.missing)} of the grid missing" if evidence.missing else ""
    failed = f", failed: {len(evidence.failed)}" if evidence.failed else ""
    return f"{len(evidence.results)} results{missing}{failed}"


# By the name of its files.
FIGURES: Mapping[str, FigureRow] = {
    "fig1": FigureRow(
        caption="Copying more layers: test accuracy with few new layers over that with more. Above 1, copy more.",
        data=copying_data,
        draw=draw_ratios,
    ),
    "fig2": FigureRow(
        caption="Tuning or freezing: test accuracy tuned over frozen, one new layer. Above 1, tuning is better."
        " Dotted: large data begin.",
        data=tuning_data,
        draw=draw_ratios,
    ),
    "fig3": FigureRow(
        caption="Every result: test accuracy; points are seeds, lines their mean, dots chance.",
        data=accuracy_data,
        draw=draw_accuracies,
    ),
}


def rendered(figure: "Figure", form: str) -> bytes:
    """A figure as `png` (150 dpi) or `svg`; equal figures give equal bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "fttune"}):
        figure.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def ratio_scale(ratios: Sequence[float]) -> tuple[float, float, list[float]]:
    """Ends and ticks of a log axis with 1 in sight, and some room about the outermost points."""
    low, high = min([*ratios, 0.98]), max([*ratios, 1.02])
    room = (high / low) ** 0.07
    return low / room, high * room, ratio_ticks(low / room, high * room) if ratios else []


def image_scale(places: Sequence[float]) -> tuple[float, float, list[float]]:
    """Ends and ticks of a log axis of images per class."""
    low, high = min(places) / 1.4, max(places) * 1.4
    return low, high, spaced_ticks(places, low, high)


def ratio_ticks(low: float, high: float) -> list[float]:
    """Round numbers in [low, high] for a log axis of ratios, 1 among them, as fine as eight labels allow."""
    steps = [[step * n for n in range(1, round(high / step) + 1)] for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    series = [*steps, [d * 10.0**n for n in decades for d in (1, 2, 5)], [10.0**n for n in decades]]
    inside = ([round(tick, 6) for tick in ticks if low <= tick <= high] for ticks in series)
    roomy = (ticks for ticks in inside if len(ticks) <= 8 and spaced_ticks(ticks, low, high, upright=True) == ticks)
    return next((ticks for ticks in roomy if 1.0 in ticks), [1.0])


def spaced_ticks(places: Sequence[float], low: float, high: float, *, upright: bool = False) -> list[float]:
    """Those of `places` whose labels do not touch on a log axis from low to high: the ends first, then upwards."""

    def apart(one: float, other: float) -> bool:
        room = _LINE if upright else _LETTER * len(f"{one:g}{other:g}") / 2
        return math.log(other / one) >= room * math.log(high / low)

    rising = sorted(set(places))
    if len(rising) < 2 or not apart(rising[0], rising[-1]):
        return rising[:1]
    kept, last = rising[:1], rising[-1]
    for place in rising[1:-1]:
        if apart(kept[-1], place) and apart(place, last):
            kept.append(place)
    return [*kept, last]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_points(axis: "Axes", panel: Points, names: Sequence[str]) -> None:
    left_out = f"\nleft out: {panel.left_out}" if panel.left_out else ""
    axis.set_title(f"{panel.title}, n = {len(panel.x)}{left_out}", fontsize=10)
    axis.set_xlabel(_IMAGES if panel.by_images else "cosine distance from the source")
    if not panel.x:
        axis.set_xticks([])
        axis.text(0.5, 0.5, "no pairs", ha="center", va="center", transform=axis.transAxes)
        return
    axis.axhline(1, color="0.5", linewidth=1)
    if panel.edge is not None and panel.edge <= 2 * max(panel.x):
        axis.axvline(panel.edge, color="0.5", linestyle=":", label=f"{panel.edge:g} images: large")
    for number, name in enumerate(names):
        here = [place for place, own in enumerate(panel.names) if own == name]
        # The markers shift at each round through the colours, so 49 datasets stay apart.
        colour, marker = _COLOURS[number % 7], _MARKERS[(number + number // 7) % 7]
        x, y = [panel.x[place] for place in here], [panel.y[place] for place in here]
        axis.plot(x, y, linestyle="none", label=name, color=colour, marker=marker, markerfacecolor="none")
    places, means = panel.trend()
    if len(places) > 1:
        axis.plot(places, means, color="0.25", linewidth=1.5, label="average")
    if panel.by_images:
        _scale_images(axis, panel.x)
    else:
        far = max(0.1, *panel.x)
        axis.set_xlim(-0.03 * far, 1.1 * far)


def _scale_images(axis: "Axes", places: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    low, high, ticks = image_scale(places)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _scale_ratios(axes: Sequence["Axes"], ratios: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    low, high, ticks = ratio_scale(ratios)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(low, high)
        axis.set_yticks(ticks)
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_locator(NullLocator())


def _draw_curves(axis: "Axes", name: str, curves: Sequence[Curve], colours: Sequence[str]) -> None:
    axis.set_title(f"{name}, n = {sum(len(curve.x) for curve in curves)}" if curves else name, fontsize=10)
    axis.set_xlabel(_IMAGES)
    axis.set_ylabel("test accuracy")
    for curve in curves:
        colour, marker = _COLOURS[colours.index(curve.new) % 7], "o" if curve.mode == "tune" else "s"
        axis.plot(
            *curve.means(), color=colour, linestyle=_LINES.get(curve.mode, _OTHER), label=f"{curve.mode}, {curve.new}"
        )
        axis.plot(curve.x, curve.y, color=colour, linestyle="none", marker=marker, markersize=4, alpha=0.6)
    if curves:
        axis.axhline(curves[0].chance, color="0.5", linestyle=":")
        axis.set_ylim(bottom=0)
        _scale_images(axis, [x for curve in curves for x in curve.x])


def _legend(figure: "Figure", axes: Sequence["Axes"]) -> None:
    """One legend below all panels, each entry once, as many beside each other as fit."""
    found = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes]
    entries = {label: handle for axis in found for handle, label in axis}
    if entries:
        longest = max(map(len, entries))
        fitting = int(figure.get_figwidth() / (0.8 + 0.09 * longest))  # inches of a handle, of a letter
        columns = max(1, min(fitting, len(entries)))
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False)
