"""How many layers of a pre-trained network to copy, and whether to freeze or fine-tune them: with evidence.

`fttune.runs` and `fttune.compare` give what was logged as Arrow tables; `fttune.recommend` answers for a set of images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fttune.advising import recommend as recommend
    from fttune.query import compare as compare
    from fttune.query import runs as runs

__all__ = ["compare", "recommend", "runs"]

_HOMES = {"compare": "query", "recommend": "advising", "runs": "query"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: the package itself must cost nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'fttune' has no attribute '{name}'")
    return getattr(import_module(f"fttune.{_HOMES[name]}"), name)
