"""What a network costs on this machine: how long each stage takes, and what a training takes of a GPU's memory."""

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from fttune.backbones import catalog
from fttune.bundle import Bundle
from fttune.cost import StageTimes
from fttune.data.views import view_codes
from fttune.errors import DataError, StoreError
from fttune.files import locked, writing
from fttune.footprint import CONTEXT, Footprint
from fttune.runtime import Runtime
from fttune.training.bench import Bench
from fttune.training.device import device_name, give_back, keeping_freed, pick_device, placed
from fttune.training.loop import score
from fttune.training.optimiser import SGD
from fttune.training.steps import Training
from fttune.training.together import EVALUATED

_log = logging.getLogger("fttune")

_CPU = torch.device("cpu")
_BATCH = 16  # images
_no_room: set[Path] = set()  # where this process could not keep what it measured
_ROUNDS = 3


def time_stages(backbones: Sequence[str], image_size: int, runtime: Runtime) -> None:
    """Measure networks in this process, on its processor; seconds each. What cannot be is left to its trials."""
    torch.set_num_threads(runtime.threads or torch.get_num_threads())
    with keeping_freed():
        for name in backbones:
            try:
                net = placed(catalog.load(name, weights=runtime.weights.get(name)), _CPU)
                measure_once(net, name, image_size, _CPU, runtime)
            except Exception as error:  # of somebody else's network too
                _log.warning("what %s costs is not known before its first trials: %s", name, error)


def measure_once(net: nn.Sequential, backbone: str, image_size: int, device: torch.device, runtime: Runtime) -> None:
    """Measure the stages of a network that nobody on this machine has measured at this size; it takes seconds."""
    folder, threads, gpu = runtime.state, torch.get_num_threads(), device.type != "cpu"
    if folder is None or StageTimes.read(folder, backbone, image_size, threads, gpu=gpu):
        return
    place = StageTimes.place(folder, backbone, image_size, threads, gpu=gpu)
    if place in _no_room:
        return
    try:
        with writing(folder), locked(place):
            if StageTimes.read(folder, backbone, image_size, threads, gpu=gpu) is None:
                stage_times(net, backbone, image_size, device).save(folder)
    except (StoreError, DataError) as error:
        _no_room.add(place)
        _log.warning("%s; until then nothing is known of the costs of %s", error, backbone)


def footprint(bundle: Bundle, runtime: Runtime) -> Footprint | None:
    """What the trials of a bundle take of a GPU, the whole of it where they do not fit; None where there is no GPU.

    Two steps and an evaluation on val, with nobody else on the GPU. Features that they need are kept for the trials.
    """
    device = pick_device(runtime.device)
    if device.type != "cuda":
        return None
    give_back()  # or what the bundle before took would count as this one's
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.reset_peak_memory_stats(device)
    try:
        more = rehearse(bundle, runtime)
        peak = torch.cuda.max_memory_reserved(device) + CONTEXT + more
    except torch.OutOfMemoryError:
        peak = total
    return Footprint(device=device_name(device), peak=peak, total=total)


def rehearse(bundle: Bundle, runtime: Runtime) -> int:
    """Train and evaluate the first trial for a moment; bytes that the bundle takes beside that."""
    trial = bundle.trials[0]
    bench = Bench.set_up(trial, runtime, bundle.depths)
    # In its last phase most layers are trained.
    leg = bench.leg(len(trial.phases) - 1)
    training = Training.begin(leg.student, len(leg.train.labels), trial.hparams, seed=0)
    training.advance(leg.train, min(2, trial.hparams.steps))
    score(leg.student, leg.val)
    # Of each trial: its values, their slope, their momentum and the values of its best report; logits, their
    # logarithms and their slope in a batch, or where it is evaluated.
    own = 4 * sum(value.nbytes for value in leg.student.trained.parameters())
    own += 3 * 4 * max(trial.hparams.batch_size, EVALUATED) * len(bench.store.classes)
    return own * (len(bundle.trials) - 1) + _tables(bundle, bench, leg.val.inputs.show(slice(1)).nbytes)


def _tables(bundle: Bundle, bench: Bench, each: int) -> int:
    """Bytes of cached features, `each` of an image in a view, beside those that the first trial trains with.

    Images that are not cached need no such room: they stay on the GPU only where there is some.
    """
    if not bench.cached:
        return 0
    split, views = bench.split, len(view_codes(bench.trial.hparams.views))
    training = len(split.train) * views + len(split.val)
    seeds = len({trial.seed for trial in bundle.trials})
    return each * (seeds * (training + len(split.test)) - training)


def stage_times(net: nn.Sequential, backbone: str, image_size: int, device: torch.device) -> StageTimes:
    """Times of a staged network in eval mode, one stage after the other; its values do not matter."""
    inputs = torch.randn(_BATCH, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    rows = []
    for stage in net:
        rows.append(_measure(stage, inputs))
        with torch.inference_mode():
            inputs = stage(inputs)
    forward, training, lowest, update, size = zip(*rows, strict=True)
    return StageTimes(
        backbone=backbone,
        image_size=image_size,
        threads=torch.get_num_threads(),
        device=device_name(device),
        forward=forward,
        training=training,
        lowest=lowest,
        update=update,
        bytes=size,
    )


def _measure(stage: nn.Module, given: Tensor) -> tuple[float, float, float, float, int]:
    """Seconds of an image: forward, trained, trained as the lowest; seconds of an update; bytes of its output."""
    own = copy.deepcopy(stage).requires_grad_(True)
    optimiser = SGD(own.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4, fused=True)
    given = given.clone()

    def train(*, lowest: bool) -> None:
        optimiser.zero_grad()
        made = own(given.detach().clone().requires_grad_(not lowest))
        if made.requires_grad:  # not, where nothing is trained in it and nothing below
            made.sum().backward()

    made = _forward(stage, given)  # and once before anything is timed
    train(lowest=False)
    optimiser.step()
    forward = _seconds(lambda: _forward(stage, given), given.device)
    training, lowest = (_seconds(partial(train, lowest=alone), given.device) for alone in (False, True))
    update = _seconds(optimiser.step, given.device)
    return forward / _BATCH, training / _BATCH, lowest / _BATCH, update, made[0].nbytes


@torch.inference_mode()
def _forward(stage: nn.Module, given: Tensor) -> Tensor:
    return stage(given.clone())


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    taken = []
    for _ in range(_ROUNDS):
        start = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(perf_counter() - start)
    return median(taken)
