"""Sparkify data lake: song and log JSON to a star schema of five parquet tables.

Inputs, any depth below the two folders, `*.json` and `*.json.gz`, one JSON object a line:
    INPUT/song_data   song metadata
    INPUT/log_data    user activity events of the streaming app

Tables, in OUTPUT/<table>:
    songs       one row per song_id
    artists     one row per artist_id
    users       one row per user of the log, as of the latest event
    time        one row per start_time of songplays
    songplays   the fact table: one row per play (a NextSong event), however often it was delivered

Lines that fit no table are kept whole in OUTPUT/_rejected. OUTPUT/_runs holds a folder for each run: the lock,
and what is needed to clean up after a run that died.

    python etl.py --input data --output lake
    python etl.py --input s3a://bucket/prefix --output s3a://lake/prefix
    spark-submit etl.py --input s3://bucket/prefix --output s3://lake/prefix
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import reduce
from typing import Any, NoReturn, TypeVar

from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark import SparkConf, SparkContext
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

# ---------------------------------------------------------------------------------------------------------------------
# Schemas and constants
# ---------------------------------------------------------------------------------------------------------------------

TYPES = {
    "string": T.StringType(),
    "int": T.IntegerType(),
    "bigint": T.LongType(),
    "double": T.DoubleType(),
    "timestamp": T.TimestampType(),
}


def schema_of(columns: str) -> T.StructType:
    """A schema from "name type, name type"; Spark's own parser of this needs a running JVM."""
    return T.StructType([T.StructField(name, TYPES[kind]) for name, kind in map(str.split, columns.split(","))])


SONG_SCHEMA = schema_of(
    "num_songs bigint, artist_id string, artist_latitude double, artist_longitude double, artist_location string, "
    "artist_name string, song_id string, title string, duration double, year int"
)
LOG_SCHEMA = schema_of(
    "artist string, auth string, firstName string, gender string, itemInSession bigint, lastName string, "
    "length double, level string, location string, method string, page string, registration double, "
    "sessionId bigint, song string, status bigint, ts bigint, userAgent string, userId string"
)
TABLES = {
    "songs": schema_of("song_id string, title string, artist_id string, year int, duration double"),
    "artists": schema_of("artist_id string, name string, location string, latitude double, longitude double"),
    "users": schema_of("user_id string, first_name string, last_name string, gender string, level string"),
    "time": schema_of("start_time timestamp, hour int, day int, week int, month int, year int, weekday int"),
    "songplays": schema_of(
        "songplay_id string, start_time timestamp, user_id string, level string, song_id string, artist_id string, "
        "session_id bigint, location string, user_agent string, year int, month int"
    ),
}
KEYS = {
    "songs": "song_id",
    "artists": "artist_id",
    "users": "user_id",
    "time": "start_time",
    "songplays": "songplay_id",
}
DIMENSIONS = ("songs", "artists", "users", "time")
SORTED_BY = {name: (key,) for name, key in KEYS.items()} | {
    "songs": ("artist_id", "song_id"),
    "songplays": ("start_time", "songplay_id"),
    "_rejected": ("source_file", "line"),
}
REJECTED = "_rejected"
OUTPUTS = (*TABLES, REJECTED)

PLAY_PAGE = "NextSong"
PLAY_KEY = ("ts", "userId", "sessionId", "itemInSession")
PLAY_FIELDS = ("level", "song", "artist", "length", "location", "userAgent")
MIN_TS, MAX_TS = 946_684_800_000, 253_402_300_799_999  # 2000-01-01 to 9999-12-31, so that seconds are not taken for ms

SQL_CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.files.openCostInBytes": "256k",  # 512 small files a task; by the default of 4 MiB they are 32
    "spark.sql.sources.useListFilesFileSystemList": "s3a,s3",  # one flat listing; Spark 3.5 does not know it
}
SMALL_FOLDER_ROWS = 100_000
FOLDERS_PER_TASK = 32  # each task of a write costs S3 requests of its own
# outside a cluster only: under spark-submit the platform owns these
LOCAL_CONF = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "8",
}
SMALL_INPUT_BYTES = 128 << 20
# A short run ends before what Java's second compiler makes has paid for itself. From S3, so does a longer one of small
# files: it waits more than it computes.
SMALL_INPUT_JAVA = "-XX:TieredStopAtLevel=1"
CLASS_ARCHIVE = os.path.join(sys.prefix, "etl.jsa")  # of Spark's classes, read and verified; the Makefile makes it
LOCAL_FILES_CONF = {
    # no .crc files, and no chmod process for each file; S3A can't do with it
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
}
LOCAL_S3_CONF = {
    "spark.master": "local[32]",  # reading small files waits for S3, so more threads than cores
    "spark.jars.packages": "org.apache.hadoop:hadoop-aws:3.4.1,org.apache.spark:spark-hadoop-cloud_2.13:4.0.2,"
    "software.amazon.awssdk:s3:2.29.52,software.amazon.awssdk:s3-transfer-manager:2.29.52,"
    "software.amazon.awssdk:sts:2.29.52",
    # the SDK's bundle of 500 MB, what pyspark has already, and other clouds
    "spark.jars.excludes": "software.amazon.awssdk:bundle,io.netty:*,com.fasterxml.jackson.*:*,org.slf4j:*,"
    "org.apache.httpcomponents:*,commons-codec:*,org.eclipse.jetty:*,com.squareup.*:*,com.google.cloud.*:*,joda-time:*,"
    "org.apache.hadoop:hadoop-client-*,org.apache.hadoop:hadoop-azure*,org.apache.hadoop:hadoop-cloud-storage,"
    "org.wildfly.openssl:*",
    # The magic committer: nothing can be seen before the commit and nothing is copied, 3 requests for each file
    # instead of the file committer's 18.
    "spark.sql.sources.commitProtocolClass": "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol",
    "spark.sql.parquet.output.committer.class": "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter",
}
S3A_CONF = {
    # a hang is found by its silence; all tries together end in less than two minutes
    "fs.s3a.connection.establish.timeout": "5s",
    "fs.s3a.connection.timeout": "5s",
    "fs.s3a.connection.request.timeout": "5s",
    "fs.s3a.attempts.maximum": "2",
    "fs.s3a.retry.limit": "4",
    "fs.s3a.retry.interval": "200ms",
    "fs.s3a.retry.throttle.limit": "6",
    "fs.s3a.retry.throttle.interval": "200ms",
    "mapreduce.outputcommitter.factory.scheme.s3a": "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory",
    "fs.s3a.committer.name": "magic",
    "fs.s3a.committer.magic.track.commits.in.memory.enabled": "true",
    "fs.s3a.performance.flags": "create,mkdir",
}
# Of Hadoop's thousand defaults those that are asked for: by a run on local files, and by one on other storage
LOCAL_DEFAULTS = ("file.", "io.")
STORAGE_DEFAULTS = (*LOCAL_DEFAULTS, "fs.", "hadoop.tmp.dir", "mapreduce.outputcommitter.")
CREDENTIALS_PROVIDER = "org.apache.hadoop.fs.s3a.{}AWSCredentialsProvider"
S3_COUNTERS = {
    "HEAD": ["action_http_head_request"],
    "GET": ["action_http_get_request"],
    "LIST": ["object_list_request", "object_continue_list_request"],
    "PUT": ["object_put_request", "object_multipart_initiated", "stream_write_block_uploads"],
    "COPY": ["object_copy_requests"],
    "DELETE": ["object_delete_request", "object_bulk_delete_request"],
}
JAVA_PACKAGE = "apt-get install openjdk-17-jre-headless"
START_PROBLEMS = {
    "UnsupportedClassVersionError": f"Java 17 or newer is needed and the one found is older (Debian: {JAVA_PACKAGE})",
    "(?i)[^\n]*(?:could not (?:reserve|allocate)|cannot allocate memory|insufficient memory)[^\n]*": (
        "too little memory for Spark's JVM: {0}"
    ),
    "unresolved dependency: [^:\\n]*": "cannot download the S3A jars: {0}; is Maven Central reachable?",
}


