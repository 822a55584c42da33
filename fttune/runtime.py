"""The machine's side of a trial: where files lie and what it computes on. Never part of a trial's identity."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Nothing here may change a result beyond rounding."""

    store: Path  # folder of decoded images
    cache: Path  # folder of frozen features
    state: Path | None = None  # folder of stage times and checkpoints; None: neither is kept
    networks: Path | None = None  # folder that each trial leaves what it trained in; None: nothing is left
    checkpoint_seconds: float = 120.0  # between two checkpoints of a trial
    cache_bytes: int | None = None  # that the features may take; None: any
    device: str = "auto"  # auto: a GPU where the process sees one
    gpu_share: float = 1.0  # of a GPU's memory that the process may take
    threads: int | None = None  # of the training; None: torch's own choice
    weights: Mapping[str, Path] = field(default_factory=dict)  # backbone: file, instead of where the catalog looks
    git_commit: str = ""  # of the code, for the record


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
