"""check_tables: a table that breaks a rule stops the run, and the error says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frames import make_frame, utc
from lakes import contents_of
from pyspark.sql import SparkSession

import etl

pytestmark = pytest.mark.usefixtures("interpreted")
WHEN = utc(2018, 11, 30, 23, 59, 59, ms=796)
EVENTS = [
    {"page": "NextSong", "ts": 1_543_622_399_796, "sessionId": 3, "itemInSession": item, "userId": "7"}
    for item in (0, 1, None)
]
# SHA-256 of 1543622399796|3|0|7 and so on
IDS = ("6299eee53317749eec1a1516a38d58fb", "475656c7554a62ceae52b849fc09f989", "454c4ef46ae239320ded7625aaec141b")
FIRST_KEYS = {"songs": "S1", "artists": "A1", "users": "7", "time": "2018-11-30 23:59:59.796", "songplays": IDS[0]}
Rows = dict[str, list[dict[str, Any]]]
Plant = Callable[[Rows], None]


def model() -> Rows:
    """Rows of the five tables, and of the log, that break no rule: three plays, two of them of songs that are known."""
    return {
        "songs": [{"song_id": "S1", "artist_id": "A1", "year": 2001}, {"song_id": "S2", "artist_id": "A2", "year": 0}],
        "artists": [{"artist_id": "A1"}, {"artist_id": "A2"}],
        "users": [{"user_id": "7"}, {"user_id": "8"}],
        "time": [{"start_time": WHEN, "year": 2018, "month": 11}],
        "songplays": [
            {"songplay_id": id_, "start_time": WHEN, "user_id": "7", "song_id": song, "artist_id": song and "A1"}
            for id_, song in zip(IDS, ("S1", "S1", None), strict=True)
        ],
        "log": [*EVENTS, EVENTS[0], {"page": "Home", "userId": "8"}],
    }


def check(spark: SparkSession, rows: Rows) -> None:
    schemas = etl.TABLES | {"log": etl.LOG_SCHEMA}
    frames = {name: make_frame(spark, schema, *rows[name]) for name, schema in schemas.items()}
    log_rows = frames.pop("log")
    etl.check_tables(frames, log_rows)


@pytest.mark.parametrize("rows", [model(), {name: [] for name in model()}], ids=["of rows", "empty"])
def test_a_sound_model_passes(spark: SparkSession, rows: Rows) -> None:
    check(spark, rows)


def repeat(table: str) -> Plant:
    return lambda rows: rows[table].append(rows[table][0])


def clear(table: str) -> Plant:
    return lambda rows: rows[table].append(rows[table][0] | {etl.KEYS[table]: None})


def lose(table: str) -> Plant:
    return lambda rows: rows[table].__delitem__(0)


def add_plays(*ids: str) -> Plant:
    return lambda rows: rows["songplays"].extend(rows["songplays"][0] | {"songplay_id": id_} for id_ in ids)


def turn_a_play_into_another_page(rows: Rows) -> None:
    rows["log"][2] = EVENTS[2] | {"page": "Home"}


def repeat_a_play_in_place_of_another(rows: Rows) -> None:
    rows["songplays"][1] = rows["songplays"][0]


def clear_a_time_everywhere(rows: Rows) -> None:
    clear("time")(rows)
    rows["songplays"][0] = rows["songplays"][0] | {"start_time": None}


MISSING = "keys that songplays or the log refers to are missing"
BROKEN: dict[str, tuple[Plant, str]] = {
    **{f"a key of {name} twice": (repeat(name), f"{name}: 1 keys that are not unique, for example {key}") for name, key in FIRST_KEYS.items()},
    **{f"a null key in {name}": (clear(name), f"{name}: 1 null keys, for example None") for name in FIRST_KEYS},
    **{f"a key missing in {name}": (lose(name), f"{name}: 1 {MISSING}, for example {key}") for name, key in FIRST_KEYS.items()},
    "a play in place of another": (repeat_a_play_in_place_of_another, f"songplays: 1 keys that are not unique, for example {IDS[0]}"),
    "a time that is null everywhere": (clear_a_time_everywhere, "time: 1 null keys, for example None"),
    "a play that is not in the log": (add_plays("f" * 32), f"songplays: 1 plays that are not in the log, for example {'f' * 32}"),
    "a play of another page": (turn_a_play_into_another_page, f"songplays: 1 plays that are not in the log, for example {IDS[2]}"),
    "more than three": (add_plays("z4", "z3", "z2", "z1"), "songplays: 4 plays that are not in the log, for example z1, z2, z3"),
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
    fail: Callable[..., str], small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, build_users = contents_of(lake), etl.build_users
    monkeypatch.setattr(etl, "build_users", lambda log_rows: build_users(log_rows).unionAll(build_users(log_rows)))
    problem = "users: 1 keys that are not unique, for example 8"
    error = fail("--input", small, "--output", lake)
    assert error == f"etl.py: error: check failed: {problem}; the lake is unchanged\n"
    assert contents_of(lake) == before
