"""The sweep file: what a user writes, checked as a whole before anything runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fttune.entries import Corrupt, DatasetGrid, absolute, distinct
from fttune.errors import ConfigError, unknown
from fttune.layers import LayerSpec
from fttune.mistakes import checked
from fttune.part import Count, Name, Part
from fttune.schedule import Train
from fttune.secrets import masked
from fttune.space import Search
from fttune.tree import override, read_tree
from fttune.trial import fixed_views
from fttune.ways import PLAIN, WAYS, find, is_convex

_SPECS = ("freeze", "tune")  # modes that are a layer spec and nothing more


class Grid(Part):
    """The axes; the trials are their product."""

    datasets: dict[str, DatasetGrid] = Field(min_length=1)
    backbones: tuple[str, ...] = Field(min_length=1)
    random_top: tuple[Count, ...] = ()  # new layers, counted from the top; with `modes`
    modes: tuple[str, ...] = ("freeze", "tune")  # also the ways of `fttune.ways`: lpft, lpft-25, gradual, ...
    specs: tuple[str, ...] = ()  # layer specs written out, such as F(1-3)T(4-7)R(8)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)

    @field_validator("datasets")
    @classmethod
    def _check_names(cls, value: dict[str, DatasetGrid]) -> dict[str, DatasetGrid]:
        for name in value:
            if not (name.isprintable() and name.strip(" .") and len(name) <= 100 and not {*"/\\"} & {*name}):
                raise ValueError(f"a dataset's name is 1 to 100 printable characters without / or \\, but got {name!r}")
        return value

    @field_validator("backbones", "random_top", "modes", "specs", "seeds")
    @classmethod
    def _refuse_repeats(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return distinct(value)

    @model_validator(mode="after")
    def _need_specs(self) -> Self:
        if not (self.random_top and self.modes) and not self.specs:
            raise ValueError("needs random_top (with modes) or specs")
        return self

    @field_validator("modes")
    @classmethod
    def _check_modes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in _SPECS:
                _check_way(name)
        return value

    @model_validator(mode="after")
    def _need_one_new_layer(self) -> Self:
        for mode in self.modes:
            if self.random_top and 1 not in self.random_top and is_convex(mode):
                raise ValueError(f"modes: {mode} solves for the classifier alone, so random_top must hold 1")
        return self

    @property
    def remarks(self) -> list[str]:
        """A line for each mode that is left out where more layers are new than it can do with."""
        more = ", ".join(str(random) for random in self.random_top if random > 1)
        return [
            f"grid.modes: {mode} is left out for random_top {more}" for mode in self.modes if more and is_convex(mode)
        ]

    def asked(self, depth: int) -> list[tuple[LayerSpec, str]]:
        """The specs this grid asks of a network with `depth` layers, and the way each is trained.

        What solves for the classifier alone is left out where more layers are new. SpecError where a spec does not fit.
        """
        modes = [
            (random, mode) for random in self.random_top for mode in self.modes if random == 1 or not is_convex(mode)
        ]
        listed = [(LayerSpec.parse(text, depth=depth), PLAIN) for text in self.specs]
        return [*(_top(random, mode, depth) for random, mode in modes), *listed]


class Resources(Part):
    """What one trial occupies; never part of a trial's identity."""

    cpu: Annotated[float, Field(gt=0)] = 1  # cores, and threads of the training
    gpu: float | Literal["auto"] = "auto"  # a fraction <= 1 or a whole number; auto: as measured
    max_concurrent: Count | None = None  # trials side by side; None: as many as fit
    cache_gb: Annotated[float, Field(ge=0)] = 20  # room on disk for the outputs of frozen layers; 0: none is kept
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 120  # between two checkpoints of a trial that is training

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

    @field_validator("uri")
    @classmethod
    def _refuse_secrets(cls, value: str | None) -> str | None:
        if value and masked(value) != value:
            raise ValueError(
                "names and passwords come from the environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,"
                " or a whole MLFLOW_TRACKING_URI), never from a sweep file"
            )
        return value


class Data(Part):
    """How images are found and read."""

    root: Path | None = None  # folder of official downloads; None: FTTUNE_DATA
    corrupt: Corrupt = "refuse"  # what to do about images that cannot be decoded or stand in two classes
    weights: dict[str, Path] = Field(
        default_factory=dict
    )  # backbone: file of pre-trained weights, instead of where the catalog looks


