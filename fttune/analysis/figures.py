"""The paper's three figures: for each the data first, then the drawing of it."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fttune.analysis.ratios import Distances, Pair, top_to_deeper, tune_to_freeze
from fttune.analysis.select import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; the markers tell datasets apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_LINES = {"tune": "-", "freeze": "--", "mixed": ":", "scratch": "-."}
_MODES = {"tune": "Fine-tuned (T)", "freeze": "Frozen (F)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """One panel: ratios against one quantity."""

    title: str
    x_label: str
    y_label: str
    log_x: bool
    names: tuple[str, ...]  # dataset of each point
    x: tuple[float, ...]
    y: tuple[float, ...]  # ratios
    edge: float | None = None  # a dotted line here

    def trend(self) -> tuple[np.ndarray, np.ndarray]:
        """The averages: the geometric mean of the ratios at each x, sorted by x."""
        places = np.unique(self.x)
        logs, x = np.log(self.y), np.array(self.x)
        return places, np.exp([logs[x == place].mean() for place in places])


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Test accuracy of one spec on one dataset: each seed's, and their mean."""

    dataset: str
    spec: str
    mode: str
    random_top: int
    x: tuple[int, ...]  # images per class of each point
    y: tuple[float, ...]  # accuracy of each point


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the figures are drawn from."""

    results: Sequence[Result]
    distances: Distances
    large: float  # images per class where large data begin


def copying_data(evidence: Evidence) -> list[Points]:
    """Fig. 1: R(top 1) over R(top 3) above, over R(top 5) below; tuned left, frozen right."""
    deeper = sorted({r.random_top for r in evidence.results if r.random_top > 1 and r.mode in _MODES}) or [3, 5]
    return [
        _points(
            top_to_deeper(evidence.results, evidence.distances, random_top=top, mode=mode).counted,
            title=title,
            y_label=f"top 1 new / top {top} new",
        )
        for top in deeper
        for mode, title in _MODES.items()
    ]


def tuning_data(evidence: Evidence) -> list[Points]:
    """Fig. 2: T over F with one new layer, against images per class and against distance."""
    pairs = tune_to_freeze(evidence.results, evidence.distances).counted
    left = _points(pairs, title="against the number of images", y_label="tuned / frozen", edge=evidence.large)
    placed = [(pair, pair.distance) for pair in pairs if pair.distance is not None]
    right = Points(
        title="against the distance from the source",
        x_label="cosine distance",
        y_label="tuned / frozen",
        log_x=False,
        names=tuple(pair.dataset for pair, _ in placed),
        x=tuple(distance for _, distance in placed),
        y=tuple(pair.ratio for pair, _ in placed),
    )
    return [left, right]


def accuracy_data(evidence: Evidence) -> list[Curve]:
    """Fig. 3: every result."""
    keys = sorted({(r.dataset, r.random_top, r.mode, r.spec) for r in evidence.results})
    curves = []
    for dataset, random_top, mode, spec in keys:
        here = [r for r in evidence.results if (r.dataset, r.spec) == (dataset, spec)]
        x, y = tuple(r.images_per_class for r in here), tuple(r.test for r in here)
        curves.append(Curve(dataset=dataset, spec=spec, mode=mode, random_top=random_top, x=x, y=y))
    return curves


def draw_ratios(panels: Sequence[Points]) -> "Figure":
    """Two columns of panels, a line at 1, the averages, one marker for each dataset."""
    rows = -(-len(panels) // 2)
    figure = _figure(9, 3.2 * rows + 0.7)
    axes = figure.subplots(rows, 2, squeeze=False, sharey="row").ravel()
    names = sorted({name for panel in panels for name in panel.names})
    for axis, panel in zip(axes, panels, strict=False):
        _draw_points(axis, panel, names)
    _legend(figure, axes)
    return figure


def draw_accuracies(curves: Sequence[Curve]) -> "Figure":
    """One panel for each dataset; colour for the number of new layers, dashes for frozen."""
    datasets = sorted({curve.dataset for curve in curves}) or ["no results"]
    columns = min(3, len(datasets))
    rows = -(-len(datasets) // columns)
    figure = _figure(4 * columns + 1, 3.2 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    tops = sorted({curve.random_top for curve in curves})
    for axis, dataset in zip(axes, datasets, strict=False):
        _draw_curves(axis, dataset, [curve for curve in curves if curve.dataset == dataset], tops)
    for axis in axes[len(datasets) :]:
        axis.set_axis_off()
    _legend(figure, axes[: len(datasets)])
    return figure


# Name of the file: (what it shows, how it is made).
FIGURES: Mapping[str, tuple[str, Callable[[Evidence], "Figure"]]] = {
    "fig1": (
        "Copying more layers: test accuracy with one new layer over that with more. Above 1, copying is better.",
        lambda evidence: draw_ratios(copying_data(evidence)),
    ),
    "fig2": (
        "Tuning or freezing: test accuracy tuned over frozen, one new layer. Above 1, tuning is better.",
        lambda evidence: draw_ratios(tuning_data(evidence)),
    ),
    "fig3": (
        "Every result: test accuracy; points are seeds, lines their mean.",
        lambda evidence: draw_accuracies(accuracy_data(evidence)),
    ),
}


def rendered(figure: "Figure", form: str) -> bytes:
    """A figure as `png` (150 dpi) or `svg`; equal figures give equal bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "fttune"}):
        figure.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def _points(pairs: Sequence[Pair], *, title: str, y_label: str, edge: float | None = None) -> Points:
    return Points(
        title=title,
        x_label="training images per class",
        y_label=y_label,
        log_x=True,
        names=tuple(pair.dataset for pair in pairs),
        x=tuple(float(pair.images_per_class) for pair in pairs),
        y=tuple(pair.ratio for pair in pairs),
        edge=edge,
    )


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_points(axis: "Axes", panel: Points, names: Sequence[str]) -> None:
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    if not panel.x:
        axis.set_xticks([])
        axis.text(0.5, 0.5, "no pairs", ha="center", va="center", transform=axis.transAxes)
        return
    axis.axhline(1, color="0.5", linewidth=1)
    if panel.edge is not None and panel.edge <= 2 * max(panel.x):
        axis.axvline(panel.edge, color="0.5", linestyle=":")
    places, means = panel.trend()
    axis.plot(places, means, color="0.25", linewidth=1.5, label="average")
    for number, name in enumerate(names):
        here = [place for place, own in enumerate(panel.names) if own == name]
        colour, marker = _COLOURS[number % 7], _MARKERS[number % 7]
        x, y = [panel.x[place] for place in here], [panel.y[place] for place in here]
        axis.plot(x, y, linestyle="none", alpha=0.8, label=name, color=colour, marker=marker)
    _scale(axis, panel)


