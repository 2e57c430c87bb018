"""build_artists: one row per artist_id, one whole source row, the most complete one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from frames import Row, assert_frame, assert_same_in_any_order, chosen_by
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

import etl

Frame = Callable[..., DataFrame]

SCHEMA = T.StructType(
    [
        T.StructField("artist_id", T.StringType()),
        T.StructField("name", T.StringType()),
        T.StructField("location", T.StringType()),
        T.StructField("latitude", T.DoubleType()),
        T.StructField("longitude", T.DoubleType()),
    ]
)


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


NOWHERE = (None, None)


def test_keeps_every_artist_with_its_own_values(frame: Frame) -> None:
    songs = [song(), song("Trío", "Malmö", (-1.5, 0.0)) | {"artist_id": "A2"}]
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA, *songs)), SCHEMA, *map(row, songs))


def test_no_songs_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA)), SCHEMA)


def test_an_artist_with_many_songs_counts_once(frame: Frame) -> None:
    songs = [song(song_id=f"S{number}") for number in range(4)]
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA, *songs)), SCHEMA, row(song()))


def test_an_artist_with_nothing_but_its_id_has_nulls(frame: Frame) -> None:
    bare = frame(etl.SONG_SCHEMA, {"song_id": "S1", "artist_id": "A1"})
    assert_frame(etl.build_artists(bare), SCHEMA, ("A1", None, None, None, None))


def test_an_empty_location_is_stored_as_null(frame: Frame) -> None:
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA, song(location=""))), SCHEMA, ("A1", "Duo", None, 59.9, 10.7))


def test_half_of_a_coordinate_is_kept(frame: Frame) -> None:
    half = song(place=(59.9, None))
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA, half)), SCHEMA, row(half))


BETTER_AND_WORSE = {
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
}


@pytest.fixture(scope="module")
def chosen(spark: SparkSession) -> dict[str, Row]:
    return chosen_by(etl.build_artists, spark, etl.SONG_SCHEMA, "artist_id", BETTER_AND_WORSE)


@pytest.mark.parametrize("name", BETTER_AND_WORSE)
def test_of_two_rows_the_better_is_kept(chosen: dict[str, Row], name: str) -> None:
    better = row(BETTER_AND_WORSE[name][0])[1:]
    assert (chosen[name], chosen[f"{name} reversed"]) == (better, better)


def test_values_of_rows_are_not_mixed(frame: Frame) -> None:
    rows = [song("Long name", "Oslo", NOWHERE), song("Name", None, (1.0, 2.0)), song("N", None, NOWHERE)]
    assert_frame(etl.build_artists(frame(etl.SONG_SCHEMA, *rows)), SCHEMA, row(rows[1]))


def test_the_order_and_place_of_rows_do_not_matter(frame: Frame) -> None:
    rows = [
        song(f"n{n % 4}", ("", "x", None)[n % 3], (n % 2, n % 5), f"S{n % 9}") | {"artist_id": f"A{n % 7}"}
        for n in range(60)
    ]
    rows = [
        row | {"artist_latitude": float(row["artist_latitude"]), "artist_longitude": float(row["artist_longitude"])}
        for row in rows
    ]
    there = etl.build_artists(frame(etl.SONG_SCHEMA, *rows).coalesce(1))
    back = etl.build_artists(frame(etl.SONG_SCHEMA, *reversed(rows)).repartition(5))
    assert_same_in_any_order(there, back)
