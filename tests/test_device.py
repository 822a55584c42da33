"""Where a training computes: in full precision on a CPU; on a GPU no step waits, and images stay if there is room."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from fttune.backbones import catalog
from fttune.features import Norm
from fttune.layers import LayerSpec
from fttune.sweep.tune import ALLOCATOR
from fttune.training.device import half_of_what_is_left, image_room, mixed, sent
from fttune.training.inputs import ImageInputs, Labelled, Viewer
from fttune.training.steps import Training
from fttune.training.surgery import apply_spec
from values import HPARAMS

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_on_a_cpu_nothing_is_rounded_further_and_no_image_needs_a_copy() -> None:
    values = torch.randn(4, 8)
    with mixed(CPU):
        assert torch.equal(linear(values, values), values @ values.T)
    assert sent(values, CPU) is values
    assert image_room(CPU) == 0


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_no_step_on_a_gpu_waits_for_it(backbone: str) -> None:
    hparams = replace(HPARAMS, views="crop", image_size=64, steps=9, lr_drop_steps=(4,))
    spec = LayerSpec(frozen=1, tuned=catalog.find(backbone).depth - 2, random=1)
    student = apply_spec(catalog.build(backbone).to(CUDA), spec, classes=3, bn="batch", seed=0)
    viewer, norm = Viewer.of(hparams, 74, np.arange(24)), Norm(mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.randint(256, (24, 74, 74, 3), dtype=torch.uint8, device=CUDA)
    labels = torch.arange(24, device=CUDA) % 3
    inputs = ImageInputs(images=images, viewer=viewer, norm=norm)
    student.trained.to(CUDA)
    training = Training.begin(student, 24, hparams, seed=0)
    data = Labelled(inputs=inputs, labels=labels, logits=student.logits)
    training.advance(data, 2)  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.advance(data, 9)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(training.mean_loss())


@pytest.mark.gpu
@on_a_gpu
def test_the_room_for_images_leaves_the_step_half_of_what_is_free() -> None:
    free, total = torch.cuda.mem_get_info(CUDA)
    assert 0 < image_room(CUDA) <= free // 2 + 2**20
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        assert image_room(CUDA) <= 0.01 * total
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize(
    ("free", "share", "held", "room"),
    [
        (60, 1.0, 0, 30),  # others hold the rest of the GPU
        (60, 0.1, 0, 5),  # all but this process's share is others' to take, however free it is
        (60, 0.1, 6, 2),
        (60, 0.1, 12, 0),
    ],
)
def test_images_stay_on_a_gpu_within_the_share_of_their_process(free: int, share: float, held: int, room: int) -> None:
    assert half_of_what_is_left(free, 100, share=share, held=held) == room


HOLD = """
from pathlib import Path
import torch
from fttune.training.device import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

blocks = [torch.ones(2_000_000) for _ in range(40)]
pins = [torch.ones(100) for _ in range(40)]
before = resident()
del blocks
held = resident()
give_back()
print(before, held, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only glibc gives memory back on demand")
def test_a_worker_told_to_keep_what_it_frees_gives_it_back_between_trials() -> None:
    words = [sys.executable, "-c", HOLD]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **ALLOCATOR})
    before, held, after = map(float, done.stdout.split())
    assert held > before - 50, "the settings no longer keep memory in the process"
    assert after < before - 250
