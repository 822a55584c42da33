"""What must be known of a trained network to use it: its classes, how it wants its images, and where it came from."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self

from fttune.errors import StoreError
from fttune.record import RunRecord
from fttune.trial import Resize, stored_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """From a file to the network's input."""

    image_size: int  # pixels, height and width of the input: cut from the centre
    stored_side: int  # pixels, of the square that an image is brought to before
    resize: Resize  # how: short side to fit and centre cut, or warp to a square; bicubic
    mean: tuple[float, ...]  # of RGB images in 0..1, taken off
    std: tuple[float, ...]  # that they are divided by then

    @classmethod
    def of(cls, record: RunRecord, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """That of a trial, with the backbone's numbers."""
        return cls(
            image_size=record.image_size,
            stored_side=stored_size(record.image_size),
            resize="warp" if record.resize == "warp" else "crop",
            mean=mean,
            std=std,
        )

    @property
    def words(self) -> str:
        """For a person who is to do the same elsewhere."""
        fit = "the short side" if self.resize == "crop" else "both sides"
        return (
            f"turn as EXIF says, convert to RGB (what is transparent on white), bring {fit} to {self.stored_side} px"
            f" (bicubic), cut {self.image_size} x {self.image_size} px from the centre; uint8, height x width x RGB"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What stands beside the weights of a kept network."""

    classes: tuple[str, ...]  # in the order of the outputs
    preprocessing: Preprocessing
    val_loss: float  # at the best step
    record: RunRecord  # of the trial that trained it: spec, accuracies, digests, versions, commit

    def told(self) -> dict[str, Any]:
        """As plain values, for a header."""
        return asdict(self)

    @classmethod
    def read(cls, told: Any) -> Self:
        """From what `told` gave, another version of fttune included; StoreError for anything else."""
        try:
            made = {
                "preprocessing": _made(Preprocessing, told["preprocessing"]),
                "record": _made(RunRecord, told["record"]),
            }
            return cls(classes=tuple(told["classes"]), val_loss=float(told["val_loss"]), **made)
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            raise StoreError(f"no network that fttune kept: its card does not tell {error}") from None


def _made(kind: type[Any], told: Mapping[str, Any]) -> Any:
    """A value from its fields; those unknown here are left out, those it lacks take their default."""
    missing = [field.name for field in fields(kind) if field.name not in told and field.default is MISSING]
    if missing:
        raise LookupError(missing[0])
    values = {field.name: told[field.name] for field in fields(kind) if field.name in told}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
