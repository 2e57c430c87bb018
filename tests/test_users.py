"""build_users: one row per logged-in user of the log, as of the latest event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from frames import assert_frame, both_orders
from pyspark.sql import DataFrame

import etl

Frame = Callable[..., DataFrame]
COLUMNS = "user_id string, first_name string, last_name string, gender string, level string"


def event(**changes: Any) -> dict[str, Any]:
    return {
        "userId": "7", "firstName": "Ada", "lastName": "Doyle", "gender": "F", "level": "free", "page": "NextSong",
        "ts": 1_541_000_000_000, "sessionId": 5, "itemInSession": 5,
    } | changes  # fmt: skip


def row(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[name] for name in ("userId", "firstName", "lastName", "gender", "level"))


def test_each_user_id_as_text_has_the_values_of_the_log_and_logged_out_visitors_are_no_users(frame: Frame) -> None:
    users = [event(userId=id_) for id_ in ("0", "7", "07", "7 ", "7.0")]
    users += [event(userId="12", firstName="Björn", lastName=None, gender=None, level="paid")]
    built = etl.build_users(frame(etl.LOG_SCHEMA, *users, event(userId=""), event(userId=None)))
    assert_frame(built, COLUMNS, *map(row, users))


def test_no_events_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA)), COLUMNS)


LATEST_FIRST = {
    "many events count once": (event(), event(), event(page="Home")),
    "a user who never played": (event(page="Help"),),
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
    "null in the latest event hides older values": (
        event(ts=2, firstName=None, lastName=None, gender=None, level=None), event(ts=1)
    ),
}  # fmt: skip


def test_of_a_users_events_the_latest_counts_whole(frame: Frame) -> None:
    events, latest = both_orders("userId", LATEST_FIRST)
    assert_frame(etl.build_users(frame(etl.LOG_SCHEMA, *events)), COLUMNS, *map(row, latest))
