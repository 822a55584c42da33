"""A training on disk, in the middle: written whole or not at all, and taken up only under the same terms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fttune.errors import StoreError, UsageError
from fttune.files import replacing, writing

Terms = Mapping[str, Any]  # what the outcome of a training follows from, as plain values


def save(path: Path, terms: Terms, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`."""
    with writing(path.parent), replacing(path) as temporary:
        torch.save({"terms": dict(terms), **state}, temporary)


def load(path: Path, terms: Terms) -> dict[str, Any] | None:
    """The state at `path`, on the CPU; None where there is none.

    Raises UsageError when it was saved under other terms, StoreError when it is damaged. Nobody else may be writing it:
    what a killed process left half-written beside it is removed.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        there = saved.pop("terms")
    except FileNotFoundError:
        return None
    except Exception as error:  # a broken pickle can fail in any way at all
        raise StoreError(f"{path}: damaged checkpoint ({type(error).__name__}); remove it to start again") from error
    if apart := difference(there, terms):
        raise UsageError(
            f"a training with other settings stands at {path.parent}: {apart}; remove the folder or give another name"
        )
    return saved


def difference(there: Terms, here: Terms) -> str:
    """The first value in which two sets of terms differ, in words; empty when they are equal."""
    for name in sorted({*there, *here}):
        # Checkpoints and JSON know no tuples.
        old, new = (_plain(terms.get(name)) for terms in (there, here))
        if old != new:
            return f"{name} is {old} there and {new} here"
    return ""


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
