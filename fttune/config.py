"""The sweep file: what a user writes, checked as a whole before anything runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fttune.errors import ConfigError
from fttune.layers import LayerSpec
from fttune.mistakes import checked
from fttune.tree import override, read_tree
from fttune.trial import BatchNorm, Biases, Dropout, HParams, Resize, Views

Count = Annotated[int, Field(ge=1, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Part(BaseModel):
    """A part of a file: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetEntry(Part):
    """Which images: a row of the catalog or a folder, all classes or half of them."""

    path: Path | None = None  # a folder of class folders; without it a name is looked up in the catalog
    of: str | None = None  # that name, where the entry has another
    half: Literal["a", "b"] | None = None  # of the classes: `fttune.data.classes`
    val: Count | None = None  # images per class; None: the catalog's, or 5 for a folder
    test: Count | None = None  # images per class; None: the catalog's, or 10 for a folder

    @model_validator(mode="after")
    def _refuse_two(self) -> Self:
        if self.of and self.path:
            raise ValueError(
                f"images come from a row of the catalog or from a folder, but got of: {self.of} and a path"
            )
        return self


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
        return _distinct(value)


class Grid(Part):
    """The axes; the trials are their product."""

    datasets: dict[str, DatasetGrid] = Field(min_length=1)
    backbones: tuple[str, ...] = Field(min_length=1)
    random_top: tuple[Count, ...] = ()  # new layers, counted from the top; with `modes`
    modes: tuple[Literal["freeze", "tune"], ...] = ("freeze", "tune")
    specs: tuple[str, ...] = ()  # layer specs written out, such as F(1-3)T(4-7)R(8)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)

    @field_validator("backbones", "random_top", "modes", "specs", "seeds")
    @classmethod
    def _refuse_repeats(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _distinct(value)

    @model_validator(mode="after")
    def _need_specs(self) -> Self:
        if not (self.random_top and self.modes) and not self.specs:
            raise ValueError("needs random_top (with modes) or specs")
        return self

    def layer_specs(self, depth: int) -> list[LayerSpec]:
        """The specs this grid asks of a network with `depth` layers; SpecError where one does not fit."""
        listed = [LayerSpec.parse(text, depth=depth) for text in self.specs]
        return [*(_top(random, mode, depth) for random in self.random_top for mode in self.modes), *listed]


# Named blocks of settings; a key of the sweep file goes before them.
PROFILES: dict[str, dict[str, Any]] = {
    # The paper's Caffe: its fine-tuning example's batch and decay, random 227 crops of a 256 x 256 warp. The paper
    # gives no rate and no number of steps; its rate falls when Caffe's reference training falls, here over 2,000 steps.
    "paper": {
        "views": "crop",
        "image_size": 227,
        "resize": "warp",
        "batch_size": 50,
        "lr": 0.01,
        "copied_lr_scale": 0.2,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "steps": 2000,
        "lr_drops": (2 / 9, 4 / 9, 6 / 9, 8 / 9),
        "biases": "caffe",
        "dropout": "all",
    },
}


class Schedule(Part):
    """Settings of a training; see `fttune.trial.HParams` for their meaning and units."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32
    steps: int
    lr_drop_steps: tuple[Count, ...] | None = None  # None: at the fractions `lr_drops` of the steps
    lr_drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (2 / 3,)
    report_every: Count | None = None  # None: ten reports
    views: Views = "center"
    image_size: int = 128
    resize: Resize = "crop"
    biases: Biases = "plain"

    def hparams(self, **changes: Any) -> HParams:
        """The settings with defaults that depend on `steps` filled in, some of them changed."""
        values = self.model_dump(exclude={"profile"}) | changes
        steps, drops = values["steps"], values.pop("lr_drops")
        if values["lr_drop_steps"] is None:
            values["lr_drop_steps"] = tuple(max(1, int(steps * drop)) for drop in drops)
        if values["report_every"] is None:
            values["report_every"] = max(1, -(-steps // 10))
        return HParams(**values)

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        self.hparams()
        return self


class Train(Schedule):
    """Settings of every training of a sweep."""

    steps: int = 500
    profile: Literal["paper"] | None = None  # a named block of settings (PROFILES)
    copied_lr_scale: float = 0.2
    bn: BatchNorm = "source"
    dropout: Dropout = "trained"

    @model_validator(mode="before")
    @classmethod
    def _start_from_profile(cls, value: Any) -> Any:
        named = value.get("profile") if isinstance(value, dict) else None
        return PROFILES.get(named, {}) | value if isinstance(named, str) else value


class Search(Part):
    """How many settings each cell is given: one (`fixed`), or one shared list drawn by Optuna (`shared`)."""

    sampler: Literal["fixed", "shared"] = "fixed"
    settings: Count = 8  # length of the shared list, the default setting included
    space: dict[Literal["lr", "copied_lr_scale", "weight_decay"], tuple[float, float]] = {"lr": (1e-3, 1e-1)}

    @field_validator("space")
    @classmethod
    def _check_ranges(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if not 0 < low < high:
                raise ValueError(f"{name} is drawn log-uniformly, so 0 < low < high must hold, but got [{low}, {high}]")
        return value


class Resources(Part):
    """What one trial occupies; never part of a trial's identity."""

    cpu: Annotated[float, Field(gt=0)] = 1  # cores, and threads of the training
    gpu: float | Literal["auto"] = "auto"  # a fraction <= 1 or a whole number; auto: a quarter where there is a GPU
    max_concurrent: Count | None = None  # trials side by side; None: as many as fit

    @field_validator("gpu")
    @classmethod
    def _check_gpu(cls, value: float | str) -> float | str:
        if value != "auto" and (float(value) < 0 or (float(value) > 1 and float(value) % 1)):
            raise ValueError(f"must be 'auto', a fraction <= 1 or a whole number, but got {value}")
        return value


class Tracking(Part):
    """Where results go. Sweeps that name the same experiment share their trials."""

    experiment: str = "fttune"
    uri: str | None = None  # None: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db


class Data(Part):
    """How images are found and read."""

    corrupt: Literal["refuse", "skip"] = "refuse"  # what to do about images that cannot be decoded
    weights: dict[str, Path] = {}  # backbone: file of pre-trained weights, instead of where the catalog looks


class Analysis(Part):
    """How the table is cut; the paper's bands (section 4) unless changed."""

    image_bands: tuple[float, float] = (21, 100)  # images per class where medium and high begin
    distance_bands: tuple[float, float] = (0.2, 0.4)  # cosine distance where medium and high begin
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @field_validator("image_bands", "distance_bands")
    @classmethod
    def _check_rise(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] < value[1]:
            raise ValueError(f"medium must begin above 0 and high above medium, but got {list(value)}")
        return value


class Sweep(Part):
    """A whole sweep file."""

    name: Name
    grid: Grid
    train: Train = Train()
    search: Search = Search()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    data: Data = Data()
    analysis: Analysis = Analysis()


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and apply `key.path=value` overrides; relative paths in it start at the file's folder.

    Raises ConfigError with one line that names the file, the key, the value and the nearest right key.
    """
    tree = read_tree(path)
    for text in overrides:
        override(tree, text)
    return _resolve(checked(Sweep, tree, path, "sweep file"), path.parent)


def _top(random: int, mode: str, depth: int) -> LayerSpec:
    if random > depth:
        raise ConfigError(f"grid.random_top: {random} new layers do not fit a network of {depth}")
    copied = depth - random
    frozen = copied if mode == "freeze" else 0
    return LayerSpec(frozen=frozen, tuned=copied - frozen, random=random)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"'{value}' stands twice, which would make duplicate trials")
        seen.add(value)
    return values


def _resolve(sweep: Sweep, folder: Path) -> Sweep:
    """The sweep with its relative paths made absolute, from the folder of the sweep file."""

    def datasets() -> Iterator[tuple[str, DatasetGrid]]:
        for name, entry in sweep.grid.datasets.items():
            path = entry.path and (folder / entry.path.expanduser()).resolve()
            yield name, entry.model_copy(update={"path": path})

    weights = {name: (folder / path.expanduser()).resolve() for name, path in sweep.data.weights.items()}
    return sweep.model_copy(
        update={
            "grid": sweep.grid.model_copy(update={"datasets": dict(datasets())}),
            "data": sweep.data.model_copy(update={"weights": weights}),
        }
    )
