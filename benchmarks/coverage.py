"""How often the intervals of the table and of the smooth model cover a known truth, and how often verdicts err.

    uv run python benchmarks/coverage.py            # some minutes; --repeats 100 for a look, --part for one part

Simulated log-ratios: each dataset deviates from the truth once, each of its seeds and splits once more. `plain` is the
percentile bootstrap over datasets and then seeds, uncorrected, which was used before.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fttune.analysis.bootstrap import interval
from fttune.analysis.ratios import Pair
from fttune.analysis.recommend import DISTANCE_EDGES, IMAGE_EDGES, Verdict, verdict
from fttune.analysis.regret import POLICIES, Loss, regret
from fttune.analysis.significance import significance
from fttune.analysis.trend import Trend

DATASETS, SEEDS = (2, 3, 6, 12, 24), (1, 3)
COUNTS = (1, 5, 10, 25, 50, 100, 300)  # images per class that a simulated dataset may have


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """How simulated log-ratios are made. Deviations are natural logarithms of a ratio."""

    name: str
    between: float = 0.1  # standard deviation of datasets about the truth
    within: float = 0.05  # of seeds and splits about their dataset
    skewed: bool = False  # datasets deviate exponentially, one side only has a tail
    uneven: bool = False  # one to three splits for a dataset instead of two

    def shifts(self, datasets: int, rng: np.random.Generator) -> np.ndarray:
        """Deviations float64 [D]."""
        if self.skewed:
            return self.between * (rng.exponential(size=datasets) - 1)
        return rng.normal(0, self.between, datasets)

    def splits(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1, 4)) if self.uneven else 2


WORLDS = (
    World(name="datasets differ (0.1), seeds less (0.05)"),
    World(name="seeds differ (0.06), datasets little (0.02)", between=0.02, within=0.06),
    World(name="datasets differ with a tail", skewed=True),
    World(name="one to three splits each", uneven=True),
)


def pairs_of(world: World, datasets: int, seeds: int, rng: np.random.Generator, truth: float = 0.0) -> list[Pair]:
    """A simulated box: its truth is one number."""
    found: list[Pair] = []
    for number, shift in enumerate(world.shifts(datasets, rng)):
        for images in range(world.splits(rng)):
            logs = rng.normal(truth + shift, world.within, seeds)
            found += [_pair(f"d{number:02}", images + 1, seed, float(log), 0.3) for seed, log in enumerate(logs)]
    return found


def slope(distance: float, images: float) -> float:
    """The truth that the smooth model is asked for."""
    return 0.3 * (distance - 0.3) + 0.03 * (math.log(images) - 3)


def sloped_pairs(world: World, datasets: int, seeds: int, rng: np.random.Generator) -> list[Pair]:
    """Datasets at random distances with some numbers of images, whose truth is `slope`."""
    found: list[Pair] = []
    places = rng.uniform(0.05, 0.55, datasets)
    for number, (distance, shift) in enumerate(zip(places, world.shifts(datasets, rng), strict=True)):
        for images in rng.choice(COUNTS, world.splits(rng), replace=False):
            logs = rng.normal(slope(distance, images) + shift, world.within, seeds)
            name = f"d{number:02}"
            found += [_pair(name, int(images), seed, float(log), float(distance)) for seed, log in enumerate(logs)]
    return found


def _pair(dataset: str, images: int, seed: int, log: float, distance: float) -> Pair:
    return Pair(
        dataset=dataset, images_per_class=images, backbone="net", seed=seed, label="R 1", numerator=math.exp(log) / 2,
        denominator=0.5, numerator_id="", denominator_id="", flagged="", distance=distance,
    )  # fmt: skip


def limits(pairs: Sequence[Pair]) -> tuple[float | None, float | None]:
    """The table's 95 % interval, of the log-ratio."""
    logs, datasets, seeds = [p.log_ratio for p in pairs], [p.dataset for p in pairs], [p.seed for p in pairs]
    return interval(logs, datasets, seeds, confidence=0.95)


def plain(pairs: Sequence[Pair], rng: np.random.Generator, resamples: int = 1000) -> tuple[float, float]:
    """The uncorrected percentile interval: datasets are drawn, then the seeds within each."""
    names, seeds = (sorted({getattr(pair, field) for pair in pairs}) for field in ("dataset", "seed"))
    sums, counts = np.zeros((len(names), len(seeds))), np.zeros((len(names), len(seeds)))
    for pair in pairs:
        place = names.index(pair.dataset), seeds.index(pair.seed)
        sums[place] += pair.log_ratio
        counts[place] += 1
    drawn = rng.integers(len(names), size=(resamples, len(names), 1))
    which = rng.integers(len(seeds), size=(resamples, len(names), len(seeds)))
    low, high = np.quantile(sums[drawn, which].sum((1, 2)) / counts[drawn, which].sum((1, 2)), [0.025, 0.975])
    return float(low), float(high)


