"""The five tables by plain Python: what the job's output is checked against.

It reads the rules, not the job: no Spark, and nothing of etl.py. `read_lake(folder)` takes a folder with song_data and
log_data and gives the tables as sorted lists of tuples in their documented column order, the rejected lines and counts.
Times are datetimes with time zone UTC. Slow and simple on purpose: every rule stands once, in the words of the README.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

Row = dict[str, Any]

COLUMNS = {
    "songs": ("song_id", "title", "artist_id", "year", "duration"),
    "artists": ("artist_id", "name", "location", "latitude", "longitude"),
    "users": ("user_id", "first_name", "last_name", "gender", "level"),
    "time": ("start_time", "hour", "day", "week", "month", "year", "weekday"),
    "songplays": (
        *("songplay_id", "start_time", "user_id", "level", "song_id", "artist_id", "session_id"),
        *("location", "user_agent", "year", "month"),
    ),
}

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
FIRST_TS = (datetime(2000, 1, 1, tzinfo=timezone.utc) - EPOCH) // timedelta(milliseconds=1)
LAST_TS = (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=timezone.utc) - EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True)
class Number:
    """A number as it was written, since 1 and 1.0 fit different columns."""

    text: str

    @property
    def is_whole(self) -> bool:
        return re.fullmatch(r"-?[0-9]+", self.text) is not None


@dataclass(frozen=True, order=True)
class Rejected:
    """A line that is no input: `input` is song_data or log_data, `source_file` is relative to the input folder."""

    input: str
    source_file: str
    line: bytes


@dataclass
class Lake:
    tables: dict[str, list[tuple[Any, ...]]]
    rejected: list[Rejected]
    files: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def rows(self, table: str) -> list[Row]:
        return [dict(zip(COLUMNS[table], row, strict=True)) for row in self.tables[table]]


class DoesNotFitError(Exception):
    """The line is no row of its input."""


# The values of a row.


def as_compact_json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_compact_json(key)}:{as_compact_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_compact_json, value)) + "]"
    return value.text if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def as_string(value: Any) -> str:
    text = value if isinstance(value, str) else as_compact_json(value)
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair has no UTF-8: "?" stands for it


def as_integer(bits: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if not isinstance(value, Number) or not value.is_whole or len(value.text) > 20:
            raise DoesNotFitError
        number = int(value.text)
        if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            raise DoesNotFitError
        return number

    return convert


def as_double(value: Any) -> float:
    if not isinstance(value, Number) or not math.isfinite(number := float(value.text)):
        raise DoesNotFitError
    return number


SONG_FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("artist_id", "artist_location", "artist_name", "song_id", "title"), as_string),
    **dict.fromkeys(("artist_latitude", "artist_longitude", "duration"), as_double),
    "num_songs": as_integer(64),
    "year": as_integer(32),
}
LOG_FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("artist", "auth", "firstName", "gender", "lastName", "level", "location"), as_string),
    **dict.fromkeys(("method", "page", "song", "userAgent", "userId"), as_string),
    **dict.fromkeys(("itemInSession", "sessionId", "status", "ts"), as_integer(64)),
    **dict.fromkeys(("length", "registration"), as_double),
}


# Files, lines and rows.


def input_files(folder: Path) -> Iterator[Path]:
    """Every *.json and *.json.gz below the folder, but for hidden files and folders."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in files:
            if name[0] not in "._" and name.endswith((".json", ".json.gz")):
                yield Path(parent, name)


def lines_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        data = gzip.decompress(data)
    lines = re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))
    return [line for line in lines if line.strip()]


def no_constant(token: str) -> None:
    raise DoesNotFitError  # NaN and Infinity, which Python's json takes and JSON does not have


def parse(line: bytes, fields: dict[str, Callable[[Any], Any]]) -> Row:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=no_constant, parse_float=Number, parse_int=Number)
    except (ValueError, RecursionError):
        raise DoesNotFitError from None
    if not isinstance(value, dict):
        raise DoesNotFitError
    return {name: None if value.get(name) is None else convert(value[name]) for name, convert in fields.items()}


def check_song(song: Row) -> None:
    if not song["song_id"] or not song["artist_id"]:
        raise DoesNotFitError


def check_event(event: Row) -> None:
    if event["page"] is None:
        raise DoesNotFitError
    if event["ts"] is not None and not FIRST_TS <= event["ts"] <= LAST_TS:
        raise DoesNotFitError
    if event["page"] == "NextSong" and (event["ts"] is None or event["sessionId"] is None or not event["userId"]):
        raise DoesNotFitError


INPUTS = {"song_data": (SONG_FIELDS, check_song), "log_data": (LOG_FIELDS, check_event)}


# The tables.


def nulls_first(*values: Any) -> tuple[Any, ...]:
    return tuple((value is not None, value) if value is not None else (False,) for value in values)


