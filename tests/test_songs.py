"""build_songs: one row per song_id, the best of the copies."""

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
        T.StructField("song_id", T.StringType()),
        T.StructField("title", T.StringType()),
        T.StructField("artist_id", T.StringType()),
        T.StructField("year", T.IntegerType()),
        T.StructField("duration", T.DoubleType()),
    ]
)


def song(**changes: Any) -> dict[str, Any]:
    return {"song_id": "S1", "title": "Moon", "artist_id": "A5", "year": 2001, "duration": 200.5} | changes


def row(song: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(song[name] for name in SCHEMA.names)


def test_keeps_every_song_with_its_own_values(frame: Frame) -> None:
    songs = [song(), song(song_id="S2", title="Мост 'x'", artist_id="A1", year=1999, duration=1.0)]
    assert_frame(etl.build_songs(frame(etl.SONG_SCHEMA, *songs)), SCHEMA, *map(row, songs))


def test_no_songs_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_songs(frame(etl.SONG_SCHEMA)), SCHEMA)


def test_equal_copies_count_once(frame: Frame) -> None:
    assert_frame(etl.build_songs(frame(etl.SONG_SCHEMA, song(), song(), song())), SCHEMA, row(song()))


def test_a_song_with_nothing_but_its_ids_has_nulls_and_year_0(frame: Frame) -> None:
    bare = frame(etl.SONG_SCHEMA, {"song_id": "S1", "artist_id": "A1"})
    assert_frame(etl.build_songs(bare), SCHEMA, ("S1", None, "A1", 0, None))


BETTER_AND_WORSE = {
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
}


@pytest.fixture(scope="module")
def chosen(spark: SparkSession) -> dict[str, Row]:
    return chosen_by(etl.build_songs, spark, etl.SONG_SCHEMA, "song_id", BETTER_AND_WORSE)


@pytest.mark.parametrize("name", BETTER_AND_WORSE)
def test_of_two_copies_the_better_is_kept(chosen: dict[str, Row], name: str) -> None:
    better = row(BETTER_AND_WORSE[name][0])[1:]
    assert (chosen[name], chosen[f"{name} reversed"]) == (better, better)


def test_values_of_copies_are_not_mixed(frame: Frame) -> None:
    copies = [song(title="Abc", duration=None, artist_id="A9"), song(title="Abd", duration=3.0, artist_id="A1")]
    assert_frame(etl.build_songs(frame(etl.SONG_SCHEMA, *copies)), SCHEMA, row(copies[0]))


def test_the_order_and_place_of_rows_do_not_matter(frame: Frame) -> None:
    rows = [
        song(song_id=f"S{n % 7}", title=f"t{n % 5}", artist_id=f"A{n % 3}", year=n % 2, duration=n / 2)
        for n in range(60)
    ]
    there = etl.build_songs(frame(etl.SONG_SCHEMA, *rows).coalesce(1))
    back = etl.build_songs(frame(etl.SONG_SCHEMA, *reversed(rows)).repartition(5))
    assert_same_in_any_order(there, back)
