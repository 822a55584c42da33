"""From a sweep file to the trials that are still to run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fttune.config import Sweep
from fttune.errors import ConfigError, unknown
from fttune.layers import LayerSpec
from fttune.record import RunRecord
from fttune.trial import Cell, HParams, Trial, draw_name, fixed_views
from fttune.ways import is_convex

# A backward pass costs about twice a forward pass.
_BACKWARD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFacts:
    """What a trial's id needs to know of a dataset."""

    digest: str  # of the source images; empty: not prepared on this machine
    val: int  # images per class
    test: int | None  # images per class; None: the dataset's own test set
    classes: int | None = None  # None: its images are not on this machine
    test_images: int | None = None  # in all
    images: int | None = None  # in all, those of test and val included


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneFacts:
    """What a trial's id needs to know of a backbone."""

    depth: int  # layers
    weights_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a grid stands on, by name."""

    datasets: Mapping[str, DatasetFacts]
    backbones: Mapping[str, BackboneFacts]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A grid held against the logged records."""

    done: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    to_run: tuple[Trial, ...]  # neither done nor failed, the costliest first
    unknown: int = 0  # trials at most that a search asks for once others have ended

    @property
    def total(self) -> int:
        return len(self.done) + len(self.failed) + self.left

    @property
    def left(self) -> int:
        """Trials that are to run, now or later."""
        return len(self.to_run) + self.unknown

    def counts(self, chosen: Sequence[Trial]) -> dict[str, int]:
        """The plan in numbers, and those of the trials that were chosen of it."""
        counts = {"total": self.total, "done": len(self.done), "failed": len(self.failed)}
        return counts | {"to_run": self.left, "chosen": len(chosen), "unknown": self.unknown}


def expand(sweep: Sweep, facts: Facts, settings: Sequence[HParams]) -> list[Trial]:
    """Every trial of a sweep without a search, each once, in the order of the file.

    `settings` is the list of hyper-parameters that every cell is given; what takes no steps is given the first alone,
    since it uses none of them. Raises ConfigError on duplicate trials and
    SpecError where a spec does not fit a backbone.
    """
    return [
        trial_of(cell, hparams, seed, facts)
        for cell in cells(sweep, facts)
        for hparams in (settings[:1] if is_convex(cell.way) else settings)
        for seed in sweep.grid.seeds
    ]


def cells(sweep: Sweep, facts: Facts) -> list[Cell]:
    """The questions of a sweep, each once, in the order of the file; ConfigError where one stands twice."""
    found: dict[Cell, None] = {}
    for backbone in sweep.grid.backbones:
        asked = sweep.grid.asked(facts.backbones[backbone].depth)
        for dataset, entry in sweep.grid.datasets.items():
            for images in entry.images_per_class:
                for spec, way in asked:
                    cell = Cell(dataset=dataset, images_per_class=images, backbone=backbone, spec=spec, way=way)
                    if cell in found:
                        seed = draw_name(sweep.grid.seeds[0])
                        raise ConfigError(
                            f"grid: the trial {dataset}/{images} {cell.label} {seed} stands twice;"
                            " write each layer spec once, in random_top or in specs"
                        )
                    found[cell] = None
    return list(found)


def trial_of(
    cell: Cell,
    hparams: HParams,
    seed: int,
    facts: Facts,
    *,
    fold: tuple[int, int] | None = None,
    bar: tuple[tuple[int, float], ...] = (),
) -> Trial:
    """One training of a cell on what the facts say of its images and its network."""
    data, weights = facts.datasets[cell.dataset], facts.backbones[cell.backbone].weights_digest
    return Trial(
        cell=cell,
        hparams=hparams,
        seed=seed,
        val_per_class=data.val,
        test_per_class=data.test,
        data_digest=data.digest,
        weights_digest=weights,
        fold=fold,
        bar=bar,
    )


def pending(
    trials: Sequence[Trial],
    records: Sequence[RunRecord],
    price: Callable[[Trial], float] | None = None,
    *,
    unknown: int = 0,
) -> Plan:
    """Hold trials against records: a failed trial is never done, and runs again only when asked for.

    `price` orders what is to run; without one it is the relative cost. `unknown` more, at most, are asked for later.
    """
    status = {record.trial_id: record.status for record in records}
    groups: dict[str, list[Trial]] = {"done": [], "failed": [], "to run": []}
    for trial in trials:
        groups[status.get(trial.id, "to run")].append(trial)
    return Plan(
        done=tuple(groups["done"]),
        failed=tuple(groups["failed"]),
        to_run=tuple(sorted(groups["to run"], key=price or cost, reverse=True)),
        unknown=unknown,
    )


def cost(trial: Trial) -> float:
    """Relative cost: images trained times pixels times the share of layers passed forward and backward.

    Layers are taken as equally costly; it orders trials and scales estimates, it is not seconds.
    """
    hparams = trial.hparams
    passes = sum(phase.steps * _passes(phase.spec, hparams) for phase in trial.phases)
    return hparams.batch_size * hparams.image_size**2 * passes


def _passes(spec: LayerSpec, hparams: HParams) -> float:
    """Passes over the whole network that a step takes."""
    cached = spec.frozen if fixed_views(hparams.views) else 0
    return (spec.depth - cached + _BACKWARD * (spec.tuned + spec.random)) / spec.depth


def only(trials: Sequence[Trial], conditions: Sequence[str]) -> list[Trial]:
    """The trials that meet every `key=value` condition; ConfigError on a key no trial has."""
    wanted = [_condition(text) for text in conditions]
    return [trial for trial in trials if all(str(_axes(trial)[key]) == value for key, value in wanted)]


def _axes(trial: Trial) -> dict[str, object]:
    cell = trial.cell
    return {
        "dataset": cell.dataset,
        "images_per_class": cell.images_per_class,
        "backbone": cell.backbone,
        "spec": cell.spec,
        "mode": cell.mode,
        "random_top": cell.spec.random,
        "seed": trial.seed,
        "lr": trial.hparams.lr,
        "id": trial.id,
    }


_AXES = ("dataset", "images_per_class", "backbone", "spec", "mode", "random_top", "seed", "lr", "id")


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--only '{text}' must read key=value, such as dataset=digits")
    if key not in _AXES:
        raise ConfigError(f"--only: {unknown('key', key, _AXES)}")
    return key, value
