"""The whole lake against the oracle's, which computes it from the same files in plain Python."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import engines
import oracle
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, open_catalog, run, write_lines
from frames import make_frame, rows_of, to_ms, utc
from lakes import CATALOGS, NAMESPACE, rejected_of, tables_of
from pyspark.sql import SparkSession

import etl

PLAYED = {"page": "NextSong", "ts": 1_541_121_934_796, "userId": "7", "sessionId": 3}
FIRST, LAST = 946_684_800_000, 253_402_300_799_999
DIRTY_EVENTS: list[Any] = [
    "no JSON", b'{"page": "Home", "location": "M\xfcnchen"}', {}, [{"page": "Home"}],
    PLAYED | {"ts": 1_541_121_934}, PLAYED | {"userId": ""}, PLAYED | {"length": "200"},
]  # fmt: skip
ODD_EVENTS: list[Any] = [
    PLAYED | {"ts": FIRST, "userId": 7, "song": "a\u2028b"},
    PLAYED | {"ts": FIRST, "song": None, "level": "paid"},
    PLAYED | {"ts": LAST, "userId": "7|8", "sessionId": -1, "itemInSession": 0},
    {"page": "Home", "userId": "never plays"},
    {"page": "Home", "userId": "never plays", "ts": None, "level": "free"},
]
TOO_LARGE = '{"song_id": "S1", "artist_id": "A1", "duration": 1e400}'
DIRTY_SONGS: list[Any] = [{"song_id": "S1"}, {"artist_id": "A1"}, TOO_LARGE, "{"]
ODD_SONGS: list[Any] = [
    {"song_id": "S1", "artist_id": "A1", "title": "", "artist_name": None, "year": -5, "artist_location": ""},
    {"song_id": "S1", "artist_id": "A2", "title": None, "year": 2001, "artist_latitude": 1, "artist_longitude": None},
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data of two months with another seed than the sample's, and some odd and bad lines."""
    folder = tmp_path_factory.mktemp("generated")
    arguments = "--songs 60 --events 1500 --seed 77 --months 2 --out"
    subprocess.run([sys.executable, ROOT / "bench" / "generate.py", *arguments.split(), folder], check=True)
    write_lines(folder / "log_data" / "extra.json", *ODD_EVENTS, *DIRTY_EVENTS)
    write_lines(folder / "song_data" / "extra.json", *ODD_SONGS, *DIRTY_SONGS)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path) -> oracle.Lake:
    return oracle.read_lake(source)


@pytest.fixture(scope="module", params=CATALOGS, ids=repr)
def catalog(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lake(spark: SparkSession, source: Path, catalog: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lake")
    run(spark, source, path, max_rejected=1.0, catalog=catalog)
    return path


def test_the_lake_of_generated_and_odd_data_is_the_oracles(lake: Path, source: Path, expected: oracle.Lake) -> None:
    assert tables_of(lake) == expected.tables
    assert rejected_of(lake, source) == expected.rejected
    assert len(expected.rejected) == len(DIRTY_EVENTS) + len(DIRTY_SONGS)


@pytest.mark.parametrize("table", ["time", "songplays"])
def test_timestamps_are_microseconds_in_64_bits(lake: Path, table: str) -> None:
    for file in lake.rglob(f"{table}/**/*.parquet"):
        schema = pq.ParquetFile(file).schema
        column = schema.column(schema.names.index("start_time"))
        kind = json.loads(column.logical_type.to_json())
        assert column.physical_type == "INT64"
        assert (kind["Type"], kind["isAdjustedToUTC"], kind["timeUnit"]) == ("Timestamp", True, "microseconds")


def test_duckdb_and_spark_read_the_same_rows_as_the_oracle(
    spark: SparkSession, lake: Path, catalog: str, expected: oracle.Lake
) -> None:
    session, connection = spark.newSession(), duckdb.connect()
    if catalog:
        open_catalog(session, lake)
        engines.load(connection, "avro", "iceberg")
    for name, columns in oracle.COLUMNS.items():
        files = f"read_parquet('{lake}/{name}/**/*.parquet', hive_partitioning=true)"
        table = f"iceberg_scan('{lake}/{NAMESPACE}/{name}')"
        stored = f"select {', '.join(columns)} from {table if catalog else files}"
        times = "replace (epoch_us(start_time) as start_time)" if "start_time" in columns else ""
        found = connection.execute(f"select * {times} from ({stored}) order by 1").fetchall()
        rows = [
            [to_ms(value) * 1000 if isinstance(value, datetime) else value for value in row]
            for row in expected.tables[name]
        ]
        assert [[*row] for row in found] == rows
        read = session.read.schema(etl.TABLES[name]).parquet
        frame = session.table(f"{catalog}.{name}") if catalog else read(f"file://{lake}/{name}")
        frame = frame.select(*columns)
        assert sorted(rows_of(frame), key=lambda row: row[0]) == expected.tables[name]


def test_the_oracle_itself_knows_a_play_by_hand(spark: SparkSession, tmp_path: Path) -> None:
    """So that an error which the oracle and the job share would show: worked out without either."""
    when = utc(2018, 12, 31, 23, 59, 59, ms=999)
    event = {"page": "NextSong", "ts": to_ms(when), "userId": "7", "sessionId": 3, "itemInSession": 0, "level": "paid", "song": "Moon", "artist": "Duo", "length": 200, "firstName": "Ada"}  # fmt: skip
    song = {"song_id": "S1", "artist_id": "A1", "title": "Moon", "artist_name": "Duo", "duration": 200.0, "year": None}
    write_lines(tmp_path / "log_data" / "a.json", event, event)
    write_lines(tmp_path / "song_data" / "a.json", song)
    # SHA-256 of 1546300799999|3|0|7, its first half
    play = ("6f2e4a256d32eb04d7b8d90afae4513d", when, "7", "paid", "S1", "A1", 3, None, None, 2018, 12)
    assert oracle.read_lake(tmp_path).tables == {
        "songs": [("S1", "Moon", "A1", 0, 200.0)],
        "artists": [("A1", "Duo", None, None, None)],
        "users": [("7", "Ada", None, None, "paid")],
        "time": [(when, 23, 31, 1, 12, 2018, 2)],
        "songplays": [play],
    }
    logs, songs = make_frame(spark, etl.LOG_SCHEMA, event | {"length": 200.0}), make_frame(spark, etl.SONG_SCHEMA, song)
    assert rows_of(etl.build_songplays(logs, songs)) == [play]
