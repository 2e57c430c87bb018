"""Opens a lake for SQL: DuckDB on local files and S3, or Spark with the session of etl.py.

Each engine gives a function that runs SQL over views with the tables' names, in the columns and types of etl.TABLES.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etl

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyspark.sql import SparkSession

FOLDER = Path(__file__).resolve().parent

TYPES = {table: {field.name: field.dataType.simpleString() for field in etl.TABLES[table]} for table in etl.TABLES}

Answer = tuple[Sequence[str], Sequence[Sequence[Any]]]
Query = Callable[[str], Answer]


class LakeError(Exception):
    """The lake cannot be read; the message is the one line that says why."""

    exit_code = 1


@dataclass(frozen=True)
class Question:
    """A file of this folder: its first comment line is the question, `-- bar: column` names what a bar is drawn for."""

    name: str
    text: str
    note: str
    bar: str
    sql: str


def read_questions() -> list[Question]:
    questions = []
    for path in sorted(FOLDER.glob("*.sql")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
        bar = "".join(line.removeprefix("bar: ") for line in comments if line.startswith("bar: "))
        note = " ".join(line for line in comments[1:] if not line.startswith("bar: "))
        sql = "\n".join(line for line in lines if not line.startswith("-- "))
        questions.append(Question(path.stem, comments[0], note, bar, sql))
    return questions


def columns_of(table: str) -> str:
    """The table's columns for a SELECT of what is stored: a value of a folder's name has no type of its own."""
    fields = etl.TABLES[table].fields
    return ", ".join(
        f"CAST(stored.{field.name} AS {field.dataType.simpleString()}) AS {field.name}" for field in fields
    )


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def refuse_missing(lake: str, missing: list[str]) -> None:
    if len(missing) == len(etl.TABLES):
        raise LakeError(f"{lake} holds no tables; write them with: python etl.py --output {lake}")
    if missing:
        raise LakeError(f"{lake} has no table {', '.join(missing)}: no parquet file there")


def parquet_files(connection: DuckDBPyConnection, root: str, table: str) -> list[str]:
    """The files that Spark would read: nothing whose name, or whose folder's name, starts with . or _"""
    if root.startswith("s3://"):
        found = connection.execute("SELECT file FROM glob(?)", [f"{root}/{table}/**"]).fetchall()
        files = [file for (file,) in found]
    else:
        files = [os.path.join(parent, name) for parent, _, names in os.walk(f"{root}/{table}") for name in names]
    hidden = re.compile(r"/[._]")
    return sorted(file for file in files if file.endswith(".parquet") and not hidden.search(file[len(root) :]))


def open_s3(connection: DuckDBPyConnection, uri: str, config: str | None) -> None:
    """Lets DuckDB read the bucket, by its extension from PyPI and with the credentials that etl.py would use."""
    try:
        import duckdb_extension_httpfs
    except ImportError:
        raise LakeError("DuckDB's part for S3 is not installed: pip install -r queries/requirements.txt") from None
    import laptop

    (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
    connection.load_extension(str(extension))
    conf, _ = laptop.s3a_access([uri], etl.read_config(etl.find_config(config, None))["AWS"])
    bucket = f"fs.s3a.bucket.{laptop.bucket_of(uri)}"
    secret = {"REGION": conf[f"{bucket}.endpoint.region"]}
    if f"{bucket}.aws.credentials.provider" not in conf:  # else it is a public bucket
        names = {"KEY_ID": "access.key", "SECRET": "secret.key", "SESSION_TOKEN": "session.token"}
        secret |= {name: conf[f"fs.s3a.{key}"] for name, key in names.items() if f"fs.s3a.{key}" in conf}
    if "fs.s3a.endpoint" in conf:
        scheme, _, host = conf["fs.s3a.endpoint"].partition("://")
        secret |= {"ENDPOINT": host, "URL_STYLE": "path", "USE_SSL": str(scheme == "https")}
    options = ", ".join(f"{name} {quoted(value)}" for name, value in secret.items())
    connection.execute(f"CREATE SECRET (TYPE s3, {options})")


@contextmanager
def duckdb_engine(lake: str, config: str | None = None) -> Iterator[Query]:
    try:
        import duckdb
    except ImportError:
        raise LakeError("DuckDB is not installed: pip install -r queries/requirements.txt") from None
    uri = etl.to_uri(lake, os.getcwd())
    if not uri.startswith(("file://", "s3a://")):
        raise LakeError(f"DuckDB reads local lakes and S3; for {lake} add --engine spark")
    root = re.sub("^s3a://", "s3://", uri.removeprefix("file://"))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            if uri.startswith("s3a://"):
                open_s3(connection, uri, config)
            files = {table: parquet_files(connection, root, table) for table in etl.TABLES}
        except duckdb.Error as error:
            raise LakeError(f"cannot read {lake}: {etl.explain(error)}") from error
        refuse_missing(lake, [table for table in files if not files[table]])
        for table in files:
            paths = ", ".join(map(quoted, files[table]))
            rows = f"read_parquet([{paths}], hive_partitioning = true, hive_types_autocast = false)"
            try:
                connection.execute(f"CREATE VIEW {table} AS SELECT {columns_of(table)} FROM {rows} AS stored")
            except duckdb.Error as error:
                raise LakeError(f"cannot read table {table}: {etl.explain(error)}") from error

        def query(sql: str) -> Answer:
            try:
                answer = connection.sql(sql)
                return answer.columns, answer.fetchall()
            except duckdb.Error as error:
                raise LakeError(etl.explain(error)) from error

        yield query


def spark_query(spark: SparkSession, lake: str) -> Query:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    session, missing = spark.newSession(), []  # with settings and views of its own
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")  # else the id 007 becomes 7
    for table in etl.TABLES:
        try:
            rows = session.read.parquet(f"{etl.literal(lake)}/{table}").alias("stored")
            rows.selectExpr(*columns_of(table).split(", ")).createOrReplaceTempView(table)
        except (PySparkException, Py4JError) as error:
            if not any(name in str(error) for name in ("[PATH_NOT_FOUND]", "[UNABLE_TO_INFER_SCHEMA]")):
                raise LakeError(f"cannot read table {table}: {etl.explain(error)}") from error
            missing.append(table)
    refuse_missing(lake, missing)

    def query(sql: str) -> Answer:
        try:
            answer = session.sql(sql)
            return answer.columns, answer.collect()
        except (PySparkException, Py4JError) as error:
            raise LakeError(etl.explain(error)) from error

    return query


@contextmanager
def spark_engine(lake: str, config: str | None = None) -> Iterator[Query]:
    from pyspark.sql import SparkSession

    if etl.is_submitted():
        spark = SparkSession.builder.getOrCreate()
        uri = etl.to_uri(lake, os.getcwd(), spark)
    else:
        import laptop

        uri = etl.to_uri(lake, os.getcwd())
        aws = etl.read_config(etl.find_config(config, None))["AWS"]
        spark = laptop.create_session(etl.Settings(uri, uri, {}, aws=aws))
    try:
        yield spark_query(spark, uri)
    finally:
        spark.stop()


def as_text(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None, work: Callable[..., int]) -> int:
    """Adds the options that say which lake, does the work on it, and returns the exit code."""
    parser.add_argument("--lake", metavar="URI", required=True, help="what etl.py's --output was")
    parser.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help="default: duckdb")
    parser.add_argument("--config", metavar="FILE", help="etl.py's configuration, for S3 (default: dl.cfg)")
    options = parser.parse_args(argv)
    engine = {"duckdb": duckdb_engine, "spark": spark_engine}[options.engine]
    try:
        with engine(options.lake, options.config) as query:
            return work(query, options)
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
