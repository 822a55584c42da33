"""What a search says of itself for as long as its sweep lives: its space, and where it starts from."""

import json

from fttune.analysis.select import setting_of
from fttune.config import Sweep
from fttune.errors import ConfigError
from fttune.space import differences, told
from fttune.tracking.fields import DEFAULT, SPACE
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from fttune.trial import digest


def check_space(sweep: Sweep, tracker: Tracker) -> None:
    """ConfigError where a search of another space was begun under this name: reports would take both for one.

    With `sampler: tpe` the studies refuse it too (`fttune.sweep.study`), as long as they are there.
    """
    if sweep.search.sampler == "fixed":
        return
    begun = tracker.noted(sweep.name).get(SPACE)
    if begun and (changed := differences(json.loads(begun), told(sweep.search.space.domains))):
        raise ConfigError(
            f"search.space changed under the running search of {sweep.name} ({changed}): put the old space back to go"
            " on with it, or begin another under another name of the sweep (name=OTHER), which shares the trials that"
            " are the same"
        )


def pledge(sweep: Sweep, writer: Writer) -> None:
    """Note both at the sweep's run, which keeps each setting that it ever started from. Raises UnreachableError."""
    if sweep.search.sampler == "fixed":
        return
    setting = json.dumps(setting_of(sweep.train.hparams()))
    writer.note(f"{DEFAULT}.{digest(setting)[:16]}", setting)
    writer.note(SPACE, json.dumps(told(sweep.search.space.domains)))
