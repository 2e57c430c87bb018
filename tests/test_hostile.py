"""Hostile input: what comes of every line and file, so that nothing is lost without a word."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import oracle
import pytest
from conftest import run, write_lines
from lakes import CATALOGS, contents_of, inputs_of, rejected_of, tables_of
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import etl

TS = 1_541_121_934_796
NOT_JSON = "not one JSON object that fits the schema"
NOT_UTF8 = "not UTF-8; the line is kept in base64"
TOO_LARGE = "a number is too large"
NO_PAGE = "page is missing"
BAD_TS = "ts is not in UTC milliseconds between 2000 and 9999"
NO_KEY = "a play without ts, userId or sessionId"
NO_ID = "song_id or artist_id is missing"

EVENT = {
    "page": "NextSong",
    "ts": TS,
    "userId": "7",
    "sessionId": 3,
    "itemInSession": 5,
    "song": "Moon",
    "length": 200.5,
}
SONG = {"song_id": "S1", "artist_id": "A1", "title": "Moon", "artist_name": "Duo", "duration": 200.5, "year": 2001}


def event(**changes: Any) -> bytes:
    return json.dumps(EVENT | changes).encode()


def with_raw(name: str, token: str, base: dict[str, Any] = EVENT) -> bytes:
    """The event (or song) with a value that is written just so."""
    return json.dumps(base | {name: "?"}).replace('"?"', token).encode()


def song(**changes: Any) -> bytes:
    return json.dumps(SONG | changes).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in EVENT.items() if name not in names}).encode()


# A case is a log file's bytes and what comes of each of its lines: some values of the row, or the reason it is rejected.
Outcome = dict[str, Any] | str
LOG_CASES: dict[str, tuple[bytes, list[Outcome]]] = {
    # files
    "empty file": (b"", []),
    "only line ends": (b"\n\r\n\r\n\n", []),
    "only blanks": (b"   \n\t\n \t \r\n", []),
    "no line end after the last line": (event() + b"\n" + event(userId="8"), [{"userId": "7"}, {"userId": "8"}]),
    "blank lines between": (b"\n" + event() + b"\n\n  \n" + event(userId="8") + b"\n\n", [{}, {"userId": "8"}]),
    "CRLF": (event() + b"\r\n" + event(userId="8") + b"\r\n", [{"userId": "7"}, {"userId": "8"}]),
    "CR alone": (event() + b"\r" + event(userId="8"), [{"userId": "7"}, {"userId": "8"}]),
    "BOM": (b"\xef\xbb\xbf" + event(), [{"userId": "7"}]),
    "BOM on the second line": (event() + b"\n\xef\xbb\xbf" + event(), [{}, NOT_JSON]),
    "blanks around the object": (b" \t" + event() + b" \t", [{"userId": "7"}]),
    "UTF-16": (event().decode().encode("utf-16-le"), [NOT_JSON]),
    "pretty-printed": (b'{\n"page": "Home"\n}\n', [NOT_JSON] * 3),
    # no object
    "empty object": (b"{}", [NO_PAGE]),
    "empty array": (b"[]", [NOT_JSON]),
    "array of an event": (b"[" + event() + b"]", [NOT_JSON]),
    "number": (b"42", [NOT_JSON]),
    "text": (b'"NextSong"', [NOT_JSON]),
    "null": (b"null", [NOT_JSON]),
    "true": (b"true", [NOT_JSON]),
    "comma": (b",", [NOT_JSON]),
    "prose": (b"Traceback (most recent call last):", [NOT_JSON]),
    # broken objects
    "truncated line": (event()[:-20], [NOT_JSON]),
    "truncated in a text": (b'{"page": "Next', [NOT_JSON]),
    "only the end": (event()[20:], [NOT_JSON]),
    "trailing comma": (event()[:-1] + b",}", [NOT_JSON]),
    "two objects": (event() + event(userId="8"), [NOT_JSON]),
    "two objects with a comma": (event() + b"," + event(userId="8"), [NOT_JSON]),
    "one object and a comma": (event() + b",", [NOT_JSON]),
    "one object and a bracket": (event() + b"}", [NOT_JSON]),
    "one object and more brackets": (event() + b"]}", [NOT_JSON]),
    "one object and a second key": (event() + b',"more":{}', [NOT_JSON]),
    "one object and the wrapping's first key again": (event() + b',"line":{}', [NOT_JSON]),
    "what closes a wrapping and goes on": (event() + b',"' + b"0" * 32 + b'":1} and more', [NOT_JSON]),
    "what closes a wrapping and opens another": (event() + b',"end":1},{"line":{}', [NOT_JSON]),
    "one object and half a text": (event() + b',"', [NOT_JSON]),
    "one object and words": (event() + b" and more", [NOT_JSON]),
    "array that stays open": (b"[" + event(), [NOT_JSON]),
    "null and a bracket": (b"null}", [NOT_JSON]),
    "two brackets to begin with": (b"{" + event(), [NOT_JSON]),
    "text that swallows the bracket": (event()[:-1] + b', "x": "y}', [NOT_JSON]),
    "comment": (event() + b" // so", [NOT_JSON]),
    "comment inside": (b"{/* so */" + event()[1:], [NOT_JSON]),
    "single quotes": (event().replace(b'"', b"'"), [NOT_JSON]),
    "keys without quotes": (b"{page: " + b'"Home"}', [NOT_JSON]),
    "NUL between": (b"{\x00" + event()[1:], [NOT_JSON]),
    "NUL in a text": (event(location="?").replace(b"?", b"\x00"), [NOT_JSON]),
    "NUL lines": (b"\x00\x00\x00\n" + event(), [NOT_JSON, {}]),
    "tab in a text": (event(location="?").replace(b"?", b"\t"), [NOT_JSON]),
    "form feed between": (b"{\x0c" + event()[1:], [NOT_JSON]),
    "no-break space between": ("{\u00a0".encode() + event()[1:], [NOT_JSON]),
    "unknown escape": (event(location="?").replace(b"?", b"\\x41"), [NOT_JSON]),
    "nested a hundred thousand deep": (b'{"page": "Home", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", [NOT_JSON]),
    # not UTF-8
    "Latin-1": (event(location="?").replace(b"?", b"Malm\xf6"), [NOT_UTF8]),
    "half a surrogate pair in bytes": (event(location="?").replace(b"?", b"\xed\xa0\x80"), [NOT_UTF8]),
    "overlong slash": (event(location="?").replace(b"?", b"\xc0\xaf"), [NOT_UTF8]),
    "no JSON and not UTF-8": (b"\xff\xfe\x00", [NOT_UTF8]),
    "U+FFFD itself": (event(location="\ufffd"), [{"location": "\ufffd"}]),
    "U+FFFD itself as bytes": (event(location="?").replace(b"?", b"\xef\xbf\xbd"), [{"location": "\ufffd"}]),
    # keys
    "duplicate keys": (b'{"userId": "1", ' + event()[1:], [{"userId": "7"}]),
    "duplicate key, null last": (event()[:-1] + b', "userId": null}', [NO_KEY]),
    "keys in other letter case": (event(userID="9", TS=1).replace(b"userId", b"userid"), [NO_KEY]),
    "both letter cases": (event(USERID="9"), [{"userId": "7"}]),
    "unknown keys": (event(userid="9", x=1, y={"a": []}), [{"userId": "7"}]),
    "empty key": (b'{"": 1, ' + event()[1:], [{"userId": "7"}]),
    "nested and long": (event(x=[{"y": "z" * 70_000}], location="}" * 70_000), [{"location": "}" * 70_000}]),
    "nested garbage": (event(x={"page": [{"ts": [[[{}]]]}]}), [{"ts": TS}]),
    "key with escapes": (event().replace(b'"userId"', b'"user\\u0049d"'), [{"userId": "7"}]),
    # what a text may be
    "userId as a number": (event(userId=7), [{"userId": "7"}]),
    "userId as a long number": (with_raw("userId", "123456789012345678901"), [{"userId": "123456789012345678901"}]),
    "userId as a float": (with_raw("userId", "7.0"), [{"userId": "7.0"}]),
    "userId as a long float": (with_raw("userId", "12345678.0"), [{"userId": "1.2345678E7"}]),
    "userId as true": (event(userId=True), [{"userId": "true"}]),
    "object as a text": (with_raw("location", '{"a": [1, "b", null]}'), [{"location": '{"a":[1,"b",null]}'}]),
    "array as a text": (event(song=["x", 1]), [{"song": '["x",1]'}]),
    "page as a number": (event(page=1), [{"page": "1"}]),
    "line ends in a text": (event(location="a\nb\r\nc"), [{"location": "a\nb\r\nc"}]),
    "NUL escaped": (event(location="a\x00b"), [{"location": "a\x00b"}]),
    "line separator in a text": (event(location="?").replace(b"?", "a\u2028b\x85".encode()), [{"location": "a\u2028b\x85"}]),
    "quotes and backslashes": (event(location='"\\"/'), [{"location": '"\\"/'}]),
    "brackets in a text": (event(location="{]}[") + b"\n" + event(location="{"), [{"location": "{]}["}, {"location": "{"}]),
    "beyond 16 bits": (event(location="\U0001d11e"), [{"location": "\U0001d11e"}]),
    "half a surrogate pair escaped": (event(location="a\ud800b"), [{"location": "a?b"}]),
    "21 million characters": (event(location="}" * 21_000_000), [{"location": "}" * 21_000_000}]),
    "300 characters": (event(userId="é" * 300), [{"userId": "é" * 300}]),
    "look-alike page": (event(page="NextS\u043eng"), [{"page": "NextS\u043eng"}]),
    "look-alike digits": (event(userId="\uff17"), [{"userId": "\uff17"}]),
    "composed and not": (event(userId="\u00e9") + b"\n" + event(userId="e\u0301"), [{"userId": "\u00e9"}, {"userId": "e\u0301"}]),
    "blank userId": (event(userId=" "), [{"userId": " "}]),
    # what a number may be
    "ts as a text": (event(ts=str(TS)), [NOT_JSON]),
    "ts as a float": (event(ts=float(TS)), [NOT_JSON]),
    "ts with an exponent": (with_raw("ts", "1541121934796e0"), [NOT_JSON]),
    "ts as true": (event(ts=True), [NOT_JSON]),
    "ts as an object": (event(ts={}), [NOT_JSON]),
    "ts negative": (event(ts=-TS), [BAD_TS]),
    "ts zero": (event(ts=0), [BAD_TS]),
    "ts in seconds": (event(ts=TS // 1000), [BAD_TS]),
    "ts in microseconds": (event(ts=TS * 1000), [BAD_TS]),
    "ts of another page in seconds": (event(page="Home", ts=TS // 1000), [BAD_TS]),
    "ts of the year 9999": (event(ts=253_402_300_799_999), [{"ts": 253_402_300_799_999}]),
    "ts of the year 10000": (event(ts=253_402_300_800_000), [BAD_TS]),
    "ts of 2000": (event(ts=946_684_800_000), [{"ts": 946_684_800_000}]),
    "ts of 1999": (event(ts=946_684_799_999), [BAD_TS]),
    "ts beyond 64 bits": (event(ts=2**63), [NOT_JSON]),
    "ts beyond a hundred digits": (with_raw("ts", "1" * 100), [NOT_JSON]),
    "sessionId at 64 bits": (event(sessionId=2**63 - 1) + b"\n" + event(sessionId=-(2**63)), [{"sessionId": 2**63 - 1}, {"sessionId": -(2**63)}]),
    "sessionId as a text": (event(sessionId="3"), [NOT_JSON]),
    "itemInSession as a float": (event(itemInSession=1.0), [NOT_JSON]),
    "length as a text": (event(length="200.5"), [NOT_JSON]),
    "length whole": (event(length=200), [{"length": 200.0}]),
    "length with an exponent": (with_raw("length", "2.005E2"), [{"length": 200.5}]),
    "length NaN": (event(length=float("nan")), [NOT_JSON]),
    "length NaN as a text": (event(length="NaN"), [NOT_JSON]),
    "length Infinity": (event(length=float("-inf")), [NOT_JSON]),
    "length 1e400": (with_raw("length", "1e400"), [TOO_LARGE]),
    "length -1e400": (with_raw("length", "-1e400"), [TOO_LARGE]),
    "length 1e-400": (with_raw("length", "1e-400"), [{"length": 0.0}]),
    "registration 1e400": (with_raw("registration", "1e400"), [TOO_LARGE]),
    "leading zero": (with_raw("length", "0200.5"), [NOT_JSON]),
    "leading plus": (with_raw("length", "+200.5"), [NOT_JSON]),
    "hexadecimal": (with_raw("itemInSession", "0x10"), [NOT_JSON]),
    # what an event must have
    "page null": (event(page=None), [NO_PAGE]),
    "page missing": (without("page"), [NO_PAGE]),
    "page empty": (event(page=""), [{"page": ""}]),
    "play without ts": (without("ts"), [NO_KEY]),
    "play without userId": (without("userId"), [NO_KEY]),
    "play with an empty userId": (event(userId=""), [NO_KEY]),
    "play without sessionId": (event(sessionId=None), [NO_KEY]),
    "play without itemInSession": (without("itemInSession"), [{"itemInSession": None}]),
    "another page without them": (b'{"page": "Home"}', [{"page": "Home", "ts": None, "userId": None, "sessionId": None}]),
}  # fmt: skip
SONG_CASES: dict[str, tuple[bytes, list[Outcome]]] = {
    "several songs": (song() + b"\n" + song(song_id="S2"), [{"song_id": "S1"}, {"song_id": "S2"}]),
    "song without song_id": (song(song_id=None), [NO_ID]),
    "song with an empty song_id": (song(song_id=""), [NO_ID]),
    "song without artist_id": (song(artist_id=None), [NO_ID]),
    "song with an empty artist_id": (song(artist_id=""), [NO_ID]),
    "song that is empty": (b"{}", [NO_ID]),
    "song that is an event": (event(), [NO_ID]),
    "song of its ids": (b'{"song_id": 1, "artist_id": 2.5}', [{"song_id": "1", "artist_id": "2.5", "year": None}]),
    "year beyond 32 bits": (song(year=2**31), [NOT_JSON]),
    "year at 32 bits": (song(year=2**31 - 1), [{"year": 2**31 - 1}]),
    "year as a text": (song(year="2001"), [NOT_JSON]),
    "year as a float": (song(year=2001.0), [NOT_JSON]),
    "year negative": (song(year=-1), [{"year": -1}]),
    "num_songs as a text": (song(num_songs="1"), [NOT_JSON]),
    "duration 1e400": (with_raw("duration", "1e400", SONG), [TOO_LARGE]),
    "latitude 1e400": (with_raw("artist_latitude", "-1e999", SONG), [TOO_LARGE]),
    "latitude as a text": (song(artist_latitude="1.5"), [NOT_JSON]),
    "NaN longitude": (song(artist_longitude=float("nan")), [NOT_JSON]),
    "song truncated": (song()[:-1], [NOT_JSON]),
    "song in Latin-1": (song(title="?").replace(b"?", b"\xe9t\xe9"), [NOT_UTF8]),
}
Read = Callable[[SparkSession, str], DataFrame]
KINDS: dict[str, tuple[Read, dict[str, tuple[bytes, list[Outcome]]]]] = {
    "log_data": (etl.read_logs, LOG_CASES),
    "song_data": (etl.read_songs, SONG_CASES),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input folder with a file for each case."""
    folder = tmp_path_factory.mktemp("corpus")
    for kind, (_, cases) in KINDS.items():
        (folder / kind).mkdir()
        for name, (data, _) in cases.items():
            (folder / kind / f"{name}.json").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def outcomes(spark: SparkSession, corpus: Path) -> dict[str, list[dict[str, Any]]]:
    """What the job reads from each file, in the order of its lines; one job for each kind of input."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, (read, _) in KINDS.items():
        rows = read(spark, f"file://{corpus}/{kind}").withColumn("file", F.input_file_name())
        for row in rows.collect():
            found.setdefault(Path(row["file"]).stem.replace("%20", " "), []).append(row.asDict())
    return found


@pytest.mark.parametrize("name", [*LOG_CASES, *SONG_CASES])
def test_each_line_is_a_row_or_rejected_whole_with_its_reason(
    outcomes: dict[str, list[dict[str, Any]]], name: str
) -> None:
    data, expected = (LOG_CASES | SONG_CASES)[name]
    rows = outcomes.get(name, [])
    assert [row["reason"] for row in rows] == [outcome if isinstance(outcome, str) else None for outcome in expected]
    lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n") if line.strip()]
    for row, outcome, line in zip(rows, expected, lines, strict=True):
        if isinstance(outcome, str):
            kept = base64.b64decode(row["line"]) if outcome == NOT_UTF8 else row["line"].encode()
            assert kept == line
            assert Path(row["source_file"]).stem.replace("%20", " ") == name
        else:
            assert row == row | outcome | {"line": None, "source_file": None}


def assert_as_the_oracle_says(report: dict[str, Any], source: Path, lake: Path) -> None:
    """The tables, the rejected lines, and the counts of files and lines, which so add up."""
    expected = oracle.read_lake(source)
    assert tables_of(lake) == expected.tables
    assert rejected_of(lake, source) == expected.rejected
    assert report["inputs"] == inputs_of(expected)


# What a platform or a user may have set for all of Spark
SETTINGS = {
    "adaptive.enabled": False, "ansi.enabled": False, "autoBroadcastJoinThreshold": -1, "caseSensitive": True,
    "columnNameOfCorruptRecord": "page", "files.maxRecordsPerFile": 7, "json.enablePartialResults": False,
    "jsonGenerator.ignoreNullFields": False, "legacy.json.allowEmptyString.enabled": True,
    "legacy.timeParserPolicy": "LEGACY", "parquet.compression.codec": "gzip", "parquet.enableVectorizedReader": False,
    "parquet.mergeSchema": True, "parquet.writeLegacyFormat": True, "parser.escapedStringLiterals": True,
    "session.timeZone": "Pacific/Apia", "sources.default": "json", "sources.partitionColumnTypeInference.enabled": False,
    "sources.partitionOverwriteMode": "dynamic", "timestampType": "TIMESTAMP_NTZ",
}  # fmt: skip


@pytest.mark.parametrize("catalog", CATALOGS)
def test_every_line_is_in_a_table_or_a_copy_or_no_play_or_rejected_whatever_is_set(
    spark: SparkSession, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: str
) -> None:
    theirs = {f"spark.sql.{name}": str(value) for name, value in SETTINGS.items()}
    monkeypatch.setattr(etl, "SQL_CONF", {**theirs, **etl.SQL_CONF})  # of the session that the run makes
    report = run(spark, corpus, tmp_path / "lake", max_rejected=1.0, catalog=catalog)
    assert_as_the_oracle_says(report, corpus, tmp_path / "lake")


# Files and folders.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An input of one song and one play."""
    write_lines(tmp_path / "in" / "song_data" / "a.json", song(artist_name=None))
    write_lines(tmp_path / "in" / "log_data" / "a.json", event())
    return tmp_path / "in"


