"""Networks that were trained here: one folder each, named BACKBONE@NAME, written whole or not at all.

A folder holds `weights.safetensors`, `provenance.json` (what the weights came from) and the mean activations of its
source's images, as `fttune.backbones.source` keeps them.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fttune.errors import WeightsError
from fttune.files import place, writing

MARK = "@"  # between the backbone and the name of a network
_PLAIN = re.compile(rf"\w[\w-]*{MARK}[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_WEIGHTS, _PROVENANCE = "weights.safetensors", "provenance.json"

Facts = Mapping[str, Any]


def folder(name: str) -> Path:
    """Where the network `name` lies, or would; WeightsError for a name that is no plain one."""
    if not _PLAIN.fullmatch(name):
        raise WeightsError(
            f"a network is called BACKBONE{MARK}NAME, of letters, digits, '.', '_' and '-', not '{name}'"
        )
    return place("networks") / name


def workshop(name: str) -> Path:
    """Where the network `name` lies while it is being trained: its checkpoint, its lock."""
    return place("networks") / "training" / name


def names() -> list[str]:
    """Every registered network, sorted."""
    return sorted(path.parent.name for path in place("networks").glob(f"*{MARK}*/{_WEIGHTS}"))


def provenance(name: str) -> Facts | None:
    """What is known of a registered network; None where there is none of that name.

    Raises WeightsError when its file is damaged.
    """
    path = folder(name) / _PROVENANCE
    try:
        facts = json.loads(path.read_text())
        if not {"recipe", "source", "train", "final"} <= facts.keys():
            raise ValueError("keys are missing")
        return facts
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: damaged ({error}); remove the folder and train the network again") from None


def finder(name: str) -> Callable[[], Path]:
    """A function that gives the weights file of a network, and raises WeightsError where it is not registered."""
    return partial(_weights, name)


def register(name: str, write: Callable[[Path], None]) -> Path:
    """Give `write` an empty folder to fill, then make it the network `name`, and clear what its training left."""
    made = workshop(name) / "made"
    with writing(made.parent):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        write(made)
        made.rename(folder(name))
        shutil.rmtree(made.parent)
    return folder(name)


def weights_in(made: Path) -> Path:
    """The weights file of a network's folder."""
    return made / _WEIGHTS


def write_provenance(made: Path, facts: Facts) -> None:
    (made / _PROVENANCE).write_text(json.dumps(facts, indent=1) + "\n")


def _weights(name: str) -> Path:
    path = weights_in(folder(name))
    if not path.is_file():
        there = f"; registered: {', '.join(names())}" if names() else ""
        raise WeightsError(f"no network {name} at {path.parent}: `fttune pretrain` trains it from a recipe{there}")
    return path
