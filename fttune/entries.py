"""A dataset as a sweep file or a recipe names it: where its images come from, and how many of them are asked for."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fttune.errors import ConfigError
from fttune.part import Count, Part

# Keys that say where images come from; one of them, or none.
PLACES = ("of", "path", "torchvision", "hf", "parquet")
Corrupt = Literal["refuse", "skip"]


class DatasetEntry(Part):
    """Which images: a row of the catalog or a set of the user's, all of it or a part."""

    of: str | None = None  # a name of the catalog, where the entry has another
    path: Path | None = None  # a folder of class folders
    torchvision: str | None = None  # the name of a set of torchvision
    hf: str | None = None  # the name or the folder of a set of Hugging Face datasets
    parquet: Path | None = None  # a file of images and labels
    half: Literal["a", "b"] | None = None  # of the classes
    options: dict[str, Any] = Field(default_factory=dict)  # how the set is read, and which part of it: docs/data.md
    val: Count | None = None  # images per class; None: the catalog's, or 5
    test: Count | None = None  # images per class; None: the catalog's, the official test set, or 10

    @model_validator(mode="after")
    def _check_one_place(self) -> Self:
        named = [name for name in PLACES if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"images come from one place, but {' and '.join(named)} are given")
        return self

    def resolved(self, folder: Path) -> Self:
        """The entry with its relative paths made absolute; a set of Hugging Face is a path only where there is one."""
        found = {"path": absolute(self.path, folder), "parquet": absolute(self.parquet, folder)}
        if self.hf and (folder / self.hf).is_dir():
            found |= {"hf": str(absolute(Path(self.hf), folder))}
        return self.model_copy(update=found)


class DatasetGrid(DatasetEntry):
    """One dataset of the grid; a bare list in the file is `images_per_class`."""

    images_per_class: tuple[Count, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _read_bare_list(cls, value: Any) -> Any:
        return {"images_per_class": value} if isinstance(value, list | int) else value

    @field_validator("images_per_class", mode="before")
    @classmethod
    def _read_single(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("images_per_class")
    @classmethod
    def _refuse_repeats(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return distinct(value)


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a list that makes trials; ValueError for one that stands in it twice."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"'{value}' stands twice, which would make duplicate trials")
        seen.add(value)
    return values


def absolute(path: Path | None, folder: Path) -> Path | None:
    """A path of a file in `folder`, with `~` and `..` resolved; ConfigError for one that no system could have."""
    try:
        return path and (folder / path.expanduser()).resolve()
    except (ValueError, RuntimeError) as error:  # a NUL, a link to itself; the home of nobody
        raise ConfigError(f"the path {str(path)!r} leads nowhere: {error}") from None