ODD_NAMES = [
    "year=2018/a b.json", "100%.json", "a%20b.json", "[x]{y}*.json", "é?#.json", "a:b.json", "-.json", "..x/c.json",
    "day.json/b.json",
]  # fmt: skip


def test_odd_files_and_folders_are_read_whole_and_reported_by_their_names(
    spark: SparkSession, source: Path, tmp_path: Path
) -> None:
    """Odd names, folders that are named like files, lines of 50 MB, and a thousand empty files."""
    logs = source / "log_data"
    for name in ODD_NAMES:
        write_lines(logs / name, event(userId=name), b"{" + name.encode())
    (logs / "empty.json").mkdir()
    (logs / ".git").mkdir()
    for name in (".#a.json", ".git/a.json"):
        (logs / name).symlink_to("an editor's lock")
    write_lines(logs / "spaces.json", event(userId="8")[:-1] + b" " * 50_000_000 + b"}", event(userId="9"))
    write_lines(logs / "broken.json", b'{"page": "Home", "x": "' + b"y" * 50_000_000, event(userId="10"))
    for number in range(1000):
        path = logs / str(number % 10) / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    report = run(spark, source, tmp_path / "lake", max_rejected=1.0)
    assert_as_the_oracle_says(report, source, tmp_path / "lake")


