"""What a trial leaves of its training for whoever keeps networks: the trained values of its best step."""

import logging
from collections.abc import Mapping

from torch import Tensor

from fttune.classifier import part
from fttune.errors import FttuneError
from fttune.training.bench import Bench
from fttune.training.loop import Scores

_log = logging.getLogger("fttune")


def leave(bench: Bench, state: Mapping[str, Tensor], val: Scores) -> None:
    """Write them where the runtime asks for it; where there is no room, the trial's numbers count all the same."""
    trial, folder = bench.trial, bench.runtime.networks
    if folder is None:
        return
    facts = {"classes": bench.store.classes, "mean": tuple(bench.norm.mean), "std": tuple(bench.norm.std)}
    try:
        part.leave(folder, trial.id, state, **facts, val_accuracy=val.accuracy, val_loss=val.loss)
    except FttuneError as error:
        _log.warning("the network of %s is not kept: %s", trial.name, error)
