"""A table gives back exactly the records that went in, and refuses files that are not ours."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.errors import DataError, StoreError
from fttune.record import DistanceRecord, RunRecord
from fttune.tracking.runs import Tracker
from fttune.tracking.table import export, from_table, read_parquet, schema_of, to_table, write_parquet
from stores import TRIALS, make_distance, record_of, records


@given(st.lists(records(), max_size=5))
def test_a_table_gives_back_its_records(rows: list[RunRecord]) -> None:
    assert from_table(to_table(rows, RunRecord), RunRecord) == rows


def test_a_file_gives_back_its_records(tmp_path: Path) -> None:
    runs = [record_of(TRIALS[0]), record_of(TRIALS[1], status="failed", error="x" * 20_000, val_accuracy=None)]
    write_parquet(tmp_path / "new" / "runs.parquet", to_table(runs, RunRecord))
    assert read_parquet(tmp_path / "new" / "runs.parquet", RunRecord) == runs
    write_parquet(tmp_path / "distances.parquet", to_table([make_distance()], DistanceRecord))
    assert read_parquet(tmp_path / "distances.parquet", DistanceRecord) == [make_distance()]


def test_not_a_number_stays_apart_from_not_measured() -> None:
    table = to_table([record_of(TRIALS[0], val_accuracy=float("nan"), test_accuracy=None)], RunRecord)
    (back,) = from_table(table, RunRecord)
    assert back.test_accuracy is None
    assert str(back.val_accuracy) == "nan"


def test_every_field_is_a_column_of_its_type() -> None:
    schema = schema_of(RunRecord)
    assert schema.names == [field.name for field in fields(RunRecord)]
    assert schema.field("status") == pa.field("status", pa.string(), nullable=False)
    assert schema.field("seed") == pa.field("seed", pa.int64(), nullable=False)
    assert schema.field("best_step") == pa.field("best_step", pa.int64(), nullable=True)
    assert schema.field("test_accuracy") == pa.field("test_accuracy", pa.float64(), nullable=True)


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "runs.parquet", to_table([], RunRecord))
    assert read_parquet(tmp_path / "runs.parquet", RunRecord) == []
    assert pq.read_schema(tmp_path / "runs.parquet").names == schema_of(RunRecord).names


def test_a_column_that_an_older_version_lacks_takes_its_default() -> None:
    table = to_table([record_of(TRIALS[0], git_commit="abc", best_step=7)], RunRecord)
    (back,) = from_table(table.drop_columns(["git_commit", "best_step"]), RunRecord)
    assert (back.git_commit, back.best_step) == ("", None)
    with pytest.raises(StoreError, match="must have 'dataset'"):
        from_table(table.drop_columns(["dataset"]), RunRecord)


def test_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(StoreError, match=r"x\.parquet: cannot read the table: No such file"):
        read_parquet(path, RunRecord)
    path.write_bytes(b"hello")
    with pytest.raises(StoreError, match="not a Parquet file"):
        read_parquet(path, RunRecord)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoreError, match="got a file that fttune did not write"):
        read_parquet(path, RunRecord)
    write_parquet(path, to_table([make_distance()], DistanceRecord))
    with pytest.raises(StoreError, match="RunRecord rows is needed, but got DistanceRecord rows of version 1"):
        read_parquet(path, RunRecord)
    newer = to_table([], RunRecord)
    newer = newer.replace_schema_metadata({**(newer.schema.metadata or {}), b"fttune.table": b"2"})
    pq.write_table(newer, path)
    with pytest.raises(StoreError, match="version 1 is needed, but got RunRecord rows of version 2"):
        read_parquet(path, RunRecord)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to"):
        write_parquet(tmp_path / "file" / "runs.parquet", to_table([], RunRecord))


def test_export_of_an_experiment_nobody_used_is_an_empty_table(tmp_path: Path) -> None:
    assert export(Tracker(None, "fttune"), tmp_path / "runs.parquet") == 0
    assert read_parquet(tmp_path / "runs.parquet", RunRecord) == []
    assert not (tmp_path / "mlflow.db").exists()


def test_tables_and_writers_are_imported_without_the_heavy_libraries() -> None:
    code = (
        "import sys, fttune.tracking.table, fttune.tracking.writer; print({'mlflow', 'torch', 'ray'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