class ConfigError(Exception):
    """Wrong usage or configuration: exit code 2."""


class JobError(Exception):
    """The job cannot go on; its message is the one line that the user sees: exit code 1."""


# ---------------------------------------------------------------------------------------------------------------------
# Tables: frames in, one frame out
# ---------------------------------------------------------------------------------------------------------------------


def is_known(text: str) -> Column:
    """True where a string column is neither null nor empty."""
    return F.coalesce(F.col(text) != "", F.lit(False))


def build_songs(song_rows: DataFrame) -> DataFrame:
    """One row per song_id: song_id, title, artist_id, year int (0 unknown), duration double (seconds).

    Of copies that differ: a known year first, then the alphabetically first title, the lowest artist_id, the
    shortest duration.
    """
    year = F.coalesce("year", F.lit(0))
    best = F.min(
        F.struct(
            year == 0, F.col("title").isNull(), "title", "artist_id", F.col("duration").isNull(), "duration",
            year.alias("year"),
        )
    )  # fmt: skip
    return (
        song_rows.groupBy("song_id")
        .agg(best.alias("best"))
        .select("song_id", "best.title", "best.artist_id", "best.year", "best.duration")
    )


def build_artists(song_rows: DataFrame) -> DataFrame:
    """One row per artist_id: artist_id, name, location, latitude double, longitude double (degrees).

    One whole source row: the most complete one (location known, coordinates known), then the shortest name, the
    alphabetically first, the lowest song_id. An empty location is unknown and stored as null.
    """
    location = F.when(is_known("artist_location"), F.col("artist_location"))
    has_place = F.col("artist_latitude").isNotNull() & F.col("artist_longitude").isNotNull()
    missing = F.lit(2) - location.isNotNull().cast("int") - has_place.cast("int")
    best = F.min(
        F.struct(
            missing, F.col("artist_name").isNull(), F.length("artist_name"), F.col("artist_name").alias("name"),
            "song_id", location.alias("location"), F.col("artist_latitude").alias("latitude"),
            F.col("artist_longitude").alias("longitude"),
        )
    )  # fmt: skip
    return (
        song_rows.groupBy("artist_id")
        .agg(best.alias("best"))
        .select("artist_id", "best.name", "best.location", "best.latitude", "best.longitude")
    )


def build_users(log_rows: DataFrame) -> DataFrame:
    """One row per user_id: user_id, first_name, last_name, gender, level, all string.

    Every logged-in user of the log, on any page, with the values of the latest event by ts (ties: sessionId,
    itemInSession).
    """
    latest = F.max(F.struct("ts", "sessionId", "itemInSession", "level", "firstName", "lastName", "gender"))
    return (
        log_rows.filter(is_known("userId"))
        .groupBy(F.col("userId").alias("user_id"))
        .agg(latest.alias("latest"))
        .select(
            "user_id",
            F.col("latest.firstName").alias("first_name"),
            F.col("latest.lastName").alias("last_name"),
            "latest.gender",
            "latest.level",
        )
    )


def songplay_id() -> Column:
    """128 bits of the SHA-256 of a play's natural key, in hex: the same in every run."""
    item = F.coalesce(F.col("itemInSession").cast("string"), F.lit(""))
    # userId comes last because it alone may hold the separator
    return F.substring(F.sha2(F.concat_ws("|", "ts", "sessionId", item, "userId"), 256), 1, 32)


def build_songplays(log_rows: DataFrame, song_rows: DataFrame) -> DataFrame:
    """One row per play: a NextSong event, by its natural key (ts, userId, sessionId, itemInSession).

    songplay_id, start_time timestamp (UTC, milliseconds),
    user_id, level, song_id, artist_id, session_id bigint, location, user_agent, year int, month int (of start_time).
    song_id and artist_id are those of the song row with the same title, artist name and duration (the lowest pair
    where there are several), null where there is none. The artist names are the song data's own: an artist_id may
    go by several, so that a join through the artists table would lose plays.
    """
    plays = (
        log_rows.filter(F.col("page") == PLAY_PAGE)
        .groupBy(*PLAY_KEY)
        .agg(F.min(F.struct(*PLAY_FIELDS)).alias("play"))
        .select(*PLAY_KEY, "play.*")
    )
    catalogue = (
        song_rows.groupBy(
            F.col("title").alias("song"), F.col("artist_name").alias("artist"), F.col("duration").alias("length")
        )
        .agg(F.min(F.struct("song_id", "artist_id")).alias("match"))
        .select("song", "artist", "length", "match.*")
    )
    start_time = F.timestamp_millis("ts")
    return plays.join(catalogue, on=["song", "artist", "length"], how="left").select(
        songplay_id().alias("songplay_id"),
        start_time.alias("start_time"),
        F.col("userId").alias("user_id"),
        "level",
        "song_id",
        "artist_id",
        F.col("sessionId").alias("session_id"),
        "location",
        F.col("userAgent").alias("user_agent"),
        F.year(start_time).alias("year"),
        F.month(start_time).alias("month"),
    )


def build_time(songplays: DataFrame) -> DataFrame:
    """One row per start_time of songplays: start_time timestamp (UTC), and its hour, day, week (ISO 8601), month,
    year and weekday (1 Sunday to 7 Saturday), all int.
    """
    return (
        songplays.select("start_time")
        .distinct()
        .select(
            "start_time",
            F.hour("start_time").alias("hour"),
            F.dayofmonth("start_time").alias("day"),
            F.weekofyear("start_time").alias("week"),
            F.month("start_time").alias("month"),
            F.year("start_time").alias("year"),
            F.dayofweek("start_time").alias("weekday"),
        )
    )


# ---------------------------------------------------------------------------------------------------------------------
# Reading: every line becomes a row, or a rejected line with its reason
# ---------------------------------------------------------------------------------------------------------------------


def is_one_object(line: str) -> Column:
    """True where a line holds a JSON object and nothing else, as long as that object itself is not broken.

    Spark's parser stops at the end of the first object. A line that starts with a brace, and whose only closing brace
    is its last character, has nothing beyond it: this sees to nearly all lines, in a sixth of the time of parsing.
    Any other line is wrapped, before a key that is longer than the line: so the line can't hold that key itself.
    Where the wrapping has this key and no third, the line stands between its brackets whole.
    """
    text, size = F.col(line), F.octet_length(line)
    is_flat = text.startswith("{") & (F.octet_length(F.substring_index(line, "}", 1)) == size - 1)
    end = F.repeat(F.lit("x"), size)
    wrapped = F.concat(F.lit('{"line":['), text, F.lit('],"'), end, F.lit('":1}'))
    is_whole = F.json_object_keys(wrapped) == F.array(F.lit("line"), end)
    is_single = F.json_array_length(F.concat(F.lit("["), text, F.lit("]"))) == 1
    return is_flat | (text.rlike(r"^\s*\{") & is_whole & is_single)