def nulls_last(*values: Any) -> tuple[Any, ...]:
    return tuple((value is None, value) if value is not None else (True,) for value in values)


def grouped(rows: Iterable[Row], *keys: str) -> Iterator[list[Row]]:
    groups: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return iter(groups.values())


def make_songs(songs: list[Row]) -> list[tuple[Any, ...]]:
    def order(song: Row) -> tuple[Any, ...]:
        year = song["year"] or 0
        return (year == 0, nulls_last(song["title"]), song["artist_id"], nulls_last(song["duration"]), year)

    best = [min(copies, key=order) for copies in grouped(songs, "song_id")]
    return [(song["song_id"], song["title"], song["artist_id"], song["year"] or 0, song["duration"]) for song in best]


def make_artists(songs: list[Row]) -> list[tuple[Any, ...]]:
    def order(song: Row) -> tuple[Any, ...]:
        name, location = song["artist_name"], song["artist_location"] or None
        latitude, longitude = song["artist_latitude"], song["artist_longitude"]
        known = (location is not None) + (latitude is not None and longitude is not None)
        shortest = (name is None, len(name or ""), name or "")
        return (-known, shortest, song["song_id"], nulls_first(location, latitude, longitude))

    best = [min(copies, key=order) for copies in grouped(songs, "artist_id")]
    return [
        (
            *(song["artist_id"], song["artist_name"], song["artist_location"] or None),
            *(song["artist_latitude"], song["artist_longitude"]),
        )
        for song in best
    ]


def make_users(events: list[Row]) -> list[tuple[Any, ...]]:
    def order(event: Row) -> tuple[Any, ...]:
        latest = ("ts", "sessionId", "itemInSession", "level", "firstName", "lastName", "gender")
        return nulls_first(*(event[name] for name in latest))

    users = [max(seen, key=order) for seen in grouped((event for event in events if event["userId"]), "userId")]
    return [(user["userId"], user["firstName"], user["lastName"], user["gender"], user["level"]) for user in users]


def make_songplays(events: list[Row], songs: list[Row]) -> list[tuple[Any, ...]]:
    known: dict[tuple[Any, ...], tuple[str, str]] = {}
    for song in songs:
        heard, ids = (song["title"], song["artist_name"], song["duration"]), (song["song_id"], song["artist_id"])
        if None not in heard:
            known[heard] = min(ids, known.get(heard, ids))

    def order(event: Row) -> tuple[Any, ...]:
        return nulls_first(*(event[name] for name in ("level", "song", "artist", "length", "location", "userAgent")))

    plays = [event for event in events if event["page"] == "NextSong"]
    songplays = []
    for copies in grouped(plays, "ts", "userId", "sessionId", "itemInSession"):
        play = min(copies, key=order)
        item = "" if play["itemInSession"] is None else play["itemInSession"]
        key = f"{play['ts']}|{play['sessionId']}|{item}|{play['userId']}"
        start_time = EPOCH + timedelta(milliseconds=play["ts"])
        song_id, artist_id = known.get((play["song"], play["artist"], play["length"]), (None, None))
        songplays.append(
            (
                *(hashlib.sha256(key.encode()).hexdigest()[:32], start_time, play["userId"], play["level"]),
                *(song_id, artist_id, play["sessionId"], play["location"], play["userAgent"]),
                *(start_time.year, start_time.month),
            )
        )
    return songplays


def make_time(songplays: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [
        (
            *(start_time, start_time.hour, start_time.day, start_time.isocalendar()[1], start_time.month),
            *(start_time.year, start_time.isoweekday() % 7 + 1),
        )
        for start_time in {play[1] for play in songplays}
    ]


def read_lake(folder: str | Path) -> Lake:
    """What the job has to make of the song_data and log_data in the folder."""
    lake = Lake({}, [])
    rows: dict[str, list[Row]] = {}
    for name, (fields, check) in INPUTS.items():
        rows[name], lake.files[name], lake.lines[name] = [], 0, 0
        for path in input_files(Path(folder, name)):
            lake.files[name] += 1
            for line in lines_of(path):
                lake.lines[name] += 1
                try:
                    row = parse(line, fields)
                    check(row)
                except DoesNotFitError:
                    source = path.relative_to(folder).as_posix()
                    lake.rejected.append(Rejected(name, source, line))
                else:
                    rows[name].append(row)
    lake.rejected.sort()
    songplays = make_songplays(rows["log_data"], rows["song_data"])
    tables = {
        "songs": make_songs(rows["song_data"]),
        "artists": make_artists(rows["song_data"]),
        "users": make_users(rows["log_data"]),
        "time": make_time(songplays),
        "songplays": songplays,
    }
    lake.tables = {name: sorted(table, key=lambda row: row[0]) for name, table in tables.items()}
    return lake
