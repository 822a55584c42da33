"""The sweep file: what a user writes, checked as a whole before anything runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from fttune.errors import ConfigError, unknown
from fttune.layers import LayerSpec
from fttune.tree import override, read_tree
from fttune.trial import BatchNorm, Biases, Dropout, HParams, Resize, Views

Count = Annotated[int, Field(ge=1, strict=True)]


class _Part(BaseModel):
    """A part of the sweep file: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SOURCES = ("of", "path", "torchvision", "hf", "parquet")


class DatasetGrid(_Part):
    """One dataset of the grid; a bare list in the file is `images_per_class`."""

    images_per_class: tuple[Count, ...] = Field(min_length=1)
    # Where the images come from, one of these; without any the name is looked up in the catalog.
    of: str | None = None  # another name of the catalog, to use one set twice
    path: Path | None = None  # a folder of class folders
    torchvision: str | None = None  # the name of a set of torchvision
    hf: str | None = None  # the name or the folder of a set of Hugging Face datasets
    parquet: Path | None = None  # a file of images and labels
    half: Literal["a", "b"] | None = None  # of the classes
    options: dict[str, Any] = {}  # how the set is read, and which part of it: docs/data.md
    val: Count | None = None  # images per class; None: the catalog's, or 5
    test: Count | None = None  # images per class; None: the catalog's, the official test set, or 10

    @model_validator(mode="before")
    @classmethod
    def _read_bare_list(cls, value: Any) -> Any:
        return {"images_per_class": value} if isinstance(value, list | int) else value

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        named = [name for name in SOURCES if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"images come from one place, but {' and '.join(named)} are given")
        return self

    @field_validator("images_per_class", mode="before")
    @classmethod
    def _read_single(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("images_per_class")
    @classmethod
    def _refuse_repeats(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct(value)


class Grid(_Part):
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


class Train(_Part):
    """Settings of every training; see `fttune.trial.HParams` for their meaning and units."""

    profile: Literal["paper"] | None = None  # a named block of settings (PROFILES)
    lr: float = 0.01
    copied_lr_scale: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32
    steps: int = 500
    lr_drop_steps: tuple[Count, ...] | None = None  # None: at the fractions `lr_drops` of the steps
    lr_drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (2 / 3,)
    report_every: Count | None = None  # None: ten reports
    views: Views = "center"
    image_size: int = 128
    resize: Resize = "crop"
    bn: BatchNorm = "source"
    biases: Biases = "plain"
    dropout: Dropout = "trained"

    def hparams(self, **changes: Any) -> HParams:
        """The settings with defaults that depend on `steps` filled in, some of them changed."""
        values = self.model_dump(exclude={"profile"}) | changes
        steps, drops = values["steps"], values.pop("lr_drops")
        if values["lr_drop_steps"] is None:
            values["lr_drop_steps"] = tuple(max(1, int(steps * drop)) for drop in drops)
        if values["report_every"] is None:
            values["report_every"] = max(1, -(-steps // 10))
        return HParams(**values)

    @model_validator(mode="before")
    @classmethod
    def _start_from_profile(cls, value: Any) -> Any:
        named = value.get("profile") if isinstance(value, dict) else None
        return PROFILES.get(named, {}) | value if isinstance(named, str) else value

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        self.hparams()
        return self


class Search(_Part):
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


class Resources(_Part):
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


class Tracking(_Part):
    """Where results go. Sweeps that name the same experiment share their trials."""

    experiment: str = "fttune"
    uri: str | None = None  # None: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db


class Data(_Part):
    """How images are found and read."""

    root: Path | None = None  # folder of official downloads; None: FTTUNE_DATA
    corrupt: Literal["refuse", "skip"] = "refuse"  # what to do about images that cannot be decoded
    weights: dict[str, Path] = {}  # backbone: file of pre-trained weights, instead of where the catalog looks


class Distance(_Part):
    """How far datasets are measured to lie from what the backbones were trained on."""

    metrics: tuple[Literal["cosine", "mmd", "svm", "cnn"], ...] = ("cosine",)  # the table is cut by cosine
    source: str | None = None  # images to measure from, named as on the command line; None: the means that ship

    @field_validator("metrics")
    @classmethod
    def _refuse_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct(value)


class Analysis(_Part):
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


class Sweep(_Part):
    """A whole sweep file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    grid: Grid
    train: Train = Train()
    search: Search = Search()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    data: Data = Data()
    distance: Distance = Distance()
    analysis: Analysis = Analysis()


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and apply `key.path=value` overrides; relative paths in it start at the file's folder.

    Raises ConfigError with one line that names the file, the key, the value and the nearest right key.
    """
    tree = read_tree(path)
    for text in overrides:
        override(tree, text)
    try:
        sweep = Sweep.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error.errors()[0])}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return _resolve(sweep, path.parent)


def _explain(error: ErrorDetails) -> str:
    place = [step for step in error["loc"] if step not in ("float", "literal['auto']")]
    where = ".".join(map(str, place))
    if error["type"] == "extra_forbidden":
        parent = ".".join(map(str, place[:-1])) or "the sweep file"
        return unknown(f"key in {parent}", str(place[-1]), _keys_at(place[:-1]))
    if error["type"] == "missing":
        return f"{where}: this key is required"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in (("valid tuple", "list"), ("valid dictionary", "mapping of keys"), (" or instance of", ":")):
        message = message.replace(theirs, ours)
    shown = "" if error["type"] == "value_error" else f", but got {error['input']!r}"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}" if where else message


def _keys_at(place: Sequence[int | str]) -> list[str]:
    """The keys that the sweep file allows at a place."""
    model: Any = Sweep
    for step in place:
        fields = getattr(model, "model_fields", {})
        model = fields[step].annotation if step in fields else DatasetGrid
        model = DatasetGrid if model == dict[str, DatasetGrid] else model
    return list(model.model_fields)


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

    def absolute(path: Path | None) -> Path | None:
        return path and (folder / path.expanduser()).resolve()

    def located(entry: DatasetGrid) -> DatasetGrid:
        # A set of Hugging Face is a folder only where there is one.
        on_disk = str(absolute(Path(entry.hf))) if entry.hf and (folder / entry.hf).is_dir() else entry.hf
        places = {"path": absolute(entry.path), "parquet": absolute(entry.parquet), "hf": on_disk}
        return entry.model_copy(update=places)

    def source(named: str | None) -> str | None:
        return str(absolute(Path(named))) if named and "/" in named and ":" not in named else named

    datasets = {name: located(entry) for name, entry in sweep.grid.datasets.items()}
    places = {"root": absolute(sweep.data.root), "weights": {n: absolute(p) for n, p in sweep.data.weights.items()}}
    return sweep.model_copy(
        update={
            "grid": sweep.grid.model_copy(update={"datasets": datasets}),
            "data": sweep.data.model_copy(update=places),
            "distance": sweep.distance.model_copy(update={"source": source(sweep.distance.source)}),
        }
    )
