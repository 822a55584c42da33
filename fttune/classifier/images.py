"""Files of images on their way into a kept network: as the store of decoded images would have them, then the centre."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fttune.classifier.card import Preprocessing
from fttune.data.decode import CorruptImageError, decode
from fttune.data.readers import SUFFIXES, content
from fttune.data.views import centre
from fttune.errors import DataError
from fttune.runtime import cores


def found(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the images in the folders among them, however deep; hidden ones are left out.

    DataError for a path that is not there, and for a folder without images.
    """
    return [file for path in paths for file in _files(path)]


def read(paths: Sequence[Path], look: Preprocessing) -> list[np.ndarray | str]:
    """Each file decoded, uint8 [side, side, 3] of `look.stored_side`; or the reason why it is no image."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(lambda path: _read(path, look), paths))


def cut(images: Sequence[np.ndarray], look: Preprocessing) -> Tensor:
    """The centres of decoded images, uint8 [N, S, S, 3]."""
    return centre(torch.from_numpy(np.stack(images)), look.image_size).permute(0, 2, 3, 1)


def _read(path: Path, look: Preprocessing) -> np.ndarray | str:
    try:
        return decode(content(path), look.stored_side, look.resize)
    except CorruptImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or type(error).__name__


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"no image {path}: there is no such file or folder")
        return [path]
    inner = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file())
    files = [file for file in inner if not any(part[0] == "." for part in file.relative_to(path).parts)]
    if not files:
        raise DataError(f"{path} holds no image (looked for {', '.join(sorted(SUFFIXES))})")
    return files
