"""How often the bootstrap interval of a mean ratio covers a known truth, by number of datasets and seeds.

    uv run python benchmarks/coverage.py

Simulated log-ratios: a mean of 0.1, datasets spread by 0.1, seeds by 0.05, two splits each.
"""

import math

import numpy as np

from fttune.analysis.bootstrap import mean_ratio

TRUTH, BETWEEN, WITHIN, REPEATS = 0.1, 0.1, 0.05, 1000


def coverage(datasets: int, seeds: int) -> float:
    """The share of REPEATS simulated boxes whose 95 % interval covers the truth."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(REPEATS):
        shifts = rng.normal(TRUTH, BETWEEN, datasets)
        rows = [(d, s, shifts[d] + rng.normal(0, WITHIN)) for d in range(datasets) for s in range(seeds) for _ in "ab"]
        mean = mean_ratio([r[2] for r in rows], [str(r[0]) for r in rows], [r[1] for r in rows], confidence=0.95)
        covered += mean.low is not None and mean.high is not None and mean.low <= math.exp(TRUTH) <= mean.high
    return covered / REPEATS


def main() -> None:
    """Print one line for each number of datasets."""
    for datasets in (2, 3, 6, 12, 24):
        shares = ", ".join(f"{seeds} seeds {coverage(datasets, seeds):.1%}" for seeds in (1, 3))
        print(f"{datasets} datasets: {shares} (n = {REPEATS})", flush=True)


if __name__ == "__main__":
    main()
