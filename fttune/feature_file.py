"""A file of one layer's inputs for some showings: Arrow, memory-mapped, with a checksum."""

import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fttune.files import replacing
from fttune.trial import digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One file, mapped."""

    path: Path
    showings: np.ndarray  # int64 [n]
    values: Tensor  # float32 [n, ...]
    inode: int
    written: int  # nanoseconds since 1970

    @property
    def intact(self) -> bool:
        """Whether it holds what was written; not, where it was removed meanwhile."""
        try:
            return _intact(self.path, self.inode, self.written)
        except (pa.ArrowException, ValueError, KeyError, FileNotFoundError):
            return False


def write(folder: Path, layer: int, rest: np.ndarray, pieces: list[Tensor]) -> int:
    """One Arrow batch, so that reading needs no copy; the shape of a row in the metadata. Empties `pieces`."""
    values = torch.cat(pieces).numpy()
    pieces.clear()
    wanted = rest[: len(values)]
    flat = values.ravel()
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat), values[0].size)
    columns = [pa.array(wanted, pa.int64()), rows]
    fields = [("showing", pa.int64()), ("feature", rows.type)]
    metadata = {"shape": ",".join(map(str, values.shape[1:])), "crc": str(zlib.crc32(flat.data))}
    schema = pa.schema(fields, metadata=metadata)
    path = folder / f"{layer}-{digest(wanted.tolist())[:16]}.arrow"
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return len(values)


def read(path: Path) -> Segment | None:
    """The segment of a file, mapped; None when the file is absent, or no such file."""
    try:
        status = path.stat()
        batch, values = _map(path)
        shape = [int(side) for side in batch.schema.metadata[b"shape"].split(b",")]
        return Segment(
            path=path,
            showings=batch.column("showing").to_numpy(),
            values=_tensor(values.reshape(len(batch), *shape)),
            inode=status.st_ino,
            written=status.st_mtime_ns,
        )
    except (pa.ArrowException, ValueError, KeyError, FileNotFoundError):
        return None


def _map(path: Path) -> tuple[pa.RecordBatch, np.ndarray]:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    return batch, batch.column("feature").flatten().to_numpy(zero_copy_only=True)


@lru_cache(maxsize=4096)
def _intact(path: Path, inode: int, written: int) -> bool:
    """Whether a file holds what was written; read to its end once in a process, unless it is written again."""
    batch, values = _map(path)
    return zlib.crc32(values.data) == int(batch.schema.metadata[b"crc"])


def _tensor(values: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # The map is read-only on purpose; a training only reads its inputs.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
