"""What the commands on kept networks do: write one to a file, show it images."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from fttune.errors import UsageError
from fttune.files import replacing, writing
from fttune.terminal import Decoding, print_aligned, print_facts, print_json, say
from fttune.tracking.fields import record_name
from fttune.tracking.models import Held, Models
from fttune.tracking.runs import Tracker

if TYPE_CHECKING:
    from fttune.classifier.card import Card
    from fttune.classifier.network import Classifier

Format = Literal["safetensors", "onnx"]
_CHUNK = 256  # images read at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a network makes of one image."""

    image: Path
    ranked: list[tuple[str, float]]  # classes with their probabilities, the likeliest first
    reason: str = ""  # why it is no image; there are no probabilities then


def export_network(key: str, format_: Format, *, experiment: str, out: Path | None, force: bool, as_json: bool) -> None:
    """Write the network of a run to a file, whole or not at all."""
    if format_ == "onnx":
        from fttune.classifier.onnx import check_extra

        check_extra()
    models = Models(Tracker(None, experiment))
    held = _with_network(models.find(key))
    path = _target(out, f"{held.record.trial_id}.{format_}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: --force replaces it, --out names another file")
    with TemporaryDirectory(prefix="fttune-") as folder:
        file = models.fetch(held, Path(folder))
        network, card = _load(file)
        with writing(path.parent), replacing(path) as temporary:
            if format_ == "safetensors":
                shutil.copyfile(file, temporary)
            else:
                from fttune.classifier.onnx import write_onnx

                write_onnx(network, card, temporary)
    facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "network": f"{record_name(card.record)}, {card.record.backbone}",
        "trial": held.record.trial_id,
        "run": held.run_id,
        "images": card.preprocessing.words,
        "classes": list(card.classes),
    }
    print_facts(facts, as_json=as_json)


def predict(key: str, paths: Sequence[Path], *, experiment: str, top: int, as_json: bool) -> int:
    """Show images to the network of a run; the exit code, 2 where something was no image."""
    from fttune.classifier import images

    files = images.found(paths)
    models = Models(Tracker(None, experiment))
    held = _with_network(models.find(key))
    with TemporaryDirectory(prefix="fttune-") as folder:
        network, card = _load(models.fetch(held, Path(folder)))
    seen = list(_seen(network, card, files))
    bad = [one for one in seen if one.reason]
    for one in bad:
        say(f"error: {one.image} is no image that can be read: {one.reason}")
    good = [one for one in seen if not one.reason]
    if as_json:
        print_json(_document(held, card, seen, top))
    elif good:
        print_aligned([_row(one, top) for one in good])
    return 2 if bad else 0


def _seen(network: "Classifier", card: "Card", files: Sequence[Path]) -> Iterator[Seen]:
    from fttune.classifier import images

    look = card.preprocessing
    with Decoding() as progress:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            read = images.read(chunk, look)
            whole = [image for image in read if not isinstance(image, str)]
            told = iter(network.probabilities(images.cut(whole, look)).tolist() if whole else ())
            for file, image in zip(chunk, read, strict=True):
                if isinstance(image, str):
                    yield Seen(image=file, ranked=[], reason=image)
                else:
                    pairs = zip(card.classes, next(told), strict=True)
                    yield Seen(image=file, ranked=sorted(pairs, key=lambda pair: -pair[1]))
            progress("images", start + len(chunk), len(files))


def _document(held: Held, card: "Card", seen: Sequence[Seen], top: int) -> dict[str, Any]:
    facts = {"trial": held.record.trial_id, "run": held.run_id, "network": record_name(card.record)}
    facts |= {"backbone": card.record.backbone, "classes": len(card.classes)}
    images = [
        {
            "image": str(one.image),
            "label": one.ranked[0][0],
            "probability": one.ranked[0][1],
            "top": [{"label": label, "probability": value} for label, value in one.ranked[:top]],
        }
        for one in seen
        if not one.reason
    ]
    unreadable = [{"image": str(one.image), "reason": one.reason} for one in seen if one.reason]
    return {**facts, "images": images, "unreadable": unreadable}


def _row(one: Seen, top: int) -> dict[str, Any]:
    (label, probability), *others = one.ranked[:top]
    row = {"image": str(one.image), "label": label, "probability": f"{probability:.4f}"}
    return row | ({"then": ", ".join(f"{name} {value:.4f}" for name, value in others)} if others else {})


def _with_network(held: Held) -> Held:
    """UsageError, with the command that helps, for a run whose network nobody keeps."""
    if held.val_loss is not None:
        return held
    trial_id, sweep = held.record.trial_id, next(iter(held.sweeps), "")
    if held.record.role:
        raise UsageError(
            f"no network of {trial_id} ({record_name(held.record)}) is kept: it tried a setting of a search, and such"
            " a network never is; `fttune runs` lists the repeats of what was chosen, with seeds from 0"
        )
    raise UsageError(
        f"no network of {trial_id} ({record_name(held.record)}) is kept: its sweep keeps a better one, or none; with"
        f" SWEEP.yaml, the file of sweep '{sweep}': fttune run SWEEP.yaml train.keep=all --again {trial_id}"
    )


def _load(file: Path) -> "tuple[Classifier, Card]":
    from fttune.classifier.network import Classifier

    return Classifier.load(file)


def _target(out: Path | None, name: str) -> Path:
    path = out or Path(name)
    return path / name if path.is_dir() else path