def parse_lines(lines: DataFrame, schema: T.StructType) -> DataFrame:
    """The schema's columns for each line (`value`), and `misfit`: why the line is none of its rows, or null."""
    with_broken = T.StructType([*schema, T.StructField("broken", T.StringType())])
    options = {
        "columnNameOfCorruptRecord": "broken",
        "allowSingleQuotes": "false",
        "allowNonNumericNumbers": "false",
    }
    parsed = F.from_json(F.when(is_one_object("value"), F.col("value")), with_broken, options)
    fits = F.col("parsed").isNotNull() & F.col("parsed.broken").isNull()
    doubles = [F.abs(f"parsed.{f.name}") == float("inf") for f in schema if f.dataType == T.DoubleType()]
    misfit = (
        F.when(F.encode("value", "UTF-8") != F.col("value").cast("binary"), "not UTF-8; the line is kept in base64")
        .when(~fits, "not one JSON object that fits the schema")
        .when(F.coalesce(F.greatest(*doubles), F.lit(False)), "a number is too large")
    )
    return lines.withColumn("parsed", parsed).select(
        *(f"parsed.{name}" for name in schema.names), misfit.alias("misfit"), "value", "source_file"
    )


def read_lines(spark: SparkSession, folder: str) -> DataFrame:
    """The lines of all JSON files below a folder: `value` and `source_file`. Blank lines are none."""
    return (
        spark.read.option("recursiveFileLookup", True)
        .option("pathGlobFilter", "*.{json,json.gz}")
        .text(literal(folder))
        .filter(F.col("value").startswith("{") | F.col("value").rlike(r"\S"))
        .select("value", F.col("_metadata.file_path").alias("source_file"))
    )


def with_rejects(rows: DataFrame, columns: list[str], reason: Column) -> DataFrame:
    """The columns, and for a rejected line its reason, its source_file and the whole line (else null)."""
    is_rejected = F.col("reason").isNotNull()
    line = F.when(F.col("reason").startswith("not UTF-8"), F.base64(F.col("value").cast("binary"))).otherwise(
        F.col("value")
    )
    return rows.withColumn("reason", F.coalesce("misfit", reason)).select(
        *columns,
        "reason",
        F.when(is_rejected, F.col("source_file")).alias("source_file"),
        F.when(is_rejected, line).alias("line"),
    )


def read_songs(spark: SparkSession, folder: str) -> DataFrame:
    """The song rows of a folder, and its rejected lines (those with a reason)."""
    rows = parse_lines(read_lines(spark, folder), SONG_SCHEMA)
    reason = F.when(~is_known("song_id") | ~is_known("artist_id"), "song_id or artist_id is missing")
    return with_rejects(rows, [name for name in SONG_SCHEMA.names if name != "num_songs"], reason)


def read_logs(spark: SparkSession, folder: str) -> DataFrame:
    """The events of a folder, and its rejected lines (those with a reason)."""
    rows = parse_lines(read_lines(spark, folder), LOG_SCHEMA)
    is_unkeyed = F.col("ts").isNull() | ~is_known("userId") | F.col("sessionId").isNull()
    reason = (
        F.when(F.col("page").isNull(), "page is missing")
        .when(~F.col("ts").between(MIN_TS, MAX_TS), "ts is not in UTC milliseconds between 2000 and 9999")
        .when((F.col("page") == PLAY_PAGE) & is_unkeyed, "a play without ts, userId or sessionId")
    )
    columns = [*PLAY_KEY, "page", *PLAY_FIELDS, "firstName", "lastName", "gender"]
    return with_rejects(rows, columns, reason)


# ---------------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------------


# What makes a key wrong, by how often its table stores it and how often others use it
KEY_RULES = {
    "null keys": "key IS NULL",
    "keys that are not unique": "stored > 1",
    "keys that songplays or the log refers to are missing": "stored = 0",
}
PLAY_RULES = KEY_RULES | {"plays that are not in the log": "used = 0"}


def rules_of(table: str) -> dict[str, str]:
    return PLAY_RULES if table == "songplays" else KEY_RULES


def tally(stored: DataFrame, used: DataFrame) -> DataFrame:
    """One row per key: key, stored (how often the table has it), used (how often others refer to it)."""
    is_stored = stored.select("key", F.lit(1).alias("stored"), F.lit(0).alias("used"))
    is_used = used.select("key", F.lit(0).alias("stored"), F.lit(1).alias("used"))
    return (
        is_stored.unionAll(is_used.filter("key IS NOT NULL"))  # a play may have no song
        .groupBy("key")
        .agg(F.sum("stored").alias("stored"), F.sum("used").alias("used"))
    )


def count_broken(table: str, tallied: DataFrame) -> DataFrame:
    """One row: the table, and how many keys break each of its rules."""
    counts = (F.count_if(F.expr(condition)).alias(rule) for rule, condition in PLAY_RULES.items())
    return tallied.agg(F.lit(table).alias("table"), *counts)


def hash_of(key: Column) -> Column:
    """A key's 64-bit hash, null for null: to count these takes half the time of the keys."""
    return F.when(key.isNotNull(), F.xxhash64(key))


def text_of(key: Column) -> Column:
    return key.cast("string")


def check_tables(tables: dict[str, DataFrame], log_rows: DataFrame) -> None:
    """Proves every key and reference of the five tables; else JobError.

    The rules: keys are unique and not null, songplays has one row for each distinct play of the log and no other,
    and whatever songplays refers to is there. The error names the rule, how many keys break it, and three of them.
    """
    log_plays = log_rows.filter(F.col("page") == PLAY_PAGE).select(songplay_id().alias("songplay_id"))

    def tally_of(name: str, as_key: Callable[[Column], Column]) -> DataFrame:
        user, key = (log_plays if name == "songplays" else tables["songplays"]), as_key(F.col(KEYS[name]))
        return tally(tables[name].select(key.alias("key")), user.select(key.alias("key")))

    by_hash = reduce(DataFrame.unionAll, (count_broken(name, tally_of(name, hash_of)) for name in tables))
    for found in by_hash.collect():
        name = found["table"]
        if not any(found[rule] for rule in rules_of(name)):
            continue
        by_key = tally_of(name, text_of)  # two keys may have one hash, so the keys themselves decide
        counts = count_broken(name, by_key).collect()[0]
        for rule, condition in rules_of(name).items():
            if counts[rule]:
                examples = by_key.filter(condition).orderBy("key").limit(3).collect()
                keys = ", ".join(str(example["key"]) for example in examples)
                raise JobError(f"check failed: {name}: {counts[rule]:,} {rule}, for example {keys}")


# ---------------------------------------------------------------------------------------------------------------------
# The lake: publishing a table without ever losing the old one
# ---------------------------------------------------------------------------------------------------------------------

# Spark names the files of one write part-<task>-<UUID of the write>...
WRITE_ID = re.compile(r"/part-\d+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[^/]*$")
FILE_STATUS = re.compile(r"path=([^;]*(?:;(?! isDirectory=)[^;]*)*); isDirectory=false; length=(\d+)")
V = TypeVar("V")
HEARTBEAT_SECONDS, DEAD_AFTER_SECONDS = 20, 180
FOOTER_READERS, FOOTER_BYTES = 16, 64 << 10  # threads, which mostly wait for S3; enough for all but the longest footer


