"""Where a training computes: in full precision on a CPU; on a GPU no step waits, and images stay if there is room."""

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from fttune.backbones import catalog
from fttune.feature_cache import FeatureTable
from fttune.features import Norm
from fttune.layers import LayerSpec
from fttune.sweep.cluster import ALLOCATOR
from fttune.training.device import half_of_what_is_left, image_room, mixed, own_generators, sent
from fttune.training.heads import Heads
from fttune.training.inputs import FeatureInputs, ImageInputs, Labelled, Viewer
from fttune.training.steps import Training
from fttune.training.surgery import apply_spec
from fttune.training.together import Seat
from values import HPARAMS

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_on_a_cpu_nothing_is_rounded_further_and_no_image_needs_a_copy() -> None:
    values = torch.randn(4, 8)
    with mixed(CPU):
        assert torch.equal(linear(values, values), values @ values.T)
    assert sent(values, CPU) is values
    assert image_room(CPU) == 0


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mixed is so on a CPU too, as it is on a GPU that has bfloat16."""
    monkeypatch.setattr("fttune.training.device._has_bfloat16", lambda device: True)


def first_loss(spec: LayerSpec, *, cached: bool) -> float:
    """Of a step on 24 images, or on features of them that were computed before."""
    net = catalog.load("tiny")
    student = apply_spec(net, spec, classes=3, bn="source", seed=0)
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shown = student.frozen(images) if cached else images
    inputs = FeatureInputs(table=FeatureTable.of(shown.detach()), images=24, hparams=HPARAMS)
    logits = student.trained if cached else student.logits
    data = Labelled(inputs=inputs, labels=torch.arange(24) % 3, logits=logits)
    training = Training.begin(student, 24, replace(HPARAMS, batch_size=24), seed=0)
    with own_generators(0):
        training.advance(data, 1)
    return training.mean_loss()


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("spec", ["F(1)R(2-4)", "F(1-2)R(3-4)", "F(1-3)R(4)", "F(1)T(2-3)R(4)"])
def test_frozen_layers_are_never_rounded_so_that_cached_and_computed_features_agree(spec: str) -> None:
    parsed = LayerSpec.parse(spec)
    assert first_loss(parsed, cached=False) == pytest.approx(first_loss(parsed, cached=True), rel=1e-6)


def test_a_classifier_alone_is_trained_in_full_precision_and_more_is_not(request: pytest.FixtureRequest) -> None:
    specs = [LayerSpec.parse(spec) for spec in ("F(1-3)R(4)", "F(1-2)R(3-4)", "T(1-3)R(4)")]
    head, *more = (first_loss(spec, cached=False) for spec in specs)
    request.getfixturevalue("bfloat16")
    head_there, *more_there = (first_loss(spec, cached=False) for spec in specs)
    assert head_there == head
    assert all(there != here for there, here in zip(more_there, more, strict=True))


def nine_steps(backbone: str, frozen: int, device: torch.device) -> tuple[Training, Labelled]:
    """A training whose images, labels and network are on a device, before its first step."""
    hparams = replace(HPARAMS, views="crop", image_size=64, steps=9, lr_drop_steps=(4,))
    spec = LayerSpec(frozen=frozen, tuned=catalog.find(backbone).depth - 1 - frozen, random=1)
    student = apply_spec(catalog.build(backbone).to(device), spec, classes=3, bn="batch", seed=0)
    student.trained.to(device)
    viewer, norm = Viewer.of(hparams, 74, np.arange(24)), Norm(mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.randint(256, (24, 74, 74, 3), dtype=torch.uint8, device=device)
    inputs = ImageInputs(images=images, viewer=viewer, norm=norm)
    labels = torch.arange(24, device=device) % 3
    logits = student.logits if frozen else student.trained
    return Training.begin(student, 24, hparams, seed=0), Labelled(inputs=inputs, labels=labels, logits=logits)


@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_no_step_asks_its_device_for_a_value(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has none, and computes with no other device's."""
    monkeypatch.setattr("fttune.training.steps.mixed", lambda *_, **__: nullcontext())  # which it does not know
    training, data = nine_steps(backbone, 0, META)
    for group in training.optimiser.param_groups:
        group["fused"] = False  # which it has not
    training.advance(data, 9)
    assert (training.step, training.total.device) == (9, META)
    with pytest.raises(RuntimeError, match="meta"):
        training.mean_loss()


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_no_step_on_a_gpu_waits_for_it(backbone: str) -> None:
    training, data = nine_steps(backbone, 1, CUDA)
    training.advance(data, 2)  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.advance(data, 9)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(training.mean_loss())


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("at_once", [False, True])
def test_no_step_on_cached_features_waits_for_a_gpu(at_once: bool) -> None:
    net = catalog.load("tiny").to(CUDA)
    student = apply_spec(net, LayerSpec.parse("F(1-3)R(4)"), classes=3, bn="source", seed=0)
    student.trained.to(CUDA)
    table = FeatureTable.of(torch.randn(24, 32)).to(CUDA, 2**20)
    inputs = FeatureInputs(table=table, images=24, hparams=HPARAMS, device=CUDA)
    data = Labelled(inputs=inputs, labels=torch.arange(24, device=CUDA) % 3, logits=student.trained)
    if at_once:
        seat = Seat(student=student, train=data, val=data, seed=0, dropout=torch.get_rng_state())
        last, batches = student.leaves[-1], seat.batches(8)
        assert isinstance(last, torch.nn.Linear)
        heads = Heads.begin([last], [HPARAMS, replace(HPARAMS, lr=0.1)])

        def step() -> None:
            features, labels = next(batches)
            heads.advance(features[None], labels[None], 1.0)
    else:
        training = Training.begin(student, 24, HPARAMS, seed=0)

        def step() -> None:
            training.advance(data, training.step + 1)

    with torch.no_grad() if at_once else nullcontext():
        step()  # what is made once may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


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
from fttune.training.device import give_back, keeping_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def fill():
    global blocks, pins
    blocks = [torch.ones(2_000_000) for _ in range(40)]
    pins = [torch.ones(100) for _ in range(40)]
    return resident()
"""
TOLD = (
    HOLD
    + """
before = fill()
del blocks
held = resident()
give_back()
print(before, held, resident())
"""
)
BY_ITSELF = (
    HOLD
    + """
with keeping_freed():
    before = fill()
    del blocks
    held = resident()
print(before, held, resident())
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only glibc gives memory back on demand")
@pytest.mark.parametrize(("code", "told"), [(TOLD, ALLOCATOR), (BY_ITSELF, {})], ids=["worker", "driver"])
def test_what_keeps_what_it_frees_gives_it_back_in_the_end(code: str, told: dict[str, str]) -> None:
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **told})
    before, held, after = map(float, done.stdout.split())
    assert held > before - 50, "the settings no longer keep memory in the process"
    assert after < before - 250
