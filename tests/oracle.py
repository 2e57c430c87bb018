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
from decimal import Decimal
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Convert = Callable[[Any], Any]

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


@dataclass(frozen=True, order=True)
class Rejected:
    """A line that is no input: `input` is song_data or log_data, `source_file` is relative to the input folder."""

    input: str
    source_file: str
    line: bytes


@dataclass
class Lake:
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def rows(self, table: str) -> list[Row]:
        return [dict(zip(COLUMNS[table], row, strict=True)) for row in self.tables[table]]


class DoesNotFitError(Exception):
    """The line is no row of its input."""


def must(fit: bool) -> None:
    if not fit:
        raise DoesNotFitError


# The values of a row.


def as_java_writes(number: str) -> str:
    """A whole number as it stands, another as a double's shortest digits: 0.001 to 10,000,000 plain, others with E."""
    if re.fullmatch("-?[0-9]+", number):
        return number
    exact = Decimal(repr(float(number))).normalize()
    power = exact.adjusted()
    if -3 <= power < 7:
        return f"{exact:f}" if "." in f"{exact:f}" else f"{exact:f}.0"
    return as_java_writes(str(float(exact.scaleb(-power)))) + f"E{power}"


def as_compact_json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_compact_json(key)}:{as_compact_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_compact_json, value)) + "]"
    return as_java_writes(value.text) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def as_string(value: Any) -> str:
    text = value if isinstance(value, str) else as_compact_json(value)
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair has no UTF-8: "?" stands for it


def as_integer(bits: int) -> Convert:
    def convert(value: Any) -> int:
        must(isinstance(value, Number) and re.fullmatch(r"-?[0-9]{1,20}", value.text) is not None)
        must(-(2 ** (bits - 1)) <= int(value.text) < 2 ** (bits - 1))
        return int(value.text)

    return convert


def as_double(value: Any) -> float:
    must(isinstance(value, Number) and math.isfinite(float(value.text)))
    return float(value.text)


