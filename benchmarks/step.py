"""What a tuned trial's training and evaluation reach of a bare loop over one batch that never leaves the device.

    uv run python benchmarks/step.py [--device cpu|cuda] [--batch N] [--threads N] [--profile]

Needs what a bare GPU machine has: torch, torchvision, pyarrow. The networks have fresh values. Bare: the same network
in the same modes and the same precision, torch's own fused SGD over one normalised batch; for evaluation, forward
passes of it. Ours: `Training.advance` and `score` over uint8 images as a trial holds them, with random crops, and on a
CPU the network fused (`fttune.backbones.unit`), so that a share may be above one; there training is also set against
a bare loop over the fused network. Rounds take turns; a share is the median over rounds of bare seconds to ours (on one
thread of a CPU, of the processor's).
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fttune.backbones import catalog
from fttune.backbones.unit import fuse
from fttune.data.store import ImageStore
from fttune.features import Norm
from fttune.layers import LayerSpec
from fttune.training.device import image_room, mixed, placed
from fttune.training.inputs import Labelled, Viewer, stored
from fttune.training.loop import score
from fttune.training.steps import Training
from fttune.training.surgery import Student, apply_spec
from fttune.trial import HParams, stored_size

SIZES = {"caffenet": 227, "efficientnet_lite0": 128, "resnet18": 128}
CLASSES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One network, tuned whole but for its new classifier, and images for it."""

    student: Student  # as a trial has it
    bare: Student  # the same as torch computes it
    data: Labelled
    hparams: HParams
    device: torch.device

    @classmethod
    def of(cls, name: str, device: torch.device, batch: int, images: int) -> "Case":
        row, size = catalog.find(name), SIZES[name]
        hparams = HParams(lr=1e-3, steps=1, report_every=1, batch_size=batch, image_size=size, views="crop")
        spec = LayerSpec(frozen=0, tuned=row.depth - 1, random=1)
        cut = partial(apply_spec, spec=spec, classes=CLASSES, bn="source", seed=0)
        bare = cut(catalog.build(name).to(device))
        student = cut(placed(catalog.build(name), device))
        student.trained.load_state_dict(bare.trained.state_dict())
        side = stored_size(size)
        store = made(np.random.default_rng(0).integers(256, size=(images, side, side, 3), dtype=np.uint8))
        rows, norm = np.arange(images), Norm(mean=row.mean, std=row.std)
        inputs = stored(store, rows, device, Viewer.of(hparams, side, rows), norm, room=image_room(device))
        labels = torch.from_numpy(store.labels).to(device)
        data = Labelled(inputs=inputs, labels=labels, logits=student.logits)
        return cls(student=student, bare=bare, data=data, hparams=hparams, device=device)

    def training(self) -> Callable[[int], None]:
        """Our own steps; the network moves on."""
        training = Training.begin(self.student, len(self.data.labels), self.hparams, seed=0)
        return lambda steps: training.advance(self.data, training.step + steps)

    def bare_training(self, change: Callable[[nn.Module], None] = lambda network: None) -> Callable[[int], None]:
        """Steps of a copy of the network, which is changed before, over the first batch."""
        student, (images, labels) = copy.deepcopy(self.bare), self.batch()
        change(student.trained)
        optimiser = torch.optim.SGD(student.trained.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)

        def run(steps: int) -> None:
            student.train()
            for _ in range(steps):
                with mixed(self.device):
                    loss = cross_entropy(student.trained(images), labels)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()

        return run

    def evaluation(self) -> Callable[[int], None]:
        """Our own scoring of all images, `steps` times."""

        def run(steps: int) -> None:
            for _ in range(steps):
                score(self.student, self.data)

        return run

    def bare_evaluation(self) -> Callable[[int], None]:
        """`steps` times as many forward passes over the first batch as show the images of one scoring."""
        images, _ = self.batch()
        passes = len(self.data.labels) // len(images)

        @torch.inference_mode()
        def run(steps: int) -> None:
            self.bare.eval()
            for _ in range(steps * passes):
                self.bare.trained(images)

        return run

    def batch(self) -> tuple[Tensor, Tensor]:
        size = self.hparams.batch_size
        return self.data.inputs.show(slice(size)).contiguous(memory_format=torch.channels_last), self.data.labels[:size]


def made(pixels: np.ndarray) -> ImageStore:
    """A store of these images uint8 [N, S, S, 3] that lies in memory."""
    return ImageStore(
        digest="",
        size=pixels.shape[1],
        classes=tuple(map(str, range(CLASSES))),
        labels=np.arange(len(pixels)) % CLASSES,
        keys=tuple(map(str, range(len(pixels)))),
        pools=("any",) * len(pixels),
        skipped=(),
        copies=(),
        dropped=(),
        pixels=(pixels,),
    )


def seconds(run: Callable[[int], None], steps: int, device: torch.device) -> float:
    """Of `steps` steps, the device's work included.

    On one thread of a CPU the time of the process, so that what else runs on the machine counts less.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    run(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def compare(
    what: str, ours: Callable[[int], None], bare: Callable[[int], None], images: int, options: argparse.Namespace
) -> None:
    """Print the share over rounds taken in turn, after one round of each to warm up."""
    device = torch.device(options.device)
    for run in (bare, ours):
        seconds(run, options.steps, device)
    rounds = [
        (seconds(bare, options.steps, device), seconds(ours, options.steps, device)) for _ in range(options.rounds)
    ]
    shares = [first / second for first, second in rounds]
    low, _, high = quantiles(shares, n=4)
    speeds = [images * options.steps / median(column) for column in zip(*rounds, strict=True)]
    print(
        f"{what:45} bare {speeds[0]:9.1f}  ours {speeds[1]:9.1f} images/s  share {median(shares):.3f}"
        f" (quartiles {low:.3f} to {high:.3f}, n = {len(shares)})",
        flush=True,
    )


def profile(run: Callable[[int], None], device: torch.device) -> None:
    """Print where the time of three steps goes, by operator."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    run(1)
    with torch.profiler.profile(activities=activities) as seen:
        run(3)
    order = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    print(seen.key_averages().table(sort_by=order, row_limit=16, max_name_column_width=48))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--networks", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument("--batch", type=int, default=32, help="images of a step")
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes, instead of shares")
    return parser.parse_args()


def main() -> None:
    """All networks asked for, training then evaluation."""
    asked = options()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    device = torch.device(asked.device)
    kept = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    print(
        f"{device}, batch {asked.batch}, {asked.threads} thread(s), torch {torch.__version__}",
        kept or "malloc as it is",
    )
    for name in asked.networks:
        case = Case.of(name, device, asked.batch, 2 * asked.batch)
        if asked.profile:
            print(f"{name}@{SIZES[name]}")
            profile(case.training(), device)
            continue
        compare(f"{name}@{SIZES[name]} training", case.training(), case.bare_training(), asked.batch, asked)
        if device.type == "cpu":  # what the data cost, apart from what fusing brings
            ours, bare = case.training(), case.bare_training(fuse)
            compare(f"{name}@{SIZES[name]} training, bare fused", ours, bare, asked.batch, asked)
        compare(f"{name}@{SIZES[name]} evaluation", case.evaluation(), case.bare_evaluation(), 2 * asked.batch, asked)


if __name__ == "__main__":
    main()
