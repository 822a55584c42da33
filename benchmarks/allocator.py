"""What keeping freed memory in the process brings to tuned trials on a CPU, and what it costs in memory.

    uv run python benchmarks/allocator.py [--rounds N] [--preload LIBRARY]

The same training in a fresh process under each setting, in turn: milliseconds per training image and the peak of
resident memory; then two such processes of one thread side by side against one of two threads. Medians of all rounds.
`--preload` adds another allocator, such as the libjemalloc.so that Ray brings, as it is and told to keep freed memory.

glibc adapts its threshold for mapping blocks apart only until one of the variables is set: any of them without
MALLOC_MMAP_THRESHOLD_ is worse than none.
"""

import argparse
import os
import subprocess
import sys
from statistics import median

from fttune.sweep.cluster import ALLOCATOR

TRAIN = """
import resource, sys, threading, time, torch
import numpy as np
from fttune.backbones import catalog
from fttune.features import Norm
from fttune.layers import LayerSpec
from fttune.training.device import placed
from fttune.training.inputs import ImageInputs, Labelled, Viewer
from fttune.training.steps import Training
from fttune.training.surgery import apply_spec
from fttune.trial import HParams
torch.set_num_threads(int(sys.argv[1]))
spec = LayerSpec(frozen=0, tuned=9, random=1)
net = placed(catalog.build("efficientnet_lite0"), torch.device("cpu"))
student = apply_spec(net, spec, classes=10, bn="source", seed=0)
hparams = HParams(lr=0.01, steps=11, report_every=11, batch_size=32, views="crop")
images = torch.randint(256, (64, 147, 147, 3), dtype=torch.uint8)
norm = Norm(mean=(0.5,) * 3, std=(0.5,) * 3)
inputs = ImageInputs(images=images, viewer=Viewer.of(hparams, 147, np.arange(64)), norm=norm)
data = Labelled(inputs=inputs, labels=torch.arange(64) % 10, logits=student.logits)
training = Training.begin(student, 64, hparams, seed=0)

def run(stop):  # on a thread that is not the first, as a worker's jobs
    job = threading.Thread(target=training.advance, args=(data, stop))
    job.start()
    job.join()

run(3)
start = time.perf_counter(), time.process_time()
run(11)
end = time.perf_counter(), time.process_time()
print(*((late - early) / 8 / 32 * 1000 for early, late in zip(start, end)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def start(environment: dict[str, str], threads: int) -> "subprocess.Popen[str]":
    """One training in a process of its own, with no other setting of the allocator than these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment = {**inherited, "OMP_NUM_THREADS": str(threads), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(threads)], env=environment, stdout=subprocess.PIPE, text=True
    )


def measured(process: "subprocess.Popen[str]") -> list[float]:
    """Milliseconds per image by the clock and of processor time, and the peak of resident memory in MiB."""
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a training ended with {process.returncode}")
    return [float(word) for word in told.split()]


def settings(preload: str | None) -> dict[str, dict[str, str]]:
    """Nothing, everything, each alone, and everything but one."""
    alone = {f"{name} alone": {name: value} for name, value in ALLOCATOR.items()}
    without = {f"without {name}": {k: v for k, v in ALLOCATOR.items() if k != name} for name in ALLOCATOR}
    other: dict[str, dict[str, str]] = {}
    if preload:
        keeping = "dirty_decay_ms:-1,muzzy_decay_ms:-1"
        other = {"preload": {"LD_PRELOAD": preload}, "preload, kept": {"LD_PRELOAD": preload, "MALLOC_CONF": keeping}}
    return {"as it is": {}, "all four": ALLOCATOR, **alone, **without, **other}


def show(name: str, rows: list[list[float]]) -> None:
    wall, busy, peak = ([row[column] for row in rows] for column in range(3))
    print(
        f"{name:34} {median(wall):6.1f} ms by the clock, {median(busy):6.1f} ms of processor"
        f" ({min(busy):.1f} to {max(busy):.1f}), peak {median(peak):6.0f} MiB (n = {len(rows)})",
        flush=True,
    )


def main() -> None:
    """Every setting once in each round, then threads against trials side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], help="settings by their printed names")
    parser.add_argument("--preload", help="a shared library that replaces malloc")
    asked = parser.parse_args()
    chosen = {name: value for name, value in settings(asked.preload).items() if not asked.only or name in asked.only}
    seen: dict[str, list[list[float]]] = {name: [] for name in chosen}
    pairs: list[list[float]] = []
    wide: list[list[float]] = []
    for _ in range(asked.rounds):
        for name, environment in chosen.items():
            seen[name].append(measured(start(environment, 1)))
        pairs.extend(map(measured, [start(ALLOCATOR, 1), start(ALLOCATOR, 1)]))
        wide.append(measured(start(ALLOCATOR, 2)))
    for name, rows in seen.items():
        show(name, rows)
    show("two trials of one thread, each", pairs)
    show("one trial of two threads", wide)
    ratio = median(row[0] for row in wide) / (median(row[0] for row in pairs) / 2)
    print(f"two trials of one thread do {ratio:.2f} times the images of one trial of two")


if __name__ == "__main__":
    main()
