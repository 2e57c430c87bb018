"""Replacing the rows of a lake: what it takes over and refuses, and that no row is ever lost, with two runs at once too."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import oracle
import pytest
from conftest import PLAY, SONG, settings, write_lines
from lakes import contents_of, data_files, tables_of
from pyspark.sql import DataFrame, SparkSession

import etl

OLD_FILE = "part-00000-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd.c000.snappy.parquet"


def run(spark: SparkSession, source: Path, lake: Path, **changes: Any) -> dict[str, Any]:
    return etl.run(spark, settings(source, lake, **changes), say=lambda line: None)


@pytest.fixture
def lake(spark: SparkSession, small: Path, tmp_path: Path) -> Path:
    """The lake of the small input."""
    run(spark, small, tmp_path / "lake")
    return tmp_path / "lake"


# What a run finds


def test_data_files_without_a_marker_are_refused(fail: Callable[..., str], small: Path, lake: Path) -> None:
    (lake / "_lake").unlink()
    before = contents_of(lake)
    error = fail("--input", small, "--output", lake)
    assert f"file:{lake}/songs holds data files" in error and error.count("\n") == 1
    assert contents_of(lake) == before


def test_a_lake_of_an_earlier_version_is_taken_over(spark: SparkSession, small: Path, lake: Path) -> None:
    (lake / "_lake").unlink()
    (lake / "_runs" / "20250101T000000Z-abc").mkdir(parents=True)
    [old] = (lake / "users").iterdir()
    old.rename(old.with_name(OLD_FILE))
    expected = tables_of(lake)
    run(spark, small, lake)
    assert tables_of(lake) == expected
    assert not (lake / "users" / OLD_FILE).exists() and (lake / "_lake").exists()


def test_an_empty_table_has_its_columns_for_every_reader(
    spark: SparkSession, small: Path, lake: Path, tmp_path: Path
) -> None:
    """A log without plays, over a lake with some; and plays again over the empty tables."""
    expected = tables_of(lake)
    quiet = write_lines(tmp_path / "quiet" / "log_data" / "a.json", PLAY | {"page": "Home"}).parents[1]
    shutil.copytree(small / "song_data", quiet / "song_data")
    report = run(spark, quiet, lake)
    assert report["matched_share"] is None
    for name in ("songplays", "time"):
        columns = etl.TABLES[name].names
        assert spark.read.parquet(f"file://{lake}/{name}").columns == columns
        found = duckdb.sql(f"select * from read_parquet('{lake}/{name}/**/*.parquet', hive_partitioning=true)")
        assert (found.columns, found.fetchall()) == (columns, [])
    assert tables_of(lake)["users"] == expected["users"]
    run(spark, small, lake)
    assert tables_of(lake) == expected


# What a run leaves


@pytest.mark.parametrize("harm", ["a row is not written", "a file is cut", "the write fails"])
def test_a_run_that_fails_takes_back_its_own_files_and_no_others(
    fail: Callable[..., str], small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    before, others = {name: contents_of(lake / name) for name in ("songs", "songplays")}, lake / "songs" / OLD_FILE
    append, count = etl.Lake._append, etl.Lake._count

    def harmful_append(self: etl.Lake, name: str, table: DataFrame, partitions: tuple[str, ...]) -> None:
        loses = name == "songs" and harm == "a row is not written"
        append(self, name, table.filter("title <> 'Two'") if loses else table, partitions)
        if name == "songs":
            others.write_bytes(b"of another run")
            if harm == "the write fails":
                raise etl.JobError("the storage is full")

    def harmful_count(self: etl.Lake, name: str, schema: Any, files: dict[str, int]) -> int:
        for file in files if harm == "a file is cut" else ():
            os.truncate(file.removeprefix("file:"), files[file] // 2)
        return count(self, name, schema, files)

    monkeypatch.setattr(etl.Lake, "_append", harmful_append)
    monkeypatch.setattr(etl.Lake, "_count", harmful_count)
    error = fail("--input", small, "--output", lake)
    words = {"a row is not written": "/songs has 1 rows after the write instead of 2", "the write fails": "storage is full"}
    assert words.get(harm, str(lake)) in error and "run it again" in error or "the lake is unchanged" in error
    assert error.count("\n") == 1
    assert others.read_bytes() == b"of another run"
    others.unlink()
    assert {name: contents_of(lake / name) for name in before} == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_session_that_was_there_before_is_left_as_it_was(
    spark: SparkSession, small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    session = spark.newSession()
    session.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    session.conf.unset("spark.sql.files.openCostInBytes")
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: session)
    if fails:
        monkeypatch.setattr(etl, "build_time", lambda plays: 1 / 0)

    def state() -> tuple[Any, ...]:
        hadoop = {entry.getKey(): entry.getValue() for entry in spark._jsc.hadoopConfiguration()}
        is_nothing_kept = spark._jsparkSession.sharedState().cacheManager().isEmpty()
        return session.sql("SET").collect(), hadoop, is_nothing_kept, os.environ.copy()

    before = state()
    assert etl.main(["--input", str(small), "--output", str(lake)]) == int(fails)
    assert state() == before and before[2] is True


# Two runs that overlap in spite of the lock


def steps(name: str, run_id: str, root: Path, fails_at: str) -> tuple[etl.Lake, Callable[[], Iterator[None]]]:
    raise NotImplementedError
