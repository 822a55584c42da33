"""Whether fttune comes to the accuracy of a plain script, and what each thing that it does otherwise brings.

    uv run python benchmarks/accuracy.py FOLDER FOLDER --seeds 100

One new layer on frozen EfficientNet-Lite0 at 128 px, an image and its mirror, 5 and 20 images per class: `fttune run`
against the training of benchmarks/plain.py, here on features computed once, so that many training subsets can be had.
The same subsets, steps and rates on both sides. The plain training is repeated with each of fttune's ways in place of
its own: how images are decoded, which of two reports with the same val accuracy is kept, and what becomes of a
round's last few images. Prints a Markdown table of mean test accuracies and of their differences from the plain
training, with the standard error over the seeds' means.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from grid import LR, run_fttune, splits
from PIL import Image
from plain import network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision import transforms

from fttune.backbones import catalog
from fttune.data.decode import decode
from fttune.trial import stored_size

BATCH, SIZE, BACKBONE = 32, 128, "efficientnet_lite0"
STORED = stored_size(SIZE)

Seen = dict[str, Tensor]  # by file: features of an image and of its mirror
Files = Mapping[str, Sequence[tuple[str, int]]]  # of each part, with their classes
Decoder = Literal["plain", "fttune"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A plain training with one or the other of fttune's ways."""

    decoder: Decoder = "plain"  # it makes images small bilinearly, fttune bicubically, and lays them on white
    ties: Literal["first", "loss"] = "first"  # of val accuracy: the first report, or the one with the lower loss
    rounds: Literal["apart", "joined"] = "apart"  # "apart": what fills no batch is dropped


WAYS = {
    "plain": Way(),
    "decoded by fttune": Way(decoder="fttune"),
    "ties by val loss": Way(ties="loss"),
    "batches over the end of a round": Way(rounds="joined"),
    "all of these": Way(decoder="fttune", ties="loss", rounds="joined"),
}


def read(file: str, decoder: Decoder) -> Image.Image:
    """An image, its shorter side as long as stored ones."""
    if decoder == "fttune":
        return Image.fromarray(decode(Path(file).read_bytes(), STORED, "crop"))
    return transforms.Resize(STORED)(Image.open(file).convert("RGB"))


@torch.no_grad()
def look(files: Sequence[str], decoder: Decoder, shown: Callable[[Image.Image], Tensor]) -> Seen:
    """What the frozen layers make of each file and of its mirror."""
    frozen = catalog.load(BACKBONE).eval()[:-1]
    seen: Seen = {}
    for some in (files[start : start + 64] for start in range(0, len(files), 64)):
        batch = torch.stack([shown(read(file, decoder)) for file in some])
        seen |= dict(zip(some, torch.stack([frozen(batch), frozen(batch.flip(-1))], 1), strict=True))
    return seen


def train(way: Way, seen: Seen, files: Files, classes: int, seed: int, options: argparse.Namespace) -> float:
    """Test accuracy of one training, as benchmarks/plain.py goes about it."""
    torch.manual_seed(seed)
    sets = {part: (torch.stack([seen[file] for file, _ in some]), labels(some)) for part, some in files.items()}
    net, groups, copied = network({"backbone": BACKBONE, "weights": None}, 1, True, classes, seed)
    head, (images, truth) = net[copied:], sets["train"]
    optimiser = torch.optim.SGD(groups, lr=LR, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [options.steps * 2 // 3])
    best, test, rest = (-1.0, 0.0), 0.0, torch.empty(0, dtype=torch.int64)
    batch = min(BATCH, len(truth))
    for step in range(1, options.steps + 1):
        if len(rest) < batch:
            kept = rest if way.rounds == "joined" else rest[:0]
            rest = torch.cat([kept, torch.randperm(len(truth))])
        rows, rest = rest[:batch], rest[batch:]
        loss = cross_entropy(head.train()(images[rows, torch.randint(2, (batch,))]), truth[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % options.report_every == 0 or step == options.steps:
            val, loss = judge(head, *sets["val"])
            rank = (val, -round(loss, 4) if way.ties == "loss" else 0.0)
            if rank > best:
                best, (test, _) = rank, judge(head, *sets["test"])
    return test


def labels(some: Sequence[tuple[str, int]]) -> Tensor:
    """The classes of files."""
    return torch.tensor([label for _, label in some])


@torch.no_grad()
def judge(head: nn.Module, images: Tensor, truth: Tensor) -> tuple[float, float]:
    """Accuracy and loss on unmirrored images."""
    logits = head.eval()(images[:, 0])
    return (logits.argmax(1) == truth).float().mean().item(), cross_entropy(logits, truth).item()


def line(name: str, scores: Mapping[str, float], plain: Mapping[str, float]) -> str:
    """A row of the table; scores by `NAME/N/SEED`."""
    gaps: dict[str, list[float]] = {}
    for split, score in scores.items():
        gaps.setdefault(split.rpartition("/")[2], []).append(score - plain[split])
    means = [mean(some) for some in gaps.values()]
    return f"| {name} | {mean(scores.values()):.4f} | {mean(means):+.4f} ± {stdev(means) / len(means) ** 0.5:.4f} |"


def main() -> None:
    """A row for each way, fttune's own last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--report-every", type=int, default=10)
    options = parser.parse_args()
    grid = {"backbone": BACKBONE, "weights": None, "size": SIZE, "batch": BATCH, "views": "flip", "rates": 0}
    for name, value in (grid | {"tops": [1], "modes": ["freeze"]}).items():
        setattr(options, name, value)
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        cells = splits(options.folders, options.images, options.seeds, Path(scratch))
        _, rows, _ = run_fttune(options, Path(scratch) / "fttune")
    ours = {row["split"]: row["test_accuracy"] for row in rows}
    files = sorted({file for cell in cells.values() for some in cell["files"].values() for file, _ in some})
    decoders: tuple[Decoder, ...] = ("plain", "fttune")
    row = catalog.find(BACKBONE)
    shown = transforms.Compose(
        [transforms.CenterCrop(SIZE), transforms.ToTensor(), transforms.Normalize(row.mean, row.std)]
    )
    seen = {decoder: look(files, decoder, shown) for decoder in decoders}

    def scores(way: Way) -> dict[str, float]:
        return {name: run(way, cell) for name, cell in cells.items()}

    def run(way: Way, cell: dict[str, Any]) -> float:
        return train(way, seen[way.decoder], cell["files"], cell["classes"], 100 * cell["seed"], options)

    found = {name: scores(way) for name, way in WAYS.items()}
    print("| | test accuracy | less plain |\n|---|---|---|")
    for name, some in found.items():
        print(line(name, some, found["plain"]))
    print(line("`fttune run`", ours, found["plain"]))
    print(line("`fttune run`, beside all of these", ours, found["all of these"]))


if __name__ == "__main__":
    main()
