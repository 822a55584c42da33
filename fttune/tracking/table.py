"""The one Arrow schema of each kind of record, read off its dataclass, and the Parquet files that hold it."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Protocol, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from fttune.errors import StoreError
from fttune.files import replacing, writing
from fttune.record import RunRecord
from fttune.tracking.fields import Row, revive

# Raised when the meaning of a column changes; a new column does not need it.
_VERSION = b"1"
_VERSION_KEY = b"fttune.table"
_KIND_KEY = b"fttune.rows"

_TYPES: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}


class Records(Protocol):
    """Whatever gives the finished trials of an experiment."""

    def records(self) -> list[RunRecord]: ...


def schema_of(kind: type[Any]) -> pa.Schema:
    """One column per field: str, int64 or float64, nullable where the field may be None."""
    hints = get_type_hints(kind)
    columns = [_column(field.name, hints[field.name]) for field in fields(kind)]
    return pa.schema(columns, metadata={_VERSION_KEY: _VERSION, _KIND_KEY: kind.__name__.encode()})


def to_table(
    records: Sequence[Row], kind: type[Row], *, marks: Mapping[str, Sequence[bool | None]] | None = None
) -> pa.Table:
    """N records as a table of N rows; `kind` gives the columns of an empty one, `marks` what is not in a record."""
    schema = schema_of(kind)
    table = pa.table({name: [getattr(record, name) for record in records] for name in schema.names}, schema=schema)
    for name, values in (marks or {}).items():
        table = table.append_column(name, pa.array(values, pa.bool_()))
    return table


def from_table(table: pa.Table, kind: type[Row]) -> list[Row]:
    """The records of a table; a column it lacks takes the field's default. StoreError if it holds something else."""
    found = table.schema.metadata or {}
    if found.get(_KIND_KEY) != kind.__name__.encode():
        raise StoreError(f"a table of {kind.__name__} rows is needed, but got {_described(found)}")
    if found.get(_VERSION_KEY) != _VERSION:
        raise StoreError(f"a table of version {_VERSION.decode()} is needed, but got {_described(found)}")
    return [revive(kind, row) for row in table.to_pylist()]


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table whole or not at all; StoreError or DataError where there is no room or no right."""
    with writing(path.parent), replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_parquet(path: Path, kind: type[Row]) -> list[Row]:
    """The records of a file that `write_parquet` made; StoreError for any other file."""
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read()
    except OSError as error:
        raise StoreError(f"{path}: cannot read the table: {error.strerror}") from None
    except pa.ArrowException as error:
        raise StoreError(f"{path}: not a Parquet file: {' '.join(str(error).split())}") from None
    try:
        return from_table(table, kind)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from None


def export(tracker: Records, path: Path) -> int:
    """Write every finished trial of an experiment to `path` (runs.parquet); gives their number."""
    records = tracker.records()
    write_parquet(path, to_table(records, RunRecord))
    return len(records)


def _column(name: str, hint: Any) -> pa.Field:
    """A Literal of texts is a text."""
    members = get_args(hint) or (hint,)
    kinds = {member if isinstance(member, type) else type(member) for member in members}
    (kind,) = kinds - {NoneType}
    return pa.field(name, _TYPES[kind], nullable=NoneType in kinds)


def _described(metadata: dict[bytes, bytes]) -> str:
    if _KIND_KEY not in metadata:
        return "a file that fttune did not write"
    return f"{metadata[_KIND_KEY].decode()} rows of version {metadata.get(_VERSION_KEY, b'?').decode()}"
