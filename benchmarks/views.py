"""What few fixed views cost in accuracy against a random crop at every step, and what they save in time.

    uv run python benchmarks/views.py OUT FOLDER [FOLDER ...] --images 5 20 --seeds 5

Runs one sweep for each kind of views (into OUT, where it can be interrupted and goes on) and prints a Markdown table:
test accuracy less that of random crops, in the same cells with the same seeds, mean and standard error over all pairs;
seconds of a trial, features included.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

from fttune.record import RunRecord
from fttune.tracking.runs import Tracker

KINDS = ("center", "flip", "{fixed: 2}", "{fixed: 8}", "{fixed: 32}", "crop")
MODES = ("freeze", "tune")
SWEEP = """
name: views
grid:
  datasets:
{datasets}
  backbones: [efficientnet_lite0]
  random_top: {tops}
  modes: {modes}
  seeds: {seeds}
train: {{lr: 0.01, batch_size: 32, steps: {steps}, image_size: {size}}}
tracking: {{experiment: views, uri: "sqlite:///{out}/mlflow.db"}}
"""


def run(out: Path, options: argparse.Namespace, kind: str) -> None:
    """One sweep; its report is not wanted here."""
    row = (
        "    {name}: {{path: {path}, images_per_class: {images}, val: 3, test: 5, options: {{min_per_class: {least}}}}}"
    )
    least = max(options.images) + 8
    datasets = [row.format(name=f.name, path=f.resolve(), images=options.images, least=least) for f in options.folders]
    text = SWEEP.format(
        datasets="\n".join(datasets),
        tops=options.tops,
        modes=f"[{', '.join(options.modes)}]",
        seeds=list(range(options.seeds)),
        steps=options.steps,
        size=options.size,
        out=out.resolve(),
    )
    (out / "views.yaml").write_text(text)
    words = [str(out / "views.yaml"), f"train.views={kind}", "--out", str(out / "report")]
    # A cache of each kind's own: or the first would compute the held-out images' features for all that follow.
    with TemporaryDirectory(dir=out) as cache:
        environment = {**os.environ, "FTTUNE_CACHE": cache}
        command = [sys.executable, "-m", "fttune.cli", "run", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def table(records: Sequence[RunRecord]) -> str:
    """A row for each kind, cells by mode, new layers and images per class."""
    scores = {(r.views, _cell(r), (r.dataset, r.seed)): r.test_accuracy or 0.0 for r in records}
    cells = sorted({_cell(r) for r in records})
    head = "| views | " + " | ".join(f"{mode} top {top}, {images} images" for mode, top, images in cells) + " |"
    lines = [head, "|---" * (len(cells) + 1) + "|"]
    for views in dict.fromkeys(record.views for record in records):
        entries = []
        for cell in cells:
            pairs = [p for v, c, p in scores if (v, c) == (views, cell) and ("crop", c, p) in scores]
            gaps = [scores[views, cell, pair] - scores["crop", cell, pair] for pair in pairs]
            seconds = mean([r.seconds or 0.0 for r in records if (r.views, _cell(r)) == (views, cell)] or [0.0])
            entries.append(f"{_spread(gaps)}, {seconds:.1f} s" if gaps else "not measured")
        lines.append(f"| {views} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _spread(gaps: Sequence[float]) -> str:
    error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
    return f"{mean(gaps):+.3f} ± {error:.3f} (n = {len(gaps)})"


def _cell(record: RunRecord) -> tuple[str, int, int]:
    return record.mode, record.random_top, record.images_per_class


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--tops", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--modes", nargs="+", default=["freeze"], choices=MODES)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds:
        run(options.out, options, kind)
    print(table(Tracker(f"sqlite:///{options.out.resolve()}/mlflow.db", "views").records()))


if __name__ == "__main__":
    main()
