"""build_time: one row per start_time of songplays, with its parts in UTC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from frames import assert_frame, rows_of, utc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

import etl

Frame = Callable[..., DataFrame]

SCHEMA = T.StructType(
    [T.StructField("start_time", T.TimestampType())]
    + [T.StructField(name, T.IntegerType()) for name in ("hour", "day", "week", "month", "year", "weekday")]
)
SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY = range(1, 8)
# time: hour, day, week, month, year, weekday
PARTS = {
    utc(2018, 11, 4): (0, 4, 44, 11, 2018, SUNDAY),
    utc(2018, 11, 5): (0, 5, 45, 11, 2018, MONDAY),
    utc(2018, 11, 6, 23, 59, 59, ms=999): (23, 6, 45, 11, 2018, TUESDAY),
    utc(2018, 11, 7, 12, ms=1): (12, 7, 45, 11, 2018, WEDNESDAY),
    utc(2018, 11, 10, 7): (7, 10, 45, 11, 2018, SATURDAY),
    # the ISO week belongs to the year that has its Thursday, the column year is the calendar's
    utc(2018, 12, 31, 23, 59, 59, ms=999): (23, 31, 1, 12, 2018, MONDAY),
    utc(2019, 1, 1): (0, 1, 1, 1, 2019, TUESDAY),
    utc(2021, 1, 3, 4): (4, 3, 53, 1, 2021, SUNDAY),
    utc(2020, 12, 31): (0, 31, 53, 12, 2020, THURSDAY),
    utc(2021, 1, 4): (0, 4, 1, 1, 2021, MONDAY),
    utc(2016, 1, 1): (0, 1, 53, 1, 2016, FRIDAY),
    utc(2017, 1, 1, 5): (5, 1, 52, 1, 2017, SUNDAY),
    # a leap day, hours that clocks elsewhere skip or repeat, and the ends of what a ts may be
    utc(2020, 2, 29, 23): (23, 29, 9, 2, 2020, SATURDAY),
    utc(2018, 3, 11, 2, 30): (2, 11, 10, 3, 2018, SUNDAY),
    utc(2018, 11, 4, 6, 30): (6, 4, 44, 11, 2018, SUNDAY),
    utc(2000, 1, 1): (0, 1, 52, 1, 2000, SATURDAY),
    utc(9999, 12, 31, 23, 59, 59, ms=999): (23, 31, 52, 12, 9999, FRIDAY),
}


@pytest.fixture(params=["UTC", "America/St_Johns", "Pacific/Kiritimati"])
def machine_zone(request: pytest.FixtureRequest, spark: SparkSession) -> Iterator[str]:
    """The time zone of the JVM, which is the machine's; the job's own is UTC in each."""
    zones = spark._jvm.java.util.TimeZone  # type: ignore[union-attr]
    before = zones.getDefault()
    zones.setDefault(zones.getTimeZone(request.param))
    yield request.param
    zones.setDefault(before)


def plays_at(frame: Frame, *times: datetime) -> DataFrame:
    return frame(etl.TABLES["songplays"], *({"start_time": when} for when in times))


def test_each_time_has_its_parts_in_utc_wherever_the_machine_is(frame: Frame, machine_zone: str) -> None:
    assert_frame(etl.build_time(plays_at(frame, *PARTS)), SCHEMA, *((when, *parts) for when, parts in PARTS.items()))


def test_plays_of_one_millisecond_share_a_row_and_its_neighbour_has_its_own(frame: Frame) -> None:
    first, second = utc(2018, 11, 4, ms=1), utc(2018, 11, 4, ms=2)
    times = etl.build_time(plays_at(frame, first, second, first).repartition(3))
    assert [row[0] for row in rows_of(times)] == [first, second]


def test_no_plays_give_no_rows(frame: Frame) -> None:
    assert_frame(etl.build_time(plays_at(frame)), SCHEMA)
