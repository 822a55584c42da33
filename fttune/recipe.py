"""The recipe of a source network: what `fttune pretrain` reads, checked as a whole before anything runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from fttune.config import PLACES, Corrupt, DatasetEntry, absolute
from fttune.mistakes import checked
from fttune.part import Count, Name, Part
from fttune.schedule import Schedule
from fttune.tree import override, read_tree
from fttune.trial import Views


class Course(Schedule):
    """Settings of a training from scratch: those of a sweep that mean something where nothing is copied."""

    views: Views = "crop"


class SourceData(Part):
    """How the images are found and read; what the network is follows from those that were read."""

    root: Path | None = None  # folder of the official downloads
    corrupt: Corrupt = "refuse"  # what to do about images that cannot be decoded or stand in two classes


class Recipe(Part):
    """A whole recipe file."""

    name: Name  # the network is then BACKBONE@NAME
    backbone: Annotated[str, Field(pattern="^[^@]+$")]
    dataset: DatasetEntry  # a bare name in the file is a row of the catalog
    train: Course
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Count | None = None  # steps; None: ten checkpoints
    data: SourceData = SourceData()

    @property
    def network(self) -> str:
        """What sweeps call it, such as `caffenet@500a`."""
        return f"{self.backbone}@{self.name}"

    @property
    def source(self) -> str:
        """What its dataset is called, such as `glyphs` or `glyphs half a`."""
        named = next(str(place) for key in PLACES if (place := getattr(self.dataset, key)) is not None)
        name = Path(named).name
        return f"{name} half {self.dataset.half}" if self.dataset.half else name

    @field_validator("dataset", mode="before")
    @classmethod
    def _read_bare_name(cls, value: Any) -> Any:
        return {"of": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _need_one_dataset(self) -> Self:
        if all(getattr(self.dataset, key) is None for key in PLACES):
            raise ValueError(f"dataset needs the name of a dataset or one of {', '.join(PLACES)}")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides; relative paths in it start at the file's folder.

    Raises ConfigError with one line that names the file, the key, the value and the nearest right key.
    """
    tree = read_tree(path, "recipe", "'name:' and 'backbone:'")
    for text in overrides:
        override(tree, text)
    return _resolve(checked(Recipe, tree, path, "recipe"), path.parent)


def _resolve(recipe: Recipe, folder: Path) -> Recipe:
    data = recipe.data.model_copy(update={"root": absolute(recipe.data.root, folder)})
    return recipe.model_copy(update={"dataset": recipe.dataset.resolved(folder), "data": data})
