"""What a training computes on, and torch's own generators while it does."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from fttune.backbones.unit import fuse

# Of glibc's mallopt: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD; bytes, to keep what is freed and as usual.
_MALLOPT = {-3: (2**30, 2**17), -1: (2**31 - 1, 2**17), -2: (2**28, 2**17)}


def pick_device(wanted: str) -> torch.device:
    """The device of this name; `auto` is a GPU where the process sees one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A small or passing tensor on `device`, without waiting for what the device is doing."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def mixed(device: torch.device, *, wanted: bool = True) -> torch.autocast:
    """Convolutions and products in bfloat16 where a GPU has it and it is wanted; else everything stays float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted and _has_bfloat16(device))


def placed(net: nn.Sequential, device: torch.device) -> nn.Sequential:
    """The network as trials have it: on its device, channels last, on a CPU in fewer passes over memory."""
    net.to(device, memory_format=torch.channels_last)  # pyright: ignore
    if device.type == "cpu":
        fuse(net)
    return net


def image_room(device: torch.device) -> int:
    """Bytes of images that may stay on a GPU: half of what this process may still take. On a CPU none need to."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    return half_of_what_is_left(free, total, share=share, held=torch.cuda.memory_reserved(device))


def half_of_what_is_left(free: int, total: int, *, share: float, held: int) -> int:
    """In bytes; to a process that holds `held` of the `share` of a GPU that it may take. The rest is for the step."""
    return max(0, min(free, int(share * total) - held)) // 2


@lru_cache
def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def give_back() -> None:
    """Return freed memory to the system (where the C library can) and to the other processes on the GPU.

    Workers are told to keep what they free, since every step asks for the same blocks again; the next trial asks for
    others, and a process that never gave any back would grow from trial to trial.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


@contextmanager
def keeping_freed() -> Iterator[None]:
    """Let this process keep what it frees, as workers are told to from their start (where the C library is glibc).

    What it computes then takes the time that it takes there.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        yield
        return
    try:
        for option, (kept, _) in _MALLOPT.items():
            set_option(option, kept)
        yield
    finally:
        for option, (_, usual) in _MALLOPT.items():
            set_option(option, usual)
        give_back()


def keep_to(share: float, context: int) -> None:
    """Hold this process to its share of a GPU's memory, less the `context` bytes that it holds beside its tensors."""
    if torch.cuda.is_available() and share < 1:
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(max(0.01, share - context / total))


def peak_memory(device: torch.device) -> float:
    """Megabytes: since the peak was last reset on a GPU, of the process so far on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """Seed torch's own generators, which dropout draws from; afterwards they are as they were."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield
