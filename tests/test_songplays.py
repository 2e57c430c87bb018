"""build_songplays: one row per play, with its song where the song data has it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from frames import Row, assert_frame, assert_same_in_any_order, make_frame, rows_of, to_ms, utc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

import etl

Frame = Callable[..., DataFrame]

SCHEMA = T.StructType(
    [
        T.StructField("songplay_id", T.StringType()),
        T.StructField("start_time", T.TimestampType()),
        T.StructField("user_id", T.StringType()),
        T.StructField("level", T.StringType()),
        T.StructField("song_id", T.StringType()),
        T.StructField("artist_id", T.StringType()),
        T.StructField("session_id", T.LongType()),
        T.StructField("location", T.StringType()),
        T.StructField("user_agent", T.StringType()),
        T.StructField("year", T.IntegerType()),
        T.StructField("month", T.IntegerType()),
    ]
)
WHEN = utc(2018, 11, 30, 23, 59, 59, ms=796)


def play(**changes: Any) -> dict[str, Any]:
    return {
        "page": "NextSong", "ts": to_ms(WHEN), "userId": "7", "sessionId": 3, "itemInSession": 5, "level": "paid",
        "song": "Moon", "artist": "Duo", "length": 200.5, "location": "Oslo", "userAgent": "Firefox",
    } | changes  # fmt: skip


def song(**changes: Any) -> dict[str, Any]:
    return {"song_id": "S1", "artist_id": "A1", "title": "Moon", "artist_name": "Duo", "duration": 200.5} | changes


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def test_a_play_has_the_values_of_its_event_and_song(frame: Frame) -> None:
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, play()), frame(etl.SONG_SCHEMA, song()))
    id_ = digest("1543622399796|3|5|7")
    assert id_ == "ec3ab3c09f322f235d6613faf54ec909"
    assert_frame(plays, SCHEMA, (id_, WHEN, "7", "paid", "S1", "A1", 3, "Oslo", "Firefox", 2018, 11))


def test_a_play_of_nothing_but_its_key_has_nulls(frame: Frame) -> None:
    bare = {"page": "NextSong", "ts": to_ms(WHEN), "userId": "7", "sessionId": 3}
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, bare), frame(etl.SONG_SCHEMA))
    id_ = digest("1543622399796|3||7")
    assert_frame(plays, SCHEMA, (id_, WHEN, "7", None, None, None, 3, None, None, 2018, 11))


def test_no_events_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_songplays(frame(etl.LOG_SCHEMA), frame(etl.SONG_SCHEMA, song())), SCHEMA)


def test_only_the_page_next_song_is_a_play(frame: Frame) -> None:
    pages = ["NextSong", "nextsong", "NextSong ", "Home", "", None]
    events = [play(page=page, itemInSession=number) for number, page in enumerate(pages)]
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA))
    assert [row[0] for row in rows_of(plays)] == [digest("1543622399796|3|0|7")]


def test_each_part_of_the_key_makes_another_play(frame: Frame) -> None:
    events = [
        play(), play(ts=to_ms(WHEN) + 1), play(userId="8"), play(sessionId=4), play(itemInSession=6),
        play(itemInSession=None), play(itemInSession=None),
    ]  # fmt: skip
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA))
    keys = ["796|3|5|7", "797|3|5|7", "796|3|5|8", "796|4|5|7", "796|3|6|7", "796|3||7"]
    assert [row[0] for row in rows_of(plays)] == sorted(digest(f"1543622399{key}") for key in keys)


def test_a_separator_in_a_user_id_makes_no_equal_ids(frame: Frame) -> None:
    events = [
        play(userId="7"),
        play(userId="5|7", itemInSession=None),
        play(sessionId=3, itemInSession=None, userId="|7"),
    ]
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA))
    assert len({row[0] for row in rows_of(plays)}) == 3


LEAST_AND_OTHER = {
    "equal copies": (play(), play()),
    "level first": (play(level="free", song="Zoo"), play(level="paid", song="Abc")),
    "null level is lowest": (play(level=None), play()),
    "then song": (play(song="Abc", artist="Z"), play(song="Abd", artist="A")),
    "null song is lowest": (play(song=None, location="Z"), play(location="A")),
    "then artist": (play(artist="A", length=9.0), play(artist="B", length=1.0)),
    "then length as a number": (play(length=9.0, location="B"), play(length=10.0, location="A")),
    "then location": (play(location="A", userAgent="B"), play(location="B", userAgent="A")),
    "null location is lowest": (play(location=None, userAgent="B"), play(location="", userAgent="A")),
    "then user agent": (play(userAgent="A"), play(userAgent="B")),
    "null user agent is lowest": (play(userAgent=None), play(userAgent="")),
    "by code point": (play(location="Z"), play(location="a")),
}
MATCHES = {
    "title, artist name and duration": (play(), [song()], ("S1", "A1")),
    "no songs": (play(), [], (None, None)),
    "another title": (play(), [song(title="Moo")], (None, None)),
    "another letter case": (play(), [song(title="moon")], (None, None)),
    "another artist name": (play(), [song(artist_name="Duo feat. Solo")], (None, None)),
    "another duration": (play(), [song(duration=200.50001)], (None, None)),
    "null is equal to nothing": (
        play(song=None, artist=None, length=None), [song(title=None, artist_name=None, duration=None)], (None, None)
    ),
    "one null": (play(length=None), [song(duration=None)], (None, None)),
    "the artist under each of its names": (
        play(artist="Duo feat. Solo"), [song(song_id="S1"), song(song_id="S2", artist_name="Duo feat. Solo")], ("S2", "A1")
    ),
    "several songs": (
        play(), [song(song_id="S3", artist_id="A1"), song(song_id="S2", artist_id="A9"), song(song_id="S4")], ("S2", "A9")
    ),
    "one song of several artists": (play(), [song(artist_id="A3"), song(artist_id="A2")], ("S1", "A2")),
    "one song twice": (play(), [song(), song()], ("S1", "A1")),
    "an older copy of a song": (
        play(song="Moon (2001)"), [song(title="Abc", year=2001), song(title="Moon (2001)", year=None)], ("S1", "A1")
    ),
    "empty texts": (play(song="", artist=""), [song(title="", artist_name="")], ("S1", "A1")),
}  # fmt: skip


@pytest.fixture(scope="module")
def of_two(spark: SparkSession) -> dict[str, list[Row]]:
    """Of each pair of copies, in both orders, the plays that are made; one job for all of them."""
    events = [
        copy | {"userId": f"{name}{way}"}
        for name, pair in LEAST_AND_OTHER.items()
        for way, ordered in (("", pair), (" reversed", pair[::-1]))
        for copy in ordered
    ]
    # each event's title and length as a song, so that song_id shows which copy was taken
    songs = [
        song(
            song_id=f"{e['song']} {e['artist']} {e['length']}",
            title=e["song"],
            artist_name=e["artist"],
            duration=e["length"],
        )
        for e in events
    ]
    logs, catalogue = make_frame(spark, etl.LOG_SCHEMA, *events), make_frame(spark, etl.SONG_SCHEMA, *songs)
    made: dict[str, list[Row]] = {}
    for row in rows_of(etl.build_songplays(logs, catalogue)):
        made.setdefault(row[2], []).append((row[3], row[4], *row[7:9]))
    return made


@pytest.mark.parametrize("name", LEAST_AND_OTHER)
def test_of_two_deliveries_the_least_counts(of_two: dict[str, list[Row]], name: str) -> None:
    least = LEAST_AND_OTHER[name][0]
    heard = [least["song"], least["artist"], least["length"]]
    expected = (
        least["level"],
        None if None in heard else "{} {} {}".format(*heard),
        least["location"],
        least["userAgent"],
    )
    assert (of_two[name], of_two[f"{name} reversed"]) == ([expected], [expected])


@pytest.fixture(scope="module")
def matched(spark: SparkSession) -> dict[str, list[Row]]:
    """The matches of each case, whose songs and plays share a prefix of their titles; one job for all of them."""

    def named(name: str, title: str | None) -> str | None:
        return None if title is None else f"{name}: {title}"

    events = [event | {"userId": name, "song": named(name, event["song"])} for name, (event, _, _) in MATCHES.items()]
    songs = [song | {"title": named(name, song["title"])} for name, (_, songs, _) in MATCHES.items() for song in songs]
    logs, catalogue = make_frame(spark, etl.LOG_SCHEMA, *events), make_frame(spark, etl.SONG_SCHEMA, *songs)
    made: dict[str, list[Row]] = {}
    for row in rows_of(etl.build_songplays(logs, catalogue)):
        made.setdefault(row[2], []).append(row[4:6])
    return made


@pytest.mark.parametrize("name", MATCHES)
def test_a_play_finds_its_song_once_by(matched: dict[str, list[Row]], name: str) -> None:
    assert matched[name] == [MATCHES[name][2]]


def test_times_are_utc_to_the_millisecond_up_to_the_edges(frame: Frame) -> None:
    times = [
        utc(2000, 1, 1), utc(2018, 10, 31, 23, 59, 59, ms=999), utc(2018, 11, 1), utc(2018, 12, 31, 23, 59, 59, ms=1),
        utc(2019, 1, 1, ms=1), utc(2020, 2, 29, 12), utc(2018, 11, 4, 1, 30), utc(9999, 12, 31, 23, 59, 59, ms=999),
    ]  # fmt: skip
    events = [play(ts=to_ms(when)) for when in times]
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA))
    assert sorted((row[1], *row[-2:]) for row in rows_of(plays)) == sorted(
        (when, when.year, when.month) for when in times
    )
    assert [to_ms(when) for when in (times[0], times[-1])] == [etl.MIN_TS, etl.MAX_TS]


def test_the_order_and_place_of_rows_do_not_matter(frame: Frame) -> None:
    events = [play(userId=str(n % 7), itemInSession=n % 2, level=f"l{n % 5}", song=f"t{n % 3}") for n in range(60)]
    songs = [song(song_id=f"S{n % 9}", artist_id=f"A{n % 4}", title=f"t{n % 3}") for n in range(30)]
    there = etl.build_songplays(frame(etl.LOG_SCHEMA, *events).coalesce(1), frame(etl.SONG_SCHEMA, *songs).coalesce(1))
    back = etl.build_songplays(
        frame(etl.LOG_SCHEMA, *reversed(events)).repartition(5), frame(etl.SONG_SCHEMA, *reversed(songs)).repartition(3)
    )
    assert_same_in_any_order(there, back)
