"""What is compared: one run of each cell and seed, with the budget of the search that chose its setting."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fttune.analysis.given import NOTHING, Given
from fttune.analysis.select import FREE, Result, Searched, Setting, beside, cell_of, select, select_default
from fttune.record import RunRecord
from fttune.trial import SEARCHED
from fttune.ways import is_convex

# What a comparison may be of; each with the fields that differ where it differs.
AXES: Mapping[str, tuple[str, ...]] = {
    "dataset": ("data_digest", "classes", "train_images", "val_images", "test_images"),
    "images_per_class": ("train_images",),
    "backbone": ("spec", "depth", "weights_digest"),
    "spec": ("mode", "random_top"),
    "mode": ("spec", "way"),
    "random_top": ("spec",),
    "seed": (),
    **dict.fromkeys(SEARCHED, ()),
    **dict.fromkeys(("views", "resize", "biases", "dropout"), ()),
    "steps": ("lr_drop_steps", "report_every"),
    "image_size": (),
}
_EQUAL = (
    *AXES, "way", "depth", "lr_drop_steps", "report_every", "data_digest", "weights_digest", "classes", "train_images",
    "val_images", "test_images", "fold", "folds",
)  # fmt: skip
_OWN = ("lr_drop_steps", "report_every")  # of a setting, beside SEARCHED

Cells = Mapping[tuple[object, ...], Searched]  # that a search tried settings for


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A run that takes part."""

    record: RunRecord
    # Of the search: settings, trials, steps, images, rule; the setting itself where it was but one.
    budget: tuple[object, ...]
    setting: str = ""  # chosen or default, where there was a search
    given: Given = NOTHING  # what the search took
    chosen: bool = False  # the one setting of its cell, so that no other is told apart from it by its budget


def contenders(
    records: Sequence[RunRecord], asked: Sequence[RunRecord], by: str, defaults: Collection[Setting], cells: Cells
) -> list[Contender]:
    """What of the asked is compared: a search chose among all of its own, of other cells only the asked are known."""
    shown = {record.trial_id for record in asked}
    known = [record for record in records if record.trial_id in shown or cell_of(record) in cells]
    return [run for run in _chosen(known, by, defaults, cells) if run.record.trial_id in shown]


def key(run: Contender, by: str) -> tuple[object, ...]:
    """Equal for runs that may be held against each other."""
    searches = bool(run.setting) or (by in SEARCHED and run.record.role == "search")
    free = {by, *AXES[by], *(SEARCHED if searches else FREE), *(_OWN if searches else ())}
    return (
        None if is_convex(run.record.way) else run.budget,
        *(getattr(run.record, name) for name in _EQUAL if name not in free),
    )


def parted(runs: Sequence[Contender], by: str) -> bool:
    """Whether runs that are equal in all but what is compared were given unequal budgets of search."""
    budgets: dict[tuple[object, ...], set[tuple[object, ...]]] = defaultdict(set)
    for run in runs:
        if run.setting == "chosen" and not is_convex(run.record.way):
            budgets[key(run, by)[1:]].add(run.budget)
    return any(len(some) > 1 for some in budgets.values())


def _chosen(records: Sequence[RunRecord], by: str, defaults: Collection[Setting], cells: Cells) -> list[Contender]:
    done = [record for record in records if record.status == "done"]
    if by in FREE or (by in SEARCHED and cells):
        # Of a cell that was searched the runs of the search are what differs in nothing but settings.
        whole = [run for run in done if run.pruned_step is None]
        tried = [run for run in whole if (run.role == "search") == (cell_of(run) in cells)]
        return [Contender(record=r, budget=tuple(getattr(r, name) for name in SEARCHED if name != by)) for r in tried]
    by_id = {record.trial_id: record for record in done}
    found = [_contender(by_id[one.trial_id], one, "chosen") for one in select(records)]
    if not cells:
        return found
    # What is solved for has no settings to search, so it stands beside both where the other modes were searched.
    peers = {beside(cell_of(run.record)) for run in found if run.setting == "chosen"}
    searched, solved = list[Contender](), list[Contender]()
    for run in found:
        beside_search = is_convex(run.record.way) and beside(cell_of(run.record)) in peers
        (solved if beside_search else searched).append(run)
    own = [_contender(by_id[one.trial_id], one, "default") for one in select_default(records, defaults)]
    both = [replace(run, setting=setting) for setting in (["chosen", *["default"] * bool(own)]) for run in solved]
    return [*searched, *own, *both]


def _contender(record: RunRecord, result: Result, setting: str) -> Contender:
    own = result.tried == 1 or setting == "default"
    spent = result.given
    budget = result.setting if own else (result.tried, spent.trials, spent.steps, spent.images, result.rule)
    shown, chosen = setting if result.given.trials else "", setting == "chosen"
    return Contender(record=record, budget=budget, setting=shown, given=result.given, chosen=chosen)
