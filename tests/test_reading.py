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
from pyspark.sql import functions as F

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
EVENT_COLUMNS = (
    "ts bigint, userId string, sessionId bigint, itemInSession bigint, page string, level string, song string, "
    "artist string, length double, location string, userAgent string, firstName string, lastName string, gender string"
)
SONG_COLUMNS = (
    "artist_id string, artist_latitude double, artist_longitude double, artist_location string, artist_name string, "
    "song_id string, title string, duration double, year int"
)
KINDS = {
    "log_data": (etl.read_logs, EVENT_COLUMNS, [EVENT, EVENT | {"userId": "8"}]),
    "song_data": (etl.read_songs, SONG_COLUMNS, [SONG, SONG | {"song_id": "S2"}, SONG | {"song_id": "S3"}]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_of_a_file_is_read_with_its_types(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    read, columns, lines = KINDS[kind]
    write_lines(tmp_path / "a.json", *lines)
    rows = read(spark, f"file://{tmp_path}")
    assert ", ".join(map(" ".join, rows.dtypes)) == f"{columns}, reason string, source_file string, line string"
    names = [column.split()[0] for column in columns.split(", ")]
    assert [tuple(row) for row in rows.collect()] == [(*map(line.get, names), None, None, None) for line in lines]


def test_json_and_gzipped_json_are_read_at_any_depth_and_other_files_are_left_alone(
    spark: SparkSession, tmp_path: Path
) -> None:
    read = ["top.json", "a/b/c/d/deep.json", "a/zipped.json.gz", "year=2018/month=11/hive.json"]
    others = [
        "a.json.bak", "b.csv", "c.jsonl", "d.JSON", "e.txt", "json", "f.json.gz.tmp", "g.gz", ".hidden.json", "_draft.json",
        "_metadata.json", "_common_metadata.json", "_a=b.json",
        "._a.json", ".DS_Store", "__MACOSX/a.json", "__MACOSX/deep/._a.json", "_temporary/0/a.json", ".git/a.json",
    ]  # fmt: skip
    for name in read:
        path = write_lines(tmp_path / name, EVENT | {"userId": name})
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    for name in others:
        write_lines(tmp_path / name, EVENT | {"userId": name}, b"\x00\x05\x16\xff")
    rows = etl.read_logs(spark, f"file://{tmp_path}").select("userId", "reason").collect()
    assert sorted(map(tuple, rows)) == [(name, None) for name in sorted(read)]


AROUND = {
    "a byte order mark": b"\xef\xbb\xbf%s\n%s\n",
    "CRLF": b"%s\r\n%s\r\n",
    "no end of the last line": b"%s\n%s",
    "blank lines": b"\n\n%s\n \t \n\r\n%s\n\n",
    "blanks": b"  %s \n\t%s\t\n",
}


def test_lines_are_read_whatever_stands_around_them(spark: SparkSession, tmp_path: Path) -> None:
    expected = [(f"{user} in {name}", None) for name in AROUND for user in "12"]
    for name, data in AROUND.items():
        lines = (json.dumps(EVENT | {"userId": f"{user} in {name}"}).encode() for user in "12")
        (tmp_path / f"{name}.json").write_bytes(data % tuple(lines))
    rows = etl.read_logs(spark, f"file://{tmp_path}").select("userId", "reason").collect()
    assert sorted(map(tuple, rows)) == sorted(expected)


# Each line, or what is kept of it, with its reason
REJECTED = {
    "log_data": {
        b'{"page": "Home" , ': "not one JSON object that fits the schema",
        b"{ } ": "page is missing",
        b'{"page": "Home", "ts": 1541121934}': "ts is not in UTC milliseconds between 2000 and 9999",
        '{"page": "NextSong", "é": 1}'.encode(): "a play without ts, userId or sessionId",
        b'{"page": "Home", "length": 1e999}': "a number is too large",
        b"\xff{}": "not UTF-8; the line is kept in base64",
    },
    "song_data": {
        b'{"song_id": "S1"}': "song_id or artist_id is missing",
        b'{"song_id": "", "artist_id": "A1"}': "song_id or artist_id is missing",
        b'{"song_id": "S1", "artist_id": "A1", "year": "2001"}': "not one JSON object that fits the schema",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rejected_line_is_kept_whole_with_its_file_and_reason(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    write_lines(tmp_path / "deep" / "a.json", *REJECTED[kind])
    rows = KINDS[kind][0](spark, f"file://{tmp_path}").select("line", "reason", "source_file").collect()
    kept = {"/3t9" if line == b"\xff{}" else line.decode(): reason for line, reason in REJECTED[kind].items()}
    assert {row["line"]: row["reason"] for row in rows} == kept
    assert {urlparse(row["source_file"]).path for row in rows} == {f"{tmp_path}/deep/a.json"}


def test_just_as_many_rejected_lines_as_allowed_are_no_failure(spark: SparkSession) -> None:
    """Shares that a multiplication of doubles would get wrong."""
    for lines, rejected, share in ((10_000, 510, 0.051), (3_000, 27, 0.009)):
        rows = spark.range(lines).select(F.when(F.col("id") < rejected, "bad").alias("reason"))
        assert etl.count_lines("in", rows, share) == {"lines": lines, "rejected": rejected}
