"""What a search gives each cell: which settings are searched, in which ranges, how many, and how one is chosen."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from fttune.errors import ConfigError
from fttune.part import Count, Part
from fttune.schedule import Train

WHOLE = ("steps", "batch_size")
# Of layers that are copied and trained: without such layers no value of them means anything.
OF_TUNED = ("copied_lr_scale", "bn")


class Range(Part):
    """Drawn log-uniformly; both ends belong to it."""

    low: float
    high: float


class Choices(Part):
    """One of a few values, each as likely as the others."""

    choices: tuple[float | str, ...]


Domain = Range | Choices


class Space(Part):
    """The settings that are searched; what is left out keeps the value of `train`.

    In a file `[low, high]` is a range, and a longer list or one of words is a choice; `{choices: [a, b]}` is one of two
    numbers.
    """

    lr: Domain | None = None
    copied_lr_scale: Domain | None = None
    momentum: Domain | None = None
    weight_decay: Domain | None = None
    steps: Domain | None = None
    batch_size: Domain | None = None
    bn: Domain | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """A bare list; ValueError that says which lists there are."""
        if isinstance(value, dict) and list(value) == ["choices"]:
            return _choices(value["choices"])
        if isinstance(value, dict) and {*value} == {"low", "high"}:
            ends = [_number(value[name]) for name in ("low", "high")]
            return _range(*ends) if all(map(_is_number, ends)) else value
        if value is None or isinstance(value, Range | Choices):
            return value
        if not isinstance(value, list | tuple):
            return _choices(value)
        value = list(map(_number, value))
        return _range(*value) if len(value) == 2 and all(map(_is_number, value)) else _choices(value)

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        for name in WHOLE:
            domain = getattr(self, name)
            values = domain and (domain.choices if isinstance(domain, Choices) else (domain.low, domain.high))
            for value in values or ():
                if not _is_number(value) or float(value) % 1:
                    raise ValueError(f"{name} is a whole number, but got {value}")
        return self

    @property
    def domains(self) -> dict[str, Domain]:
        """By name, in the order of names."""
        return {name: domain for name in sorted(Space.model_fields) if (domain := getattr(self, name)) is not None}

    def of(self, *, tuned: bool) -> dict[str, Domain]:
        """What there is to search in a cell, which copies layers to tune them or not."""
        return {name: domain for name, domain in self.domains.items() if tuned or name not in OF_TUNED}

    def ends(self) -> Iterator[tuple[str, Any]]:
        """Every value at an end of a range and every choice, by name."""
        for name, domain in self.domains.items():
            values = domain.choices if isinstance(domain, Choices) else (domain.low, domain.high)
            yield from ((name, whole(name, value)) for value in values)

    def check(self, train: Train) -> None:
        """ValueError where an end of a range or a choice could not be written under `train`."""
        for name, value in self.ends():
            try:
                Train.model_validate({**train.model_dump(exclude_unset=True), name: value}).hparams()
            except (ConfigError, ValueError) as error:
                reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
                reason = reason.removeprefix("train.")
                shown = "" if "but got" in reason else f", but got {value!r}"
                raise ValueError(f"search.space.{name}: {reason[0].lower()}{reason[1:]}{shown}") from None


class Search(Part):
    """How many settings each cell is given, and how the one that is repeated is chosen."""

    sampler: Literal["fixed", "shared", "tpe"] = "fixed"  # one setting, one list for all cells, a study for each cell
    settings: Count = 8  # of each cell, the sweep's own included
    space: Space = Space(lr=Range(low=1e-3, high=1e-1))
    draws: Count = 1  # training subsets that each setting is tried on; none of them is repeated afterwards
    wave: Count = 4  # settings asked for at once, from what all earlier ones came to
    select: Literal["val", "cv"] = "val"  # chosen by accuracy on val, or on the parts of train and val left out in turn
    folds: Annotated[int, Field(ge=2, strict=True)] = 3  # parts of `select: cv`
    pruner: Literal["none", "median"] = "none"  # ends a trial below the median of its cell's earlier waves

    @model_validator(mode="after")
    def _check_room(self) -> Self:
        if self.sampler != "fixed" and self.settings > 1 and not self.space.domains:
            raise ValueError("space has nothing to search in; name a setting, such as lr: [0.001, 0.1]")
        if self.sampler != "fixed" and self.pruner != "none" and self.space.steps:
            raise ValueError(
                f"pruner {self.pruner} compares trainings at the same step, but steps are searched; take steps out of"
                " space, or pruner: none"
            )
        return self

    @property
    def trials_each(self) -> int:
        """Trials that one setting takes."""
        return self.draws * (self.folds if self.select == "cv" else 1)

    @property
    def remarks(self) -> list[str]:
        """A line for what is written and means nothing."""
        told, lines = self.model_fields_set, list[str]()
        if "sampler" not in told and told:
            lines.append(f"search: nothing is searched: {', '.join(sorted(told))} need a sampler, shared or tpe")
        elif self.sampler != "fixed" and self.select == "val" and "folds" in told:
            lines.append("search.folds: no folds are made with select: val")
        return lines

    def check_cell(self, *, tuned: bool) -> str:
        """Why a cell cannot be given so many settings; empty: it can."""
        domains, most = self.space.of(tuned=tuned), 1.0
        for name, domain in domains.items():
            most *= _count(name, domain)
        if self.sampler == "fixed" or self.settings == 1 or (most >= self.settings and domains):
            return ""
        without = "" if tuned else f" ({' and '.join(OF_TUNED)} mean nothing where no copied layer is trained)"
        return f"{self.settings} settings are asked for, but the space has {most:g} that differ{without}"


def whole(name: str, value: float | str) -> Any:
    """A value in the type of its setting."""
    return round(value) if name in WHOLE and not isinstance(value, str) else value


def holds(domain: Domain, value: float | str) -> bool:
    """Whether a value lies in a domain."""
    if isinstance(domain, Choices):
        return value in domain.choices
    return not isinstance(value, str) and domain.low <= value <= domain.high


def members(name: str, domain: Domain) -> list[Any] | None:
    """Every value of a domain in the type of its setting, where they can be counted."""
    if isinstance(domain, Choices):
        return [whole(name, value) for value in domain.choices]
    return [*range(round(domain.low), round(domain.high) + 1)] if name in WHOLE else None


def told(domains: Mapping[str, Domain]) -> dict[str, Any]:
    """As JSON-able values, as one writes them."""
    return {name: _written(domain) for name, domain in domains.items()}


def _written(domain: Domain) -> Any:
    if isinstance(domain, Range):
        return [domain.low, domain.high]
    numbers = len(domain.choices) == 2 and all(map(_is_number, domain.choices))
    return {"choices": list(domain.choices)} if numbers else list(domain.choices)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What changed from one space to another, both as `told`; empty: nothing."""
    names, none = sorted({*old, *new}), "not searched"
    return ", ".join(f"{n} {old.get(n, none)} -> {new.get(n, none)}" for n in names if old.get(n) != new.get(n))


