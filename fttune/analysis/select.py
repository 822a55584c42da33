"""Which run counts for a cell: where several settings were tried, the one that val prefers. Test is never looked at."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from fttune.errors import StoreError
from fttune.record import RunRecord
from fttune.trial import digest

# Settings that a search may choose for each cell on its own; everything else must be equal within a pair.
SEARCHED = ("lr", "copied_lr_scale", "weight_decay")
_SHARED = (
    *("data_digest", "weights_digest", "classes", "train_images", "val_images", "test_images"),
    *("momentum", "batch_size", "steps", "lr_drop_steps", "report_every", "views", "image_size", "resize", "bn"),
    *("biases", "dropout"),
)


# Digests of data and weights, side of the input in pixels, how images are resized.
Place = tuple[str, str, int, str]


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
    setting: tuple[float, ...]  # the chosen values of SEARCHED
    shared: str  # digest of what the members of a pair must have in common
    place: Place  # what a distance measurement must share to speak of these images
    trial_id: str


def select(records: Iterable[RunRecord]) -> list[Result]:
    """For each cell the setting with the highest mean val accuracy over its seeds, and that setting's test accuracy.

    Only settings with as many seeds as any are compared; ties go to the lowest values of SEARCHED. Failed trials do not
    count. In the order of dataset, images per class, spec, mode and seed. Raises StoreError where a finished run lacks
    an accuracy, because a zero in its stead would decide the choice.
    """
    cells: dict[tuple[object, ...], dict[tuple[float, ...], list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.status == "done":
            cells[_cell(record)][_setting(record)].append(record)
    chosen = [result for settings in cells.values() for result in _choose(settings)]
    return sorted(
        chosen, key=lambda r: (r.dataset, r.images_per_class, r.backbone, r.random_top, r.spec, r.mode, r.seed)
    )


def _choose(settings: dict[tuple[float, ...], list[RunRecord]]) -> list[Result]:
    most = max(map(len, settings.values()))
    full = {setting: runs for setting, runs in settings.items() if len(runs) == most}
    best = max(sorted(full), key=lambda setting: fmean(_measured(run, "val_accuracy") for run in full[setting]))
    return [_result(run, best, len(settings)) for run in full[best]]


def _result(run: RunRecord, setting: tuple[float, ...], tried: int) -> Result:
    return Result(
        dataset=run.dataset,
        images_per_class=run.images_per_class,
        backbone=run.backbone,
        spec=run.spec,
        mode=run.mode,
        random_top=run.random_top,
        seed=run.seed,
        val=_measured(run, "val_accuracy"),
        test=_measured(run, "test_accuracy"),
        chance=1 / _measured(run, "classes"),
        tried=tried,
        setting=setting,
        shared=_shared(run),
        place=(run.data_digest, run.weights_digest, run.image_size, run.resize),
        trial_id=run.trial_id,
    )


def _measured(run: RunRecord, name: str) -> float:
    value = getattr(run, name)
    if value is None:
        raise StoreError(f"a finished run must have {name}, but run {run.trial_id} of {run.dataset} has none")
    return value


def _cell(run: RunRecord) -> tuple[object, ...]:
    return run.dataset, run.images_per_class, run.backbone, run.spec, run.mode, _shared(run)


def _setting(run: RunRecord) -> tuple[float, ...]:
    return tuple(getattr(run, name) for name in SEARCHED)


def _shared(run: RunRecord) -> str:
    return digest([getattr(run, name) for name in _SHARED])
