"""What trainings take of a GPU, measured on a whole one of each model that a Ray cluster has."""

import time
from collections.abc import Callable, Sequence
from math import inf

import ray
from ray.exceptions import RayError, RayTaskError

from fttune.bundle import Bundle
from fttune.footprint import Footprint
from fttune.runtime import Runtime
from fttune.sweep import machines
from fttune.sweep.supply import Supply
from fttune.sweep.worker import measure

_LONG = 20.0  # seconds after which it says what it may be waiting for


def probe(
    model: str,
    bundles: Sequence[Bundle],
    runtime: Runtime,
    supply: Supply | None,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> Sequence[Footprint | None]:
    """Measure bundles on a whole GPU of a model, in one process, once one is free.

    None for one that fails, and a line; for each where that process dies or its model is gone, and once `stop` says so.
    """
    place = {model: 0.001} if model else {}
    asked = ray.remote(num_cpus=1, num_gpus=1, resources=place, max_retries=2)(_measure)
    measuring, gpu = asked.remote(bundles, runtime, supply), model.removeprefix(machines.MODEL) or "a GPU"
    why, since = "", time.monotonic()
    while not why and not ray.wait([measuring], timeout=1)[0]:
        if time.monotonic() > since + _LONG:
            say(f"what trials take of {gpu} is measured with nobody else on it; that is waited for")
            since = inf
        why = "the run ends" if stop() else "" if model in machines.models() else "it has left the cluster"
    try:
        if not why:
            found = ray.get(measuring)
            for line in dict.fromkeys(one for one in found if isinstance(one, str)):
                say(line)
            return [None if isinstance(one, str) else one for one in found]
        ray.cancel(measuring, force=True)
    except RayTaskError as error:
        why = f"{type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        why = str(error).splitlines()[0]
    say(f"what trials take of {gpu} was not measured: {why}")
    return [None] * len(bundles)


def _measure(bundles: Sequence[Bundle], runtime: Runtime, supply: Supply | None) -> list[Footprint | str | None]:
    return [measure(bundle, runtime, supply) for bundle in bundles]
