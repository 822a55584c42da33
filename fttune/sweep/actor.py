"""The process that works on one job after another, as Ray starts it on a machine.

Sent by value, so that it starts whatever is installed there: what is not there, or another than the driver's, it tells.
"""

import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import ray
from ray import cloudpickle, tune
from ray.actor import exit_actor
from ray.cloudpickle.cloudpickle import dumps

if TYPE_CHECKING:  # here and there may be two releases of it
    from fttune.sweep.worker import Work

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True, kw_only=True)
class Later:
    """A job that was not known when the workers were described."""

    packed: bytes

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __str__(self) -> str:
        return ""  # Tune names folders after it


class Worker(tune.Trainable):
    """Works on one job after another, and tells of each as plain values.

    `packed`: jobs, runtime and supply, by `pack`.
    """

    _work: "Work | None" = None
    _leaving = False
    _opened: Any = None

    def setup(self, config: dict[str, Any], packed: bytes = b"") -> None:
        self._packed, self._asked = packed, config
        self._node = ray.get_runtime_context().get_node_id()
        self._ended_before = signal.signal(signal.SIGTERM, self._terminate)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._asked, self._work = new_config, None
        return True

    def step(self) -> dict[str, Any]:
        if self._leaving:
            exit_actor()
        try:
            self._work = work = self._work or self._begin()
        except Exception as error:  # whatever an import or a class of another release comes to
            return {"news": [_unable(error)], "node": self._node, "done": True}
        news = work.take()
        self._leaving = any("stopped" in one for one in news)
        return {"news": news, "node": self._node, "done": work.ended and not self._leaving}

    def _begin(self) -> "Work":
        from fttune.sweep.worker import Work

        self._opened = self._opened or cloudpickle.loads(self._packed)
        jobs, runtime, supply = self._opened
        later: Later | None = self._asked["later"]
        job = cloudpickle.loads(later.packed) if later else jobs[self._asked["job"]]
        return Work(job, replace(runtime, gpu_share=self._asked["share"] or 1.0), supply)

    def cleanup(self) -> None:
        """Tune has no more use for what this worker does: what it has reached is saved."""
        if self._work and not self._work.ended:
            self._work.stop()
            self._work.join()

    def _terminate(self, number: int, frame: Any) -> None:
        """The machine is taken away: save at once, tell, and go."""
        if self._work and not self._work.ended:
            self._work.stop()
        elif callable(self._ended_before):
            self._ended_before(number, frame)


def place(cpu: float) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """Of each job, by what it is asked for with: cores, a share of a GPU, on none of the machines to avoid."""

    def asked(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        label = {"ray.io/node-id": f"!in({','.join(config['avoid'])})"}
        where: dict[str, Any] = {"bundle_label_selector": [label]} if config["avoid"] else {}
        return tune.PlacementGroupFactory([{"CPU": cpu, "GPU": config["share"]}], **where)

    return asked


def pack(values: object) -> bytes:
    """What a worker opens by itself: a process that Ray cannot open something for dies without a word."""
    return dumps(values)


def _unable(error: Exception) -> dict[str, Any]:
    """Told as a `MachineError` of a machine that can train nothing."""
    here, why = platform.node(), f"{type(error).__name__}: {error}"
    line = f"{here} cannot read what the driver sends, since other code is installed there than here: {why}"
    return {"error": line, "lacks": ""}
