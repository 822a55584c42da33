"""Which runs count for a cell: where several settings were tried, those at the one that val prefers, never test.

A search tries settings on draws of their own (negative seeds); what it chose is repeated on seeds that chose nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fttune.analysis.given import NOTHING, Given, given
from fttune.errors import StoreError
from fttune.preferred import preferred
from fttune.record import RunRecord
from fttune.trial import SEARCHED, HParams, digest

# Settings that cells without a search may differ in where they tried several on the seeds themselves.
FREE = ("lr", "copied_lr_scale", "weight_decay")
_FOLLOW = ("lr_drop_steps", "report_every")  # follow from the steps
_PLACE = ("data_digest", "weights_digest", "classes", "test_images")
_RULES = ("views", "image_size", "resize", "biases", "dropout")
_SHARED = (*_PLACE, "train_images", "val_images", *_RULES, *(name for name in SEARCHED if name not in FREE), *_FOLLOW)

# Digests of data and weights, side of the input in pixels, how images are resized.
Place = tuple[str, str, int, str]
Setting = tuple[float | str, ...]  # values of SEARCHED, then those that follow from the steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One seed of one cell at its chosen setting. Accuracies are fractions, top-1."""

    dataset: str
    images_per_class: int
    backbone: str
    spec: str
    mode: str
    random_top: int
    seed: int
    val: float
    test: float
    chance: float  # 1 / classes
    tried: int  # settings that the cell was given
    setting: Setting  # that it was chosen to have
    shared: str  # digest of what the members of a pair must have in common
    place: Place  # what a distance measurement must share to speak of these images
    trial_id: str
    given: Given = NOTHING  # what the cell's search was given
    own: Given = NOTHING  # what this run took
    rule: str = ""  # how the search judged a setting


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """One cell of a search: every run on its draws, by setting, those that failed, and the runs on other seeds."""

    tried: dict[Setting, list[RunRecord]]
    failed: list[RunRecord]
    repeats: dict[Setting, list[RunRecord]]

    @property
    def chosen(self) -> Setting:
        """The highest mean val accuracy over draws and folds; only settings with as many runs as any are compared."""
        return _best(self.tried)

    @property
    def settled(self) -> Setting | None:
        """The choice if it was repeated; else, in a search that is not at its end, the best by it of what was repeated.

        None: nothing was.
        """
        if self.chosen in self.repeats:
            return self.chosen
        known = {setting: self.tried[setting] for setting in self.repeats if setting in self.tried}
        return _best(known) if known else None

    @property
    def prevails(self) -> bool:
        """Whether it tried as many settings as the seeds did; fewer are strays, which take no grid of seeds away."""
        return len(self._sought) >= len(self.repeats)

    @property
    def settings(self) -> int:
        """How many it was given, those included that failed."""
        return len(self._sought)

    @property
    def given(self) -> Given:
        return sum(map(given, self._runs), NOTHING)

    @property
    def rule(self) -> str:
        """On how many draws a setting was tried, and in how many parts of each."""
        draws, folds = len({run.seed for run in self._runs}), max(run.folds or 0 for run in self._runs)
        return f"{draws} {'draw' if draws == 1 else 'draws'}" + (f" in {folds} folds" if folds else "")

    @property
    def _runs(self) -> list[RunRecord]:
        return [*self.failed, *(run for runs in self.tried.values() for run in runs)]

    @property
    def _sought(self) -> set[Setting]:
        return {*self.tried, *map(setting_of, self.failed)}


