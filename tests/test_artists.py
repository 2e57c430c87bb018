"""build_artists: one row per artist_id, one whole source row, the most complete one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from frames import assert_frame, both_orders
from pyspark.sql import DataFrame

import etl

Frame = Callable[..., DataFrame]
COLUMNS = "artist_id string, name string, location string, latitude double, longitude double"
NOWHERE = (None, None)


def song(
    name: str | None = "Duo", location: str | None = "Oslo", place: tuple[Any, Any] = (59.9, 10.7), song_id: str = "S5"
) -> dict[str, Any]:
    latitude, longitude = place
    return {
        "song_id": song_id, "artist_id": "A1", "artist_name": name, "artist_location": location,
        "artist_latitude": latitude, "artist_longitude": longitude,
    }  # fmt: skip


def row(song: dict[str, Any]) -> tuple[Any, ...]:
    names = ("artist_id", "artist_name", "artist_location", "artist_latitude", "artist_longitude")
    return tuple(song[name] for name in names)


def test_an_artist_has_its_own_values_and_null_for_what_is_unknown(frame: Frame) -> None:
    whole = [song(), song("Trío", "Malmö", (-1.5, 0.0)) | {"artist_id": "A2"}]
    bare, empty = {"song_id": "S1", "artist_id": "A3"}, song(location="") | {"artist_id": "A4"}
    unknown = [("A3", None, None, None, None), ("A4", "Duo", None, 59.9, 10.7)]
    artists = etl.build_artists(frame(etl.SONG_SCHEMA, *whole, bare, empty))
    assert_frame(artists, COLUMNS, *map(row, whole), *unknown)


def test_no_songs_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA)), COLUMNS)


BEST_FIRST = {
    "many songs count once": tuple(song(song_id=f"S{number}") for number in range(4)),
    "half of a coordinate is kept": (song(place=(59.9, None)),),
    "location before name": (song("A long name"), song("B", None)),
    "empty location is unknown": (song("A long name"), song("B", "")),
    "coordinates before name": (song("A long name"), song("B", place=NOWHERE)),
    "latitude alone is unknown": (song("A long name"), song("B", place=(1.0, None))),
    "longitude alone is unknown": (song("A long name"), song("B", place=(None, 1.0))),
    "one known before none": (song("A long name", None), song("B", "", NOWHERE)),
    "location and coordinates weigh the same": (song("B", None), song("Dd", place=NOWHERE)),
    "shortest name before first": (song("Zz"), song("Abc")),
    "characters not bytes": (song("éé"), song("abc")),
    "first name": (song("Abc"), song("Abd")),
    "names by code point": (song("Zbc"), song("abc")),
    "null name last": (song("A long name", song_id="S9"), song(None, song_id="S1")),
    "empty name is shortest": (song("", song_id="S9"), song("a", song_id="S1")),
    "lowest song": (song(location="Zed", song_id="S1"), song(location="Ard", song_id="S2")),
    "location of one song": (song(location="Ard"), song(location="Zed")),
    "null location first": (song(location=None), song(location="Ard", place=(1.0, None))),
    "lowest latitude": (song(place=(-3.0, 5.0)), song(place=(2.0, 1.0))),
    "lowest longitude": (song(place=(2.0, -7.0)), song(place=(2.0, 1.0))),
    "values are not mixed": (song("Name", None, (1.0, 2.0)), song("Long name", "Oslo", NOWHERE), song("N", None, NOWHERE)),
}  # fmt: skip


def test_of_an_artists_songs_the_best_row_is_kept_whole(frame: Frame) -> None:
    songs, best = both_orders("artist_id", BEST_FIRST)
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA, *songs)), COLUMNS, *map(row, best))
