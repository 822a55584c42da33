"""How long each stage of a network takes on this machine, measured once and kept."""

import copy
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from fttune.cost import StageTimes
from fttune.files import locked, writing
from fttune.runtime import Runtime
from fttune.training.device import device_name

_BATCH = 16  # images
_ROUNDS = 3  # after one to warm up


def measure_once(net: nn.Sequential, backbone: str, image_size: int, device: torch.device, runtime: Runtime) -> None:
    """Measure the stages of a network that nobody on this machine has measured at this size; about a second."""
    folder, threads = runtime.state, torch.get_num_threads()
    if folder is None or StageTimes.read(folder, backbone, image_size, threads):
        return
    with writing(folder), locked(StageTimes.place(folder, backbone, image_size, threads)):
        if StageTimes.read(folder, backbone, image_size, threads) is None:
            stage_times(net, backbone, image_size, device).save(folder)


def stage_times(net: nn.Sequential, backbone: str, image_size: int, device: torch.device) -> StageTimes:
    """Times of a staged network in eval mode, one stage after the other; its values do not matter."""
    inputs = torch.randn(_BATCH, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    rows = []
    for stage in net:
        rows.append(_measure(stage, inputs))
        with torch.inference_mode():
            inputs = stage(inputs)
    forward, training, update, size = zip(*rows, strict=True)
    return StageTimes(
        backbone=backbone,
        image_size=image_size,
        threads=torch.get_num_threads(),
        device=device_name(device),
        forward=forward,
        training=training,
        update=update,
        bytes=size,
    )


def _measure(stage: nn.Module, given: Tensor) -> tuple[float, float, float, int]:
    """Seconds forward and seconds trained of an image, seconds of an update, bytes of an image's output."""
    own = copy.deepcopy(stage).requires_grad_(True)
    optimiser = torch.optim.SGD(own.parameters(), lr=0.0, momentum=0.9)
    given = given.clone()

    def train() -> None:
        optimiser.zero_grad()
        own(given.detach().clone().requires_grad_(True)).sum().backward()

    forward = _seconds(lambda: _forward(stage, given), given.device)
    training = _seconds(train, given.device)
    update = _seconds(optimiser.step, given.device)
    made = _forward(stage, given)
    return forward / _BATCH, training / _BATCH, update, made[0].nbytes


@torch.inference_mode()
def _forward(stage: nn.Module, given: Tensor) -> Tensor:
    return stage(given.clone())


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    taken = []
    for _ in range(_ROUNDS + 1):
        start = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(perf_counter() - start)
    return median(taken[1:])
