"""check_tables: a table that breaks a rule stops the run, and the error says what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLE, settings
from frames import make_frame, utc
from lakes import contents_of
from pyspark.sql import DataFrame, SparkSession

import etl

WHEN = utc(2018, 11, 30, 23, 59, 59, ms=796)
Plant = Callable[[dict[str, list[dict[str, Any]]]], None]


def model() -> dict[str, list[dict[str, Any]]]:
    """Rows of the five tables, and of the log, that break no rule: three plays, two of them of songs that are known."""
    plays = [
        {
            "songplay_id": id_,
            "start_time": WHEN,
            "user_id": "7",
            "song_id": song,
            "artist_id": song and "A1",
            "year": 2018,
            "month": 11,
        }
        for id_, song in zip(IDS, ("S1", "S1", None), strict=True)
    ]
    return {
        "songs": [{"song_id": "S1", "artist_id": "A1", "year": 2001}, {"song_id": "S2", "artist_id": "A2", "year": 0}],
        "artists": [{"artist_id": "A1"}, {"artist_id": "A2"}],
        "users": [{"user_id": "7"}, {"user_id": "8"}],
        "time": [{"start_time": WHEN, "year": 2018, "month": 11}],
        "songplays": plays,
        "log": [*EVENTS, EVENTS[0], {"page": "Home", "userId": "8"}],
    }


EVENTS = [
    {"page": "NextSong", "ts": 1_543_622_399_796, "sessionId": 3, "itemInSession": item, "userId": "7"}
    for item in (0, 1, None)
]
# SHA-256 of 1543622399796|3|0|7 and so on
IDS = ("6299eee53317749eec1a1516a38d58fb", "475656c7554a62ceae52b849fc09f989", "454c4ef46ae239320ded7625aaec141b")


def check(spark: SparkSession, rows: dict[str, list[dict[str, Any]]]) -> None:
    schemas = etl.TABLES | {"log": etl.LOG_SCHEMA}
    frames = {name: make_frame(spark, schema, *rows[name]) for name, schema in schemas.items()}
    log_rows = frames.pop("log")
    etl.check_tables(frames, log_rows)


def test_a_sound_model_passes(spark: SparkSession) -> None:
    check(spark, model())


def test_empty_tables_pass(spark: SparkSession) -> None:
    check(spark, {name: [] for name in (*etl.TABLES, "log")})


def repeat(table: str) -> Plant:
    return lambda rows: rows[table].append(rows[table][0])


def lose(table: str, number: int = 0) -> Plant:
    return lambda rows: rows[table].__delitem__(number)


def clear(table: str, key: str) -> Plant:
    return lambda rows: rows[table].append(rows[table][0] | {key: None})


def extend(table: str, key: str, *values: object) -> Plant:
    return lambda rows: rows[table].extend({**rows[table][0], key: value} for value in values)


BROKEN: dict[str, tuple[Plant, str]] = {
    "song twice": (repeat("songs"), "songs: 1 keys that are not unique, for example S1"),
    "artist twice": (repeat("artists"), "artists: 1 keys that are not unique, for example A1"),
    "user twice": (repeat("users"), "users: 1 keys that are not unique, for example 7"),
    "time twice": (repeat("time"), "time: 1 keys that are not unique, for example 2018-11-30 23:59:59.796"),
    "play twice": (repeat("songplays"), f"songplays: 1 keys that are not unique, for example {IDS[0]}"),
    "song without key": (clear("songs", "song_id"), "songs: 1 null keys, for example None"),
    "artist without key": (clear("artists", "artist_id"), "artists: 1 null keys, for example None"),
    "user without key": (clear("users", "user_id"), "users: 1 null keys, for example None"),
    "time without key": (clear("time", "start_time"), "time: 1 null keys, for example None"),
    "play without key": (clear("songplays", "songplay_id"), "songplays: 1 null keys, for example None"),
    "song of a play missing": (
        lose("songs"), "songs: 1 keys that songplays or the log refers to are missing, for example S1"
    ),
    "artist of a play missing": (
        lose("artists"), "artists: 1 keys that songplays or the log refers to are missing, for example A1"
    ),
    "user of a play missing": (
        lose("users"), "users: 1 keys that songplays or the log refers to are missing, for example 7"
    ),
    "time of a play missing": (
        lose("time"), "time: 1 keys that songplays or the log refers to are missing, for example 2018-11-30 23:59:59.796"
    ),
    "play of the log missing": (
        lose("songplays", 2), f"songplays: 1 keys that songplays or the log refers to are missing, for example {IDS[2]}"
    ),
    "play that is not in the log": (
        extend("songplays", "songplay_id", "f" * 32), f"songplays: 1 plays that are not in the log, for example {'f' * 32}"
    ),
    "play of another page": (
        lambda rows: rows["log"].__setitem__(2, EVENTS[2] | {"page": "Home"}),
        f"songplays: 1 plays that are not in the log, for example {IDS[2]}",
    ),
    "more than three": (
        extend("songplays", "songplay_id", "z4", "z3", "z2", "z1"),
        "songplays: 4 plays that are not in the log, for example z1, z2, z3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named_with_its_table_number_and_keys(spark: SparkSession, name: str) -> None:
    plant, message = BROKEN[name]
    rows = model()
    plant(rows)
    with pytest.raises(etl.JobError) as raised:
        check(spark, rows)
    assert str(raised.value) == f"check failed: {message}"


def test_a_failed_check_leaves_the_old_lake_untouched(
    spark: SparkSession, sample_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sample_lake, tmp_path / "lake")
    before = contents_of(tmp_path / "lake")
    build_users = etl.build_users

    def build_users_twice(log_rows: DataFrame) -> DataFrame:
        return build_users(log_rows).unionAll(build_users(log_rows))

    monkeypatch.setattr(etl, "build_users", build_users_twice)
    with pytest.raises(
        etl.JobError, match=r"^check failed: users: \d+ keys that are not unique, for example \d+, \d+, \d+$"
    ):
        etl.run(spark, settings(SAMPLE, tmp_path / "lake"), say=lambda line: None)
    assert contents_of(tmp_path / "lake") == before
