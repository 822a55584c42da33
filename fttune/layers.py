"""Which layers of a copied network are frozen, tuned or new, in the paper's notation (section 3)."""

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from fttune.errors import SpecError

_GROUP = re.compile(r"([FTR])\((\d+)(?:-(\d+))?\)")
_ORDER = "FTR"
_FORM = "write groups from the bottom up, such as T(1-7)R(8), F(1-5)R(6-8) or F(1-3)T(4-7)R(8)"


class Mode(StrEnum):
    """What happens to the copied layers; derived from a spec, never stored beside it."""

    FREEZE = "freeze"
    TUNE = "tune"
    MIXED = "mixed"
    SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """Three counts of layers, bottom to top; `T(1-7)R(8)` is (0, 7, 1).

    Prints itself in the paper's notation. Raises SpecError when no layer is new: the classifier always is.
    """

    frozen: int  # layers copied and never updated
    tuned: int  # layers copied and updated at a reduced rate
    random: int  # layers initialised anew

    def __post_init__(self) -> None:
        if min(self.frozen, self.tuned) < 0:
            raise SpecError(f"layer counts must be >= 0, but got frozen={self.frozen}, tuned={self.tuned}")
        if self.random < 1:
            raise SpecError(_no_random(self.frozen + self.tuned))

    @property
    def depth(self) -> int:
        """Layers of the whole network."""
        return self.frozen + self.tuned + self.random

    @property
    def mode(self) -> Mode:
        if self.frozen and self.tuned:
            return Mode.MIXED
        if self.frozen:
            return Mode.FREEZE
        return Mode.TUNE if self.tuned else Mode.SCRATCH

    def kind_of(self, layer: int) -> str:
        """`frozen`, `tuned` or `random` for layer `layer`, counted from 1."""
        if layer <= self.frozen:
            return "frozen"
        return "tuned" if layer <= self.frozen + self.tuned else "random"

    def __str__(self) -> str:
        letters = "F" * self.frozen + "T" * self.tuned + "R" * self.random
        text, start = "", 1
        for letter, group in groupby(letters):
            end = start + len(list(group)) - 1
            text += f"{letter}({start})" if start == end else f"{letter}({start}-{end})"
            start = end + 1
        return text

    @classmethod
    def parse(cls, text: str, *, depth: int | None = None) -> "LayerSpec":
        """Read `F(1-3)T(4-7)R(8)`; `depth` is the number of layers of the network it must fit.

        Raises SpecError on gaps, overlaps, wrong order, wrong depth or a missing R, saying what to write instead.
        """
        groups = _groups(text)
        counts = dict.fromkeys(_ORDER, 0)
        for letter, first, last in groups:
            counts[letter] += last - first + 1
        expected = 1
        for letter, first, last in groups:
            if first != expected:
                fault = "a gap" if first > expected else "an overlap"
                raise SpecError(f"layer spec '{text}' has {fault}: {letter}({first}-{last}) must start at {expected}")
            expected = last + 1
        if not counts["R"]:
            raise SpecError(f"layer spec '{text}': {_no_random(depth or expected - 1)}")
        spec = cls(frozen=counts["F"], tuned=counts["T"], random=counts["R"])
        if depth is not None and spec.depth != depth:
            raise SpecError(
                f"layer spec '{text}' has {spec.depth} layers, but the network has {depth}: {_fit(spec, depth)}"
            )
        return spec


def _groups(text: str) -> list[tuple[str, int, int]]:
    """The groups of a spec as (letter, first, last); SpecError unless each letter stands once, in the order F, T, R."""
    compact = re.sub(r"\s+", "", text).upper()
    found = [(m[1], int(m[2]), int(m[3] or m[2])) for m in _GROUP.finditer(compact)]
    if not found or _GROUP.sub("", compact):
        raise SpecError(f"cannot read layer spec '{text}': {_FORM}")
    letters = "".join(letter for letter, _, _ in found)
    if letters != "".join(letter for letter in _ORDER if letter in letters):
        raise SpecError(f"layer spec '{text}' must have F before T before R, each at most once: {_FORM}")
    backward = next(((letter, a, b) for letter, a, b in found if b < a), None)
    if backward:
        letter, first, last = backward
        raise SpecError(f"layer spec '{text}': write {letter}({last}-{first}) for {letter}({first}-{last})")
    return found


def _no_random(depth: int) -> str:
    below = LayerSpec(frozen=0, tuned=depth - 1, random=1) if depth > 1 else "R(1)"
    return f"the classifier is always new, so the top layer must be in an R group: write {below}"


def _fit(spec: LayerSpec, depth: int) -> str:
    """The spec to write instead: the same new and frozen layers as far as they fit, the rest stretched."""
    random = min(spec.random, depth)
    frozen = min(spec.frozen, depth - random) if spec.tuned else (depth - random if spec.frozen else 0)
    return f"write {LayerSpec(frozen=frozen, tuned=depth - random - frozen, random=random)}"
