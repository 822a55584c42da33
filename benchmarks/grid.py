"""A 24-trial grid through `fttune run` against the plain script.

    uv run python benchmarks/grid.py FOLDER FOLDER [--allocator] [--floor] [--rounds 3]
    uv run python benchmarks/grid.py FOLDER FOLDER --backbone caffenet --size 227 --batch 50 --views crop --workers ALL
    uv run python benchmarks/grid.py FOLDER --images 5 --tops 1 --modes freeze --steps 200 --report-every 20 --rates 8

Two sets of class folders, 5 and 20 images per class, 1, 3 and 5 new layers, tuned and frozen: unless told otherwise
EfficientNet-Lite0 at 128 px, batch 32, two fixed views. With --allocator the plain script runs a second time with the
allocator settings that fttune gives its workers; with --workers each of its trials decodes in as many processes (ALL:
one for each core). With --seeds all is repeated on so many training subsets, each with its own initial values. With
--rates every trial becomes a search of so many rates with three seeds each, which fttune ends with the choice trained
once more; its draws are of training subsets of their own, where the plain script has one. Where there is a GPU all use
it. All train on the same images for as many steps and start from nothing: no decoded image, no feature, no database.
Prints wall seconds, seconds of a trial, accuracies and their mean difference over the cells; and on a CPU what fttune's
own trials take, shared out evenly over the cores. With --floor the same trials run without Ray, tracker and report too
(`benchmarks/floor.py`). With --rounds all is done so often, in turn: walls are medians, with their range.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from fttune.backbones import catalog as backbones
from fttune.data.catalog import folder
from fttune.data.splits import make_split
from fttune.data.store import build
from fttune.runtime import cores
from fttune.sweep.cluster import ALLOCATOR
from fttune.tracking.client import connect
from fttune.tracking.runs import Tracker
from fttune.trial import seed_from, stored_size

LR, VAL, TEST = 0.01, 3, 5
DRAWS = 3  # of each rate of a search

Span = tuple[float, float, float]  # when a trial began, when it ended, and its part of a slot


def splits(folders: list[Path], images: list[int], seeds: int, scratch: Path) -> dict[str, Any]:
    """The files that fttune's trials read, by `NAME/N/SEED`."""
    told = {}
    for place in folders:
        store = build(
            folder(place.name, place).source(), name=place.name, size=8, resize="crop", root=scratch / "names"
        )
        for count, seed in product(images, range(seeds)):
            split = make_split(
                dataset=place.name,
                classes=store.classes,
                labels=store.labels,
                keys=store.keys,
                pools=store.pools,
                images_per_class=count,
                val=VAL,
                test=TEST,
                seed=seed_from("subset", place.name, seed),
            )
            rows = {"train": split.train, "val": split.val, "test": split.test.open()}
            files = {
                part: [(str(place.resolve() / store.keys[row]), int(store.labels[row])) for row in some]
                for part, some in rows.items()
            }
            told[f"{place.name}/{count}/{seed}"] = {"files": files, "classes": len(store.classes), "seed": seed}
    return told