def _range(low: float, high: float) -> Range:
    if not (0 < low < high and math.isfinite(high)):
        hint = "; a value of 0 is written {choices: [0, ...]}" if low == 0 else ""
        raise ValueError(f"a range is drawn log-uniformly, so 0 < low < high must hold, but got [{low}, {high}]{hint}")
    return Range(low=low, high=high)


def _choices(values: Any) -> Choices:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"needs [low, high] or a list of values to choose from, but got {values!r}")
    values = list(map(_number, values))
    if wrong := [value for value in values if not (isinstance(value, str) or _is_number(value))]:
        raise ValueError(f"a value to choose is a number or a word, but got {wrong[0]!r}")
    if wrong := [value for value in values if _is_number(value) and not math.isfinite(value)]:
        raise ValueError(f"a value to choose is finite, but got {wrong[0]}")
    if len({value if _is_number(value) else str(value) for value in values}) < len(values):
        raise ValueError(f"a value stands twice in {values}")
    return Choices(choices=tuple(values))


def _number(value: Any) -> Any:
    """YAML reads 1e-3 as a word, for want of a point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(name: str, domain: Domain) -> float:
    if isinstance(domain, Choices):
        return len(domain.choices)
    return round(domain.high) - round(domain.low) + 1 if name in WHOLE else math.inf
