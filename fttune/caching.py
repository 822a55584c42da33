"""Which outputs of frozen layers are worth keeping: the seconds that they save against the room that they take."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fttune.bundle import Bundle, bundle
from fttune.cost import CostModel, Output, looks, output_of
from fttune.trial import Trial, fixed_views
from fttune.ways import is_convex

_DISK = 3.5e8  # bytes a second that a large output is written with, sync included (benchmarks/passes.py)


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

    Those that save most seconds for a byte go first; one that a deeper layer's pass reaches anyway costs no pass.
    """
    groups: dict[Output, list[Trial]] = {}
    for trial in trials:
        for depth in trial.depths:
            groups.setdefault(output_of(trial, depth), []).append(trial)
    weighed = [found for (_, _, depth), group in groups.items() if (found := _weigh(model, group, depth))]
    weighed.sort(key=lambda one: one.saves / max(1, one.bytes), reverse=True)
    chosen: list[Layer] = []
    for one in weighed:
        chosen.append(one.judged(one.saves, room))
        room -= one.bytes if chosen[-1].kept else 0
    for number, one in enumerate(weighed):
        if not chosen[number].kept and any(
            layer.kept and other.reaches(one) for layer, other in zip(chosen, weighed, strict=True)
        ):
            chosen[number] = one.judged(one.saves + one.passing, room)
            room -= one.bytes if chosen[number].kept else 0
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weighed:
    """What keeping a layer costs and saves."""

    output: Output
    bytes: int
    saves: float  # seconds, where a pass is made for it alone
    passing: float  # of these, that the pass takes
    counts: Mapping[int, int]  # images per class, by seed

    def reaches(self, other: "_Weighed") -> bool:
        """Whether the pass that is made for it comes by another layer, of all images that are read there."""
        same = self.output[:2] == other.output[:2] and self.output[2] > other.output[2]
        return same and all(self.counts.get(seed, 0) >= count for seed, count in other.counts.items())

    def judged(self, saves: float, room: float) -> Layer:
        """Kept if it saves anything and fits into `room` bytes."""
        why = "recomputing is as cheap" if saves <= 0 else "no room in resources.cache_gb" if self.bytes > room else ""
        dataset, backbone, depth = self.output
        return Layer(
            dataset=dataset,
            backbone=backbone,
            depth=depth,
            bytes=self.bytes,
            saves=saves,
            kept=not why,
            why=why or f"saves {saves:.0f} s",
        )


def _weigh(model: CostModel, trials: Sequence[Trial], depth: int) -> _Weighed | None:
    """None where the costs are not known."""
    first = trials[0]
    times = model.times.get((first.cell.backbone, first.hparams.image_size))
    images = model.images.get(first.cell.dataset)
    if times is None or images is None:
        return None
    counts: dict[int, int] = {}
    for trial in trials:
        counts[trial.seed] = max(counts.get(trial.seed, 0), trial.cell.images_per_class)
    held_out = images.classes * first.val_per_class + images.test
    held = round(images.drawn(counts.values()) * fixed_views(first.hparams.views)) + held_out
    reads = sum(_reads(trial, depth, images.classes, images.test) for trial in trials)
    size, each = held * times.bytes[depth - 1], sum(times.forward[:depth])
    return _Weighed(
        output=output_of(first, depth),
        bytes=size,
        saves=(reads - held) * each - size / _DISK,
        passing=held * each,
        counts=counts,
    )


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