SONG_FIELDS: dict[str, Convert] = {
    **dict.fromkeys(("artist_id", "artist_location", "artist_name", "song_id", "title"), as_string),
    **dict.fromkeys(("artist_latitude", "artist_longitude", "duration"), as_double),
    "num_songs": as_integer(64),
    "year": as_integer(32),
}
LOG_FIELDS: dict[str, Convert] = {
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


def parse(line: bytes, fields: dict[str, Convert]) -> Row:
    def no_constant(token: str) -> None:
        must(False)  # NaN and Infinity, which Python's json takes and JSON does not have

    try:
        value = json.loads(line.decode("utf-8"), parse_constant=no_constant, parse_float=Number, parse_int=Number)
    except (ValueError, RecursionError):
        raise DoesNotFitError from None
    must(isinstance(value, dict))
    return {name: None if value.get(name) is None else convert(value[name]) for name, convert in fields.items()}


def check_song(song: Row) -> None:
    must(bool(song["song_id"] and song["artist_id"]))


def check_event(event: Row) -> None:
    must(event["page"] is not None)
    must(event["ts"] is None or FIRST_TS <= event["ts"] <= LAST_TS)
    is_keyed = None not in (event["ts"], event["sessionId"]) and bool(event["userId"])
    must(is_keyed or event["page"] != "NextSong")


INPUTS = {"song_data": (SONG_FIELDS, check_song), "log_data": (LOG_FIELDS, check_event)}


# The tables.


def values_of(row: Row, *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def nulls_first(row: Row, *names: str) -> list[tuple[bool, Any]]:
    return [(row[name] is not None, row[name]) for name in names]


def nulls_last(row: Row, *names: str) -> list[tuple[bool, Any]]:
    return [(row[name] is None, row[name]) for name in names]


def grouped(rows: Iterable[Row], *keys: str) -> Iterable[list[Row]]:
    groups: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[values_of(row, *keys)].append(row)
    return groups.values()


def make_songs(songs: list[Row]) -> Iterator[tuple[Any, ...]]:
    def order(song: Row) -> tuple[Any, ...]:
        return song["year"] == 0, nulls_last(song, "title", "artist_id", "duration"), song["year"]

    for copies in grouped((song | {"year": song["year"] or 0} for song in songs), "song_id"):
        yield values_of(min(copies, key=order), *COLUMNS["songs"])


def make_artists(songs: list[Row]) -> Iterator[tuple[Any, ...]]:
    place = ("artist_location", "artist_latitude", "artist_longitude")

    def order(song: Row) -> tuple[Any, ...]:
        location, *coordinates = values_of(song, *place)
        known, name = (location is not None) + (None not in coordinates), song["artist_name"]
        return -known, name is None, len(name or ""), name or "", song["song_id"], nulls_first(song, *place)

    rows = (song | {"artist_location": song["artist_location"] or None} for song in songs)
    for copies in grouped(rows, "artist_id"):
        yield values_of(min(copies, key=order), "artist_id", "artist_name", *place)


def make_users(events: list[Row]) -> Iterator[tuple[Any, ...]]:
    latest = ("ts", "sessionId", "itemInSession", "level", "firstName", "lastName", "gender")
    for seen in grouped((event for event in events if event["userId"]), "userId"):
        user = max(seen, key=lambda event: nulls_first(event, *latest))
        yield values_of(user, "userId", "firstName", "lastName", "gender", "level")


def make_songplays(events: list[Row], songs: list[Row]) -> Iterator[tuple[Any, ...]]:
    known: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for song in songs:
        heard, ids = values_of(song, "title", "artist_name", "duration"), values_of(song, "song_id", "artist_id")
        if None not in heard:
            known[heard] = min(ids, known.get(heard, ids))
    fields = ("level", "song", "artist", "length", "location", "userAgent")
    plays = [event for event in events if event["page"] == "NextSong"]
    for copies in grouped(plays, "ts", "userId", "sessionId", "itemInSession"):
        play = min(copies, key=lambda event: nulls_first(event, *fields))
        item = "" if play["itemInSession"] is None else play["itemInSession"]
        key = f"{play['ts']}|{play['sessionId']}|{item}|{play['userId']}"
        start_time = EPOCH + timedelta(milliseconds=play["ts"])
        yield (
            *(hashlib.sha256(key.encode()).hexdigest()[:32], start_time, play["userId"], play["level"]),
            *known.get(values_of(play, "song", "artist", "length"), (None, None)),
            *(play["sessionId"], play["location"], play["userAgent"], start_time.year, start_time.month),
        )


def make_time(songplays: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for start in {play[1] for play in songplays}:
        week = start.isocalendar()[1]
        yield start, start.hour, start.day, week, start.month, start.year, start.isoweekday() % 7 + 1


def read_lake(folder: str | Path) -> Lake:
    """What the job has to make of the song_data and log_data in the folder."""
    lake, rows = Lake(), dict[str, list[Row]]()
    for name, (fields, check) in INPUTS.items():
        rows[name], lake.files[name], lake.lines[name] = [], 0, 0
        for path in input_files(Path(folder, name)):
            lake.files[name] += 1
            for line in lines_of(path):
                lake.lines[name] += 1
                try:
                    row = parse(line, fields)
                    check(row)
                    rows[name].append(row)
                except DoesNotFitError:
                    lake.rejected.append(Rejected(name, path.relative_to(folder).as_posix(), line))
    lake.rejected.sort()
    songs, events = rows["song_data"], rows["log_data"]
    songplays = [*make_songplays(events, songs)]
    made = make_songs(songs), make_artists(songs), make_users(events), make_time(songplays), songplays
    lake.tables = {name: sorted(table, key=lambda row: row[0]) for name, table in zip(COLUMNS, made, strict=True)}
    return lake
