"""How a machine of the cluster comes by what a job reads: images, decoded there once or found in the store; weights."""

import logging
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fttune.backbones.catalog import weights_digest
from fttune.bundle import Bundle
from fttune.code import digest as digest_of_code
from fttune.data.dataset import Dataset
from fttune.data.store import Corrupt, is_built
from fttune.distance.sample import Sample
from fttune.errors import FttuneError, MachineError
from fttune.sweep.ground import Ground, decode
from fttune.sweep.ledger import Job
from fttune.trial import Resize, stored_size

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Supply:
    """The datasets of a sweep by the digests that its jobs name them with."""

    rows: Mapping[str, Dataset]
    size: int  # pixels, stored
    resize: Resize
    corrupt: Corrupt
    weights: Mapping[str, Path]  # of each backbone, where the sweep names a file
    code: str = ""  # digest of the driver's; nothing is compared where empty

    @classmethod
    def of(cls, ground: Ground, *, code: str = "") -> "Supply":
        sweep = ground.sweep
        rows = {ground.facts.datasets[name].digest: row for name, row in ground.rows.items()}
        if ground.source:
            rows[ground.source.facts.digest] = ground.source.row
        size = stored_size(sweep.train.image_size)
        return cls(
            rows=rows,
            size=size,
            resize=sweep.train.resize,
            corrupt=sweep.data.corrupt,
            weights=sweep.data.weights,
            code=code,
        )

    def ensure(self, job: Job, root: Path) -> None:
        """Have what a job reads in the store of this machine; processes that ask at once do the work once.

        MachineError, naming it, where images or weights are not here or not those of the driver; a warning where the
        code is another.
        """
        self._compare_code()
        self._check_weights(job)
        for digest in _digests(job):
            if not is_built(root=root, digest=digest, size=self.size, resize=self.resize):
                self._fetch(digest, root)

    def _compare_code(self) -> None:
        """Told, and no more: a checkout may be edited under a sweep of days, which would end it on all machines."""
        if self.code and self.code != (here := _code()):
            _log.warning(
                "%s has other code of fttune than the driver (digest %s there, %s here), and trains with it",
                platform.node(),
                here[:16],
                self.code[:16],
            )

    def _check_weights(self, job: Job) -> None:
        backbone, expected = _network(job)
        try:
            digest = weights_digest(backbone, self.weights.get(backbone))
        except FttuneError as error:
            line = f"{platform.node()} has no network {backbone} to start from ({error})"
            raise MachineError(line, lacks=expected) from None
        if digest != expected:
            raise MachineError(
                f"the weights of {backbone} on {platform.node()} are not those that the sweep was planned with"
                f" (digest {digest[:16]} there, {expected[:16]} here)",
                lacks=expected,
            )

    def _fetch(self, digest: str, root: Path) -> None:
        row = self.rows[digest]
        try:
            store = decode(row, self.size, self.resize, self.corrupt, root, lambda *_: None)
        except (FttuneError, OSError) as error:
            raise MachineError(
                f"{platform.node()} has no decoded images of {row.name} in {root} and cannot decode them ({error}):"
                " FTTUNE_STORE on a file system that all machines share spares them that",
                lacks=digest,
            ) from None
        if store.digest != digest:
            raise MachineError(
                f"the images of {row.name} on {platform.node()} are not those that the sweep was planned with"
                f" (digest {store.digest[:16]} there, {digest[:16]} here)",
                lacks=digest,
            )


@cache
def _code() -> str:
    """As this process found it at its first job."""
    return digest_of_code()


def _network(job: Job) -> tuple[str, str]:
    """The backbone of a job and the digest of its weights."""
    if isinstance(job, Bundle):
        trial = job.trials[0]
        return trial.cell.backbone, trial.weights_digest
    return job.sample.backbone, job.sample.weights_digest


def _digests(job: Job) -> Iterator[str]:
    if isinstance(job, Bundle):
        yield job.trials[0].data_digest
        return
    yield job.sample.data_digest
    if isinstance(job.source, Sample):
        yield job.source.data_digest
