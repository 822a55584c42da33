"""A Parquet file of encoded images and labels, as Hugging Face writes them: the columns `image` and `label`."""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fttune.data.readers import ImageRef, Pool, stamp
from fttune.errors import AbsentDataError, DataError, unknown
from fttune.trial import digest

_POOLS: Mapping[Any, Pool] = {"train": "train", "validation": "train", "val": "train", "test": "test"}


class ParquetSet:
    """One image of each row: bytes, or a struct with the field `bytes`; the label a number or a name.

    A column `split` (train, validation, test), where there is one, is the official split. Rows are read by the row
    groups they were written in, of which the last few are kept.
    """

    def __init__(self, path: Path, *, image: str = "image", label: str = "label", split: str = "split") -> None:
        self._path, self._image, self._label = path, image, label
        try:
            self._file = pq.ParquetFile(path)
        except FileNotFoundError:
            raise AbsentDataError(f"no Parquet file {path}") from None
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: not a Parquet file: {' '.join(str(error).split())[:150]}") from None
        names = self._file.schema_arrow.names
        for wanted in (image, label):
            if wanted not in names:
                raise DataError(f"{path}: {unknown('column', wanted, names)}")
        self._split = split if split in names else None
        self._lock, self._group = Lock(), lru_cache(maxsize=2)(self._read_group)

    @cached_property
    def _columns(self) -> tuple[list[Any], list[Any]]:
        """The label and the split of each row."""
        table = self._file.read(columns=[self._label, *([self._split] if self._split else [])])
        splits = table[self._split].to_pylist() if self._split else [None] * len(table)
        return table[self._label].to_pylist(), splits

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, self._names))

    @cached_property
    def _names(self) -> list[Any]:
        labels = set(self._columns[0])
        if None in labels or len(labels) < 2:
            raise DataError(f"{self._path}: every row must have a {self._label}, and two must differ")
        return sorted(labels)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return self._images

    @cached_property
    def _images(self) -> tuple[ImageRef, ...]:
        numbers = {name: number for number, name in enumerate(self._names)}
        return tuple(
            ImageRef(key=f"{row:09}", label=numbers[label], pool=self._pool(split))
            for row, (label, split) in enumerate(zip(*self._columns, strict=True))
        )

    def fingerprint(self) -> str:
        return digest([str(self._path.resolve()), stamp(self._path), self._image, self._label, self._split])

    def read(self, ref: ImageRef) -> bytes:
        group = int(np.searchsorted(self._starts, int(ref.key), side="right")) - 1
        with self._lock:
            value = self._group(group)[int(ref.key) - self._starts[group]].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"{self._path}, row {int(ref.key)}: {self._image} must hold the bytes of an image")
        return content

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first row of each row group."""
        meta = self._file.metadata
        sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        return np.cumsum([0, *sizes])[:-1]

    def _read_group(self, group: int) -> pa.ChunkedArray:
        return self._file.read_row_group(group, columns=[self._image])[self._image]

    def _pool(self, split: Any) -> Pool:
        if self._split is None:
            return "any"
        if split not in _POOLS:
            raise DataError(f"{self._path}: {unknown(f'value of the column {self._split}', str(split), _POOLS)}")
        return _POOLS[split]