def run_plain(grid: dict[str, Any], scratch: Path, environment: Mapping[str, str]) -> tuple[float, list[Any]]:
    """Wall seconds and what each trial came to."""
    scratch.mkdir()
    (scratch / "grid.json").write_text(json.dumps(grid))
    words = [sys.executable, str(Path(__file__).with_name("plain.py")), "grid.json", str(scratch / "results.json")]
    start = perf_counter()
    with (scratch / "log").open("w") as log:
        done = subprocess.run(
            words, cwd=scratch, env={**os.environ, **environment}, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise SystemExit((scratch / "log").read_text()[-3000:])
    return perf_counter() - start, json.loads((scratch / "results.json").read_text())


def run_fttune(options: argparse.Namespace, scratch: Path) -> tuple[float, list[Any], list[Span]]:
    """Wall seconds, what each trial came to, and when each had its slot."""
    scratch.mkdir()
    sets = [
        f"{f.name}: {{path: {f.resolve()}, images_per_class: {options.images}, val: {VAL}, test: {TEST}}}"
        for f in options.folders
    ]
    train = {"lr": LR, "batch_size": options.batch, "steps": options.steps, "report_every": options.report_every}
    weights = {options.backbone: str(options.weights.resolve())} if options.weights else {}
    tree = [
        "name: grid",
        f"grid: {{datasets: {{{', '.join(sets)}}}, backbones: [{options.backbone}], random_top: {options.tops},"
        f" modes: [{', '.join(options.modes)}], seeds: {list(range(options.seeds))}}}",
        f"train: {json.dumps(train | {'image_size': options.size, 'views': options.views})}",
        f"data: {json.dumps({'weights': weights})}",
        "resources: {cpu: 1}",
    ]
    if options.rates:
        tree.append(
            f"search: {{sampler: shared, settings: {options.rates}, draws: {DRAWS}, space: {{lr: {rates(options)}}}}}"
        )
    (scratch / "grid.yaml").write_text("\n".join(tree))
    places = {f"FTTUNE_{name}": str(scratch / name.lower()) for name in ("STORE", "CACHE", "STATE", "NETWORKS")}
    words = [sys.executable, "-m", "fttune.cli", "run", "grid.yaml", f"tracking.uri=sqlite:///{scratch}/mlflow.db"]
    start = perf_counter()
    subprocess.run(words, cwd=scratch, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL)
    wall = perf_counter() - start
    uri = f"sqlite:///{scratch}/mlflow.db"
    spans = [
        (run.info.start_time / 1000, run.info.end_time / 1000, 1 / run.data.metrics["together"]) for run in logged(uri)
    ]
    records = Tracker(uri, "fttune").records()
    rows = [
        {
            # The draws of a search have negative seeds; it repeats its choice with seed 0.
            "split": f"{record.dataset}/{record.images_per_class}/{max(record.seed, 0)}",
            "top": record.random_top,
            "mode": record.mode,
            "test_accuracy": record.test_accuracy,
            "seconds": record.seconds,
            "device": record.device,
        }
        for record in records
    ]
    return wall, rows, spans


def run_floor(scratch: Path) -> tuple[float, list[float]]:
    """Wall seconds, and those of each trial, of the sweep that `run_fttune` ran, which starts from nothing again."""
    places = {f"FTTUNE_{name}": str(scratch / f"floor-{name.lower()}") for name in ("STORE", "CACHE", "STATE")}
    words = [sys.executable, str(Path(__file__).with_name("floor.py")), "grid.yaml"]
    done = subprocess.run(words, cwd=scratch, env={**os.environ, **places}, check=True, stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    return told["wall"], told["seconds"]


def rates(options: argparse.Namespace) -> list[float]:
    """The rates of a search: powers of two about the one of a grid, that one among them."""
    return [LR * 2.0 ** (place - options.rates // 2) for place in range(options.rates)]


def logged(uri: str) -> list[Any]:
    """The trials' runs as MLflow has them."""
    client = connect(uri)
    experiment = client.get_experiment_by_name("fttune")
    assert experiment
    return list(client.search_runs([experiment.experiment_id], "tags.`fttune.kind` = 'trial'"))


def idle_tail(spans: Sequence[Span], slots: int) -> float:
    """The share of slot time for which slots stand idle at the end, once there is no trial left to start."""
    moments = sorted([*((start, part) for start, _, part in spans), *((end, -part) for _, end, part in spans)])
    idle, running, before = 0.0, 0.0, moments[0][0]
    for now, change in moments:
        idle = 0.0 if running > slots - 0.01 else idle + (slots - running) * (now - before)
        running, before = running + change, now
    return idle / (slots * (moments[-1][0] - moments[0][0]))


def by_kind(rows: list[Any], name: str) -> dict[tuple[str, int], float]:
    """Means by mode and new layers."""
    kinds = sorted({(row["mode"], row["top"]) for row in rows})
    return {kind: mean(row[name] for row in of_kind(rows, *kind)) for kind in kinds}


def of_kind(rows: list[Any], mode: str, top: int) -> list[Any]:
    """Those of a mode and a number of new layers."""
    return [row for row in rows if (row["mode"], row["top"]) == (mode, top)]


def main() -> None:
    """One way after the other; a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--tops", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--modes", nargs="+", default=["tune", "freeze"], choices=["tune", "freeze"])
    parser.add_argument("--rates", type=int, default=0, help="of a search in each cell; 0: one rate and one seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--report-every", type=int, default=15)
    parser.add_argument("--views", default="flip", choices=["flip", "crop"], help="the plain script has no others")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="a file of pre-trained weights, instead of where fttune looks")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--workers", default="0", help="processes that decode for each trial of the plain script, or ALL"
    )
    parser.add_argument("--allocator", action="store_true")
    parser.add_argument("--floor", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.rates and options.seeds > 1:
        parser.error("--rates has seeds of its own: leave out --seeds")
    with TemporaryDirectory() as folder_of_all:
        scratch = Path(folder_of_all)
        row = backbones.find(options.backbone)
        grid = {
            "backbone": options.backbone,
            "weights": str(options.weights.resolve()) if options.weights else None,
            "mean": row.mean,
            "std": row.std,
            "workers": cores() if options.workers == "ALL" else int(options.workers),
            "splits": splits(options.folders, options.images, options.seeds, scratch),
            "tops": options.tops,
            "size": options.size,
            "stored": stored_size(options.size),
            "batch": options.batch,
            "modes": options.modes,
            "rates": rates(options) or [LR],
            "seeds": list(range(DRAWS if options.rates else 1)),
            "views": options.views,
            "steps": options.steps,
            "report_every": options.report_every,
        }
        walls, rows, spans, floors = list[float](), list[Any](), list[list[Span]](), list[tuple[float, list[float]]]()
        ways = {name: (list[float](), list[Any]()) for name in ("plain", "plain-allocator")[: 1 + options.allocator]}
        for number in range(options.rounds):
            wall, some, when = run_fttune(options, scratch / f"fttune-{number}")
            walls.append(wall)
            rows += some
            spans.append(when)
            print(f"fttune {wall:.0f} s", file=sys.stderr)
            if options.floor:
                floors.append(run_floor(scratch / f"fttune-{number}"))
            for name, (taken, results) in ways.items():
                environment = {} if name == "plain" else ALLOCATOR
                wall, some = run_plain(grid, scratch / f"{name.replace(', ', '-')}-{number}", environment)
                taken.append(wall)
                results += some
                print(f"{name} {wall:.0f} s", file=sys.stderr)
    print("| | fttune |" + "".join(f" {name} | {name} / fttune |" for name in ways))
    print("|---" * (2 + 2 * len(ways)) + "|")
    trials = len(rows) // options.rounds
    print(line(f"all {trials} trials, wall", median(walls), [median(taken) for taken, _ in ways.values()]))
    own, others = by_kind(rows, "seconds"), [by_kind(some, "seconds") for _, some in ways.values()]
    for (mode, top), seconds in own.items():
        print(line(f"{mode}, random top {top}, a trial", seconds, [other[mode, top] for other in others]))
    own, others = by_kind(rows, "test_accuracy"), [by_kind(some, "test_accuracy") for _, some in ways.values()]
    for (mode, top), accuracy in own.items():
        pairs = [(of_kind(rows, mode, top), of_kind(some, mode, top)) for _, some in ways.values()]
        cells = "".join(
            f" {other[mode, top]:.3f} | {difference(*pair)} |" for other, pair in zip(others, pairs, strict=True)
        )
        print(f"| {mode}, random top {top}, test accuracy | {accuracy:.3f} |{cells}")
    for name, (taken, some) in {"fttune": (walls, rows), **ways}.items():
        told = f"{difference(rows, some)} (fttune less this)" if some is not rows else ""
        print(f"\n{name}: {min(taken):.0f} to {max(taken):.0f} s (n = {options.rounds}) {told}")
    devices = sorted({row["device"] for row in rows})
    print(f"\nDevice: {', '.join(devices)}.")
    if devices == ["cpu"]:
        own_slots = sum(row["seconds"] for row in rows) / options.rounds
        slots = [sum(row["seconds"] for row in some) / options.rounds for _, some in ways.values()]
        told = " and ".join(f"{seconds:.0f} s ({seconds / own_slots:.1f} times)" for seconds in slots)
        print(f"Trials alone: fttune's take {own_slots:.0f} s of slots, the plain script's {told}.")
        print(f"Wall of fttune: {median(walls) * cores() / own_slots:.2f} times its trials alone on {cores()} cores.")
        tails = ", ".join(f"{idle_tail(some, cores()):.1%}" for some in spans)
        print(f"Idle tail: {tails} of slot time, before distances are measured.")
        if floors:
            least, slots = median(wall for wall, _ in floors), mean(sum(seconds) for _, seconds in floors)
            print(
                f"Floor: {least:.0f} s, {slots:.0f} s of slots; fttune takes {median(walls) / least:.2f} times as long."
            )


def difference(own: list[Any], other: list[Any]) -> str:
    """Mean and standard error over cells of the difference between the means of a cell."""
    cells = sorted({(row["split"], row["top"], row["mode"]) for row in own})

    def accuracy(rows: list[Any], cell: tuple[str, int, str]) -> float:
        return mean(row["test_accuracy"] for row in rows if (row["split"], row["top"], row["mode"]) == cell)

    gaps = [accuracy(own, cell) - accuracy(other, cell) for cell in cells]
    error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
    return f"{mean(gaps):+.3f} ± {error:.3f} (n = {len(gaps)} cells)"


def line(name: str, own: float, others: Sequence[float]) -> str:
    """A row of seconds with ratios."""
    return f"| {name} | {own:.2f} s |" + "".join(f" {other:.2f} s | {other / own:.2f} |" for other in others)


if __name__ == "__main__":
    main()
