"""The settings of a training as a file gives them, of a sweep's trials or of a source network."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fttune.part import Count, Part
from fttune.trial import BatchNorm, Biases, Dropout, HParams, Resize, Views

Keep = Literal["best", "all", "none"]

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
    views: Views = "fixed-2"
    image_size: int = 128
    resize: Resize = "crop"
    biases: Biases = "plain"

    def hparams(self, **changes: Any) -> HParams:
        """The settings with defaults that depend on `steps` filled in, some of them changed."""
        values = self.model_dump(exclude={"profile", "keep"}) | changes
        steps, drops = values["steps"], values.pop("lr_drops")
        if values["lr_drop_steps"] is None:
            values["lr_drop_steps"] = tuple(max(1, int(steps * drop)) for drop in drops)
        if values["report_every"] is None:
            values["report_every"] = max(1, -(-steps // 10))
        return HParams(**values)

    @field_validator("views", mode="before")
    @classmethod
    def _read_fixed(cls, value: Any) -> Any:
        """`{fixed: 8}` is `fixed-8`."""
        return f"fixed-{value['fixed']}" if isinstance(value, dict) and list(value) == ["fixed"] else value

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
    keep: Keep = "best"  # which trained networks: the best for each dataset and backbone; no part of a trial's identity

    @model_validator(mode="before")
    @classmethod
    def _start_from_profile(cls, value: Any) -> Any:
        named = value.get("profile") if isinstance(value, dict) else None
        return PROFILES.get(named, {}) | value if isinstance(named, str) else value
