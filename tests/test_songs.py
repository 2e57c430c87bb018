"""build_songs: one row per song_id, the best of the copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from frames import assert_frame, both_orders
from pyspark.sql import DataFrame

import etl

Frame = Callable[..., DataFrame]
COLUMNS = "song_id string, title string, artist_id string, year int, duration double"


def song(**changes: Any) -> dict[str, Any]:
    return {"song_id": "S1", "title": "Moon", "artist_id": "A5", "year": 2001, "duration": 200.5} | changes


def row(song: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(song[name] for name in ("song_id", "title", "artist_id", "year", "duration"))


def test_a_song_has_its_own_values_and_year_0_and_null_for_what_is_unknown(frame: Frame) -> None:
    songs = [song(), song(song_id="S2", title="Мост 'x'", artist_id="A1", year=1999, duration=1.0)]
    bare = {"song_id": "S3", "artist_id": "A1"}
    built = etl.build_songs(frame(etl.SONG_SCHEMA, *songs, bare))
    assert_frame(built, COLUMNS, *map(row, songs), ("S3", None, "A1", 0, None))


def test_no_songs_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_songs(frame(etl.SONG_SCHEMA)), COLUMNS)


BEST_FIRST = {
    "equal copies count once": (song(), song(), song()),
    "known year before first title": (song(title="Zoo"), song(title="Abc", year=0)),
    "known year before null year": (song(title="Zoo"), song(title="Abc", year=None)),
    "first title before lower year": (song(title="Abc", year=2020), song(title="Abd", year=1990)),
    "titles by code point": (song(title="Zoo"), song(title="abc")),
    "non ascii after ascii": (song(title="Zoo"), song(title="Édith")),
    "code points not utf 16 units": (song(title="￮"), song(title="𝄞")),
    "empty title first": (song(title="", artist_id="A9"), song(title="a", artist_id="A1")),
    "null title last": (song(title="Zoo", artist_id="A9"), song(title=None, artist_id="A1")),
    "lowest artist before duration": (song(artist_id="A1", duration=300.0), song(artist_id="A2", duration=1.0)),
    "shortest duration as a number": (song(duration=9.5), song(duration=10.5)),
    "null duration last": (song(duration=300.0), song(duration=None)),
    "duration before year": (song(duration=9.5, year=2010), song(duration=10.0, year=1960)),
    "lowest year at the end": (song(year=1960), song(year=2010)),
    "values are not mixed": (song(title="Abc", duration=None, artist_id="A9"), song(title="Abd", duration=3.0, artist_id="A1")),
}  # fmt: skip


def test_of_a_songs_copies_the_best_is_kept_whole(frame: Frame) -> None:
    songs, best = both_orders("song_id", BEST_FIRST)
    assert_frame(etl.build_songs(frame(etl.SONG_SCHEMA, *songs)), COLUMNS, *map(row, best))
