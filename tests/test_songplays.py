"""build_songplays: one row per play, with its song where the song data has it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from frames import Row, assert_frame, both_orders, rows_of, to_ms, utc
from pyspark.sql import DataFrame

import etl

Frame = Callable[..., DataFrame]
COLUMNS = (
    "songplay_id string, start_time timestamp, user_id string, level string, song_id string, artist_id string, "
    "session_id bigint, location string, user_agent string, year int, month int"
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


def row(play: dict[str, Any], song_id: str | None = None, artist_id: str | None = None) -> Row:
    id_ = digest(f"1543622399796|3|5|{play['userId']}")
    return (
        id_,
        WHEN,
        play["userId"],
        play["level"],
        song_id,
        artist_id,
        3,
        play["location"],
        play["userAgent"],
        2018,
        11,
    )


def test_a_play_has_the_values_of_its_event_and_song_and_null_for_what_is_unknown(frame: Frame) -> None:
    bare = {"page": "NextSong", "ts": to_ms(WHEN), "userId": "7", "sessionId": 3}
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, play(), bare), frame(etl.SONG_SCHEMA, song()))
    of_bare = (digest("1543622399796|3||7"), WHEN, "7", None, None, None, 3, None, None, 2018, 11)
    assert_frame(plays, COLUMNS, row(play(), "S1", "A1"), of_bare)
    assert row(play())[0] == "ec3ab3c09f322f235d6613faf54ec909"


def test_no_events_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_songplays(frame(etl.LOG_SCHEMA), frame(etl.SONG_SCHEMA, song())), COLUMNS)


# A separator in a userId makes no equal keys
OTHER_KEYS = {
    "796|3|5|7": play(), "797|3|5|7": play(ts=to_ms(WHEN) + 1), "796|3|5|8": play(userId="8"),
    "796|4|5|7": play(sessionId=4), "796|3|6|7": play(itemInSession=6), "796|3||7": play(itemInSession=None),
    "796|3||5|7": play(itemInSession=None, userId="5|7"), "796|3|||7": play(itemInSession=None, userId="|7"),
}  # fmt: skip


def test_each_part_of_the_key_makes_another_play_and_only_the_page_next_song_is_one(frame: Frame) -> None:
    others = [play(page=page, itemInSession=9) for page in ("nextsong", "NextSong ", "Home", "", None)]
    twice = [*OTHER_KEYS.values(), *OTHER_KEYS.values()]
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *twice, *others), frame(etl.SONG_SCHEMA))
    assert [row[0] for row in rows_of(plays)] == sorted(digest(f"1543622399{key}") for key in OTHER_KEYS)


LEAST_FIRST = {
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


def test_of_deliveries_of_one_event_the_least_counts_whole(frame: Frame) -> None:
    events, least = both_orders("userId", LEAST_FIRST)

    def ids_of(play: dict[str, Any]) -> tuple[str, str] | tuple[None, None]:
        heard = [play["song"], play["artist"], play["length"]]
        return (None, None) if None in heard else (" ".join(map(str, heard)), "A1")

    # what each event plays is a song of its own, so that song_id shows which event was taken
    songs = [
        song(song_id=ids_of(e)[0], title=e["song"], artist_name=e["artist"], duration=e["length"])
        for e in events if ids_of(e)[0]
    ]  # fmt: skip
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA, *songs))
    assert_frame(plays, COLUMNS, *(row(play, *ids_of(play)) for play in least))


# A play, the songs that there are, and the one that it finds
MATCHES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], tuple[str | None, str | None]]] = {
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


def test_a_play_is_there_once_with_the_song_that_is_equal_in_all_three(frame: Frame) -> None:
    """All cases at once; the songs and plays of each share a prefix of their titles."""

    def named(name: str, title: str | None) -> str | None:
        return None if title is None else f"{name}: {title}"

    events = [event | {"userId": name, "song": named(name, event["song"])} for name, (event, _, _) in MATCHES.items()]
    songs = [song | {"title": named(name, song["title"])} for name, (_, songs, _) in MATCHES.items() for song in songs]
    plays = etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA, *songs))
    assert_frame(plays, COLUMNS, *(row(e, *ids) for e, (_, _, ids) in zip(events, MATCHES.values(), strict=True)))


def test_times_are_utc_to_the_millisecond_up_to_the_edges(frame: Frame) -> None:
    times = [
        utc(2000, 1, 1), utc(2018, 10, 31, 23, 59, 59, ms=999), utc(2018, 11, 1), utc(2018, 12, 31, 23, 59, 59, ms=1),
        utc(2019, 1, 1, ms=1), utc(2020, 2, 29, 12), utc(2018, 11, 4, 1, 30), utc(9999, 12, 31, 23, 59, 59, ms=999),
    ]  # fmt: skip
    events = [play(ts=to_ms(when)) for when in times]
    plays = rows_of(etl.build_songplays(frame(etl.LOG_SCHEMA, *events), frame(etl.SONG_SCHEMA)))
    assert sorted((row[1], *row[-2:]) for row in plays) == sorted((when, when.year, when.month) for when in times)