class Lake:
    """The output folder, through Hadoop's FileSystem: the same on local files, S3 and HDFS.

    A table is published by adding this run's files beside the old ones, reading them back, noting the id of that write
    in `_runs/<run id>/<table>`, and only then deleting the files of earlier runs' writes. So a dead run can be settled
    exactly: a table with its note is finished by the deletes that are left; one without is put back, by deleting what
    has come since `_runs/<run id>/<table>.before`. Files that no write of `_runs` made are a stranger's, left alone.
    """

    def __init__(self, spark: SparkSession, root: str, run_id: str) -> None:
        self.spark, self.root, self.run_id = spark, root.rstrip("/"), run_id
        self._new_path = java(spark, "org.apache.hadoop.fs.Path")
        self._fs = self._path("").getFileSystem(spark._jsc.hadoopConfiguration())
        self._has_folders = not str(self._fs.getUri()).startswith("s3")
        self._writes: dict[str, set[str]] = {name: set() for name in OUTPUTS}  # of earlier runs
        self.published: dict[str, dict[str, Any]] = {}
        self._stop, self._beats, self._is_silent = threading.Event(), 0, False
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._watch = threading.Thread(target=self._watch_heart, daemon=True)

    # files

    def _path(self, *names: str) -> Any:
        return self._new_path("/".join([self.root, *filter(None, names)]))

    def _write(self, name: str, content: object, run: str | None = None) -> None:
        path = self._path("_runs", run or self.run_id, name)
        try:
            write_text(self._fs, path, json.dumps(content, indent=1))
        except Py4JJavaError as error:
            raise JobError(f"cannot write {path.toString()}: {explain(error)}") from error

    def _read(self, run: str, name: str) -> dict[str, Any]:
        """A note of a run; empty where there is none, or the run died while it wrote it."""
        try:
            stream = self._fs.open(self._path("_runs", run, name))
            text = java(self.spark, "org.apache.commons.io.IOUtils").toString(stream, "UTF-8")
            stream.close()
            return dict(json.loads(text))
        except ValueError:
            return {}
        except Py4JJavaError as error:
            return ignore_missing(error, {})

    def _names(self, *folder: str) -> dict[str, int]:
        """The names in a folder with their modification times, in ms of the file system's own clock."""
        try:
            return {s.getPath().getName(): s.getModificationTime() for s in self._fs.listStatus(self._path(*folder))}
        except Py4JJavaError as error:
            return ignore_missing(error, {})

    def _files(self, table: str) -> dict[str, int]:
        """The files of a table that a reader sees, with their sizes."""
        try:
            listing = self._fs.listFiles(self._path(table), True)
            statuses = java(self.spark, "org.apache.hadoop.util.functional.RemoteIterators").toList(listing)
        except Py4JJavaError as error:
            return ignore_missing(error, {})
        # one string, because each element would cost several round trips to the JVM
        text = java(self.spark, "org.apache.hadoop.util.StringUtils").join("\n", statuses)
        below = len(self._fs.makeQualified(self._path(table)).toString())
        return {path: int(size) for path, size in FILE_STATUS.findall(text) if not re.search(r"/[._]", path[below:])}

    def _delete(self, paths: list[str]) -> None:
        """Deletes files, and the folders that this empties."""
        root = self._fs.makeQualified(self._path(""))
        if self._fs.hasPathCapability(root, "fs.capability.bulk.delete"):  # since Hadoop 3.4.1
            bulk = self._fs.createBulkDelete(root)
            for start in range(0, len(paths), bulk.pageSize()):
                page = java(self.spark, "java.util.ArrayList")()
                for path in paths[start : start + bulk.pageSize()]:
                    page.add(self._new_path(path))
                for failed in bulk.bulkDelete(page):
                    raise JobError(f"cannot delete {failed.getKey()}: {failed.getValue()}")
        else:
            for path in paths:
                self._fs.delete(self._new_path(path), False)
        for folder in {path.rpartition("/")[0] for path in paths}:
            path = self._new_path(folder)
            while self._has_folders and path.depth() > root.depth() and not self._fs.listStatus(path):
                self._fs.delete(path, False)
                path = path.getParent()

    def _prune(self, folder: Any) -> None:
        """Deletes the empty partition folders below a folder, which a run leaves that dies between its deletes."""
        for status in self._fs.listStatus(folder):
            if status.isDirectory() and "=" in status.getPath().getName():
                self._prune(status.getPath())
                if not self._fs.listStatus(status.getPath()):
                    self._fs.delete(status.getPath(), False)

    # runs

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the lake for this run: settles dead runs first, cleans up after this one if it fails."""
        self._write("started", self._identity())
        self._heart.start()
        if not self._has_folders:
            self._watch.start()
        try:
            self._write("probe", {})
            self._delete([self._path("_runs", self.run_id, "probe").toString()])  # fails here where it is forbidden
            others = [run for run in self._names("_runs") if run != self.run_id]
            for run in others:
                self._settle(run)
            yield
        except BaseException as error:
            error.lake_state = self._settle_own()  # type: ignore[attr-defined]
            raise
        finally:
            self._still()
        for run in others:  # none of them has a file left
            self._fs.delete(self._path("_runs", run), True)

    def _identity(self) -> dict[str, object]:
        return {
            "host": socket.gethostname(),
            "pids": [os.getpid(), java(self.spark, "java.lang.ProcessHandle").current().pid()],
            "application": self.spark.sparkContext.applicationId,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _is_alive(self, names: dict[str, int], who: dict[str, Any]) -> bool:
        mine = self._identity()
        if who.get("application") == mine["application"]:
            return False  # an earlier attempt of this YARN application
        if who.get("host") == mine["host"] and not any(map(is_running, who.get("pids", []))):
            return False
        now = max(self._names("_runs", self.run_id).values())
        return now - max(names.values(), default=0) < DEAD_AFTER_SECONDS * 1000

    def _settle(self, run: str) -> None:
        """Learns what an ended run wrote; brings the tables of a dead one to all of its rows or none.

        JobError where the run is alive.
        """
        names = self._names("_runs", run)
        writes = self._read(run, "ended").get("writes")
        if writes is None:
            who = self._read(run, "started")
            if self._is_alive(names, who):
                raise JobError(
                    f"another run is at work on {self.root}: run {run}, process {who.get('pids', ['?'])[0]} on "
                    f"{who.get('host', '?')}; wait for it to end"
                )
            writes = {table: self._settle_table(run, table, names) for table in OUTPUTS if f"{table}.before" in names}
            self._write("ended", {"state": "died", "settled_by": self.run_id, "writes": writes}, run)
        for table, write in writes.items():
            self._writes[table].update(filter(None, [write]))

    def _settle_table(self, run: str, table: str, names: dict[str, int]) -> str | None:
        """Finishes or takes back what a dead run did to a table; returns the id of its write if it is finished."""
        before = self._read(run, f"{table}.before")
        self._clean(table)
        if not before:  # the run died before it wrote to the table
            return None
        files = self._files(table)
        new = {file: write for file in files if (write := write_id(file)) and file not in before["strangers"]}
        new = {file: write for file, write in new.items() if write not in before["writes"]}
        is_published = table in names
        self._delete([file for file in files if write_id(file) in before["writes"]] if is_published else list(new))
        if files and self._has_folders:
            self._prune(self._path(table))
        return next(iter(new.values()), None) if is_published else None

    def _clean(self, table: str) -> None:
        """Removes what committers leave behind when they die."""
        for name in self._names(table):
            if name.startswith(("_temporary", "__magic", ".spark-staging")):
                self._fs.delete(self._path(table, name), True)
        if self._fs.hasPathCapability(self._path(table), "fs.capability.multipart.uploader"):
            uploader = self._fs.createMultipartUploader(self._path(table)).build()
            uploader.abortUploadsUnderPath(self._path(table)).get()
            uploader.close()

    def _settle_own(self) -> str:
        """After a failure: takes back the tables that were not published; says what state that leaves."""
        try:
            names = self._names("_runs", self.run_id)
            for table in OUTPUTS:
                if f"{table}.before" in names and table not in self.published:
                    self._settle_table(self.run_id, table, {})
            self._still()
            if self.published:
                self.finish({"state": "failed"})
            else:
                self._fs.delete(self._path("_runs", self.run_id), True)
        except Exception:  # the storage may be gone
            why = f"{self.root} has stopped answering; " if self._is_silent else ""
            return f"{why}the old rows are whole, but files of run {self.run_id} may lie beside them until the next run"
        if self.published:
            return f"{', '.join(self.published)} hold this run's rows, the other tables the last run's; run it again"
        return "the lake is unchanged"

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(Exception):  # one missed beat is no harm
                self._write("heartbeat", {})
                self._beats += 1

    def _watch_heart(self) -> None:
        """Ends the JVM after three missed beats, for without an answer Spark's own clean-up takes many minutes."""
        seen, missed = -1, 0
        while not self._stop.wait(HEARTBEAT_SECONDS):
            seen, missed = self._beats, missed + 1 if self._beats == seen else 0
            jvm = getattr(self.spark.sparkContext._gateway, "proc", None)  # the platform's own has none
            if missed == 3 and jvm:
                self._is_silent = True
                jvm.kill()

    def _still(self) -> None:
        """Ends the heartbeat, also one that is under way, which would write to a folder that is deleted next."""
        self._stop.set()
        self._heart.join()

    def _note(self, name: str, content: object) -> None:
        """Writes a note of this run, unless another run has taken this one for dead."""
        if "started" not in (names := self._names("_runs", self.run_id)) or "ended" in names:
            raise JobError(f"another run has taken over {self.root}: run {self.run_id} was silent for too long")
        self._write(name, content)

    def publish(self, name: str, table: DataFrame, rows: int, folders: int, partitions: tuple[str, ...]) -> None:
        """Replaces a table's rows by this frame's; `published` then tells its rows, files, bytes and seconds."""
        path, started = f"{self.root}/{name}", time.monotonic()
        old = self._files(name)
        strangers = [file for file in old if write_id(file) not in self._writes[name]]
        self._note(f"{name}.before", {"writes": sorted(self._writes[name]), "strangers": strangers})
        committed, found, new, write = started, 0, {}, None
        if rows:
            writer = arrange(table, rows, folders, partitions, SORTED_BY[name]).write.mode("append")
            writer = writer.option("mapreduce.fileoutputcommitter.marksuccessfuljobs", False)
            writer = writer.partitionBy(list(partitions))
            try:
                writer.json(path) if name == REJECTED else writer.parquet(path)
            except Exception as error:
                raise JobError(f"cannot write {path}: {explain(error)}") from error
            committed = time.monotonic()
            new = {file: size for file, size in self._files(name).items() if file not in old and write_id(file)}
            write, *others = {write_id(file) for file in new} or {None}
            if others:
                raise JobError(f"something else has written to {path} during this run; see the newest files there")
            if name == REJECTED:
                reader = self.spark.read.schema(table.schema).option("recursiveFileLookup", True)
                found = reader.option("pathGlobFilter", f"*{write}*").json(literal(path)).count()
            else:
                found = self._count_rows(new)
        if found != rows:
            raise JobError(f"{path} has {found:,} rows after the write instead of {rows:,}")
        sizes = {"rows": rows, "files": len(new), "bytes": sum(new.values())}
        self._note(name, {**sizes, "write": write})
        self.published[name] = {**sizes, "write": write, "strangers": strangers}
        self._delete([file for file in old if file not in strangers])
        ended = time.monotonic()
        self.published[name] |= {"seconds": ended - started, "mixed_seconds": ended - committed}

    def _count_rows(self, files: dict[str, int]) -> int:
        """The rows of parquet files by their footers: one S3 request a file, where a query would take four."""
        footers = java(self.spark, "org.apache.parquet.format.Util")
        utils = java(self.spark, "org.apache.commons.io.IOUtils")
        buffer = java(self.spark, "java.io.ByteArrayInputStream")

        def count(file: tuple[str, int], end: int = FOOTER_BYTES) -> int:
            path, size = file
            try:
                # a length that is given need not be asked for
                opening = self._fs.openFile(self._new_path(path)).opt("fs.option.openfile.length", str(size))
                stream = opening.build().get()
                stream.seek(max(0, size - end))
                tail = utils.toByteArray(stream)
                stream.close()
                footer_size = int.from_bytes(tail[-8:-4], "little")  # stands before the closing PAR1
                if tail[-4:] != b"PAR1" or footer_size > size:
                    raise JobError(f"cannot read {path} back: it does not end like a parquet file")
                if footer_size + 8 > end:
                    return count(file, footer_size + 8)
                footer = buffer(tail[-8 - footer_size : -8])
                return int(footers.readFileMetaData(footer).getNum_rows())
            except Py4JJavaError as error:
                raise JobError(f"cannot read {path} back: {explain(error)}") from error

        with ThreadPoolExecutor(FOOTER_READERS) as pool:
            return sum(pool.map(count, files.items()))

    def finish(self, report: dict[str, Any]) -> None:
        """Notes that the run has ended, and which writes it leaves in the lake."""
        self._note("ended", {**report, "writes": {name: table["write"] for name, table in self.published.items()}})


