"""read_songs and read_logs: which files are read, and what their lines become."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from conftest import write_lines
from pyspark.sql import SparkSession
from pyspark.sql import types as T

import etl

EVENT: dict[str, Any] = {
    "artist": "Duo", "auth": "Logged In", "firstName": "Ada", "gender": "F", "itemInSession": 5, "lastName": "Doyle",
    "length": 200.50001, "level": "paid", "location": "Oslo", "method": "PUT", "page": "NextSong",
    "registration": 1.540919166796e12, "sessionId": 3, "song": "Señal \"x\"", "status": 200, "ts": 1_541_121_934_796,
    "userAgent": "Firefox", "userId": "7",
}  # fmt: skip
SONG: dict[str, Any] = {
    "num_songs": 1, "artist_id": "A1", "artist_latitude": -1.5, "artist_longitude": None, "artist_location": "",
    "artist_name": "Duo", "song_id": "S1", "title": "雨の駅", "duration": 200.50001, "year": 0,
}  # fmt: skip
LOG_COLUMNS = (
    "ts userId sessionId itemInSession page level song artist length location userAgent firstName lastName gender"
)
SONG_COLUMNS = "artist_id artist_latitude artist_longitude artist_location artist_name song_id title duration year"
REJECT_COLUMNS = ["reason", "source_file", "line"]


def users_of(spark: SparkSession, folder: Path) -> list[str]:
    """The userId of each row that is accepted."""
    rows = etl.read_logs(spark, f"file://{folder}").filter("reason is null").select("userId").collect()
    return sorted(row[0] for row in rows)


def test_an_event_is_read_with_its_types(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", EVENT)
    rows = etl.read_logs(spark, f"file://{tmp_path}")
    names = LOG_COLUMNS.split()
    assert rows.columns == names + REJECT_COLUMNS
    types = {"ts": T.LongType(), "sessionId": T.LongType(), "itemInSession": T.LongType(), "length": T.DoubleType()}
    assert [field.dataType for field in rows.schema] == [types.get(name, T.StringType()) for name in rows.columns]
    assert [tuple(row) for row in rows.collect()] == [(*(EVENT[name] for name in names), None, None, None)]


def test_a_song_is_read_with_its_types(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", SONG)
    rows = etl.read_songs(spark, f"file://{tmp_path}")
    names = SONG_COLUMNS.split()
    assert rows.columns == names + REJECT_COLUMNS
    doubles = dict.fromkeys(("artist_latitude", "artist_longitude", "duration"), T.DoubleType())
    types = doubles | {"year": T.IntegerType()}
    assert [field.dataType for field in rows.schema] == [types.get(name, T.StringType()) for name in rows.columns]
    assert [tuple(row) for row in rows.collect()] == [(*(SONG[name] for name in names), None, None, None)]


def test_a_song_file_of_several_lines_loses_none(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", *(SONG | {"song_id": f"S{number}"} for number in range(5)))
    rows = etl.read_songs(spark, f"file://{tmp_path}").select("song_id", "reason").collect()
    assert sorted(map(tuple, rows)) == [(f"S{number}", None) for number in range(5)]


def test_json_and_gzipped_json_are_read_at_any_depth(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "top.json", EVENT | {"userId": "1"})
    write_lines(tmp_path / "a" / "b" / "c" / "d" / "deep.json", EVENT | {"userId": "2"})
    (tmp_path / "a" / "zipped.json.gz").write_bytes(gzip.compress(json.dumps(EVENT | {"userId": "3"}).encode()))
    write_lines(tmp_path / "year=2018" / "month=11" / "hive.json", EVENT | {"userId": "4"})
    assert users_of(spark, tmp_path) == ["1", "2", "3", "4"]


def test_other_files_are_left_alone(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", EVENT)
    others = [
        "a.json.bak", "b.csv", "c.jsonl", "d.JSON", "e.txt", "json", "f.json.gz.tmp", "g.gz", ".hidden.json", "_draft.json",
        "._a.json", ".DS_Store", "__MACOSX/a.json", "__MACOSX/deep/._a.json", "_temporary/0/a.json", ".git/a.json",
    ]  # fmt: skip
    for name in others:
        write_lines(tmp_path / name, EVENT | {"userId": name}, b"\x00\x05\x16\xff")
    assert [tuple(row) for row in etl.read_logs(spark, f"file://{tmp_path}").select("userId", "reason").collect()] == [
        ("7", None)
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf%s\n%s\n", id="BOM"),
        pytest.param(b"%s\r\n%s\r\n", id="CRLF"),
        pytest.param(b"%s\n%s", id="no-end-of-the-last-line"),
        pytest.param(b"\n\n%s\n \t \n\r\n%s\n\n", id="blank-lines"),
        pytest.param(b"  %s \n\t%s\t\n", id="blanks-around"),
    ],
)
def test_lines_are_read_whatever_stands_around_them(spark: SparkSession, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data % tuple(json.dumps(EVENT | {"userId": user}).encode() for user in "12"))
    assert users_of(spark, tmp_path) == ["1", "2"]
    assert etl.read_logs(spark, f"file://{tmp_path}").count() == 2


def test_a_rejected_line_is_kept_whole_with_its_file_and_reason(spark: SparkSession, tmp_path: Path) -> None:
    lines = {
        '{"page": "Home" , ': "not one JSON object that fits the schema",
        "{ } ": "page is missing",
        '{"page": "Home", "ts": 1541121934}': "ts is not in UTC milliseconds between 2000 and 9999",
        '{"page": "NextSong", "é": 1}': "a play without ts, userId or sessionId",
        '{"page": "Home", "length": 1e999}': "a number is too large",
    }
    write_lines(tmp_path / "deep" / "a.json", *lines, b"\xff{}")
    rows = etl.read_logs(spark, f"file://{tmp_path}").select(*REJECT_COLUMNS).collect()
    assert {row["line"]: row["reason"] for row in rows} == lines | {"/3t9": "not UTF-8; the line is kept in base64"}
    assert {urlparse(row["source_file"]).path for row in rows} == {f"{tmp_path}/deep/a.json"}


def test_a_rejected_song_is_kept_whole_with_its_file_and_reason(spark: SparkSession, tmp_path: Path) -> None:
    lines = {
        '{"song_id": "S1"}': "song_id or artist_id is missing",
        '{"song_id": "", "artist_id": "A1"}': "song_id or artist_id is missing",
        '{"song_id": "S1", "artist_id": "A1", "year": "2001"}': "not one JSON object that fits the schema",
    }
    write_lines(tmp_path / "a.json", *lines)
    rows = etl.read_songs(spark, f"file://{tmp_path}").select(*REJECT_COLUMNS).collect()
    assert {row["line"]: row["reason"] for row in rows} == lines
    assert {urlparse(row["source_file"]).path for row in rows} == {f"{tmp_path}/a.json"}
