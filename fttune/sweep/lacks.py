"""Which machines lack what a job reads, as they have told it; needs no Ray."""

import time
from dataclasses import dataclass

from fttune.bundle import Bundle
from fttune.distance.job import DistanceJob
from fttune.distance.sample import Sample

FORGOTTEN = 1800.0  # seconds after which a machine that lacked something is asked again


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lack:
    line: str  # in which the machine told of it
    told: float  # when, by time.monotonic


class Lacks:
    """By machine and by what jobs read: images and weights, named by digest; "" is what every job needs."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, _Lack]] = {}  # by what is lacking, by machine
        self._said: set[tuple[str, str]] = set()

    def unfit(self, job: Bundle | DistanceJob) -> dict[str, str]:
        """The machines that lacked what a job reads when they were last asked for it, and as they told it.

        That is forgotten after a while: what is missing may come, a shortage pass.
        """
        since = time.monotonic() - FORGOTTEN
        known = [self._known.get(lacks, {}) for lacks in _reads(job)]
        return {node: lack.line for lacking in known for node, lack in lacking.items() if lack.told > since}

    def take(self, job: Bundle | DistanceJob, node: str, lacks: str, error: str) -> str:
        """What a machine told when it was given a job; a line for the user, the first time."""
        lacks, line = lacks if lacks in _reads(job) else "", error.splitlines()[0]
        self._known.setdefault(lacks, {})[node] = _Lack(line=line, told=time.monotonic())
        known = (node, lacks) in self._said
        self._said.add((node, lacks))
        return "" if known else f"{line}; its trials are left to others"

    def forget(self) -> None:
        """Let each machine be asked once more."""
        self._known.clear()


def _reads(job: Bundle | DistanceJob) -> tuple[str, ...]:
    if isinstance(job, Bundle):
        return ("", job.trials[0].data_digest, job.trials[0].weights_digest)
    source = (job.source.data_digest,) if isinstance(job.source, Sample) else ()
    return ("", job.sample.data_digest, job.sample.weights_digest, *source)
