"""What keeping freed memory in the process brings to a tuned trial on a CPU: the same training with and without it.

    uv run python benchmarks/allocator.py

Prints milliseconds per training image of each run, in turn, and the ratio of the medians.
"""

import os
import subprocess
import sys
from statistics import median

from fttune.sweep.tune import ALLOCATOR

TRAIN = """
import time, torch
from fttune.backbones.catalog import load
from fttune.layers import LayerSpec
from fttune.training.surgery import apply_spec, parameter_groups
from fttune.trial import HParams
torch.set_num_threads(1)
spec = LayerSpec(frozen=0, tuned=9, random=1)
student = apply_spec(load("efficientnet_lite0"), spec, classes=10, bn="source", seed=0)
hparams = HParams(lr=0.01, steps=1, report_every=1)
optimiser = torch.optim.SGD(parameter_groups(student, hparams), lr=0.01, momentum=0.9)
images = torch.randn(32, 3, 128, 128).contiguous(memory_format=torch.channels_last)
student.train()
for step in range(13):
    if step == 3:
        start = time.perf_counter()
    optimiser.zero_grad()
    student.logits(images).square().mean().backward()
    optimiser.step()
print((time.perf_counter() - start) / 10 / 32 * 1000)
"""


def milliseconds(environment: dict[str, str]) -> float:
    """Per training image, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Five pairs of runs in turn."""
    plain, kept = [], []
    for _ in range(5):
        plain.append(milliseconds({}))
        kept.append(milliseconds(ALLOCATOR))
        print(f"as it is {plain[-1]:.1f} ms, memory kept {kept[-1]:.1f} ms", flush=True)
    print(f"ratio of medians {median(plain) / median(kept):.2f} (n = {len(plain)})")


if __name__ == "__main__":
    main()
