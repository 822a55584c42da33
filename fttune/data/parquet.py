"""A Parquet file of encoded images and labels, as Hugging Face writes them: the columns `image` and `label`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fttune.data.readers import ImageRef, Pool, stamp
from fttune.errors import AbsentDataError, DataError, unknown
from fttune.trial import digest

_BUFFER = 2**20  # bytes of a column that are read at once
_ROWS, _BATCHES = 4, 128  # rows of a batch; batches that are kept at most
_HELD = 2**28  # bytes that are kept at most, but for one batch: a cell of a few bytes may unfold to gigabytes
_FEW, _LEAST = 100_000, 16  # rows that any file may have; bytes of an image at least, where there are more
_LONG = 256  # bytes of a label at most, on average
_PLAIN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_null,
)
_POOLS: Mapping[Any, Pool] = {"train": "train", "validation": "train", "val": "train", "test": "test"}


class ParquetSet:
    """One image of each row: bytes, or a struct with the field `bytes`; the label a number or a name.

    A column `split` (train, validation, test), where there is one, is the official split. Rows are read in order, a
    batch at a time, whatever the size of the row groups.
    """

    def __init__(self, path: Path, *, image: str = "image", label: str = "label", split: str = "split") -> None:
        self._path, self._image, self._label = path, image, label
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: a Parquet file must be a regular file")
        try:
            # A column is read through a small buffer, never a whole row group at once.
            self._file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        except FileNotFoundError:
            raise AbsentDataError(f"no Parquet file {path}") from None
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: not a Parquet file: {' '.join(str(error).split())[:150]}") from None
        names = self._file.schema_arrow.names
        for wanted in (image, label):
            if wanted not in names:
                raise DataError(f"{path}: {unknown('column', wanted, names)}")
        self._split = split if split in names else None
        self._check_rows()
        for column in self._told:
            self._check_column(column)
        self._lock, self._window = Lock(), _Window(self._file, image)

    @cached_property
    def _columns(self) -> tuple[list[Any], list[Any]]:
        """The label and the split of each row."""
        labels, *splits = map(self._values, self._told)
        return labels, splits[0] if splits else [None] * len(labels)

    @property
    def _told(self) -> tuple[str, ...]:
        """The columns that are read whole."""
        return (self._label, self._split) if self._split else (self._label,)

    def _values(self, column: str) -> list[Any]:
        """Of each row; one object for all rows that have the same, which may be long."""
        with _reading(self._path), pq.ParquetFile(self._path, read_dictionary=[column]) as file:
            chunks = file.read(columns=[column]).column(0).chunks
        values: list[Any] = []
        for chunk in chunks:
            coded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
            names = [*coded.dictionary.to_pylist(), None]
            values += [names[-1 if code is None else code] for code in coded.indices.to_pylist()]
        return values

    def _check_rows(self) -> None:
        """DataError where a few bytes would unfold to more rows than there could be images."""
        rows, size = self._file.metadata.num_rows, self._path.stat().st_size
        if rows > max(_FEW, size // _LEAST):
            raise DataError(f"{self._path}: {rows:,} rows in {size:,} bytes: no image is that small")

    def _check_column(self, column: str) -> None:
        """DataError where it holds no labels, or a few bytes would unfold to more than those take."""
        kind = self._file.schema_arrow.field(column).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_one(plain) for is_one in _PLAIN):
            raise DataError(f"{self._path}: a {column} is a whole number or a name, but that column holds {kind}")
        meta = self._file.metadata
        place = [self._file.schema.column(leaf).path for leaf in range(meta.num_columns)].index(column)
        chunks = (meta.row_group(group).column(place) for group in range(meta.num_row_groups))
        unfolded = sum(chunk.total_uncompressed_size for chunk in chunks)
        if unfolded > _LONG * (_FEW + meta.num_rows):
            raise DataError(f"{self._path}: the column {column} unfolds to {unfolded:,} bytes, which no labels take")

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
        with self._lock, _reading(self._path):
            value = self._window.row(int(ref.key))
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"{self._path}, row {int(ref.key)}: {self._image} must hold the bytes of an image")
        return content

    def _pool(self, split: Any) -> Pool:
        if self._split is None:
            return "any"
        if not isinstance(split, str) or split not in _POOLS:
            raise DataError(f"{self._path}: {unknown(f'value of the column {self._split}', str(split), _POOLS)}")
        return _POOLS[split]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A part of the file that is damaged is no image that could be skipped: nothing behind it can be told."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: a damaged Parquet file: {' '.join(str(error).split())[:150]}") from None


class _Window:
    """The images of some rows around the one asked for last; made for reading nearly in order, from any row on."""

    def __init__(self, file: pq.ParquetFile, column: str) -> None:
        self._file, self._column = file, column
        meta = file.metadata
        self._ends = np.cumsum([meta.row_group(group).num_rows for group in range(meta.num_row_groups)])
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next = 0  # the first row of the batch to come
        self._held: dict[int, pa.Array] = {}  # by first row, in order

    def row(self, number: int) -> Any:
        held = any(self._has(start, number) for start in self._held)
        if not held and (number < self._next or self._first(number) > self._next):
            self._start(number)
        while number >= self._next:
            self._advance(number)
        start = next(start for start in self._held if self._has(start, number))
        return self._held[start][number - start].as_py()

    def _has(self, start: int, number: int) -> bool:
        return start <= number < start + len(self._held[start])

    def _group(self, number: int) -> int:
        return int(np.searchsorted(self._ends, number, side="right"))

    def _first(self, number: int) -> int:
        """The first row of a row's group."""
        return int(self._ends[group - 1]) if (group := self._group(number)) else 0

    def _start(self, number: int) -> None:
        """Read from the row group of a row on."""
        groups = list(range(self._group(number), len(self._ends)))
        self._batches = self._file.iter_batches(_ROWS, row_groups=groups, columns=[self._column])
        self._next, self._held = self._first(number), {}

    def _advance(self, number: int) -> None:
        batch = next(self._batches, None)
        if batch is None:
            return self._start(number)
        self._held[self._next] = batch.column(0)
        self._next += len(batch)
        while len(self._held) > _BATCHES or (
            len(self._held) > 1 and sum(b.nbytes for b in self._held.values()) > _HELD
        ):
            del self._held[next(iter(self._held))]
        return None
