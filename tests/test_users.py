"""build_users: one row per logged-in user of the log, as of the latest event."""

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
    [T.StructField(name, T.StringType()) for name in ("user_id", "first_name", "last_name", "gender", "level")]
)


def event(**changes: Any) -> dict[str, Any]:
    return {
        "userId": "7", "firstName": "Ada", "lastName": "Doyle", "gender": "F", "level": "free", "page": "NextSong",
        "ts": 1_541_000_000_000, "sessionId": 5, "itemInSession": 5,
    } | changes  # fmt: skip


def row(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[name] for name in ("userId", "firstName", "lastName", "gender", "level"))


def test_a_user_has_the_values_of_the_log(frame: Frame) -> None:
    events = [event(), event(userId="12", firstName="Björn", lastName=None, gender=None, level="paid")]
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, *events)), SCHEMA, *map(row, events))


def test_no_events_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA)), SCHEMA)


def test_a_user_of_many_events_counts_once(frame: Frame) -> None:
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, event(), event(), event(page="Home"))), SCHEMA, row(event()))


def test_logged_out_visitors_are_no_users(frame: Frame) -> None:
    events = [event(userId=""), event(userId=None), event(userId="0")]
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, *events)), SCHEMA, row(events[2]))


def test_a_user_who_never_played_is_a_user(frame: Frame) -> None:
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, event(page="Help"))), SCHEMA, row(event()))


def test_ids_are_compared_as_text(frame: Frame) -> None:
    events = [event(userId=user) for user in ("7", "07", "7 ", "7.0")]
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, *events)), SCHEMA, *map(row, events))


LATER_AND_EARLIER = {
    "ts as a number": (event(ts=10000, level="free"), event(ts=9000, level="paid", sessionId=9)),
    "on any page": (event(ts=10000, page="Downgrade"), event(ts=9000, level="paid")),
    "null ts is earliest": (event(ts=1), event(ts=None, level="paid")),
    "session on equal ts": (event(sessionId=10, itemInSession=0), event(sessionId=9, itemInSession=9, level="paid")),
    "null session is earliest": (event(sessionId=1), event(sessionId=None, level="paid")),
    "item on equal session": (event(itemInSession=10), event(itemInSession=9, level="paid")),
    "null item is earliest": (event(itemInSession=0), event(itemInSession=None, level="paid")),
    "greatest level": (event(level="paid", firstName="A"), event(level="free", firstName="B")),
    "greatest first name": (event(firstName="B", lastName="A"), event(firstName="A", lastName="B")),
    "greatest last name": (event(lastName="B", gender="F"), event(lastName="A", gender="M")),
    "greatest gender": (event(gender="M"), event(gender="F")),
    "null gender is lowest": (event(gender="F"), event(gender=None)),
}


@pytest.fixture(scope="module")
def chosen(spark: SparkSession) -> dict[str, Row]:
    return chosen_by(etl.build_users, spark, etl.LOG_SCHEMA, "userId", LATER_AND_EARLIER)


@pytest.mark.parametrize("name", LATER_AND_EARLIER)
def test_of_two_events_the_later_counts(chosen: dict[str, Row], name: str) -> None:
    later = row(LATER_AND_EARLIER[name][0])[1:]
    assert (chosen[name], chosen[f"{name} reversed"]) == (later, later)


def test_a_null_in_the_latest_event_hides_older_values(frame: Frame) -> None:
    events = [event(ts=1), event(ts=2, firstName=None, lastName=None, gender=None, level=None)]
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, *events)), SCHEMA, ("7", None, None, None, None))


def test_the_order_and_place_of_rows_do_not_matter(frame: Frame) -> None:
    rows = [event(userId=str(n % 7), ts=n % 3, sessionId=n % 2, itemInSession=n % 5, level=f"l{n}") for n in range(60)]
    there = etl.build_users(frame(etl.LOG_SCHEMA, *rows).coalesce(1))
    back = etl.build_users(frame(etl.LOG_SCHEMA, *reversed(rows)).repartition(5))
    assert_same_in_any_order(there, back)
