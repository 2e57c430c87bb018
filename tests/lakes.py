"""Reads a lake on local files with pyarrow or pyiceberg, in the form of the oracle's tables."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import oracle
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.table import StaticTable

CATALOG, NAMESPACE = "lake.sparkify", "sparkify"
CATALOGS = ("", CATALOG)  # folders of parquet, and Iceberg
FEW_SONGS, FEW_DAYS = slice(10), slice(2)
PARTITIONS = pa.schema([("year", pa.int32()), ("month", pa.int32()), ("artist_id", pa.string())])


def iceberg_table(lake: Path, name: str) -> StaticTable:
    """An Iceberg table as pyiceberg finds it in the files of a catalog that is nothing but files."""
    folder = lake / NAMESPACE / name / "metadata"
    version = (folder / "version-hint.text").read_text()
    return StaticTable.from_metadata(f"file://{folder}/v{version}.metadata.json")


def rows_of(lake: Path, name: str, night: str | None) -> pa.Table:
    """What a reader finds in a table: of parquet files, or where there are any of Iceberg's, as it was after a run."""
    if (lake / NAMESPACE).exists():
        table = iceberg_table(lake, name)
        return table.scan(snapshot_id=table.refs()[night].snapshot_id if night else None).to_arrow()
    files = [str(path) for path in (lake / name).rglob("*.parquet")]
    hive = ds.partitioning(PARTITIONS, flavor="hive")
    return ds.dataset(files, partitioning=hive, partition_base_dir=str(lake / name)).to_table()


def tables_of(lake: Path, night: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Each table's rows in their documented column order, sorted by the key."""
    tables: dict[str, list[tuple[Any, ...]]] = {}
    for name, columns in oracle.COLUMNS.items():
        table = rows_of(lake, name, night)
        assert set(columns) <= set(table.column_names) <= {*columns, *PARTITIONS.names}
        rows = (tuple(row[column] for column in columns) for row in table.to_pylist())
        tables[name] = sorted(rows, key=lambda row: row[0])
    return tables


def rejected_of(lake: Path, source: Path) -> list[oracle.Rejected]:
    """The rejected lines that the lake keeps, as they were in the input folder."""
    rejected = []
    if (lake / NAMESPACE).exists():
        rows = rows_of(lake, "rejected", None).to_pylist()
    else:
        files = (file.read_bytes() for file in (lake / "_rejected").glob("*.json"))
        rows = [json.loads(line) for text in files for line in text.splitlines()]
    for row in rows:
        path = Path(unquote(urlparse(row["source_file"]).path)).relative_to(source).as_posix()
        is_base64 = row["reason"].startswith("not UTF-8")
        line = base64.b64decode(row["line"]) if is_base64 else row["line"].encode()
        rejected.append(oracle.Rejected(row["input"], path, line))
    return sorted(rejected)


def inputs_of(expected: oracle.Lake) -> dict[str, dict[str, int]]:
    """What the report has to say of the inputs."""
    rejected = Counter(line.input for line in expected.rejected)
    return {
        name: {"files": files, "lines": expected.lines[name], "rejected": rejected[name]}
        for name, files in expected.files.items()
    }


def contents_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_files(lake: Path) -> dict[str, int]:
    """The files in the folders of the tables, by their path in the lake, with their sizes."""
    files = (path for name in oracle.COLUMNS for path in (lake / name).rglob("*") if path.is_file())
    return {path.relative_to(lake).as_posix(): path.stat().st_size for path in files}


def some_of_sample(sample: Path, folder: Path, songs: slice = FEW_SONGS, days: slice = FEW_DAYS) -> Path:
    """A small input: some songs and days of the sample."""
    for name, part in (("song_data", songs), ("log_data", days)):
        for path in sorted(oracle.input_files(sample / name))[part]:
            target = folder / path.relative_to(sample)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder
