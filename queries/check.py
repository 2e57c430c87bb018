"""Runs every query of this folder against a lake and compares the results with those in expected/.

    python queries/check.py --lake lake
    python queries/check.py --lake s3a://bucket/lake --engine spark
    spark-submit queries/check.py --lake s3://bucket/lake --engine spark

The expected results are those of the sample in data/. DuckDB (queries/requirements.txt) answers in a second on a local
lake; Spark reads what etl.py can write, with etl.py's own session and its S3 settings in dl.cfg.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))  # etl.py, for its session

TABLES = {
    "songs": "song_id title artist_id year duration",
    "artists": "artist_id name location latitude longitude",
    "users": "user_id first_name last_name gender level",
    "time": "start_time hour day week month year weekday",
    "songplays": ("songplay_id start_time user_id level song_id artist_id session_id location user_agent year month"),
}
DIFF_LINES = 20

Result = list[list[str]]
Answer = tuple[Sequence[str], Sequence[Sequence[Any]]]
Query = Callable[[str], Answer]


class CheckError(Exception):
    """The lake cannot be checked; the message is the one line that says why."""


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# The engines: each gives a function that runs SQL over views with the tables' names.


def parquet_files(folder: Path) -> list[str]:
    """The files that Spark would read: nothing whose name, or whose folder's name, starts with . or _"""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        found += [os.path.join(parent, name) for name in files if name[0] not in "._" and name.endswith(".parquet")]
    return sorted(found)


def refuse_missing(lake: str, missing: list[str]) -> None:
    if len(missing) == len(TABLES):
        raise CheckError(f"{lake} holds no tables; write them with: python etl.py --output {lake}")
    if missing:
        raise CheckError(f"{lake} has no table {', '.join(missing)}: no parquet file there")


@contextmanager
def duckdb_engine(lake: str) -> Iterator[Query]:
    try:
        import duckdb
    except ImportError:
        raise CheckError("DuckDB is not installed: pip install -r queries/requirements.txt") from None
    parts = urlsplit(lake)
    if parts.scheme not in ("", "file"):
        raise CheckError(f"DuckDB reads local lakes here; for {lake} add --engine spark")
    root = Path(unquote(parts.path) if parts.scheme else lake)
    files = {table: parquet_files(root / table) for table in TABLES}
    refuse_missing(lake, [table for table in TABLES if not files[table]])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")

        def query(sql: str) -> Answer:
            try:
                answer = connection.sql(sql)
                return answer.columns, answer.fetchall()
            except duckdb.Error as error:
                raise CheckError(first_line(error)) from error

        for table in TABLES:
            try:
                connection.read_parquet(files[table], hive_partitioning=True).create_view(table)
            except duckdb.Error as error:
                raise CheckError(f"cannot read table {table}: {first_line(error)}") from error
        yield query


def spark_query(spark: SparkSession, lake: str) -> Query:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    import etl

    missing = []
    for table in TABLES:
        try:
            spark.read.parquet(f"{lake}/{table}").createOrReplaceTempView(table)
        except (PySparkException, Py4JError) as error:
            if not any(name in str(error) for name in ("[PATH_NOT_FOUND]", "[UNABLE_TO_INFER_SCHEMA]")):
                raise CheckError(f"cannot read table {table}: {etl.explain(error)}") from error
            missing.append(table)
    refuse_missing(lake, missing)

    def query(sql: str) -> Answer:
        try:
            answer = spark.sql(sql)
            return answer.columns, answer.collect()
        except (PySparkException, Py4JError) as error:
            raise CheckError(etl.explain(error)) from error

    return query


@contextmanager
def spark_engine(lake: str, config: str | None) -> Iterator[Query]:
    import etl

    try:
        arguments = ["--output", lake, *(("--config", config) if config else ())]
        settings = etl.make_settings(etl.parse_options(arguments))
        spark = etl.create_session(dataclasses.replace(settings, input=settings.output))  # all that is read
    except (etl.ConfigError, etl.JobError) as error:
        raise CheckError(first_line(error)) from error
    try:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        yield spark_query(spark, settings.output)
    finally:
        spark.stop()


# The comparison.


def as_text(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def read_expected(name: str) -> Result:
    path = FOLDER / "expected" / f"{name}.csv"
    if not path.is_file():
        raise CheckError(f"{path.name} is missing in queries/expected; make it with: python queries/make_expected.py")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def check_columns(query: Query) -> None:
    for table, columns in TABLES.items():
        found, _ = query(f"SELECT * FROM {table} LIMIT 0")
        if missing := [name for name in columns.split() if name not in found]:
            raise CheckError(f"table {table} has no column {', '.join(missing)}; it has {', '.join(found)}")


def difference(expected: Result, found: Result) -> list[str]:
    before, after = ([", ".join(row) for row in rows] for rows in (expected, found))
    lines = list(difflib.unified_diff(before, after, "expected", "found", lineterm="", n=0))
    return lines[:DIFF_LINES] + ([f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else [])


def check(query: Query) -> bool:
    """Prints a line for each query, and how its result differs; True where none does."""
    check_columns(query)
    names = sorted(path.stem for path in FOLDER.glob("*.sql"))
    wrong = 0
    for name in names:
        expected = read_expected(name)
        try:
            columns, rows = query((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
        except CheckError as error:
            wrong += 1
            print(f"FAILED       {name}: {error}")
            continue
        found = [list(columns), *(list(map(as_text, row)) for row in rows)]
        if found == expected:
            print(f"as expected  {name} ({len(rows)} rows)")
        else:
            wrong += 1
            print(f"DIFFERENT    {name}", *difference(expected, found), sep="\n    ")
    print(f"{len(names) - wrong} of {len(names)} queries as expected")
    return wrong == 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="check.py", description="Run the analytics team's queries on a lake of the sample and compare the results."
    )
    parser.add_argument("--lake", metavar="URI", required=True, help="what etl.py's --output was")
    parser.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help="default: duckdb, local lakes")
    parser.add_argument("--config", metavar="FILE", help="etl.py's configuration, for S3 with --engine spark")
    options = parser.parse_args(argv)
    engine = spark_engine(options.lake, options.config) if options.engine == "spark" else duckdb_engine(options.lake)
    try:
        with engine as query:
            return 0 if check(query) else 1
    except CheckError as error:
        print(f"check.py: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
