"""What a backbone's source images look like to it: mean activations that ship with the package."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fttune.backbones import networks
from fttune.trial import Resize

SHIPPED = Path(__file__).parent / "means"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceMean:
    """The mean over source images of the classifier stage's input: eval mode, after ReLU and pooling.

    Images are resized (`crop`: short side to ceil(image_size / 0.875)) and cut at the centre.
    """

    vector: np.ndarray  # float32 [D]
    images: int  # how many the mean is over
    source: str  # what the images are
    image_size: int  # pixels
    resize: str  # crop or warp
    weights_digest: str  # of the backbone's weights
    provenance: str  # one line: the images, and how far the means of two random halves of them lie apart
    standard_error: np.ndarray | None = None  # float32 [D], of the vector over images; None where not measured


def source_mean(backbone: str, image_size: int, resize: str) -> SourceMean | None:
    """The mean that ships for a backbone, or lies beside a network trained here, at one input size; or None."""
    means = read_means(_home(backbone), backbone)
    return next((mean for mean in means if (mean.image_size, mean.resize) == (image_size, resize)), None)


def available(backbone: str) -> tuple[int, ...]:
    """Input sizes in pixels, ascending, for which a mean of a backbone is there."""
    return tuple(sorted({row["image_size"] for row in _facts(_home(backbone), backbone)}))


def offered(backbone: str) -> str:
    """The sizes and ways of resizing for which a mean of a backbone is there, in words."""
    rows = sorted((row["image_size"], row["resize"]) for row in _facts(_home(backbone), backbone))
    return ", ".join(f"{size}" if resize == "crop" else f"{size} {resize}" for size, resize in rows) or "none"


def usual_resize(backbone: str, image_size: int) -> Resize:
    """How the images of the source mean at this size were resized; crop where there is none, or one of each."""
    ways = {row["resize"] for row in _facts(_home(backbone), backbone) if row["image_size"] == image_size}
    return "warp" if ways == {"warp"} else "crop"


def read_means(folder: Path, backbone: str) -> list[SourceMean]:
    """The means of a backbone in a folder that `write_means` filled; none where the folder has none."""
    facts = _facts(folder, backbone)
    if not facts:
        return []
    with np.load(_vectors(folder, backbone)) as arrays:
        return [
            SourceMean(**row, vector=arrays[_key(row)], standard_error=arrays.get(f"{_key(row)}_error"))
            for row in facts
        ]


def write_means(folder: Path, backbone: str, means: Iterable[SourceMean]) -> None:
    """Write the means of a backbone, at any number of sizes: facts to BACKBONE.json, vectors to BACKBONE.npz."""
    facts: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for mean in means:
        row = {name: getattr(mean, name) for name in SourceMean.__slots__}
        vector, error = row.pop("vector"), row.pop("standard_error")
        facts.append(row)
        arrays[_key(row)] = vector
        if error is not None:
            arrays[f"{_key(row)}_error"] = error
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(_vectors(folder, backbone), allow_pickle=False, **arrays)
    _listing(folder, backbone).write_text(json.dumps(facts, indent=1) + "\n")


def _home(backbone: str) -> Path:
    return networks.folder(backbone) if networks.MARK in backbone else SHIPPED


def _facts(folder: Path, backbone: str) -> list[dict[str, Any]]:
    """Every field of each mean but its arrays."""
    listing = _listing(folder, backbone)
    return json.loads(listing.read_text()) if listing.is_file() else []


def _listing(folder: Path, backbone: str) -> Path:
    return folder / f"{backbone}.json"


def _vectors(folder: Path, backbone: str) -> Path:
    return folder / f"{backbone}.npz"


def _key(row: dict[str, Any]) -> str:
    return f"{row['resize']}_{row['image_size']}"
