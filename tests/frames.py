"""Frames and lakes as plain Python rows, so that a test compares all of it at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
Row = tuple[Any, ...]
Pairs = Mapping[str, tuple[dict[str, Any], dict[str, Any]]]


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
    return spark.range(1).select(F.inline(F.from_json(F.lit(text), T.ArrayType(schema))))


def chosen_by(
    build: Callable[[DataFrame], DataFrame], spark: SparkSession, schema: T.StructType, key: str, pairs: Pairs
) -> dict[str, Row]:
    """Of each pair of input rows, in both orders ("name", "name reversed"), the row that a builder keeps, less its key.

    One job for all of them.
    """
    rows = [
        row | {key: f"{name}{way}"}
        for name, pair in pairs.items()
        for way, ordered in (("", pair), (" reversed", pair[::-1]))
        for row in ordered
    ]
    return {row[0]: row[1:] for row in rows_of(build(make_frame(spark, schema, *rows)))}


def in_order(row: Row) -> list[tuple[bool, str]]:
    return [(value is not None, repr(value)) for value in row]


def rows_of(frame: DataFrame) -> list[Row]:
    """The rows in a fixed order; timestamps as the instants they are, whatever this process's time zone."""
    times = [number for number, field in enumerate(frame.schema) if field.dataType == T.TimestampType()]
    plain = frame.select(
        *(
            F.unix_micros(field.name).alias(field.name) if number in times else F.col(field.name)
            for number, field in enumerate(frame.schema)
        )
    )

    def convert(number: int, value: Any) -> Any:
        return EPOCH + timedelta(microseconds=value) if number in times and value is not None else value

    rows = [tuple(convert(number, value) for number, value in enumerate(row)) for row in plain.collect()]
    return sorted(rows, key=in_order)


def assert_frame(frame: DataFrame, schema: T.StructType, *rows: Row) -> None:
    """The frame has these columns, of these types and in this order, and these rows."""
    assert [(field.name, field.dataType) for field in frame.schema] == [
        (field.name, field.dataType) for field in schema
    ]
    assert rows_of(frame) == sorted(rows, key=in_order)


def assert_same_in_any_order(first: DataFrame, second: DataFrame) -> None:
    assert first.schema == second.schema
    assert rows_of(first) == rows_of(second)
