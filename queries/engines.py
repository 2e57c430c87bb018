"""Opens a lake for SQL: DuckDB on local files and S3, or Spark with the session of etl.py.

Each engine gives a function that runs SQL over views with the tables' names, in the columns and types of etl.TABLES.
A lake is folders of parquet, or Iceberg tables: DuckDB tells which, Spark is told by a catalog.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etl

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER = Path(__file__).resolve().parent

TYPES = {table: {field.name: field.dataType.simpleString() for field in etl.TABLES[table]} for table in etl.TABLES}

NOT_THERE = ("PATH_NOT_FOUND", "UNABLE_TO_INFER_SCHEMA", "TABLE_OR_VIEW_NOT_FOUND")  # as Spark says it

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


def refuse_missing(lake: str, missing: list[str], catalog: str | None = None, note: str = "") -> None:
    place, options = (f"{catalog} in {lake}", f" --catalog {catalog}") if catalog else (lake, "")
    if len(missing) == len(etl.TABLES):
        command = f"python etl.py --output {shlex.quote(lake)}{options}"
        raise LakeError(f"{place} holds no tables{note}; write them with: {command}")
    if missing:
        raise LakeError(f"{place} has no table {', '.join(missing)}")


def load(connection: DuckDBPyConnection, *parts: str) -> None:
    """Loads parts of DuckDB out of their packages from PyPI, so that nothing is downloaded."""
    for part in parts:
        try:
            package = importlib.import_module(f"duckdb_extension_{part}")
        except ImportError:
            raise LakeError(f"DuckDB's part {part} is not installed: pip install -r queries/requirements.txt") from None
        (extension,) = Path(package.__file__ or "").parent.rglob("*.duckdb_extension")
        connection.load_extension(str(extension))


def open_s3(connection: DuckDBPyConnection, uri: str, config: str | None) -> dict[str, str | None]:
    """Lets DuckDB read the bucket, with the credentials that etl.py would use; returns them as boto3 takes them."""
    import laptop

    load(connection, "httpfs")
    aws = etl.read_config(etl.find_config(config, None))["AWS"]
    conf, _ = laptop.s3a_access([uri], aws)
    bucket = f"fs.s3a.bucket.{laptop.bucket_of(uri)}"
    is_public = f"{bucket}.aws.credentials.provider" in conf
    key, secret, token = (
        None if is_public else conf.get(f"fs.s3a.{name}") for name in ("access.key", "secret.key", "session.token")
    )
    region, endpoint = conf[f"{bucket}.endpoint.region"], conf.get("fs.s3a.endpoint")
    options = {"REGION": region, "KEY_ID": key, "SECRET": secret, "SESSION_TOKEN": token}
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"ENDPOINT": host, "URL_STYLE": "path", "USE_SSL": str(scheme == "https")}
    elif "fs.s3a.endpoint.fips" in conf:
        options["ENDPOINT"] = f"s3-fips.{region}.amazonaws.com"
    if "." in laptop.bucket_of(uri):  # no certificate of AWS fits my.bucket.s3.region.amazonaws.com
        options["URL_STYLE"] = "path"
    if bundle := conf.get(laptop.BUNDLE):
        connection.execute(f"SET ca_cert_file = {quoted(bundle)}")
    given = ", ".join(f"{name} {quoted(value)}" for name, value in options.items() if value)
    connection.execute(f"CREATE SECRET (TYPE s3, {given})")
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
    return keys | {"region_name": region, "endpoint_url": aws["AWS_ENDPOINT_URL"] or None}


def files_of(connection: DuckDBPyConnection, root: str, pattern: str) -> list[str]:
    """The files below a folder whose path in it fits the pattern, but for those with a name that Spark leaves out."""
    if root.startswith("s3://"):
        files = [file for (file,) in connection.execute("SELECT file FROM glob(?)", [f"{root}/{pattern}"]).fetchall()]
    else:
        files = [str(path) for path in Path(root).glob(pattern)]
    return sorted(file for file in files if not re.search(r"/[._]", file[len(root) :]))


def parquet_source(connection: DuckDBPyConnection, root: str, table: str) -> str:
    """What DuckDB selects a table of parquet files from; nothing where there are none."""
    if not (files := files_of(connection, root, f"{table}/**/*.parquet")):
        return ""
    paths = ", ".join(map(quoted, files))
    if not TYPES[table].keys() & {part.partition("=")[0].lower() for part in root.split("/")}:
        return f"read_parquet([{paths}], hive_partitioning = true, hive_types_autocast = false)"
    # DuckDB would take such a folder above the lake for the column, so the folders are looked for below it
    values = "".join(
        f", url_decode(NULLIF(regexp_extract(filename[{len(root) + 1}:], '/{name}=([^/]*)/', 1),"
        f" '{etl.NULL_FOLDER}')) AS {name}"
        for name in re.findall(r"/(\w+)=", files[0][len(root) :])
    )
    stored = f"read_parquet([{paths}], filename = true, hive_partitioning = false)"
    return f"(SELECT * EXCLUDE (filename){values} FROM {stored})"


def iceberg_source(
    connection: DuckDBPyConnection, root: str, namespace: str, table: str, access: dict[str, str | None]
) -> str:
    """What DuckDB selects an Iceberg table from; nothing where it has no metadata.

    A catalog of files leaves a hint, which DuckDB reads, of the metadata that is valid. Otherwise Glue knows.
    """
    folder = f"{root}/{namespace}/{table}"
    hint = "metadata/version-hint.tex[t]"  # a name without a wildcard DuckDB gives back unseen
    if files_of(connection, folder, hint):
        return f"iceberg_scan({quoted(folder)})"
    if not access or not files_of(connection, folder, "metadata/*.metadata.json"):
        return ""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = boto3.client("glue", **access).get_table(DatabaseName=namespace, Name=table)
    except (BotoCoreError, ClientError) as error:
        raise LakeError(f"cannot ask Glue for {namespace}.{table}: {error}") from error
    return f"iceberg_scan({quoted(found['Table']['Parameters']['metadata_location'])})"


def namespace_of(connection: DuckDBPyConnection, root: str, lake: str, catalog: str | None) -> str:
    """The folder of the lake in which its Iceberg tables lie; empty where it is folders of parquet."""
    if catalog is not None:
        return catalog.rpartition(".")[2]
    metadata = files_of(connection, root, "*/songplays/metadata/*.metadata.json")
    namespaces = sorted({file[len(root) + 1 :].split("/")[0] for file in metadata})
    kinds = namespaces + [""] * bool(files_of(connection, root, "songplays/**/*.parquet"))
    if len(kinds) > 1:
        names = ", ".join(f"--catalog NAME.{kind}" if kind else "--catalog '' (folders of parquet)" for kind in kinds)
        raise LakeError(f"{lake} holds several lakes; say which: {names}")
    return kinds[0] if kinds else ""


@contextmanager
def duckdb_engine(lake: str, config: str | None = None, catalog: str | None = None) -> Iterator[Query]:
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
            access = open_s3(connection, uri, config) if uri.startswith("s3a://") else {}
            if namespace := namespace_of(connection, root, lake, catalog):
                load(connection, "avro", "iceberg")
                sources = {name: iceberg_source(connection, root, namespace, name, access) for name in etl.TABLES}
            else:
                sources = {name: parquet_source(connection, root, name) for name in etl.TABLES}
        except duckdb.Error as error:
            raise LakeError(f"cannot read {lake}: {etl.explain(error)}") from error
        refuse_missing(lake, [table for table, source in sources.items() if not source], catalog)
        for table, source in sources.items():
            try:
                connection.execute(f"CREATE VIEW {table} AS SELECT {columns_of(table)} FROM {source} AS stored")
            except duckdb.Error as error:
                raise LakeError(f"cannot read table {table}: {etl.explain(error)}") from error

        def query(sql: str) -> Answer:
            try:
                answer = connection.sql(sql)
                return answer.columns, answer.fetchall()
            except duckdb.Error as error:
                raise LakeError(etl.explain(error)) from error

        yield query


def spark_query(spark: SparkSession, lake: str, catalog: str | None = None) -> Query:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    missing = []
    inference = "spark.sql.sources.partitionColumnTypeInference.enabled"  # with which the id 007 becomes 7
    session = etl.new_session(spark, {"spark.sql.session.timeZone": "UTC", inference: "false"})
    for table in etl.TABLES:
        try:
            read = session.read
            rows = read.table(f"{catalog}.{table}") if catalog else read.parquet(f"{etl.literal(lake)}/{table}")
            rows.alias("stored").selectExpr(*columns_of(table).split(", ")).createOrReplaceTempView(table)
        except (PySparkException, Py4JError) as error:
            if not any(f"[{name}]" in str(error) for name in NOT_THERE):
                raise LakeError(f"cannot read table {table}: {etl.explain(error)}") from error
            missing.append(table)
    refuse_missing(lake, missing, catalog, "" if catalog else " (Spark finds Iceberg's by --catalog)")

    def query(sql: str) -> Answer:
        try:
            answer = session.sql(sql)
            return answer.columns, answer.collect()
        except (PySparkException, Py4JError) as error:
            raise LakeError(etl.explain(error)) from error

    return query


def submitted_session() -> SparkSession | None:
    """The session of spark-submit, where it runs this program."""
    return SparkSession.builder.getOrCreate() if etl.is_submitted() else None


@contextmanager
def spark_engine(lake: str, config: str | None = None, catalog: str | None = None) -> Iterator[Query]:
    spark = submitted_session()
    uri = etl.to_uri(lake, os.getcwd(), spark)
    if not spark:
        import laptop

        aws = etl.read_config(etl.find_config(config, None))["AWS"]
        spark = laptop.create_session(etl.Settings(uri, uri, {}, catalog=catalog or "", aws=aws))
    try:
        yield spark_query(spark, uri, catalog)
    finally:
        spark.stop()


def configured_lake(config: str | None) -> tuple[str, str | None]:
    """The output and, where it has one, the catalog of dl.cfg, which etl.py finds at the same place."""
    spark = submitted_session()
    path = etl.find_config(config, spark)
    found = etl.read_config(path)
    uri = etl.to_uri(found["PATHS"]["OUTPUT_DATA"], os.path.dirname(path or f"{os.getcwd()}/"), spark)
    return uri, found["LAKE"]["CATALOG"] or None


def as_text(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None, work: Callable[..., int]) -> int:
    """Adds the options that say which lake, does the work on it, and returns the exit code."""
    parser.add_argument("--lake", metavar="URI", help="what etl.py's --output was (default: that of dl.cfg)")
    parser.add_argument("--catalog", metavar="NAME", help="what etl.py's --catalog was (Spark cannot tell from --lake)")
    parser.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help="default: duckdb")
    parser.add_argument("--config", metavar="FILE", help="etl.py's configuration (default: dl.cfg)")
    options = parser.parse_args(argv)
    engine = {"duckdb": duckdb_engine, "spark": spark_engine}[options.engine]
    try:
        if not options.lake:
            options.lake, catalog = configured_lake(options.config)
            options.catalog = catalog if options.catalog is None else options.catalog
        options.catalog = options.catalog and etl.to_catalog(options.catalog)
        with engine(options.lake, options.config, options.catalog) as query:
            code = work(query, options)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # as with `| head`; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        print(f"{parser.prog}: error: {etl.explain(error)}", file=sys.stderr)
        return 1