class Distance(Part):
    """How far datasets are measured to lie from what the backbones were trained on."""

    metrics: tuple[str, ...] = ("cosine",)  # rows of `fttune.distance.metrics`; the table is cut by cosine
    source: str | None = None  # images to measure from, named as on the command line; None: the means that ship
    images: Count | Literal["all"] = 2000  # of either side at most, balanced over classes, none of a test set

    @field_validator("metrics")
    @classmethod
    def _refuse_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(value)


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


class Notify(Part):
    """Who is told when a sweep ends and when its first trial fails. What `$NAME` stands for is never written down."""

    command: str | None = None  # of the shell; reads a JSON document
    url: str | None = None  # that a JSON document is posted to; `$NAME` stands for a variable of the environment

    @field_validator("url")
    @classmethod
    def _refuse_secrets(cls, value: str | None) -> str | None:
        if value and "$" not in value and masked(value) != value:
            raise ValueError(
                "names and passwords come from the environment (https://$USER:$PASSWORD@host), not from here"
            )
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
    distance: Distance = Distance()
    analysis: Analysis = Analysis()
    notify: Notify = Notify()

    @model_validator(mode="after")
    def _check_searched(self) -> Self:
        self.search.space.check(self.train)
        return self

    @model_validator(mode="after")
    def _check_modes_with_settings(self) -> Self:
        for mode in self.grid.modes:
            way = WAYS[PLAIN] if mode in _SPECS else find(mode)
            if way.convex and not fixed_views(self.train.views):
                raise ValueError(
                    f"grid.modes: {mode} solves for a classifier of fixed views, but train.views is {self.train.views};"
                    " take center, flip or {fixed: K}"
                )
            if way.bn == self.train.bn and "tune" in self.grid.modes:
                raise ValueError(f"grid.modes: {mode} is tune where train.bn is {way.bn}; leave one of them out")
            if way.bn and self.search.sampler != "fixed" and self.search.space.bn:
                raise ValueError(f"grid.modes: {mode} sets bn itself, but search.space has bn; leave one of them out")
        return self


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and apply `key.path=value` overrides; relative paths in it start at the file's folder.

    Raises ConfigError with one line that names the file, the key, the value and the nearest right key.
    """
    tree = read_tree(path)
    for text in overrides:
        override(tree, text)
    return _resolve(checked(Sweep, tree, path, "sweep file"), path.parent)


def _top(random: int, mode: str, depth: int) -> tuple[LayerSpec, str]:
    if random > depth:
        raise ConfigError(f"grid.random_top: {random} new layers do not fit a network of {depth}")
    copied = depth - random
    if not copied and mode not in _SPECS:
        raise ConfigError(f"grid.modes: {mode} needs copied layers, but {random} new ones leave none of {depth}")
    frozen = copied if (mode if mode in _SPECS else find(mode).copied) == "freeze" else 0
    return LayerSpec(frozen=frozen, tuned=copied - frozen, random=random), PLAIN if mode in _SPECS else mode


def _check_way(mode: str) -> None:
    """ConfigError for a mode that is neither of `_SPECS` nor a way."""
    known = [*_SPECS, *(name for name in WAYS if name != PLAIN)]
    if mode.partition("-")[0] not in known[len(_SPECS) :]:
        raise ConfigError(f"grid.modes: {unknown('mode', mode, known)}")
    try:
        find(mode)
    except ConfigError as error:
        raise ConfigError(f"grid.modes: {error}") from None


def _resolve(sweep: Sweep, folder: Path) -> Sweep:
    """The sweep with its relative paths made absolute, from the folder of the sweep file."""
    datasets = {name: entry.resolved(folder) for name, entry in sweep.grid.datasets.items()}
    weights = {name: absolute(path, folder) for name, path in sweep.data.weights.items()}
    source = sweep.distance.source
    if source and "/" in source and ":" not in source:
        source = str(absolute(Path(source), folder))
    places = {"root": absolute(sweep.data.root, folder), "weights": weights}
    return sweep.model_copy(
        update={
            "grid": sweep.grid.model_copy(update={"datasets": datasets}),
            "data": sweep.data.model_copy(update=places),
            "distance": sweep.distance.model_copy(update={"source": source}),
        }
    )
