"""Frames as plain Python rows, so that a test compares all of one at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
Row = tuple[Any, ...]


def utc(*when: int, ms: int = 0) -> datetime:
    """A time by year, month, day, hour, minute and second."""
    return datetime(*when, tzinfo=timezone.utc) + timedelta(milliseconds=ms)  # type: ignore[misc,arg-type]


def to_ms(when: datetime) -> int:
    return (when - EPOCH) // timedelta(milliseconds=1)


def make_frame(spark: SparkSession, schema: T.StructType, *rows: dict[str, Any]) -> DataFrame:
    """A frame of rows that name only the columns that matter; the others are null.

    Not by createDataFrame, each of whose partitions starts a Python process whenever it is read.
    """
    text = json.dumps(rows, default=datetime.isoformat)
    return spark.range(0, 1, 1, 1).select(F.inline(F.from_json(F.lit(text), T.ArrayType(schema))))


def both_orders(key: str, cases: Mapping[str, tuple[dict[str, Any], ...]]) -> tuple[list[dict[str, Any]], ...]:
    """The rows of all cases, each case under two keys of its own, as it stands and reversed; and the first row of each.

    So a builder must make of the rows just what it makes of the first ones.
    """
    keyed = {
        f"{name}{way}": [row | {key: f"{name}{way}"} for row in rows]
        for name, rows in cases.items()
        for way in ("", " reversed")
    }
    ordered = [row for name, rows in keyed.items() for row in (rows[::-1] if name.endswith(" reversed") else rows)]
    return ordered, [rows[0] for rows in keyed.values()]


def in_order(row: Row) -> list[tuple[bool, str]]:
    return [(value is not None, repr(value)) for value in row]


def rows_of(frame: DataFrame) -> list[Row]:
    """The rows in a fixed order; timestamps as the instants they are, whatever this process's time zone."""
    times = [number for number, (_, kind) in enumerate(frame.dtypes) if kind == "timestamp"]
    plain = frame.select(
        *(F.unix_micros(name).alias(name) if kind == "timestamp" else name for name, kind in frame.dtypes)
    )

    def convert(number: int, value: Any) -> Any:
        return EPOCH + timedelta(microseconds=value) if number in times and value is not None else value

    return sorted((tuple(convert(*each) for each in enumerate(row)) for row in plain.collect()), key=in_order)


def assert_frame(frame: DataFrame, columns: str, *rows: Row) -> None:
    """The frame has these columns ("name type, name type"), in this order, and these rows."""
    assert ", ".join(map(" ".join, frame.dtypes)) == columns
    assert rows_of(frame) == sorted(rows, key=in_order)
