"""The machines of a Ray cluster: which there are, what they offer, and the wait for one that trials fit on."""

import json
import sys
import time
from collections.abc import Callable, Collection, Mapping
from math import inf
from typing import Any

import ray

# Ray has no public way to ask whether machines come when asked for.
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler._private.util import format_readonly_node_type
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get

from fttune.config import Resources
from fttune.errors import ConfigError

_OWN = "local.cluster.node"  # the kind of every machine of one's own, whatever it has
_ENOUGH = 10  # machines that lack the same: the next that Ray starts would lack it too
_PATIENCE = 600.0  # seconds in which one that is asked for comes
_BETWEEN = 60.0  # seconds between two lines that say what is waited for
MODEL = "accelerator_type:"  # how Ray begins the name of a resource that tells a model of GPU


def ids(*, alive: bool) -> set[str]:
    """Of the machines that are there, or of those that were."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"] == alive}


def models() -> list[str]:
    """The models of GPU in the cluster, as Ray tells them apart; one without a name where it cannot."""
    offers = [offer for offer in _offers() if offer.get("GPU")]
    return sorted({next((name for name in offer if name.startswith(MODEL)), "") for offer in offers})


def avoided(unfit: Collection[str], cpu: float, gpu: float) -> set[str] | None:
    """The machines that a trial is not to be given to, since they lack what it reads; None where no other is there."""
    stranded = unfit and fits(cpu, gpu) and not fits(cpu, gpu, but=unfit)
    return None if stranded else set(unfit)


def await_place(resources: Resources, stop: Callable[[], bool]) -> bool:
    """Have a machine that is large enough for a trial; where Ray can start one, or has none yet, it is waited for.

    False when `stop` ended the wait. ConfigError when the cluster could never offer what one trial asks for.
    """
    cpu, gpu = resources.cpu, 0.0 if isinstance(resources.gpu, str) else resources.gpu
    if not fits(cpu, gpu) and not _comes(cpu, gpu, stop):
        return False
    if resources.gpu == "auto" and len(_offers()) > 1 and not models():
        _say("no machine of the cluster has a GPU now: trials run on CPUs (a number as resources.gpu waits for one)")
    return True


def await_other(
    unfit: Collection[str], cpu: float, gpu: float, stop: Callable[[], bool], *, lost: Collection[str]
) -> bool:
    """Have a machine that lacks nothing, where Ray starts some, or one of those `lost` may come back, within minutes.

    False where none does, and once as many lack the same that the next would.
    """
    if len(unfit) >= _ENOUGH or not (lost or _grows()):
        return False
    minutes = _PATIENCE / 60
    _say(f"no machine that is there has what the rest reads; another is waited for, {minutes:.0f} min at most")
    end = time.monotonic() + _PATIENCE
    there = sum(int(min(offer.get("CPU", 0) / cpu, offer.get("GPU", 0) / gpu if gpu else inf)) for offer in _offers())
    return _asked(cpu, gpu, there + 1, unfit, lambda: stop() or time.monotonic() > end)


def _comes(cpu: float, gpu: float, stop: Callable[[], bool]) -> bool:
    if any(offer.get("CPU") for offer in _offers()) and not _grows():
        raise ConfigError(_too_small(cpu, gpu))
    _say(f"no machine of the cluster has {_words(cpu, gpu)} yet; one is asked for, and waited for")
    return _asked(cpu, gpu, 1, (), stop)


def _asked(cpu: float, gpu: float, count: int, but: Collection[str], stop: Callable[[], bool]) -> bool:
    """Ask for room for `count` trials at once, until one fits on a machine that is none of `but`; whether one does."""
    request_resources(bundles=[{"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu}] * count)
    told = time.monotonic()
    try:
        while not (there := fits(cpu, gpu, but)) and not stop():
            time.sleep(1)
            if time.monotonic() > told + _BETWEEN:
                told = time.monotonic()
                _say(f"still waited for: {_words(cpu, gpu)} on one machine; {_largest()}")
        return there
    finally:
        request_resources(num_cpus=0)  # from now on trials are what keeps machines


def _offers(but: Collection[str] = ()) -> list[Mapping[str, float]]:
    """What each machine has, busy or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in but]


def fits(cpu: float, gpu: float, but: Collection[str] = ()) -> bool:
    """Whether a machine, other than some, is large enough for what a trial asks for."""
    return any(offer.get("CPU", 0) >= cpu and offer.get("GPU", 0) >= gpu for offer in _offers(but))


def _grows() -> bool:
    """Whether machines come when they are asked for."""
    if not is_autoscaler_v2():
        return starts_machines(json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}"))
    # The second of Ray's autoscalers tells nobody what it may start, but what there is; no plain `ray start` starts it.
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    there = (*status.active_nodes, *status.idle_nodes)
    return any(one.ray_node_type_name not in (_OWN, format_readonly_node_type(one.node_id or "")) for one in there)


def starts_machines(status: Mapping[str, Any]) -> bool:
    """Whether Ray's first autoscaler, which tells this of itself, starts any: it has kinds of machines of its own then.

    Where it only looks on it has one kind for each machine; where the machines are one's own they are all there.
    """
    kinds = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(kind not in (_OWN, format_readonly_node_type(name)) for name, kind in kinds.items())


def _largest() -> str:
    offers = _offers()
    most = {name: max((offer.get(name, 0) for offer in offers), default=0) for name in ("CPU", "GPU")}
    return f"the most that one has now: {_words(most['CPU'], most['GPU'])}"


def _too_small(cpu: float, gpu: float) -> str:
    for name, asked in (("cpu", cpu), ("gpu", gpu)):
        if asked > (most := max(offer.get(name.upper(), 0) for offer in _offers())):
            return f"resources.{name}: a trial asks for {asked:g}, but no machine of the cluster has more than {most:g}"
    return f"resources: a trial asks for {_words(cpu, gpu)}, but no machine of the cluster has both"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _words(cpu: float, gpu: float) -> str:
    return f"{cpu:g} CPU" + (f" and {gpu:g} GPU" if gpu else "")
