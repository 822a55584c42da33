"""The machines of a Ray cluster: which there are, what they offer, and the wait for one that trials fit on."""

import json
import sys
import time
from collections.abc import Collection, Mapping

import ray

# Ray has no public way to ask whether machines come when asked for.
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler._private.util import format_readonly_node_type
from ray.autoscaler.sdk import request_resources
from ray.experimental.internal_kv import _internal_kv_get

from fttune.config import Resources
from fttune.errors import ConfigError

MODEL = "accelerator_type:"  # how Ray begins the name of a resource that tells a model of GPU


def ids(*, alive: bool) -> set[str]:
    """Of the machines that are there, or of those that were."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"] == alive}


def models() -> list[str]:
    """The models of GPU in the cluster, as Ray tells them apart; one without a name where it cannot."""
    offers = [offer for offer in _offers() if offer.get("GPU")]
    return sorted({next((name for name in offer if name.startswith(MODEL)), "") for offer in offers})


def avoidable(unfit: Collection[str], cpu: float, gpu: float) -> set[str]:
    """The machines that lack what trials read, as long as another could take a trial."""
    return set(unfit) if _fits(cpu, gpu, but=unfit) else set()


def await_place(resources: Resources) -> None:
    """Have a machine that is large enough for a trial; where Ray can start one, or has none yet, it is waited for.

    ConfigError when the cluster could never offer what one trial asks for.
    """
    cpu, gpu = resources.cpu, 0.0 if isinstance(resources.gpu, str) else resources.gpu
    if not _fits(cpu, gpu):
        _await(cpu, gpu)
    if resources.gpu == "auto" and len(_offers()) > 1 and not models():
        _say("no machine of the cluster has a GPU now: trials run on CPUs (a number as resources.gpu waits for one)")


def _await(cpu: float, gpu: float) -> None:
    if any(offer.get("CPU") for offer in _offers()) and not _grows():
        raise ConfigError(_too_small(cpu, gpu))
    _say(f"no machine of the cluster has {_words(cpu, gpu)} yet; one is asked for, and waited for")
    request_resources(bundles=[{"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu}])
    try:
        while not _fits(cpu, gpu):
            time.sleep(1)
    finally:
        request_resources(num_cpus=0)  # from now on trials are what keeps machines


def _offers(but: Collection[str] = ()) -> list[Mapping[str, float]]:
    """What each machine has, busy or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in but]


def _fits(cpu: float, gpu: float, but: Collection[str] = ()) -> bool:
    return any(offer.get("CPU", 0) >= cpu and offer.get("GPU", 0) >= gpu for offer in _offers(but))


def _grows() -> bool:
    """Whether machines come when they are asked for: Ray's autoscaler has kinds of its own then, not one for each."""
    report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report") or {}
    kinds = {*(report.get("node_type_mapping") or {}).values()}
    return bool(kinds - {format_readonly_node_type(node["NodeID"]) for node in ray.nodes()})


def _too_small(cpu: float, gpu: float) -> str:
    for name, asked in (("cpu", cpu), ("gpu", gpu)):
        if asked > (most := max(offer.get(name.upper(), 0) for offer in _offers())):
            return f"resources.{name}: a trial asks for {asked:g}, but no machine of the cluster has more than {most:g}"
    return f"resources: a trial asks for {_words(cpu, gpu)}, but no machine of the cluster has both"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _words(cpu: float, gpu: float) -> str:
    return f"{cpu:g} CPU" + (f" and {gpu:g} GPU" if gpu else "")