def select(records: Iterable[RunRecord]) -> list[Result]:
    """For each cell the setting with the highest mean val accuracy, and that setting's test accuracy on each seed.

    A cell that was searched is judged by the search's own draws, any other by its seeds; so is one whose search came to
    nothing yet (see `_settled`), lest a stray trial take away what was measured. Only settings with as many runs as any
    are compared; ties go to the lowest values of SEARCHED. Failed trials count as given and as nothing else. In the
    order of dataset, images per class, spec, mode and seed. Raises StoreError where a finished run lacks an accuracy,
    because a zero in its stead would decide the choice.
    """
    runs = list(records)
    searches = _settled(searched(runs))
    plain: dict[tuple[object, ...], dict[Setting, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.status == "done" and not run.role and cell_of(run) not in searches:
            plain[(*_named(run), _shared(run))][setting_of(run)].append(run)
    found = [result for settings in plain.values() for result in _choose(settings)]
    for search, setting in searches.values():
        found += at(search, setting)
    return _sorted(found)


def select_default(records: Iterable[RunRecord], defaults: Collection[Setting]) -> list[Result]:
    """The results of searched cells at a setting that a sweep's file gives, whatever was chosen."""
    return _sorted(
        result
        for one, _ in _settled(searched(records)).values()
        for setting in one.repeats
        if setting in defaults
        for result in at(one, setting)
    )


def searched(records: Iterable[RunRecord]) -> dict[tuple[object, ...], Searched]:
    """The cells that a search tried settings for, with all their runs.

    Accuracies on val and on folds are never averaged: of a cell that was searched both ways the one with more runs
    counts, and val where they are as many.
    """
    runs = list(records)
    kinds: dict[tuple[object, ...], Counter[int]] = defaultdict(Counter)  # of each cell its runs, by number of folds
    for run in runs:
        if run.role == "search" and run.status == "done":
            kinds[cell_of(run)][run.folds or 0] += 1
    kept = {cell: max(sorted(counts), key=counts.__getitem__) for cell, counts in kinds.items()}
    cells = {cell: Searched(tried={}, failed=[], repeats={}) for cell in kinds}
    for run in runs:
        one = cells.get(cell := cell_of(run))
        if one is None or (run.role == "search" and (run.folds or 0) != kept[cell]):
            continue
        if run.status == "done":
            (one.tried if run.role == "search" else one.repeats).setdefault(setting_of(run), []).append(run)
        elif run.role == "search":
            one.failed.append(run)
    return cells


def choices(records: Sequence[RunRecord]) -> list[bool | None]:
    """Of each record, whether a search chose its setting for its cell; None where the cell was not searched."""
    cells = {cell: one.chosen for cell, one in searched(records).items() if one.prevails}
    return [setting_of(run) == cells[cell] if (cell := cell_of(run)) in cells else None for run in records]


def _settled(searches: Mapping[tuple[object, ...], Searched]) -> dict[tuple[object, ...], tuple[Searched, Setting]]:
    """The searches that came to something, and to what; a single setting is a choice only beside another search."""
    peers = Counter(map(beside, searches))
    return {
        cell: (one, setting)
        for cell, one in searches.items()
        if one.prevails and (setting := one.settled) and (len(one.tried) > 1 or peers[beside(cell)] > 1)
    }


def at(search: Searched, setting: Setting) -> list[Result]:
    """The results of a searched cell at one setting; a pair must have as many images to train and choose on."""
    spent, tried = search.given, search.settings
    return [
        _result(
            run,
            setting,
            tried,
            shared=digest(["searched", *_conditions(run), run.train_images, run.val_images]),
            spent=spent,
            rule=search.rule,
        )
        for run in search.repeats.get(setting, ())
    ]


def cell_of(run: RunRecord) -> tuple[object, ...]:
    """Equal for runs of one cell whatever their settings, draws and seeds."""
    return *_named(run), *_conditions(run)


def beside(cell: tuple[object, ...]) -> tuple[object, ...]:
    """Equal for cells, as `cell_of` tells them, that differ in spec and mode alone."""
    return *cell[:3], *cell[5:]


def setting_of(run: RunRecord | HParams) -> Setting:
    """The setting of a run, of which runs of one cell may differ in."""
    drops = run.lr_drop_steps
    follow = (drops if isinstance(drops, str) else ",".join(map(str, drops)), run.report_every)
    return *(getattr(run, name) for name in SEARCHED), *follow


def measured(run: RunRecord, name: str) -> float:
    """A number that a finished run must have."""
    value = getattr(run, name)
    if value is None:
        raise StoreError(f"a finished run must have {name}, but run {run.trial_id} of {run.dataset} has none")
    return value


def _choose(settings: dict[Setting, list[RunRecord]]) -> list[Result]:
    best = _best(settings)
    return [_result(run, best, len(settings), shared=_shared(run), spent=NOTHING) for run in settings[best]]


def _best(settings: dict[Setting, list[RunRecord]]) -> Setting:
    tried = {setting: [measured(run, "val_accuracy") for run in runs] for setting, runs in settings.items()}
    best = preferred(tried, lambda setting: setting)
    assert best is not None  # what is here has finished
    return best


def _result(run: RunRecord, setting: Setting, tried: int, *, shared: str, spent: Given, rule: str = "") -> Result:
    return Result(
        dataset=run.dataset,
        images_per_class=run.images_per_class,
        backbone=run.backbone,
        spec=run.spec,
        mode=run.mode,
        random_top=run.random_top,
        seed=run.seed,
        val=measured(run, "val_accuracy"),
        test=measured(run, "test_accuracy"),
        chance=1 / measured(run, "classes"),
        tried=tried,
        setting=setting,
        shared=shared,
        place=(run.data_digest, run.weights_digest, run.image_size, run.resize),
        trial_id=run.trial_id,
        given=spent,
        own=given(run),
        rule=rule,
    )


def _sorted(results: Iterable[Result]) -> list[Result]:
    return sorted(
        results, key=lambda r: (r.dataset, r.images_per_class, r.backbone, r.random_top, r.spec, r.mode, r.seed)
    )


def _named(run: RunRecord) -> tuple[object, ...]:
    return run.dataset, run.images_per_class, run.backbone, run.spec, run.mode


def _conditions(run: RunRecord) -> Sequence[object]:
    return tuple(getattr(run, name) for name in (*_PLACE, *_RULES))


def _shared(run: RunRecord) -> str:
    return digest([getattr(run, name) for name in _SHARED])
