"""Saved views: which runs a page of MLflow lists, and their columns in an order that reads well.

MLflow keeps a saved view in a tag of the experiment, as its page writes it: a name, two times, and the page's state as
JSON in JSON. The menu Views lists them, and `?viewStateShareKey=KEY` in an address opens one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from fttune.tracking.fields import ERROR, KIND, STATUS, sweep_tag

_TAG = "mlflow.sharedViewState."
_NAME = "tags.`mlflow.runName`"  # MLflow's name for the column Run Name, where it sorts

_CELL = ("params.dataset", "params.images_per_class", "params.spec", "params.seed")
_RESULT = ("metrics.best_val_accuracy", "metrics.test_accuracy", "metrics.seconds")
_SETTINGS = ("params.backbone", "params.mode", "params.random_top", "params.lr", "params.views", "params.image_size")
_WIDTHS = {
    "params.images_per_class": 125,
    "params.seed": 60,
    "params.spec": 130,
    "metrics.best_val_accuracy": 135,
    "metrics.images_per_second": 135,
    "metrics.feature_seconds": 120,
    "metrics.peak_memory_mb": 130,
    f"tags.{ERROR}": 500,
}  # pixels
_WIDTH = 100  # pixels, of any other column


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One saved view; a column is `params.NAME`, `metrics.NAME` or `tags.NAME`."""

    key: str  # stands in its address
    name: str  # stands in the menu
    asks: str  # MLflow's search condition
    columns: tuple[str, ...]
    sorted_by: str = _NAME
    ascending: bool = True

    @property
    def tag(self) -> str:
        """The experiment's tag that holds it."""
        return f"{_TAG}{self.key}"

    def saved(self, at: int) -> str:
        """The tag's value, as saved at a time in ms since 1970."""
        columns = [_quoted(column) for column in self.columns]
        state = {
            "searchFilter": self.asks,
            "orderByKey": self.sorted_by,
            "orderByAsc": self.ascending,
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": {_quoted(column): _WIDTHS.get(column, _WIDTH) for column in self.columns},
        }
        return json.dumps({"name": self.name, "createdAt": at, "updatedAt": at, "state": json.dumps(state)})


VIEWS = (
    View(key="trials", name="Trials", asks=f"tags.`{KIND}` = 'trial'", columns=(*_CELL, *_RESULT, *_SETTINGS)),
    View(
        key="failed",
        name="Failed trials",
        asks=f"tags.`{KIND}` = 'trial' and tags.`{STATUS}` = 'failed'",
        columns=(f"tags.{ERROR}", *_CELL, *_SETTINGS),
    ),
    View(
        key="cost",
        name="What trials took",
        asks=f"tags.`{KIND}` = 'trial' and tags.`{STATUS}` = 'done'",
        columns=(
            *_CELL,
            "metrics.seconds",
            *(f"metrics.{part}_seconds" for part in ("data", "feature", "train", "eval")),
            *("metrics.images_per_second", "metrics.peak_memory_mb", "metrics.together", "tags.device"),
        ),
        sorted_by="metrics.`seconds`",
        ascending=False,
    ),
    View(
        key="distances",
        name="Distances",
        asks=f"tags.`{KIND}` = 'distance'",
        columns=(
            *("params.dataset", "params.source", "params.metric", "metrics.value", "metrics.low", "metrics.high"),
            *("metrics.images", "metrics.source_images", "params.backbone", "params.image_size"),
        ),
    ),
)


def view_of(sweep: str) -> View:
    """The trials that a sweep asked for."""
    return View(
        key=f"sweep-{sweep}",
        name=f"Sweep {sweep}",
        asks=f"tags.`{KIND}` = 'trial' and tags.`{sweep_tag(sweep)}` = 'true'",
        columns=VIEWS[0].columns,
    )


def unsaved(sweep: str, tags: dict[str, str], at: int) -> Iterator[tuple[str, str]]:
    """The tags, as (key, value), of the views that an experiment lacks; one that is there may be its user's own."""
    return ((view.tag, view.saved(at)) for view in (*VIEWS, view_of(sweep)) if view.tag not in tags)


def _quoted(column: str) -> str:
    """`params.lr` as the page names it."""
    kind, _, name = column.partition(".")
    return f"{kind}.`{name}`"
