"""build_time: one row per start_time of songplays, with its parts in UTC."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from frames import assert_frame, utc
from pyspark.sql import DataFrame, SparkSession

import etl

COLUMNS = "start_time timestamp, hour int, day int, week int, month int, year int, weekday int"
SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY = range(1, 8)
# time: hour, day, week, month, year, weekday
PARTS = {
    utc(2018, 11, 4): (0, 4, 44, 11, 2018, SUNDAY),
    utc(2018, 11, 5): (0, 5, 45, 11, 2018, MONDAY),
    utc(2018, 11, 6, 23, 59, 59, ms=998): (23, 6, 45, 11, 2018, TUESDAY),
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


def test_each_time_has_one_row_and_its_parts_in_utc_wherever_the_machine_is(
    frame: Callable[..., DataFrame], machine_zone: str
) -> None:
    plays = [{"start_time": when} for when in (*PARTS, *PARTS)]
    times = etl.build_time(frame(etl.TABLES["songplays"], *plays))
    assert_frame(times, COLUMNS, *((when, *parts) for when, parts in PARTS.items()))


def test_no_plays_give_no_rows(frame: Callable[..., DataFrame]) -> None:
    assert_frame(etl.build_time(frame(etl.TABLES["songplays"])), COLUMNS)