BAD_GZIP = {
    "no gzip at all": event(),
    "cut off": gzip.compress(b"\n".join(event(userId=str(number)) for number in range(1000)))[:-200],
    "garbage inside": gzip.compress(event(), 0)[:12] + b"\xff" * 60,
}


@pytest.mark.parametrize("name", [*BAD_GZIP, "removed after it was listed"])
def test_a_file_that_cannot_be_read_fails_the_run_and_is_named(
    fail: Callable[..., str], source: Path, lake: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = contents_of(lake)
    bad, read_logs = source / "log_data" / "bad.json.gz", etl.read_logs
    bad.write_bytes(BAD_GZIP.get(name, gzip.compress(event(userId="8"))))

    def read_and_remove(spark: SparkSession, folder: str) -> DataFrame:
        rows = read_logs(spark, folder)
        bad.unlink()
        return rows

    for setting in ("Corrupt", "Missing"):  # a platform's own, with which Spark would leave such files out
        monkeypatch.setattr(etl, "SQL_CONF", {f"spark.sql.files.ignore{setting}Files": "true"} | etl.SQL_CONF)
    if name not in BAD_GZIP:
        monkeypatch.setattr(etl, "read_logs", read_and_remove)
    error = fail("--input", source, "--output", lake)
    assert "bad.json.gz" in error and error.endswith("; the lake is unchanged\n") and error.count("\n") == 1
    assert contents_of(lake) == before


def test_a_file_rewritten_after_it_was_listed_is_read_to_its_listed_length(spark: SparkSession, source: Path) -> None:
    """And to the end of the line that starts there; the lines beyond come with the next run."""

    def write(**files: str) -> None:
        for name, letters in files.items():
            write_lines(source / "log_data" / f"{name}.json", *(event(userId=user) for user in letters))

    def listed() -> DataFrame:
        return etl.read_logs(spark, f"file://{source}/log_data")

    def users(rows: DataFrame) -> str:
        return "".join(sorted(row["userId"] for row in rows.collect()))

    write(longer="ab", shorter="uvw")
    rows = listed()
    write(longer="cdef", shorter="x")
    assert (users(rows), users(listed())) == ("7cdex", "7cdefx")


NO_FILES = {"a link to nothing": "../gone.json", "a link to its own folder": ".", "a name that is not UTF-8": "a.json"}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_java_would_pass_over_in_silence_stops_the_run(fail: Callable[..., str], source: Path, name: str) -> None:
    place = source / "log_data" / "2018"
    place.mkdir()
    odd = os.fsdecode(b"Malm\xf6.json") if "UTF-8" in name else "b.json"
    (place / odd).symlink_to(NO_FILES[name])
    write_lines(place / "a.json", event(userId="8"))
    error = fail("--input", source, "--output", source.parent / "lake")
    assert f"{odd!a} in {place}" in error and error.count("\n") == 1


NASTY = [
    "a=b", "a/b", "../../x", "..", ".", "100%", "%2F", "a b", " ", "'\"\\", "a\nb", "#?&*[]{}", ":", "é雨𝄞", "_x", ".x",
    "null", "__HIVE_DEFAULT_PARTITION__x", "x" * 200, "007", "1.0", "2018-11-01", "true",
]  # fmt: skip


@pytest.mark.parametrize("catalog", CATALOGS)
def test_nasty_values_in_partition_columns_come_back_as_they_were(
    spark: SparkSession, source: Path, tmp_path: Path, catalog: str
) -> None:
    songs = [song(song_id=f"S{number}", artist_id=nasty) for number, nasty in enumerate(NASTY)]
    write_lines(source / "song_data" / "a.json", *songs)
    for _ in range(2):
        run(spark, source, tmp_path / "out" / "lake", partitions={"songs": ("year", "artist_id")}, catalog=catalog)
    if catalog:
        stored: Sequence[Any] = tables_of(tmp_path / "out" / "lake")["songs"]
    else:
        rows = spark.read.schema(etl.TABLES["songs"]).parquet(f"file://{tmp_path}/out/lake/songs")
        stored = rows.select(*etl.TABLES["songs"].names).collect()
    assert {row[0]: row[2] for row in stored} == {f"S{number}": nasty for number, nasty in enumerate(NASTY)}
    assert len(stored) == len(NASTY)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lake"]


def test_an_empty_text_shares_the_folder_of_null(spark: SparkSession, source: Path, lake: Path) -> None:
    titles = ("", None, "__HIVE_DEFAULT_PARTITION__", "One")
    songs = [song(song_id=f"{title}{year}", title=title, year=year) for title in titles for year in (2000, 2001)]
    write_lines(source / "song_data" / "a.json", *songs)
    run(spark, source, lake, partitions={"songs": ("title", "year")})
    stored = spark.read.parquet(f"file://{lake}/songs").collect()
    assert Counter((row["title"], row["year"]) for row in stored) == {
        (title, year): 3 if title is None else 1 for title in (None, "One") for year in (2000, 2001)
    }


def test_a_partition_value_too_long_for_a_folder_fails_the_run(spark: SparkSession, source: Path, lake: Path) -> None:
    before = contents_of(lake / "songs")
    write_lines(source / "song_data" / "a.json", song(artist_id="x" * 300))
    with pytest.raises(etl.JobError, match="artist_id=xxx"):
        run(spark, source, lake, partitions={"songs": ("year", "artist_id")})
    assert contents_of(lake / "songs") == before
