"""Which outputs of frozen layers are worth keeping: the seconds that they save against the room that they take."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from fttune.bundle import Bundle, bundle
from fttune.cost import CostModel, Output, looks, output_of
from fttune.trial import Trial, fixed_views
from fttune.ways import is_convex

_DISK = 5e8  # bytes a second that a layer's output is written with, sync included (benchmarks/frozen.py)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """The output of `depth` frozen layers on one dataset's images, for all trials that train on top of it."""

    dataset: str
    backbone: str
    depth: int
    bytes: int
    saves: float  # seconds, all in all
    kept: bool
    why: str  # in words

    @property
    def output(self) -> Output:
        return self.dataset, self.backbone, self.depth


def settle(model: CostModel, trials: Sequence[Trial], room: float) -> CostModel:
    """The same model with what is computed at each step, since it is not worth its part of `room` bytes.

    What is not known is kept, but where there is no room for anything.
    """
    computed = {layer.output for layer in choose(model, trials, room) if not layer.kept}
    if room <= 0:
        computed |= {output_of(trial, depth) for trial in trials for depth in trial.depths}
    return replace(model, computed=frozenset(computed))


def choose(model: CostModel, trials: Sequence[Trial], room: float) -> list[Layer]:
    """For each layer that cached trials stand on and whose costs are known, whether it is kept in `room` bytes.

    Those that save most seconds for a byte go first.
    """
    groups: dict[Output, list[Trial]] = {}
    for trial in trials:
        for depth in trial.depths:
            groups.setdefault(output_of(trial, depth), []).append(trial)
    weighed = [found for (_, _, depth), group in groups.items() if (found := _weigh(model, group, depth))]
    chosen = []
    for layer, size, saves in sorted(weighed, key=lambda entry: entry[2] / max(1, entry[1]), reverse=True):
        why = "recomputing is as cheap" if saves <= 0 else "no room in resources.cache_gb" if size > room else ""
        room -= 0 if why else size
        dataset, backbone, depth = layer
        chosen.append(
            Layer(
                dataset=dataset,
                backbone=backbone,
                depth=depth,
                bytes=size,
                saves=saves,
                kept=not why,
                why=why or f"saves {saves:.0f} s",
            )
        )
    return chosen


def bundles(model: CostModel, trials: Sequence[Trial]) -> list[Bundle]:
    """Jobs for trials, in their order, with what is kept according to the model."""
    return without(bundle(trials), model.computed)


def told(layers: Sequence[Layer]) -> list[str]:
    """In words: what is kept, all in all, and each layer that is not."""
    kept = [layer for layer in layers if layer.kept]
    size, saves = sum(layer.bytes for layer in kept) / 1e9, sum(layer.saves for layer in kept)
    lines = [f"outputs of frozen layers take {size:.2g} GB and save about {saves:,.0f} s of slots"] if kept else []
    return lines + [
        f"not kept, but computed at each step: {layer.backbone} on {layer.dataset}, {layer.depth} frozen layers"
        f" ({layer.bytes / 1e9:.2g} GB): {layer.why}"
        for layer in layers
        if not layer.kept
    ]


def without(bundles: Iterable[Bundle], computed: Collection[Output]) -> list[Bundle]:
    """The bundles, their depths less those that are not kept; without features no trials train together."""
    left: list[Bundle] = []
    for one in bundles:
        first = one.trials[0]
        depths = tuple(depth for depth in one.depths if output_of(first, depth) not in computed)
        whole = depths == one.depths or first.cell.spec.frozen in depths
        groups = [one.trials] if whole else [(trial,) for trial in one.trials]
        left += [Bundle(trials=group, depths=depths) for group in groups]
    return left


def _weigh(model: CostModel, trials: Sequence[Trial], depth: int) -> tuple[Output, int, float] | None:
    """A layer, its bytes, and the seconds it saves; None where they are not known."""
    first = trials[0]
    times = model.times.get((first.cell.backbone, first.hparams.image_size))
    images = model.images.get(first.cell.dataset)
    if times is None or images is None:
        return None
    classes = images.classes
    seeds = {t.seed: max(o.cell.images_per_class for o in trials if o.seed == t.seed) for t in trials}
    held_out = classes * first.val_per_class + images.test
    held = round(images.drawn(seeds.values()) * fixed_views(first.hparams.views)) + held_out
    reads = sum(_reads(trial, depth, classes, images.test) for trial in trials)
    size = held * times.bytes[depth - 1]
    return output_of(first, depth), size, (reads - held) * sum(times.forward[:depth]) - size / _DISK


def _reads(trial: Trial, depth: int, classes: int, test: int) -> int:
    """Images that a trial passes through its network while `depth` layers are frozen, in training and in evaluation."""
    train, val = classes * trial.cell.images_per_class, classes * trial.val_per_class
    if is_convex(trial.cell.way):
        return train * fixed_views(trial.hparams.views) + val + test + train
    reads = sum(
        steps * min(trial.hparams.batch_size, train) + reports * val
        for spec, steps, reports in looks(trial)
        if spec.frozen == depth
    )
    return reads + (test + train if trial.phases[-1].spec.frozen == depth else 0)
