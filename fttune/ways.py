"""Ways to adapt a copied network, one row each: which layers are trained in which steps.

`freeze` and `tune` are what a layer spec says, from the first step to the last: the way `plain`. The others are the
same spec, trained differently. In a way's phases a layer may be thawed and is never frozen again, so whatever is
frozen is as it came and its output may be kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from fttune.errors import ConfigError, unknown
from fttune.layers import LayerSpec

PLAIN = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Steps in which the same layers are trained."""

    spec: LayerSpec  # what is frozen, tuned and new in these steps
    steps: int  # optimiser steps


Phases = Callable[[LayerSpec, int, int], list[Phase]]  # a spec, steps in all, the number behind the way's name


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """What `NAME-NUMBER` tells a way."""

    about: str
    default: int  # where a name has none
    least: int
    most: int


def at_once(spec: LayerSpec, steps: int, number: int) -> list[Phase]:
    """One phase: the spec as it stands."""
    return [Phase(spec=spec, steps=steps)]


def head_first(spec: LayerSpec, steps: int, number: int) -> list[Phase]:
    """The new layers alone for `number` percent of the steps, then the tuned ones with them (Kumar et al. 2022)."""
    head = steps * number // 100
    return [Phase(spec=_thawed(spec, 0), steps=head), Phase(spec=spec, steps=steps - head)]


def top_down(spec: LayerSpec, steps: int, number: int) -> list[Phase]:
    """In `number` stages of equal length: the new layers, then more of the tuned ones from the top.

    Howard and Ruder (2018) thaw one group of layers after another; each stage thaws as many as any other.
    """
    stops = [steps * stage // number for stage in range(number + 1)]
    return [
        Phase(spec=_thawed(spec, round(spec.tuned * stage / (number - 1))), steps=stop - start)
        for stage, (start, stop) in enumerate(pairwise(stops))
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One row. A mode of a grid that is called as the way has `random_top` new layers, the copied ones as `copied`."""

    name: str
    about: str
    copied: Literal["freeze", "tune"] = "tune"
    phases: Phases = at_once
    number: Number | None = None
    bn: Literal["source", "batch"] | None = None  # goes before train.bn
    convex: bool = False  # the classifier is solved for on the frozen part's output, so there are no steps


_ROWS = (
    Way(name=PLAIN, about="as the layer spec says, in all steps"),
    Way(
        name="lpft",
        about="new layers first, on the frozen network; then all layers",
        phases=head_first,
        number=Number(about="percent of the steps for the new layers alone", default=50, least=1, most=99),
    ),
    Way(
        name="gradual",
        about="thawed from the top, in stages",
        phases=top_down,
        number=Number(about="stages", default=4, least=2, most=99),
    ),
    Way(name="tune_bn", about="as tune, BatchNorm statistics of the batch whatever train.bn says", bn="batch"),
    Way(name="probe", about="logistic regression on the frozen network's output", copied="freeze", convex=True),
)
WAYS: dict[str, Way] = {row.name: row for row in _ROWS}


def find(name: str) -> Way:
    """The row of `lpft` or of `lpft-25`; ConfigError for a way that is none or a number that it does not take."""
    return _read(name)[0]


def check_fit(name: str, spec: LayerSpec) -> None:
    """ConfigError for a way that is none, or that solves for a classifier where more than that is trained."""
    if find(name).convex and (spec.tuned or spec.random > 1):
        raise ConfigError(f"{name} solves for the classifier alone, so all below it must be frozen, but got {spec}")


def is_convex(name: str) -> bool:
    """Whether a way takes no steps; a way that only another version of fttune knows is taken to."""
    row = WAYS.get(name.partition("-")[0])
    return row is not None and row.convex


def phases(name: str, spec: LayerSpec, steps: int) -> tuple[Phase, ...]:
    """The phases of a training of `steps` steps that ends with `spec`, without those that have no step."""
    way, number = _read(name)
    made = [phase for phase in way.phases(spec, steps, number) if phase.steps]
    frozen = [phase.spec.frozen for phase in made]
    if sum(phase.steps for phase in made) != steps or sorted(frozen, reverse=True) != frozen:
        raise ConfigError(f"the phases of {name} must take {steps} steps in all and never freeze a layer again: {made}")
    return tuple(made)


def _read(name: str) -> tuple[Way, int]:
    stem, dash, digits = name.partition("-")
    if stem not in WAYS:
        raise ConfigError(unknown("way", name, WAYS))
    number = WAYS[stem].number
    if number is None and dash:
        raise ConfigError(f"{stem} takes no number, but got {name}")
    if number is None or not dash:
        return WAYS[stem], number.default if number else 0
    if not (digits.isdecimal() and str(int(digits)) == digits and number.least <= int(digits) <= number.most):
        raise ConfigError(f"{stem}-N: N is {number.about}, from {number.least} to {number.most}, but got {name}")
    if int(digits) == number.default:
        raise ConfigError(f"{name} is {stem}: leave the number out, or equal trainings have two names")
    return WAYS[stem], int(digits)


def _thawed(spec: LayerSpec, tuned: int) -> LayerSpec:
    """The spec with only the topmost `tuned` of its tuned layers tuned, the others frozen."""
    return LayerSpec(frozen=spec.frozen + spec.tuned - tuned, tuned=tuned, random=spec.random)