def _scale(axis: "Axes", panel: Points) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    if panel.log_x:
        axis.set_xscale("log")
        axis.set_xticks(sorted(set(panel.x)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_locator(NullLocator())
        low, high = min(panel.x), max(panel.x)
        axis.set_xlim(low / 1.5, high * 1.5)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(ScalarFormatter())


def _draw_curves(axis: "Axes", dataset: str, curves: Sequence[Curve], tops: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator, ScalarFormatter

    axis.set_title(dataset, fontsize=10)
    axis.set_xlabel("training images per class")
    axis.set_ylabel("test accuracy")
    for curve in curves:
        colour = _COLOURS[tops.index(curve.random_top) % 7]
        places = sorted(set(curve.x))
        means = [np.mean([y for x, y in zip(curve.x, curve.y, strict=True) if x == place]) for place in places]
        label = f"{curve.mode}, {curve.random_top} new"
        axis.plot(places, means, color=colour, linestyle=_LINES[curve.mode], label=label)
        axis.plot(
            curve.x, curve.y, color=colour, linestyle="none", marker="o" if curve.mode == "tune" else "s", alpha=0.6
        )
    if curves:
        axis.set_xscale("log")
        axis.set_xticks(sorted({x for curve in curves for x in curve.x}))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_locator(NullLocator())


def _legend(figure: "Figure", axes: Iterable["Axes"]) -> None:
    """One legend below all panels, each entry once."""
    entries = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=min(6, len(entries)), frameon=False
        )