def share(hits: Sequence[bool]) -> str:
    """Of simulated boxes, with one decimal."""
    return f"{np.mean(hits):6.1%}" if hits else "     -"


def covers(low: float | None, high: float | None, truth: float = 0.0) -> bool:
    return low is not None and high is not None and low <= truth <= high


def table_intervals(repeats: int) -> None:
    """Coverage in each world; without any difference an interval that misses is a false verdict."""
    print(f"\nTable: 95 % intervals that cover, n = {repeats}. A miss at a truth of 1 is a false Tune or Freeze.")
    for world in WORLDS:
        for datasets in DATASETS:
            told = []
            for seeds in SEEDS:
                rng = np.random.default_rng(0)
                boxes = [pairs_of(world, datasets, seeds, rng) for _ in range(repeats)]
                now = share([covers(*limits(box)) for box in boxes])
                before = share([covers(*plain(box, rng)) for box in boxes])
                flips = [significance([p.log_ratio for p in box], [p.dataset for p in box]) for box in boxes]
                tests = share([test is not None and test.flip_p <= 0.05 for test in flips])
                told.append(f"{seeds} seeds {now} (plain {before}; flip test p <= 0.05 {tests})")
            print(f"  {world.name}: {datasets:2} datasets: {', '.join(told)}", flush=True)


def verdicts(repeats: int) -> None:
    """Where words change as the true ratio moves through 1."""
    print(f"\nVerdicts in the first world with three seeds, n = {repeats}: Freeze / Try Freeze or Tune / Tune.")
    for datasets in (3, 6, 12):
        told = []
        for ratio in (0.8, 0.9, 1.0, 1.1, 1.25):
            rng = np.random.default_rng(0)
            boxes = [limits(pairs_of(WORLDS[0], datasets, 3, rng, math.log(ratio))) for _ in range(repeats)]
            words = [verdict(ratio, *(None if end is None else math.exp(end) for end in ends)) for ends in boxes]
            rates = [np.mean([word is some for word in words]) for some in (Verdict.FREEZE, Verdict.BOTH, Verdict.TUNE)]
            told.append(f"{ratio:g}: {' / '.join(f'{rate:.0%}' for rate in rates)}")
        print(f"  {datasets:2} datasets: {', '.join(told)}", flush=True)


def trend_intervals(repeats: int) -> None:
    """Coverage at distance 0.3 and 20 images, of the mean and of one more dataset."""
    print(f"\nSmooth model at distance 0.3 and 20 images: 95 % intervals that cover, n = {repeats}.")
    for world in WORLDS:
        for datasets in DATASETS:
            told = []
            for seeds in SEEDS:
                rng = np.random.default_rng(0)
                mean, new, supported = [], [], []
                for _ in range(repeats):
                    found = Trend.fit(sloped_pairs(world, datasets, seeds, rng)).at(0.3, 20)
                    truth = slope(0.3, 20)
                    another = rng.normal(truth + world.shifts(1, rng)[0], world.within / math.sqrt(2 * seeds))
                    mean.append(covers(found.low, found.high, math.exp(truth)))
                    new.append(covers(found.new_low, found.new_high, math.exp(another)))
                    supported.append(found.supported)
                told.append(f"{seeds} seeds {share(mean)} (new dataset {share(new)}, supported {share(supported)})")
            print(f"  {world.name}: {datasets:2} datasets: {', '.join(told)}", flush=True)


def regret_intervals(repeats: int) -> None:
    """Coverage of the mean over all simulations: what a policy loses on average with so many datasets."""
    print(f"\nRegret in the first world, two seeds: 95 % intervals that cover the mean regret, n = {repeats}.")
    for datasets in DATASETS[1:-1]:
        rng = np.random.default_rng(0)
        losses = [judged(sloped_pairs(WORLDS[0], datasets, 2, rng)) for _ in range(repeats)]
        told = []
        for place, policy in enumerate(POLICIES[:4]):
            here = [loss[place] for loss in losses]
            truth = float(np.mean([loss.points for loss in here]))
            told.append(
                f"{policy} {share([covers(loss.low, loss.high, truth) for loss in here])} of {truth:.2f} points"
            )
        print(f"  {datasets:2} datasets: {', '.join(told)}", flush=True)


def judged(pairs: Sequence[Pair]) -> Sequence[Loss]:
    return regret(pairs, {"": 0.5}, image_edges=IMAGE_EDGES, distance_edges=DISTANCE_EDGES, confidence=0.95).losses


PARTS = {"table": table_intervals, "verdicts": verdicts, "trend": trend_intervals, "regret": regret_intervals}


def main() -> None:
    """Print all parts, or the one asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=1000, help="simulations behind each rate")
    parser.add_argument("--part", choices=PARTS, help="one part alone")
    asked = parser.parse_args()
    for name, part in PARTS.items():
        if asked.part in (None, name):
            part(asked.repeats)


if __name__ == "__main__":
    main()