def java(spark: SparkSession, name: str) -> Any:
    """A class of Spark's JVM; PySpark has no public way to Hadoop's FileSystem.

    By its whole name at once: for each package of `spark._jvm.org.apache.hadoop` Py4J would look into all jars.
    """
    return getattr(spark._jvm, name)


def write_text(file_system: Any, path: Any, text: str) -> None:
    """Writes a file through Hadoop's FileSystem."""
    stream = file_system.create(path, True)
    stream.write(bytearray(text.encode()))
    stream.close()


def write_id(file: str) -> str | None:
    """The id of the Spark write that made a file, or null."""
    match = WRITE_ID.search(file)
    return match[1] if match else None


def literal(path: str) -> str:
    """The path for spark.read, which takes some characters for wildcards."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


def ignore_missing(error: Py4JJavaError, value: dict[str, V]) -> dict[str, V]:
    """The value where the error says that a file or folder is not there."""
    if "FileNotFoundException" in str(error.java_exception):
        return value
    raise error


def is_running(pid: int) -> bool:
    """True where this machine has the process, and it is not this one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def arrange(table: DataFrame, rows: int, folders: int, partitions: tuple[str, ...], sort: tuple[str, ...]) -> DataFrame:
    """The frame, spread over tasks as it is to be written: one file in a small folder, several in a large one."""
    if partitions and rows < SMALL_FOLDER_ROWS * folders:
        threads = table.sparkSession.sparkContext.defaultParallelism
        spread = table.repartition(min(threads, -(-folders // FOLDERS_PER_TASK)), *partitions)
    else:
        spread = table.hint("rebalance", *partitions)
    return spread.sortWithinPartitions(*partitions, *(column for column in sort if column not in partitions))


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What a run needs to know. Paths are URIs that Hadoop understands."""

    input: str
    output: str
    partitions: dict[str, tuple[str, ...]]
    max_rejected: float = 0.01
    aws: dict[str, str] = field(default_factory=dict, repr=False)


def read_input(
    spark: SparkSession, name: str, settings: Settings, read: Callable[[SparkSession, str], DataFrame]
) -> tuple[DataFrame, dict[str, Any]]:
    """The rows of an input, kept for all that follows, and how many files, lines and rejected lines it has."""
    started, folder = time.monotonic(), f"{settings.input}/{name}"
    rows = read(spark, folder)
    files = len(rows._jdf.inputFiles())
    if not files:
        raise JobError(f"no *.json or *.json.gz file below {folder}")
    lines, rejected = rows.persist().select(F.count("*"), F.count("reason")).first() or (0, 0)
    if rejected > settings.max_rejected * lines:
        examples = rows.filter(F.col("reason").isNotNull()).orderBy("source_file", "line").limit(3).collect()
        raise JobError(
            f"{rejected:,} of {lines:,} lines of {folder} are rejected, more than the share of "
            f"{settings.max_rejected:g} that MAX_REJECTED allows, for example "
            + "; ".join(f"{row['source_file']}: {row['reason']}" for row in examples)
        )
    return rows, {"files": files, "lines": lines, "rejected": rejected, "seconds": time.monotonic() - started}


def run(spark: SparkSession, settings: Settings, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Reads both inputs, builds and checks the five tables, publishes them; returns the report.

    Raises JobError, or Spark's own errors; then the tables that were not yet published are as they were.
    """
    for key, value in SQL_CONF.items():
        spark.conf.set(key, value)
    started = time.monotonic()
    steps: dict[str, float] = {}

    def step(name: str, since: float, text: str) -> None:
        steps[name] = time.monotonic() - since
        say(f"{text:<60} {steps[name]:8.1f} s")

    run_id = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    lake = Lake(spark, settings.output, run_id)
    with lake.claimed(), ThreadPoolExecutor(4) as pool:
        since = time.monotonic()
        reads = [
            pool.submit(read_input, spark, name, settings, read)
            for name, read in (("song_data", read_songs), ("log_data", read_logs))
        ]
        (song_lines, song_counts), (log_lines, log_counts) = (reading.result() for reading in reads)
        inputs = {"song_data": song_counts, "log_data": log_counts}
        for name, counts in inputs.items():
            text = (
                f"read {name}: {counts['lines']:,} lines of {counts['files']:,} files, {counts['rejected']:,} rejected"
            )
            say(f"{text:<60} {counts.pop('seconds'):8.1f} s")
        steps["read"] = time.monotonic() - since

        since = time.monotonic()
        is_accepted = F.col("reason").isNull()
        song_rows, log_rows = song_lines.filter(is_accepted), log_lines.filter(is_accepted)
        songplays = build_songplays(log_rows, song_rows).persist()
        tables = {
            "songs": build_songs(song_rows).persist(),
            "artists": build_artists(song_rows).persist(),
            "users": build_users(log_rows).persist(),
            "time": build_time(songplays).persist(),
            "songplays": songplays,
        }
        counts = check_tables(tables, log_rows, settings.partitions)
        step("build", since, f"built and checked 5 tables, {counts['songplays']:,} plays")

        since = time.monotonic()

        def publish(name: str) -> None:
            folders = counts.get(f"{name} folders", 1)
            lake.publish(name, tables[name], counts[name], folders, settings.partitions.get(name, ()))

        tables[REJECTED] = reduce(
            DataFrame.unionAll,
            (
                lines.filter(~is_accepted).select(F.lit(name).alias("input"), "source_file", "reason", "line")
                for name, lines in (("song_data", song_lines), ("log_data", log_lines))
            ),
        )
        counts[REJECTED] = song_counts["rejected"] + log_counts["rejected"]
        # a play must never point at a row of a dimension that is not there yet
        list(pool.map(publish, (REJECTED, *DIMENSIONS)))
        publish("songplays")
        published = {name: {**lake.published[name]} for name in OUTPUTS}
        strangers = [file for table in published.values() for file in table.pop("strangers")]
        step(
            "write", since, f"wrote {sum(table['files'] for table in published.values()):,} files to {settings.output}"
        )
        report = {
            "run_id": run_id,
            "state": "done",
            "input": settings.input,
            "output": settings.output,
            "seconds": time.monotonic() - started,
            "steps": steps,
            "inputs": inputs,
            "tables": published,
            "matched_share": counts["matched"] / counts["songplays"] if counts["songplays"] else None,
            "strangers": strangers,
            "s3_requests": count_requests(spark, settings),
        }
        lake.finish(report)
    for frame in (song_lines, log_lines, *tables.values()):
        frame.unpersist()
    return report


def count_requests(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """S3A's own counts of this process's requests by kind; empty where the work is done on other machines."""
    requests = dict.fromkeys(S3_COUNTERS, 0)
    buckets = {uri.split("/")[2] for uri in (settings.input, settings.output) if uri.startswith("s3a://")}
    for bucket in buckets if str(spark.sparkContext.master).startswith("local") else ():
        path = java(spark, "org.apache.hadoop.fs.Path")(f"s3a://{bucket}/")
        counters = path.getFileSystem(spark._jsc.hadoopConfiguration()).getIOStatistics().counters()
        for kind, names in S3_COUNTERS.items():
            requests[kind] += sum(counters.get(name) or 0 for name in names)
    return {kind: count for kind, count in requests.items() if count}


# ---------------------------------------------------------------------------------------------------------------------
# Configuration: command line over dl.cfg over defaults
# ---------------------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "AWS": dict.fromkeys(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"), ""
    ),
    "PATHS": {"INPUT_DATA": "data", "OUTPUT_DATA": "lake"},
    "PARTITIONS": {"SONGS": "year", "TIME": "year, month", "SONGPLAYS": "year, month"},
    "LIMITS": {"MAX_REJECTED": "0.01"},
}


def is_submitted() -> bool:
    """True under spark-submit, where the platform owns master, jars, committer and credentials."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def find_config(given: str | None) -> str | None:
    """The path of dl.cfg: as given, else in this folder, beside etl.py, or among spark-submit's --files."""
    if given:
        if not os.path.isfile(given):
            raise ConfigError(f"no configuration file {given}")
        return given
    places = ["dl.cfg", os.path.join(os.path.dirname(os.path.abspath(__file__)), "dl.cfg")]
    if is_submitted():
        SparkContext._ensure_initialized()  # so that SparkConf sees what spark-submit was given
        conf = SparkConf()
        files = ",".join(conf.get(key) or "" for key in ("spark.yarn.dist.files", "spark.files")).split(",")
        places = [re.sub("^file:(//)?", "", file) for file in files if file.endswith("/dl.cfg")] + places
    return next(filter(os.path.isfile, places), None)


def read_config(path: str | None) -> dict[str, dict[str, str]]:
    """The sections of dl.cfg with all their keys, over the defaults; ConfigError names what is wrong."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")  # a secret may hold a %
    parser.optionxform = str.upper  # type: ignore[assignment,method-assign]
    try:
        if path:
            with open(path, encoding="utf-8-sig") as file:
                parser.read_file(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except configparser.Error as error:  # its text may quote a line, and that line may hold a secret
        problem = re.sub("(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", [])), ("?",))[0]
        raise ConfigError(f"{path}, line {line}: {problem}; each line is [SECTION] or KEY = value") from None
    for section in parser.sections():
        if section not in DEFAULTS:
            raise ConfigError(f"{path}: unknown section [{section}]; known are {', '.join(DEFAULTS)}")
        for key in parser[section]:
            if key not in DEFAULTS[section]:
                raise ConfigError(f"{path}: unknown key {key} in [{section}]; known are {', '.join(DEFAULTS[section])}")
    values = {
        section: {key: parser.get(section, key, fallback=value) for key, value in keys.items()}
        for section, keys in DEFAULTS.items()
    }
    for key, value in values["PATHS"].items():
        if not value:
            raise ConfigError(f"{path}: {key} in [PATHS] is empty")
    has_key, has_secret = (bool(values["AWS"][key]) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if has_key != has_secret:
        missing = "AWS_SECRET_ACCESS_KEY" if has_key else "AWS_ACCESS_KEY_ID"
        raise ConfigError(f"{path}: {missing} in [AWS] is empty; give both halves of the key, or none")
    if values["AWS"]["AWS_SESSION_TOKEN"] and not has_key:
        raise ConfigError(f"{path}: AWS_SESSION_TOKEN in [AWS] needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return values


def to_uri(path: str, folder: str) -> str:
    """The path as a URI; a relative one is below the folder. A cluster resolves its own paths."""
    if is_submitted():
        return path.rstrip("/") or path
    if "://" in path:
        return re.sub("^s3n?://", "s3a://", path).rstrip("/")
    return "file://" + os.path.abspath(os.path.join(folder, path))


def to_partitions(table: str, text: str) -> tuple[str, ...]:
    columns = tuple(column.strip().lower() for column in text.split(",") if column.strip())
    unknown = [column for column in columns if column not in TABLES[table].names or column == KEYS[table]]
    if unknown or len(set(columns)) < len(columns):
        allowed = ", ".join(name for name in TABLES[table].names if name != KEYS[table])
        raise ConfigError(f"{table.upper()} in [PARTITIONS] is {text!r}; give some of {allowed}, each once")
    return columns


def make_settings(options: argparse.Namespace) -> Settings:
    """The settings of this run; ConfigError names the file, key or path that is wrong."""
    path = find_config(options.config)
    config = read_config(path)
    folder = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
    source, output = (
        to_uri(given, os.getcwd()) if given else to_uri(config["PATHS"][key], folder)
        for given, key in ((options.input, "INPUT_DATA"), (options.output, "OUTPUT_DATA"))
    )
    one, other = (
        re.sub("^s3[an]?://", "s3://", os.path.realpath(uri[7:]) if uri.startswith("file://") else uri) + "/"
        for uri in (source, output)
    )
    if one.startswith(other) or other.startswith(one):
        raise ConfigError(f"the output {output} and the input {source} lie inside one another; give separate folders")
    limit = options.max_rejected if options.max_rejected is not None else config["LIMITS"]["MAX_REJECTED"]
    try:
        max_rejected = float(limit)
    except ValueError:
        max_rejected = -1
    if not 0 <= max_rejected <= 1:
        raise ConfigError(f"MAX_REJECTED is {limit!r}; give a share of the lines from 0 to 1")
    partitions = {name.lower(): to_partitions(name.lower(), text) for name, text in config["PARTITIONS"].items()}
    return Settings(source, output, partitions, max_rejected, config["AWS"])


# ---------------------------------------------------------------------------------------------------------------------
# The session
# ---------------------------------------------------------------------------------------------------------------------


def s3_client(session: Any, endpoint: str | None, is_signed: bool) -> Any:
    """boto3's client of S3, which soon tells where nothing answers; one that does not sign sees public buckets only."""
    import botocore
    from botocore.config import Config

    signature = None if is_signed else botocore.UNSIGNED
    retries = {"mode": "standard", "max_attempts": 4}
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        endpoint_url=endpoint,
        config=Config(signature_version=signature, connect_timeout=5, read_timeout=10, retries=retries),
    )


def listed_bytes(client: Any, uri: str, folders: tuple[str, ...]) -> int:
    """The bytes of the first thousand files below each folder of a URI; of a URI itself it asks only for the right."""
    bucket, _, prefix = uri.removeprefix("s3a://").partition("/")
    size = 0
    for folder in folders:
        wanted = {"Prefix": (prefix and prefix + "/") + folder, "MaxKeys": 1000 if folder else 1}
        page = client.list_objects_v2(Bucket=bucket, **wanted)
        size += sum(file["Size"] for file in page.get("Contents", ()) if folder)
    return size


def s3_conf(settings: Settings) -> tuple[dict[str, str], int]:
    """S3A's settings for a run outside a cluster, with the credentials that boto3 finds; empty without S3.

    Asks each bucket first, so that a wrong key or path fails here, at once and in one line (JobError). With that come
    the bytes of each input folder's first thousand files.
    """
    uris = [uri for uri in (settings.input, settings.output) if uri.startswith("s3a://")]
    if not uris:
        return {}, 0
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ConfigError("boto3 is needed for S3 outside a cluster: pip install -r requirements.txt") from None

    aws = {key: value or None for key, value in settings.aws.items()}
    conf, size = dict(S3A_CONF), 0
    try:
        session = boto3.Session(
            aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"], aws["AWS_SESSION_TOKEN"], aws["AWS_REGION"]
        )
        keys = (credentials := session.get_credentials()) and credentials.get_frozen_credentials()
        if keys:
            conf |= {"fs.s3a.access.key": keys.access_key, "fs.s3a.secret.key": keys.secret_key}
            if keys.token:
                conf["fs.s3a.session.token"] = keys.token
        provider = "Anonymous" if not keys else "Temporary" if keys.token else "Simple"
        conf["fs.s3a.aws.credentials.provider"] = CREDENTIALS_PROVIDER.format(provider)
        for uri in uris:
            bucket = uri.split("/")[2]
            client = s3_client(session, aws["AWS_ENDPOINT_URL"], is_signed=bool(keys))
            folders = ("song_data/", "log_data/") if uri == settings.input else ("",)
            try:
                size += listed_bytes(client, uri, folders)
            except ClientError as error:
                is_denied = error.response["Error"]["Code"] == "AccessDenied"
                if not is_denied or not keys or bucket == settings.output.split("/")[2]:
                    raise
                # a public input bucket needs no right of the caller's own
                client = s3_client(session, aws["AWS_ENDPOINT_URL"], is_signed=False)
                size += listed_bytes(client, uri, folders)
                conf[f"fs.s3a.bucket.{bucket}.aws.credentials.provider"] = CREDENTIALS_PROVIDER.format("Anonymous")
            headers = client.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
            region = headers.get("x-amz-bucket-region", client.meta.region_name)
            conf[f"fs.s3a.bucket.{bucket}.endpoint.region"] = region
            if "amazonaws.com" not in client.meta.endpoint_url:
                conf |= {"fs.s3a.endpoint": client.meta.endpoint_url, "fs.s3a.path.style.access": "true"}
    except ClientError as error:
        problem = error.response["Error"]
        raise JobError(f"cannot list {uri}: {problem.get('Message', 'refused')} ({problem['Code']})") from error
    except BotoCoreError as error:
        raise JobError(f"cannot reach S3 for {' and '.join(uris)}: {error}") from error
    return conf, size


@contextlib.contextmanager
def hushed(verbose: bool) -> Iterator[list[bytes]]:
    """Keeps what the JVM prints while it starts (Spark's and Ivy's chatter, and why it can't); later output passes."""
    kept: list[bytes] = []
    if verbose:
        yield kept
        return
    is_up, (source, sink), (out, err) = threading.Event(), os.pipe(), (os.dup(1), os.dup(2))

    def pump() -> None:
        while chunk := os.read(source, 65536):
            if is_up.is_set():
                os.write(err, chunk)
            else:
                kept.append(chunk)

    pumping = threading.Thread(target=pump, daemon=True)
    pumping.start()
    sys.stdout.flush()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield kept
    finally:
        os.dup2(out, 1)
        os.dup2(err, 2)
        pumping.join(0.2)  # it ends at once where the JVM has died
        is_up.set()


def local_bytes(uri: str) -> int:
    """The bytes of a local folder's files, or of enough of them to know that they are many."""
    size = 0
    for path, _, files in os.walk(uri.removeprefix("file://")):
        for name in files:
            with contextlib.suppress(OSError):  # a broken link; reading tells
                size += os.path.getsize(os.path.join(path, name))
        if size > SMALL_INPUT_BYTES:
            break
    return size


def trim_defaults(spark: SparkSession, kept: tuple[str, ...]) -> None:
    """Drops Hadoop's own defaults but for the kept: Spark copies and searches all settings for each file it reads."""
    hadoop: Any = spark.sparkContext._jsc.hadoopConfiguration()
    # these two load the last of them, which must not happen later
    java(spark, "org.apache.hadoop.mapred.JobConf")()
    java(spark, "org.apache.hadoop.fs.Path")("file:///").getFileSystem(hadoop)
    dump = java(spark, "java.io.StringWriter")()
    hadoop.dumpConfiguration(hadoop, dump)
    for setting in json.loads(dump.toString())["properties"]:
        if setting["resource"].endswith("-default.xml") and not setting["key"].startswith(kept):
            hadoop.unset(setting["key"])
    with contextlib.suppress(Py4JJavaError):  # a private map of where each setting came from, which is copied too
        sources = hadoop.getClass().getDeclaredField("updatingResource")
        sources.setAccessible(True)
        sources.get(hadoop).keySet().retainAll(hadoop.getPropsWithPrefix("").keySet())


def create_session(settings: Settings, verbose: bool = False) -> SparkSession:
    """A session for this run: the platform's under spark-submit, else a local one, with S3A where it is needed.

    Raises JobError where Java or the S3A jars cannot be had, or a bucket cannot be listed.
    """
    if is_submitted():
        return SparkSession.builder.getOrCreate()
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else "java"
    if not shutil.which(program):
        raise JobError(f"Java 17 or newer is needed and {program} was not found; install it (Debian: {JAVA_PACKAGE})")
    access, size = s3_conf(settings)
    conf = LOCAL_CONF | (LOCAL_S3_CONF if access else LOCAL_FILES_CONF)
    if settings.input.startswith("file://"):
        size = local_bytes(settings.input)
    java_options = []
    if settings.input.startswith(("file://", "s3a://")) and size <= SMALL_INPUT_BYTES:
        java_options.append(SMALL_INPUT_JAVA)
    if os.path.isfile(CLASS_ARCHIVE):
        java_options.append(f'"-XX:SharedArchiveFile={CLASS_ARCHIVE}"')  # Java ignores it where it does not fit
    if java_options:
        conf["spark.driver.defaultJavaOptions"] = " ".join(java_options)
    if os.environ.get("LC_ALL") in ("C", "POSIX"):
        os.environ["LC_ALL"] = "C.UTF-8"  # by its own locale, Java writes "?" for each other letter of a file's name
    builder = SparkSession.builder.config(
        map={**conf, "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower()}
    )
    with hushed(verbose) as printed:
        try:
            spark = builder.getOrCreate()
        except Exception as error:
            time.sleep(0.2)  # for the last that the JVM printed
            text = b"".join(printed).decode(errors="replace")
            for pattern, problem in START_PROBLEMS.items():
                if match := re.search(pattern, text):
                    raise JobError(problem.format(match[0])) from error
            raise JobError(f"Spark did not start: {(text.strip() or str(error)).splitlines()[-1]}") from error
    if not verbose:
        spark.sparkContext.setLogLevel("OFF")  # an error is told in one line, at the end
    is_local = settings.input.startswith("file://") and settings.output.startswith("file://")
    trim_defaults(spark, LOCAL_DEFAULTS if is_local else STORAGE_DEFAULTS)
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    for key, value in access.items():  # not through the session's builder, which puts them on the JVM's command line
        hadoop.set(key, value)
    return spark


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def explain(error: BaseException) -> str:
    """One line that says what went wrong, out of the hundred that Spark and Py4J say."""
    text = str(error)
    if isinstance(error, JobError):
        return text
    if isinstance(error, (ConnectionError, Py4JNetworkError)):
        return "Spark's JVM has ended"
    causes = re.findall(r"^(?:Caused by: |: |.*executor (?:driver|\d+)\): )(.*)", text, re.MULTILINE)
    line = next((line for line in [*causes[-1:], *text.splitlines()] if line.strip()), type(error).__name__)
    line = re.sub(r"^(?:[\w$]+\.)+[\w$]+: ", "", line).strip()
    file = re.search(r"while reading file (\S+?)\.?(?:\s|$)", text)
    return f"cannot read {file[1]}: {line}" if file and file[1] not in line else line


def show(report: dict[str, Any]) -> str:
    """The report as a table and a few lines."""
    lines = [f"{'table':<12}{'rows':>12}{'files':>8}{'bytes':>14}{'seconds':>9}"]
    for name, table in report["tables"].items():
        if name != REJECTED or table["rows"]:
            lines.append(
                f"{name:<12}{table['rows']:>12,}{table['files']:>8,}{table['bytes']:>14,}{table['seconds']:>9.1f}"
            )
    if report["matched_share"] is not None:
        lines.append(f"plays that found their song: {report['matched_share']:.1%}")
    rejected = sum(counts["rejected"] for counts in report["inputs"].values())
    lines.append(f"rejected lines: {rejected:,}" + (f", see {report['output']}/{REJECTED}" if rejected else ""))
    if report["s3_requests"]:
        lines.append("S3 requests: " + ", ".join(f"{kind} {count:,}" for kind, count in report["s3_requests"].items()))
    lines += [f"left alone, not written by this job: {stranger}" for stranger in report["strangers"]]
    lines.append(f"done in {report['seconds']:.1f} s, run {report['run_id']}")
    return "\n".join(lines)


def save_report(spark: SparkSession, report: dict[str, Any], target: str) -> None:
    """Writes the report as JSON to a local path or a URI that Hadoop understands."""
    text = json.dumps(report, indent=1)
    if "://" not in target:
        with open(target, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return
    path = java(spark, "org.apache.hadoop.fs.Path")(target if is_submitted() else to_uri(target, ""))
    write_text(path.getFileSystem(spark._jsc.hadoopConfiguration()), path, text)


class Parser(argparse.ArgumentParser):
    """Tells of wrong usage in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options; ConfigError where they are wrong."""
    parser = Parser(
        prog="etl.py",
        description="Turns Sparkify's song and log JSON into a star schema of five parquet tables.",
        epilog="Exit code: 0 done, 1 the job failed, 2 wrong usage or configuration, 130 interrupted.",
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration (default: dl.cfg here or beside etl.py)")
    parser.add_argument("--input", metavar="URI", help="the folder of song_data and log_data: a path, s3a://, s3://")
    parser.add_argument("--output", metavar="URI", help="the folder of the five tables: a path, s3a://, s3://")
    parser.add_argument("--report", metavar="FILE", help="write the run's report as JSON to this path or URI")
    parser.add_argument(
        "--max-rejected", metavar="SHARE", help="fail if more than this share of an input's lines is bad (0.01)"
    )
    parser.add_argument("--verbose", action="store_true", help="show Spark's log, and the stack trace of an error")
    options = parser.parse_args(argv)
    for name, value in vars(options).items():
        if value == "":
            raise ConfigError(f"--{name.replace('_', '-')} is empty")
    return options


def main(argv: list[str] | None = None) -> int:
    """Runs the job by the command line's options; returns the exit code."""
    spark, is_verbose = None, False
    signals: list[int] = []

    def stop(number: int, _: object) -> None:
        signals.append(number)
        if not spark:
            raise KeyboardInterrupt

    def listen() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal and YARN send it
            signal.signal(number, stop)

    try:
        options = parse_options(argv)
        is_verbose = options.verbose
        settings = make_settings(options)
        listen()
        spark = create_session(settings, options.verbose)
        listen()  # Spark has put a handler of its own in place, which breaks into calls to the JVM
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(run, spark, settings)
            while wait([work], timeout=0.2).not_done:
                if signals:
                    spark.sparkContext.cancelAllJobs()
        report = work.result()
        if options.report:
            save_report(spark, report, options.report)
        print(show(report))
        return 0
    except ConfigError as error:
        print(f"etl.py: error: {error}", file=sys.stderr)
        return 2
    except (Exception, KeyboardInterrupt) as error:
        if is_verbose:
            traceback.print_exc()
        state = getattr(error, "lake_state", "the lake is unchanged")
        print(f"etl.py: error: {'interrupted' if signals else explain(error)}; {state}", file=sys.stderr)
        return 128 + signals[0] if signals else 1
    finally:
        if spark:
            with contextlib.suppress(Exception):  # a JVM that was killed
                spark.stop()


if __name__ == "__main__":
    sys.exit(main())
