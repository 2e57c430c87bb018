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

Lines that fit no table are kept whole in OUTPUT/_rejected.

    spark-submit etl.py --input s3://bucket/prefix --output s3://lake/prefix
    python etl.py --input data --output lake

A plain `python etl.py` takes its session from laptop.py; a cluster needs this file and dl.cfg alone.
"""

from __future__ import annotations

import contextlib
import os
import signal

PROCESS = os.getpid()
INTERRUPTED = b"etl.py: error: interrupted; each table is whole, and the next run removes what this one has left\n"


def interrupt(*_: object) -> None:
    """Ends the process at once, and cleans nothing up: the next run removes what this one leaves."""
    if os.getpid() == PROCESS:  # the child by which PySpark starts Java gets the signal too
        with contextlib.suppress(OSError):  # nobody may listen
            os.write(2, INTERRUPTED)
    os._exit(130)


if __name__ == "__main__":  # before the other imports, which take a second
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)

import argparse
import configparser
import importlib.util
import json
import re
import socket
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import reduce
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from pyspark import SparkFiles
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

# --- What goes in and what comes out ---------------------------------------------------------------------------------


def schema_of(columns: str) -> T.StructType:
    """A schema from "name type, name type", or from lines of name, type and meaning.

    Spark's own parser of this needs a running JVM.
    """
    schema = T.StructType()
    for column in columns.splitlines() if "\n" in columns else columns.split(", "):
        name, kind, *meaning = column.split(maxsplit=2)
        schema.add(name, kind, metadata={"comment": meaning[0]} if meaning else None)
    return schema


SONG_SCHEMA = schema_of(
    "num_songs long, artist_id string, artist_latitude double, artist_longitude double, artist_location string, "
    "artist_name string, song_id string, title string, duration double, year integer"
)
LOG_SCHEMA = schema_of(
    "artist string, auth string, firstName string, gender string, itemInSession long, lastName string, "
    "length double, level string, location string, method string, page string, registration double, "
    "sessionId long, song string, status long, ts long, userAgent string, userId string"
)
# For each table its name and what a row is, then a line for each column: name, type, and meaning with its unit
MEANINGS = """
songs: One row per song of the catalogue; of copies that differ one with a known year, by its title the first.
song_id string which song
title string its title; may be null
artist_id string its artist
year integer when it came out; 0 where unknown
duration double how long it is, in seconds; may be null

artists: One row per artist of the catalogue: the source row that knows most, then the one with the shortest name.
artist_id string which artist
name string name; a song may name the artist otherwise (X feat. Y)
location string where the artist is from; null where unknown
latitude double in degrees, north is positive; often null
longitude double in degrees, east is positive; often null

users: One row per logged-in user of the log, on any page, with the values of the latest event.
user_id string who
first_name string first name; may be null
last_name string last name; may be null
gender string F or M as in the log; may be null
level string free or paid, may be null: the latest level; songplays.level is the one at a play

time: One row per start_time of songplays.
start_time timestamp the moment, UTC, in milliseconds
hour integer its hour, 0 to 23
day integer its day of the month, 1 to 31
week integer its week by ISO 8601, which begins on Monday, 1 to 53
month integer its month, 1 to 12
year integer its year
weekday integer its day of the week: 1 is Sunday, 7 is Saturday

songplays: One row per play: an event with the page NextSong. An event that was delivered twice counts once.
songplay_id string 128 bits in hex, the same in every run
start_time timestamp when the play began, UTC, in milliseconds
user_id string who listened
level string free or paid, may be null: the level at this play; an upgrade shows at the next play
song_id string the song with the same title, artist name and duration; null where the catalogue has none
artist_id string the artist in the song row that was found; null where song_id is null
session_id long the session; sessions are told apart by user_id and session_id
location string where the listener was; may be null
user_agent string the listener's browser and device; may be null
year integer the year of start_time
month integer the month of start_time, 1 to 12
"""
REJECTED = "_rejected"
BLOCKS = [block.split("\n", 1) for block in MEANINGS.strip().split("\n\n")]
TABLES = {head.split(": ")[0]: schema_of(columns) for head, columns in BLOCKS}
GRAINS = dict(head.split(": ", 1) for head, _ in BLOCKS)
GRAINS[REJECTED] = "One row per line of the input that fits no table."
OUTPUTS = (*TABLES, REJECTED)
KEYS = {name: schema.names[0] for name, schema in TABLES.items()}
DIMENSIONS = tuple(name for name in TABLES if name != "songplays")
SORTED_BY = {name: (key,) for name, key in KEYS.items()} | {
    "songs": ("artist_id", "song_id"),
    "songplays": ("start_time", "songplay_id"),
    REJECTED: ("source_file", "line"),
}

PLAY_PAGE = "NextSong"
PLAY_KEY = ("ts", "userId", "sessionId", "itemInSession")
PLAY_FIELDS = ("level", "song", "artist", "length", "location", "userAgent")
USER_FIELDS = ("firstName", "lastName", "gender")
SONG_FIELDS = tuple(name for name in SONG_SCHEMA.names if name != "num_songs")
MIN_TS, MAX_TS = 946_684_800_000, 253_402_300_799_999  # 2000-01-01 to 9999-12-31, so that seconds are not taken for ms


class ConfigError(Exception):
    """Wrong usage or configuration."""

    exit_code = 2


class JobError(Exception):
    """The job cannot go on. Its message and the state of the lake are the one line that the user sees."""

    exit_code = 1

    def __init__(self, message: str, state: str = "the lake is unchanged") -> None:
        super().__init__(message)
        self.state = state


# --- Tables: frames in, one frame out --------------------------------------------------------------------------------


def is_known(text: str) -> Column:
    """True where a string column is neither null nor empty."""
    return F.coalesce(F.col(text) != "", F.lit(False))


def one_row_per_key(rows: DataFrame, table: str, best: Column) -> DataFrame:
    """The rows of a table: for each key the best struct of its rows, which has the table's other columns."""
    key, *others = TABLES[table].names
    return rows.groupBy(key).agg(best.alias("best")).select(key, *(f"best.{name}" for name in others))


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
    return one_row_per_key(song_rows, "songs", best)


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
    return one_row_per_key(song_rows, "artists", best)


def build_users(log_rows: DataFrame) -> DataFrame:
    """One row per user_id: user_id, first_name, last_name, gender, level, all string.

    Every logged-in user of the log, on any page, with the values of the latest event by ts (ties: sessionId,
    itemInSession).
    """
    new_names = {"userId": "user_id", "firstName": "first_name", "lastName": "last_name"}
    latest = F.max(F.struct("ts", "sessionId", "itemInSession", "level", "first_name", "last_name", "gender"))
    return one_row_per_key(log_rows.filter(is_known("userId")).withColumnsRenamed(new_names), "users", latest)


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
        .repartition(*PLAY_KEY)  # copies are rare: to look for them before the shuffle too would sort all plays twice
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


# --- Reading: every line becomes a row, or a rejected line with its reason -------------------------------------------


def is_one_value(line: str) -> Column:
    """True where a line holds one JSON value and nothing else, as long as that value itself is not broken.

    Spark's parser refuses a value that is no object, but ignores what follows the first one. Nearly all lines pass a
    fast test, which takes a sixth of the time of parsing: no } before the last byte. Any other line is put into an
    object of two keys, {"line": LINE, "RANDOM": 1}. If Spark finds just these two keys there, the line was one whole
    value; the second key is random, so that no line can hold it.
    """
    text, end = F.col(line), uuid.uuid4().hex
    before_end = text.cast("binary").substr(F.lit(1), F.octet_length(line) - 1)
    is_flat = ~F.contains(before_end, F.lit("}").cast("binary"))
    wrapped = F.concat(F.lit('{"line":'), text, F.lit(f',"{end}":1}}'))
    return is_flat | (F.json_object_keys(wrapped) == F.array(F.lit("line"), F.lit(end)))


def read_lines(spark: SparkSession, folder: str) -> DataFrame:
    """The lines of all JSON files below a folder: `value` and `source_file`. Blank lines are none."""
    return (
        spark.read.option("recursiveFileLookup", True)
        .option("pathGlobFilter", "[^._]*.{json,json.gz}")
        .text(literal(folder))
        .filter(F.col("value").startswith("{") | F.col("value").rlike(r"\S"))
        .select("value", F.col("_metadata.file_path").alias("source_file"))
    )


def read_rows(
    spark: SparkSession, folder: str, schema: T.StructType, columns: Sequence[str], reason: Column
) -> DataFrame:
    """A row per line below a folder: the wanted columns of the schema, and of rejected lines reason, source_file, line.

    A line is rejected where it does not fit the schema, or where the given column `reason` is not null.
    """
    with_broken = T.StructType([*schema, T.StructField("broken", T.StringType())])
    options = {"columnNameOfCorruptRecord": "broken", "allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}
    options["maxStringLen"] = str(2**31 - 1)  # else a text above 20 MB is no row
    parsed = F.from_json(F.when(is_one_value("value"), F.col("value")), with_broken, options)
    fits = F.col("parsed").isNotNull() & F.col("parsed.broken").isNull()
    doubles = [F.abs(f"parsed.{f.name}") == float("inf") for f in schema if f.dataType == T.DoubleType()]
    is_utf8 = F.encode("value", "UTF-8") == F.col("value").cast("binary")
    misfit = (
        F.when(~is_utf8, "not UTF-8; the line is kept in base64")
        .when(~fits, "not one JSON object that fits the schema")
        .when(F.coalesce(F.greatest(*doubles), F.lit(False)), "a number is too large")
    )
    is_rejected = F.col("reason").isNotNull()
    line = F.when(is_utf8, F.col("value")).otherwise(F.base64(F.col("value").cast("binary")))
    return (
        read_lines(spark, folder)
        .withColumn("parsed", parsed)
        .select("parsed.*", misfit.alias("misfit"), "value", "source_file")
        .withColumn("reason", F.coalesce("misfit", reason))
        .select(
            *columns,
            "reason",
            F.when(is_rejected, F.col("source_file")).alias("source_file"),
            F.when(is_rejected, line).alias("line"),
        )
    )


def read_songs(spark: SparkSession, folder: str) -> DataFrame:
    """The song rows of a folder, and its rejected lines (those with a reason)."""
    reason = F.when(~is_known("song_id") | ~is_known("artist_id"), "song_id or artist_id is missing")
    return read_rows(spark, folder, SONG_SCHEMA, SONG_FIELDS, reason)


def read_logs(spark: SparkSession, folder: str) -> DataFrame:
    """The events of a folder, and its rejected lines (those with a reason)."""
    is_unkeyed = F.col("ts").isNull() | ~is_known("userId") | F.col("sessionId").isNull()
    reason = (
        F.when(F.col("page").isNull(), "page is missing")
        .when(~F.col("ts").between(MIN_TS, MAX_TS), "ts is not in UTC milliseconds between 2000 and 9999")
        .when((F.col("page") == PLAY_PAGE) & is_unkeyed, "a play without ts, userId or sessionId")
    )
    return read_rows(spark, folder, LOG_SCHEMA, [*PLAY_KEY, "page", *PLAY_FIELDS, *USER_FIELDS], reason)


# --- Checks: what must hold before anything is written ---------------------------------------------------------------

# What must not be true of any key: `stored` is how many rows of its table have it, `used` how many of songplays or the
# log refer to it
RULES = {
    "null keys": "key IS NULL",
    "keys that are not unique": "stored > 1",
    "keys that songplays or the log refers to are missing": "stored = 0",
    "plays that are not in the log": "name = 'songplays' AND used = 0",
}


def has_just_the_keys(key: str, table: DataFrame, referring: DataFrame) -> bool:
    """True where the table's keys are just those that are referred to, each once.

    It compares their number and the XOR of their hashes: the table is not shuffled, and it takes half a tally's time.
    """
    hashed = F.when(F.col(key).isNotNull(), F.xxhash64(key)).alias("hash")
    totals = F.count("*"), F.bit_xor("hash")
    used = referring.select(hashed).filter("hash IS NOT NULL").distinct()
    return table.select(hashed).agg(*totals).unionAll(used.agg(*totals)).distinct().count() == 1


def tally(name: str, table: DataFrame, referring: DataFrame) -> DataFrame:
    """One row per key of a table: name, key as text, stored, used."""
    key = F.col(KEYS[name]).cast("string").alias("key")
    stored = table.select(key, F.lit(1).alias("stored"), F.lit(0).alias("used"))
    used = referring.select(key, F.lit(0), F.lit(1)).filter("key IS NOT NULL")  # a play may have no song
    counts = stored.unionAll(used).groupBy("key").agg(F.sum("stored").alias("stored"), F.sum("used").alias("used"))
    return counts.select(F.lit(name).alias("name"), "key", "stored", "used")


def check_tables(tables: dict[str, DataFrame], log_rows: DataFrame) -> None:
    """Keys are unique and not null, songplays has each play of the log and no other, and references resolve.

    Raises JobError, which names the table, the rule, how many keys break it, and three of them.
    """
    plays = log_rows.filter(F.col("page") == PLAY_PAGE).select(songplay_id().alias("songplay_id"))
    referring = dict.fromkeys(DIMENSIONS, tables["songplays"]) | {"songplays": plays}
    sound = {name for name in ("time", "songplays") if has_just_the_keys(KEYS[name], tables[name], referring[name])}
    keys = reduce(DataFrame.unionAll, (tally(n, tables[n], referring[n]) for n in tables if n not in sound))
    counts = [F.count_if(F.expr(is_broken)).alias(rule) for rule, is_broken in RULES.items()]
    for row in keys.groupBy("name").agg(*counts).orderBy("name").collect():
        for rule, is_broken in RULES.items():
            if row[rule]:
                found = keys.filter(F.col("name") == row["name"]).filter(is_broken).orderBy("key").limit(3).collect()
                examples = ", ".join(str(example["key"]) for example in found)
                raise JobError(f"check failed: {row['name']}: {row[rule]:,} {rule}, for example {examples}")


# --- The lake: publishing tables without ever losing the old rows ----------------------------------------------------

MARKER, LOCK = "_lake", "_lock-"
MARKER_TEXT = f"etl.py owns the folders {', '.join(OUTPUTS)} beside this file, and deletes data files in them.\n"
OLD_MARKER = "_runs"  # of the lakes that earlier versions of this job have written
# A data file as Spark names it; all files of one write have the same UUID
DATA_FILE = re.compile(r".*/part-(?:[^/]+-)?\d{5,}-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[^/]*")
LEFTOVERS = ("_temporary", "__magic", ".spark-staging", ".part-")  # of a committer that died; checksums of old files
NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"  # where Spark puts null and the empty text
HEARTBEAT_SECONDS, DEAD_AFTER_SECONDS = 20, 180
SMALL_FOLDER_ROWS = 100_000
FOLDERS_PER_TASK = 32  # each task of a write costs S3 requests of its own


def java(spark: SparkSession, name: str) -> Any:
    """A class of Spark's JVM, by its whole name; PySpark has no public way to Hadoop's FileSystem."""
    return getattr(spark._jvm, name)


def open_path(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """Hadoop's FileSystem of a URI, and its whole path there; without a scheme it is one of the default file system."""
    path = java(spark, "org.apache.hadoop.fs.Path")(uri)
    file_system = path.getFileSystem(spark._jsc.hadoopConfiguration())
    return file_system, file_system.makeQualified(path)


def list_below(spark: SparkSession, file_system: Any, path: Any) -> Any:
    """The status of each file below a folder, in a list of Java's."""
    return java(spark, "org.apache.hadoop.util.functional.RemoteIterators").toList(file_system.listFiles(path, True))


def write_text(file_system: Any, path: Any, text: str) -> None:
    """Writes a small file, also over an old one."""
    try:
        stream = file_system.create(path, True)
        stream.write(bytearray(text.encode()))
        stream.close()
    except Exception as error:
        raise JobError(f"cannot write {path}: {explain(error)}") from error


def literal(path: str) -> str:
    """The path for spark.read, which takes some characters for wildcards."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


def write_id(file: str) -> str:
    """The UUID of the Spark write that made a data file; empty for another file."""
    match = DATA_FILE.fullmatch(file)
    return match[1] if match else ""


def arrange(name: str, table: DataFrame, partitions: tuple[str, ...]) -> DataFrame:
    """The frame as it is to be written: sorted, in one file for a small folder and in several for a large one."""
    by = f"({', '.join(partitions)})" if partitions else ""
    # In SQL, since DataFrame.hint of Spark 3.5 takes no columns; and the view stays, since with a view Spark also drops
    # the rows of it that are kept in memory
    table.createOrReplaceTempView(view := f"table_{name}")
    spread = table.sparkSession.sql(f"SELECT /*+ REBALANCE{by} */ * FROM {view}")
    if set(partitions) - {"year", "month"}:  # maybe thousands of small folders, which one task would write for hours
        folders = F.size(F.collect_set(F.struct(*partitions)))
        rows, number = table.agg(F.count("*"), folders).collect()[0]
        if rows < SMALL_FOLDER_ROWS * number:
            threads = table.sparkSession.sparkContext.defaultParallelism
            spread = table.repartition(min(threads, -(-number // FOLDERS_PER_TASK)), *partitions)
    return spread.sortWithinPartitions(*partitions, *(column for column in SORTED_BY[name] if column not in partitions))


class Lake:
    """The output folder, through Hadoop's FileSystem: the same on local files, S3 and HDFS.

    A table's rows are replaced in four steps: list its data files, append the new ones, read these back, delete what
    was listed. So at every moment it holds all rows of the last run or all of this one, and what a dead run has left
    is in the list of the next. Two runs that overlap lose nothing either: each lists before it appends, so that they
    never have each other's files in their lists.
    """

    def __init__(self, spark: SparkSession, settings: Settings, run_id: str) -> None:
        self.spark, self.run_id, self.partitions = spark, run_id, settings.partitions
        self.fs, self.root = open_path(spark, f"{settings.output}/")
        pids = os.getpid(), java(spark, "java.lang.ProcessHandle").current().pid()
        self.has_folders = not str(self.fs.getUri()).startswith("s3")  # where a folder is but the start of a key
        self.host = re.sub(r"[^\w.-]", "-", f"{socket.gethostname()}-{uuid.getnode():x}")  # many machines share a name
        who = (self.host, *map(str, pids), spark.sparkContext.applicationId)
        self.lock = self._path(LOCK + ",".join((run_id, *who)))
        self.published: list[str] = []  # tables of which this run's rows are proven
        self.mixed: set[str] = set()  # tables that may hold files of two runs

    def _path(self, name: str) -> Any:
        """Hadoop's Path of a name in the lake, or of a whole URI."""
        return java(self.spark, "org.apache.hadoop.fs.Path")(self.root, name)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the lake for this run. What fails is raised as a JobError that tells the state of the lake."""
        stop = threading.Event()
        heart = threading.Thread(target=self._renew_lock, args=[stop], daemon=True)
        was_there = True
        try:
            was_there = self.has_folders and self.fs.exists(self.root)
            write_text(self.fs, self.lock, "")
            heart.start()
            self._refuse_others()
            write_text(self.fs, self._path("_probe"), "")
            self.fs.delete(self._path("_probe"), False)  # fails here where it is forbidden, not after the first append
            yield
        except Exception as error:
            raise JobError(explain(error), self._state()) from error
        finally:
            stop.set()
            with contextlib.suppress(Exception):  # the storage may be gone; the lock ends with this process
                heart.join()
                self.fs.delete(self.lock, False)
                if not was_there:
                    self.fs.delete(self.root, False)  # where a first run has failed: only an empty folder can go so

    def _renew_lock(self, stop: threading.Event) -> None:
        """Until the run ends, or another has taken it for dead; one missed beat is no harm."""
        while not stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(Exception):
                if self.fs.exists(self.lock):
                    write_text(self.fs, self.lock, "")

    def _refuse_others(self) -> None:
        """JobError where another run is alive, or where a table's folder has data files that are not this job's."""
        times = {status.getPath().getName(): status.getModificationTime() for status in self.fs.listStatus(self.root)}
        now = times.pop(self.lock.getName())  # in the file system's own time
        processes = java(self.spark, "java.lang.ProcessHandle")
        for name in (name for name in times if name.startswith(LOCK)):
            # an earlier version's name is the run's id alone; its other parts are ?
            run_id, host, *pids, application = [*name.removeprefix(LOCK).split(","), *"????"][:5]
            is_gone = host == self.host and not any(processes.of(int(pid)).isPresent() for pid in pids)
            is_silent = now - times[name] > DEAD_AFTER_SECONDS * 1000
            # this application has the lock of its earlier attempt on YARN, or of an earlier run in this session
            if not (is_gone or is_silent or application == self.spark.sparkContext.applicationId):
                raise JobError(
                    f"another run is at work on {self.root}: run {run_id}, process {pids[0]} on {host}; "
                    "wait for it to end"
                )
            self.fs.delete(self._path(name), False)
        if not {MARKER, OLD_MARKER} & times.keys():
            for name in OUTPUTS:
                if any(map(write_id, self._files(name))):
                    raise JobError(
                        f"{self._path(name)} holds data files, and {self.root} is no lake of this job; give another "
                        f"output, or make a file {MARKER} there to let the job replace them"
                    )

    def _state(self) -> str:
        """What a failed run leaves, in words."""
        done, mixed = ", ".join(self.published), ", ".join(sorted(self.mixed))
        state = f"{done} hold this run's rows, the other tables the last run's; run it again" if done else ""
        if mixed:
            return f"{state or 'the old rows are whole'}; files of both runs may lie in {mixed} until the next run"
        return state or "the lake is unchanged"

    def publish(self, tables: dict[str, DataFrame]) -> dict[str, dict[str, Any]]:
        """Replaces the rows of all tables: songplays last, so that no play points at a row that is not there yet.

        Returns for each its rows, files, bytes and seconds, for how many of these a reader may see both runs' rows
        (`mixed_seconds`, at most), and the files that Spark did not write, which are left alone (`strangers`).
        """
        write_text(self.fs, self._path(MARKER), MARKER_TEXT)
        first = [name for name in tables if name != "songplays"]
        with ThreadPoolExecutor(len(first)) as pool:
            published = dict(zip(first, pool.map(self._replace, first, map(tables.get, first)), strict=True))
        published["songplays"] = self._replace("songplays", tables["songplays"])
        return published

    def _replace(self, name: str, table: DataFrame) -> dict[str, Any]:
        """Replaces a table's rows by the frame's."""
        if not self.fs.exists(self.lock):
            raise JobError(f"another run has taken over {self.root}: run {self.run_id} was silent too long")
        started = time.monotonic()
        self._tidy(self._path(name))
        before = self._files(name)
        appending = time.monotonic()
        self.mixed.add(name)
        try:
            rows = self._append(name, table)
            new = self._new_files(name, before)
            if (found := self._count(name, table.schema, new)) != rows:
                raise JobError(f"it has {found:,} rows after the write instead of {rows:,}")
        except Exception as error:
            self._take_back(name, before)
            raise JobError(f"cannot write {self._path(name)}: {explain(error)}") from error
        self.published.append(name)
        self._delete(name, list(filter(write_id, before)))
        self.mixed.remove(name)
        sizes = {"rows": rows, "files": len(new), "bytes": sum(new.values())}
        seconds = {"seconds": time.monotonic() - started, "mixed_seconds": time.monotonic() - appending}
        return {**sizes, **seconds, "strangers": [file for file in before if not write_id(file)]}

    def _append(self, name: str, table: DataFrame) -> int:
        """Appends the rows to a table; how many they are. No rows are one file, so that readers find the columns."""
        rows, path = table.count(), str(self._path(name))
        partitions = self.partitions.get(name, ()) if rows else ()
        for column in (column for column in partitions if table.schema[column].dataType == T.StringType()):
            # Spark writes all of these to the folder of null: they become null before the sort, or it is opened twice
            table = table.withColumn(column, F.when(~F.col(column).isin("", NULL_FOLDER), F.col(column)))
        writer = arrange(name, table, partitions).write.mode("append").partitionBy(*partitions)
        writer = writer.option("mapreduce.fileoutputcommitter.marksuccessfuljobs", False)
        writer = writer.option("mapreduce.output.basename", f"part-{self.run_id}")  # Spark 3.5 does not know it
        if name != REJECTED:
            writer.parquet(path)
        elif rows:
            writer.json(path)
        return rows

    def _new_files(self, name: str, before: dict[str, int]) -> dict[str, int]:
        """The files of this run's write, with their sizes: the new files with the run's id in their names.

        Spark 3.5 and a platform's committer may leave the id out: then all new files, if they are of one write.
        """
        new = {file: size for file, size in self._files(name).items() if file not in before and write_id(file)}
        named = {file: size for file, size in new.items() if self.run_id in file}
        return named or (new if len(set(map(write_id, new))) == 1 else {})

    def _count(self, name: str, schema: T.StructType, files: dict[str, int]) -> int:
        """The rows of these files, which are of one write, as a reader finds them."""
        if not files:
            return 0
        reader = self.spark.read.schema(schema).option("recursiveFileLookup", True)
        reader = reader.option("pathGlobFilter", f"*{write_id(next(iter(files)))}*")
        path = literal(str(self._path(name)))
        return (reader.json(path) if name == REJECTED else reader.parquet(path)).count()

    def _take_back(self, name: str, before: dict[str, int]) -> None:
        """After a failure: deletes the files that surely are this run's own, and no others."""
        with contextlib.suppress(Exception):  # the storage may be gone; then the table stays among the mixed
            self._delete(name, [file for file in self._files(name) if self.run_id in file])
            if self._files(name).keys() <= before.keys():
                self.mixed.remove(name)

    def _files(self, table: str) -> dict[str, int]:
        """The files of a table that a reader sees, with their sizes."""
        path = self._path(table)
        found = list_below(self.spark, self.fs, path) if self.fs.exists(path) else ()
        files = {str(status.getPath()): status.getLen() for status in found}
        return {file: size for file, size in files.items() if not re.search(r"/[._]", file.removeprefix(str(path)))}

    def _delete(self, table: str, files: list[str]) -> None:
        """Deletes files of a table, and the folders that this empties."""
        path = self._path(table)
        paths = [self._path(file) for file in files]
        if self.fs.hasPathCapability(path, "fs.capability.bulk.delete"):  # since Hadoop 3.4.1; 250 keys a request on S3
            bulk = self.fs.createBulkDelete(path)
            for start in range(0, len(paths), bulk.pageSize()):
                for failed in bulk.bulkDelete(paths[start : start + bulk.pageSize()]):
                    raise JobError(f"cannot delete {failed.getKey()}: {failed.getValue()}")
        else:
            for each in paths:
                self.fs.delete(each, False)
        self._tidy(path)

    def _tidy(self, folder: Any) -> None:
        """Removes what committers and runs that died leave in a table's folder: their own folders, and empty ones."""
        for status in self.fs.listStatus(folder) if self.fs.exists(folder) else ():
            name = status.getPath().getName()
            if name.startswith(LEFTOVERS):
                self.fs.delete(status.getPath(), True)
            elif self.has_folders and status.isDirectory() and "=" in name:
                self._tidy(status.getPath())
        if self.has_folders and self.fs.exists(folder) and not self.fs.listStatus(folder):
            with contextlib.suppress(Exception):  # checksums may lie there, which a LocalFileSystem does not list
                self.fs.delete(folder, False)


OURS = {"created-by": "etl.py", "write.wap.enabled": "true"}  # so a write with a spark.wap.id is seen by no reader
DAY_MS = 86_400_000
COMMIT_TRIES = 10


class IcebergLake:
    """Iceberg tables below the output, in a catalog that Spark's settings name.

    Each table is written as a snapshot that no reader sees; then these are made current one by one, `rejected` first.
    That first commit decides between two runs: it fails where `rejected` has changed since the run began. Before each
    later commit the run looks whether `rejected` still holds its rows; where the table has changed since that look, the
    commit fails, and is tried again after another. So no table goes back to an older run, and a run that has lost
    `rejected` commits nothing more.
    """

    def __init__(self, spark: SparkSession, settings: Settings, run_id: str) -> None:
        self.spark, self.settings, self.run_id = spark, settings, run_id
        if settings.output.startswith("s3") and re.search("[#?]", settings.output):
            raise ConfigError(f"{settings.output}: on S3, Iceberg leaves out what follows a # or ? in a path")
        catalog, namespace = settings.catalog.split(".")
        if not spark.conf.get(f"spark.sql.catalog.{catalog}", None):
            raise ConfigError(f"Spark knows no catalog {catalog}: spark.sql.catalog.{catalog} is not set")
        spark.conf.set("spark.wap.id", run_id)
        spark.conf.set("spark.sql.iceberg.aggregate-push-down.enabled", False)  # rows are counted in the files
        self.names = {name: f"{settings.catalog}.{name.lstrip('_')}" for name in (REJECTED, *TABLES)}
        root = f"{settings.output}/{namespace}"
        self.folders = {name: open_path(spark, f"{root}/{name.lstrip('_')}") for name in self.names}
        self.locations = {name: re.sub("^s3[an]:", "s3:", str(path)) for name, (_, path) in self.folders.items()}
        self.tables: dict[str, Any] = {}  # in Iceberg's own API
        self.published: list[str] = []
        self.unsure: list[str] = []  # a table whose commit had no answer yet

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Finds out whether the lake can be written. What fails is raised as a JobError that tells its state."""
        try:
            self.spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {self.settings.catalog}")
            for name, (file_system, path) in self.folders.items():
                found = file_system.listStatus(path) if file_system.exists(path) else ()
                if self.spark.catalog.tableExists(self.names[name]):
                    self._load(name)
                elif {status.getPath().getName() for status in found} - {"data", "metadata"}:  # as a dead run leaves
                    raise JobError(f"{path} holds files and is no table of {self.settings.catalog}")
            self.owner = self._current(REJECTED)
            yield
        except Exception as error:
            done = ", ".join([*self.published, *self.unsure])
            state = f"{done} hold this run's rows, the other tables another's; run it again" if done else ""
            if len(self.published) == len(self.names):
                state = "the lake holds this run's rows, its old files are not all removed"
            raise JobError(explain(error), state or "the lake is unchanged") from error

    def _load(self, name: str) -> None:
        """Loads a table; JobError where it is not this job's."""
        spark3 = java(self.spark, "org.apache.iceberg.spark.Spark3Util")
        self.tables[name] = table = spark3.loadIcebergTable(self.spark._jsparkSession, self.names[name])
        if not OURS.items() <= dict(table.properties()).items() or table.location() != self.locations[name]:
            raise JobError(f"{self.names[name]} at {table.location()} is no table of this job and this output")

    def _current(self, name: str) -> int | None:
        """The id of a table's current snapshot; none where there is nothing yet."""
        if name not in self.tables:
            return None
        self.tables[name].refresh()
        current = self.tables[name].currentSnapshot()
        return current and int(current.snapshotId())

    def publish(self, tables: dict[str, DataFrame]) -> dict[str, dict[str, Any]]:
        """Replaces the rows of all tables. Returns for each what Lake.publish does, and its snapshot's id.

        No table is ever mixed: `mixed_seconds` is for how long the tables so far were not all of one run.
        """
        with ThreadPoolExecutor(len(tables)) as pool:
            published = dict(zip(tables, pool.map(self._write, tables, tables.values()), strict=True))
            started = time.monotonic()
            for name in self.names:  # songplays last
                self._commit(name, published[name]["snapshot"])
                self.published.append(self.names[name])
                published[name]["mixed_seconds"] = time.monotonic() - started
            list(pool.map(self._clean, tables))
        return published

    def _write(self, name: str, frame: DataFrame) -> dict[str, Any]:
        """Writes a table's rows as a snapshot that is not current."""
        started, partitions, rows = time.monotonic(), self.settings.partitions.get(name, ()), frame.count()
        writer = arrange(name, frame, partitions).to(TABLES.get(name, frame.schema)).writeTo(self.names[name])
        writer = writer.option("snapshot-property.run-id", self.run_id)
        writer = writer.option("use-table-distribution-and-ordering", False).option("fanout-enabled", False)
        try:
            if table := self.tables.get(name):
                spec, fields = table.updateSpec(), {field.name() for field in table.spec().fields()}
                for column in sorted(fields ^ {*partitions}, reverse=True):  # year before month
                    (spec.removeField if column in fields else spec.addField)(column)
                spec.commit()
                writer.overwrite(F.lit(True))
            else:
                for key, value in {**OURS, "comment": GRAINS[name], "location": self.locations[name]}.items():
                    writer = writer.tableProperty(key, value)
                if partitions:
                    writer = writer.partitionedBy(*map(F.col, partitions))
                writer.using("iceberg").create()
                self._load(name)
            self.tables[name].refresh()
            new = next(each for each in self.tables[name].snapshots() if each.summary().get("run-id") == self.run_id)
            found = self.spark.sql(f"SELECT * FROM {self.names[name]} VERSION AS OF {new.snapshotId()}").count()
            if found != rows:
                raise JobError(f"it has {found:,} rows after the write instead of {rows:,}")
        except Exception as error:
            raise JobError(f"cannot write {self.names[name]}: {explain(error)}") from error
        files, size = (int(new.summary().get(key) or 0) for key in ("added-data-files", "added-files-size"))
        sizes = {"rows": found, "files": files, "bytes": size, "seconds": time.monotonic() - started}
        return {**sizes, "mixed_seconds": 0.0, "strangers": [], "snapshot": new.snapshotId()}

    def _commit(self, name: str, snapshot: int) -> None:
        """Makes the snapshot current, with the run's id as its tag for as long as it is to be kept."""
        for left in reversed(range(COMMIT_TRIES)):
            current, self.unsure = self._current(name), []
            if current == snapshot:  # also by a try whose answer was lost
                break
            change = self.tables[name].manageSnapshots()  # of the state that the table has now
            if self._current(REJECTED) != self.owner:
                raise JobError(f"another run has taken {self.settings.catalog} meanwhile")
            (change.replaceBranch if current else change.createBranch)("main", snapshot)
            change.createTag(self.run_id, snapshot)
            try:
                change.setMaxRefAgeMs(self.run_id, self.settings.keep_days * DAY_MS).commit()
            except Exception as error:
                self.unsure = [f"maybe {self.names[name]}"] if "CommitStateUnknownException" in str(error) else []
                if not left or not (self.unsure or "CommitFailedException" in str(error)):
                    raise
        if name == REJECTED:
            self.owner = snapshot

    def _clean(self, name: str) -> None:
        """Removes snapshots without a tag, and files of no snapshot, that are older than a day."""
        yesterday, session = int(time.time() * 1000) - DAY_MS, self.spark._jsparkSession
        self.tables[name].refresh()
        self.tables[name].expireSnapshots().expireOlderThan(yesterday).commit()
        actions = java(self.spark, "org.apache.iceberg.spark.actions.SparkActions").get(session)
        actions.deleteOrphanFiles(self.tables[name]).usePrefixListing(True).olderThan(yesterday).execute()


# --- The run: read, build, check, publish, report --------------------------------------------------------------------

SQL_CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.files.openCostInBytes": "256k",  # 512 small files a task; by the default of 4 MiB they are 32
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.sources.useListFilesFileSystemList": "s3a,s3",  # one flat listing; Spark 3.5 does not know it
}


@dataclass(frozen=True)
class Settings:
    """What a run needs to know. Places are URIs that Hadoop understands."""

    input: str
    output: str
    partitions: dict[str, tuple[str, ...]]
    max_rejected: float = 0.01
    catalog: str = ""  # "name.namespace" for Iceberg tables
    keep_days: int = 7
    report: str | None = None
    aws: dict[str, str] = field(default_factory=dict, repr=False)


def new_session(spark: SparkSession, conf: dict[str, str]) -> SparkSession:
    """A session beside the given one, with these settings, and with its catalogs, which Spark does not copy."""
    session = spark.newSession()
    catalogs = [row["key"] for row in spark.sql("SET").collect() if row["key"].startswith("spark.sql.catalog.")]
    values = {key: str(spark.conf.get(key)) for key in catalogs}  # SET hides those that look like secrets
    for key, value in (values | conf).items():
        if session.conf.get(key, None) != value:  # a static one is there already, and must not be set
            session.conf.set(key, value)
    return session


@contextlib.contextmanager
def session_of(spark: SparkSession) -> Iterator[tuple[SparkSession, Callable[[DataFrame], DataFrame]]]:
    """A session of its own for a run, so that the given one stays as it is; and a way to keep frames until its end."""
    session, kept = new_session(spark, SQL_CONF), list[DataFrame]()

    def keep(frame: DataFrame) -> DataFrame:
        kept.append(frame)
        return frame.persist()

    try:
        yield session, keep
    finally:
        with contextlib.suppress(Exception):  # the JVM may have died
            for frame in kept:
                frame.unpersist()


def list_files(spark: SparkSession, folder: str, rows: DataFrame) -> int:
    """How many files an input has; JobError where there are none, or where some would be passed over in silence."""
    if not (count := len(rows.inputFiles())):
        raise JobError(f"no *.json or *.json.gz file below {folder}")
    file_system, path = open_path(spark, folder)
    if folder.startswith("s3"):  # Hadoop's Path merges slashes, and of two files with one path Spark reads one
        statuses = list_below(spark, file_system, path)
        if java(spark, "java.util.HashSet")(statuses).size() < statuses.size():
            [(twice, _)] = Counter(str(status.getPath()) for status in statuses).most_common(1)
            raise JobError(f"two keys differ in slashes only, and Hadoop takes them for one: {twice}; rename one")
    if folder.startswith("file:"):  # where Java leaves out what it cannot spell or finds gone
        is_utf8 = java(spark, "java.lang.System").getProperty("sun.jnu.encoding") == "UTF-8"
        for parent, folders, names in os.walk(folder.removeprefix("file://"), followlinks=True):
            folders[:] = [name for name in folders if name[0] not in "._"]  # Spark leaves the others alone
            for name in folders + [name for name in names if name[0] not in "._"]:
                is_spelled = name.isascii() or (is_utf8 and name == name.encode(errors="replace").decode())
                if not (is_spelled and os.path.exists(os.path.join(parent, name))):
                    problem = "its link leads nowhere" if is_spelled else "its name is not UTF-8; or set LC_ALL=C.UTF-8"
                    raise JobError(f"Java cannot read {name!a} in {parent}: {problem}")
    return count


def count_lines(folder: str, rows: DataFrame, max_rejected: float) -> dict[str, int]:
    """The lines and rejected lines of an input; JobError where there are none, or too many are rejected."""
    lines, rejected = rows.select(F.count("*"), F.count("reason")).collect()[0]
    if not lines:
        raise JobError(f"no line in any file below {folder}")
    if rejected / lines > max_rejected:
        examples = rows.filter(F.col("reason").isNotNull()).orderBy("source_file", "line").limit(3).collect()
        raise JobError(
            f"{rejected:,} of {lines:,} lines of {folder} are rejected, more than the share of "
            f"{max_rejected:g} that MAX_REJECTED allows, for example "
            + "; ".join(f"{row['source_file']}: {row['reason']}" for row in examples)
        )
    return {"lines": lines, "rejected": rejected}


def say(text: str) -> None:
    """Prints a line; a closed pipe, or an encoding without its letters, is no reason to stop."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(ascii(text), flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run(spark: SparkSession, settings: Settings, say: Callable[[str], None] = say) -> dict[str, Any]:
    """Reads both inputs, builds and checks the five tables, publishes them; returns the report.

    Raises JobError, or Spark's own errors before the lake is touched. Nothing is retried here: Spark retries tasks,
    S3A requests, and YARN the whole application.
    """
    started = time.monotonic()
    run_id = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    steps: dict[str, float] = {}

    def step(name: str, text: str) -> None:
        seconds = time.monotonic() - started - sum(steps.values())
        steps[name] = steps.get(name, 0) + seconds
        say(f"{text:<60} {seconds:8.1f} s")

    with session_of(spark) as (session, keep):
        folders = {name: f"{settings.input}/{name}" for name in ("song_data", "log_data")}
        song_lines, log_lines = read_songs(session, folders["song_data"]), read_logs(session, folders["log_data"])
        lines = {"song_data": song_lines, "log_data": log_lines}
        inputs = {name: {"files": list_files(session, folders[name], rows)} for name, rows in lines.items()}
        lake = (IcebergLake if settings.catalog else Lake)(session, settings, run_id)
        with lake.claimed():
            for name, rows in lines.items():
                inputs[name] |= count_lines(folders[name], keep(rows), settings.max_rejected)
                text = "read {}: {lines:,} lines of {files:,} files, {rejected:,} rejected"
                step("read", text.format(name, **inputs[name]))

            song_rows, log_rows = (rows.filter("reason IS NULL") for rows in lines.values())
            songplays = keep(build_songplays(log_rows, song_rows))
            tables = {
                "songs": keep(build_songs(song_rows)),
                "artists": keep(build_artists(song_rows)),
                "users": keep(build_users(log_rows)),
                "time": keep(build_time(songplays)),
                "songplays": songplays,
            }
            check_tables(tables, log_rows)
            plays, matched = songplays.agg(F.count("*"), F.count("song_id")).collect()[0]
            step("build", f"built and checked 5 tables, {plays:,} plays")

            rejected = [
                rows.filter("reason IS NOT NULL").select(F.lit(name).alias("input"), "source_file", "reason", "line")
                for name, rows in lines.items()
            ]
            published = lake.publish({REJECTED: reduce(DataFrame.unionAll, rejected)} | tables)
            step("write", f"wrote {sum(table['files'] for table in published.values()):,} files to {settings.output}")
    where = {"input": settings.input, "output": settings.output, "catalog": settings.catalog}
    report = {"run_id": run_id, "state": "done", **where, "seconds": time.monotonic() - started, "steps": steps}
    strangers = [file for table in published.values() for file in table.pop("strangers")]
    share = matched / plays if plays else None
    return report | {"inputs": inputs, "strangers": strangers, "tables": published, "matched_share": share}


# --- Configuration: command line over dl.cfg over defaults -----------------------------------------------------------

DEFAULTS = {
    "AWS": dict.fromkeys(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"), ""
    ),
    "PATHS": {"INPUT_DATA": "data", "OUTPUT_DATA": "lake"},
    "PARTITIONS": {"SONGS": "year", "TIME": "year, month", "SONGPLAYS": "year, month"},
    "LIMITS": {"MAX_REJECTED": "0.01"},
    "LAKE": {"CATALOG": "", "KEEP_DAYS": "7"},
}


def is_submitted() -> bool:
    """True under spark-submit, where the platform owns master, jars, committer and credentials."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def find_config(given: str | None, spark: SparkSession | None) -> str | None:
    """The dl.cfg to use: as given, else as handed to spark-submit by --files, else in this folder or beside etl.py.

    ConfigError where one that was given or handed over is not there: another one never takes its place.
    """
    wanted, places = given, ["dl.cfg", os.path.join(os.path.dirname(os.path.abspath(__file__)), "dl.cfg")]
    if given:
        places = [given]
    elif spark:
        conf = spark.sparkContext.getConf()
        uris = ",".join(conf.get(key) or "" for key in ("spark.yarn.dist.files", "spark.files")).split(",")
        wanted = next((unquote(urlsplit(uri).path) for uri in uris if uri.endswith(("/dl.cfg", "#dl.cfg"))), None)
        if wanted:  # in cluster mode YARN puts it in the working folder
            places = ["dl.cfg" if conf.get("spark.submit.deployMode") == "cluster" else wanted]
    if spark and wanted:
        places.append(SparkFiles.get(os.path.basename(wanted)))
    found = next(filter(os.path.isfile, places), None)
    if wanted and not found:
        raise ConfigError(f"no configuration file {wanted}")
    return found and os.path.abspath(found)


def read_config(path: str | None) -> dict[str, dict[str, str]]:
    """The sections of dl.cfg with all their keys, over the defaults; ConfigError names what is wrong."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")  # a secret may hold a %
    parser.optionxform = str.upper  # type: ignore[assignment,method-assign]
    parser.read_dict(DEFAULTS)
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
    config = {section: dict(parser[section]) for section in parser.sections()}
    for section, values in config.items():
        if section not in DEFAULTS:
            raise ConfigError(f"{path}: unknown section [{section}]; known are {', '.join(DEFAULTS)}")
        for key, value in values.items():
            place = f"{path}: {key} in [{section}]"
            if key not in DEFAULTS[section]:  # it may be the rest of a secret that was wrapped
                wrong = key if re.fullmatch("[A-Z_]{1,30}", key) else "(not shown)"
                known = ", ".join(DEFAULTS[section])
                raise ConfigError(f"{path}: unknown key {wrong} in [{section}]; known are {known}")
            if value[:1] in ("'", '"') or re.search(r"\s[#;]|\n", value):
                raise ConfigError(f"{place} has quotes, a comment behind it or an indented line below; take them away")
            if not value and section == "PATHS":
                raise ConfigError(f"{place} is empty")
    return config


def to_uri(path: str, folder: str, spark: SparkSession | None = None) -> str:
    """The path as a URI, without a slash at its end; ConfigError where it is none that the job could use.

    A relative path is below the folder; on a cluster with a file system of its own, below the user's home there.
    """
    if path.startswith("file:/"):
        return "file://" + os.path.abspath("/" + path.removeprefix("file:").lstrip("/"))
    if re.match(r"(?i)[a-z][a-z0-9+.-]*:/|(file|s3[an]?|https?):", path):
        places = r"(?!s3|http)[a-z][a-z0-9+.-]*:/|" if spark else "hdfs://[^/]|"  # the platform's own: hdfs:///raw
        if not re.match(rf"{places}s3[an]?://[^/]+(/|$)", path):
            raise ConfigError(f"{path} is no place for data; give a folder, or s3a://bucket/prefix")
        return (path if spark else re.sub("^s3n?://", "s3a://", path)).rstrip("/")
    if spark:
        file_system, qualified = open_path(spark, path)
        if str(file_system.getUri()) != "file:///":
            return str(qualified.toString())
    return "file://" + os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def to_place(uri: str) -> str:
    """One spelling of all URIs of a place, with a slash at its end: what starts with another's lies inside it."""
    if uri.startswith("file://"):
        uri = os.path.realpath(uri.removeprefix("file://"))
    return os.path.join(re.sub("^s3[an]?://", "s3://", uri), "")


def to_partitions(table: str, text: str) -> tuple[str, ...]:
    """The partition columns of a table; ConfigError where they are none of its columns."""
    columns = tuple(column.strip().lower() for column in text.split(",") if column.strip())
    allowed = [name for name in TABLES[table].names if name != KEYS[table]]
    if not set(columns) <= set(allowed) or len(set(columns)) < len(columns):
        raise ConfigError(f"{table.upper()} in [PARTITIONS] is {text!r}; give some of {', '.join(allowed)}, each once")
    return columns


def to_catalog(text: str) -> str:
    """A catalog with its namespace, or nothing; ConfigError where it is neither."""
    if text and not re.fullmatch(r"[A-Za-z_]\w*\.[a-z_][a-z0-9_]*", text, re.ASCII):
        raise ConfigError(f"CATALOG is {text!r}; give a catalog and a lower-case namespace, such as glue.sparkify")
    return text


def to_share(text: str) -> float:
    """The share of lines that may be rejected; ConfigError where it is none."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise ConfigError(f"MAX_REJECTED is {text!r}; give a share of the lines from 0 to 1")


def make_settings(options: argparse.Namespace, spark: SparkSession | None = None) -> Settings:
    """The settings of this run, with the session under spark-submit; ConfigError names what is wrong."""
    path = find_config(options.config, spark)
    config, here = read_config(path), os.getcwd()
    say(f"configuration: {path or 'defaults, for there is no dl.cfg'}")
    beside = os.path.dirname(path) if path else here
    source = to_uri(options.input or config["PATHS"]["INPUT_DATA"], here if options.input else beside, spark)
    output = to_uri(options.output or config["PATHS"]["OUTPUT_DATA"], here if options.output else beside, spark)
    report = options.report and to_uri(options.report, here, spark)
    of_source, of_output, of_report = (to_place(uri) for uri in (source, output, report or "none"))
    if of_source.startswith(of_output) or of_output.startswith(of_source):
        raise ConfigError(f"the output {output} and the input {source} lie inside one another; give separate folders")
    catalog = to_catalog(options.catalog or config["LAKE"]["CATALOG"])
    taken = (*OUTPUTS, MARKER, *catalog.split(".")[1:])
    if of_report.startswith((of_source, *(f"{of_output}{name}/" for name in taken))):
        raise ConfigError(f"the report {report} would lie among the files of the input or of a table")
    if of_output.startswith(of_report):
        raise ConfigError(f"the report {report} would be a file where the output {output} needs a folder")
    partitions = {name.lower(): to_partitions(name.lower(), text) for name, text in config["PARTITIONS"].items()}
    keep_days = config["LAKE"]["KEEP_DAYS"]
    if not re.fullmatch(r"[1-9]\d{0,4}", keep_days, re.ASCII):
        raise ConfigError(f"KEEP_DAYS is {keep_days!r}; give a number of days")
    max_rejected = to_share(options.max_rejected or config["LIMITS"]["MAX_REJECTED"])
    return Settings(source, output, partitions, max_rejected, catalog, int(keep_days), report, config["AWS"])


# --- The command -----------------------------------------------------------------------------------------------------


def explain(error: BaseException | None) -> str:
    """One line that says what went wrong, out of the hundred that Spark and Py4J say."""
    text = str(error)
    if hasattr(error, "exit_code"):
        return " ".join(text.split("\n"))
    if isinstance(error, ConnectionError) or type(error).__name__ == "Py4JNetworkError":
        return "Spark's JVM has ended"
    causes = re.findall(r"Connect to \S+ .*failed: .*", text)  # their own cause does not name the server
    causes = causes or re.findall(r"^(?:Caused by: |: |.*executor (?:driver|\d+)\): )(.*)", text, re.MULTILINE)
    line = next((line for line in [*causes[-1:], *text.splitlines()] if line.strip()), type(error).__name__)
    line = re.sub(r"^(?:[\w$]+\.)+(?!ClassNotFound|NoClassDef|UnknownHost)[\w$]+: ", "", line).strip()
    file = re.search(r"while reading file (\S+?)\.?(?:\s|$)", text)
    return f"cannot read {file[1]}: {line}" if file and file[1] not in line else line


def show(report: dict[str, Any]) -> str:
    """The report as a table and a few lines."""
    lines = [f"{'table':<12}{'rows':>12}{'files':>8}{'bytes':>14}{'seconds':>9}"]
    for name in TABLES:
        sizes = "{rows:>12,}{files:>8,}{bytes:>14,}{seconds:>9.1f}".format(**report["tables"][name])
        lines.append(f"{name:<12}{sizes}")
    if report["matched_share"] is not None:
        lines.append(f"plays that found their song: {report['matched_share']:.1%}")
    rejected = report["tables"][REJECTED]["rows"]
    place = f"{report['catalog']}.rejected" if report["catalog"] else f"{report['output']}/{REJECTED}"
    lines.append(f"rejected lines: {rejected:,}" + (f", see {place}" if rejected else ""))
    lines += [f"left alone, not written by this job: {stranger}" for stranger in report["strangers"]]
    lines.append(f"done in {report['seconds']:.1f} s, run {report['run_id']}")
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """Tells of wrong usage in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options; ConfigError where they are wrong."""
    parser = Parser(
        prog="etl.py",
        description="Turns Sparkify's song and log JSON into a star schema of five parquet tables.",
        allow_abbrev=False,
        epilog="Exit code: 0 done, 1 the job failed, 2 wrong usage or configuration, 130 interrupted.",
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="the configuration (default: dl.cfg here or beside etl.py)")
    add("--input", metavar="URI", help="the folder of song_data and log_data: a path, s3a://, s3://")
    add("--output", metavar="URI", help="the folder of the five tables: a path, s3a://, s3://")
    add("--catalog", metavar="NAME", help="write Iceberg tables: catalog and namespace, such as glue.sparkify")
    add("--report", metavar="FILE", help="write the run's report as JSON to this path or URI")
    add("--max-rejected", metavar="SHARE", help="fail if more than this share of an input's lines is bad (0.01)")
    add("--verbose", action="store_true", help="show Spark's log, and the stack trace of an error")
    options = parser.parse_args(argv)
    for name, value in vars(options).items():
        if value == "":
            raise ConfigError(f"--{name.replace('_', '-')} is empty")
    return options


def start(options: argparse.Namespace, shared: SparkSession | None) -> tuple[SparkSession, Settings]:
    """The session and the settings of this run; ConfigError where they cannot be had."""
    if is_submitted():
        spark = shared or in_thread(SparkSession.builder.getOrCreate)
        return spark, make_settings(options, spark)
    settings = make_settings(options)
    if shared:
        return shared, settings
    if not importlib.util.find_spec("laptop"):
        raise ConfigError("laptop.py is not beside etl.py; without it, spark-submit runs the job")
    import laptop

    return in_thread(lambda: laptop.create_session(settings, options.verbose)), settings


def in_thread(work: Callable[[], SparkSession]) -> SparkSession:
    """Starts Spark in another thread than the main one, where PySpark would take Ctrl-C for itself."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def write_report(spark: SparkSession, settings: Settings, report: dict[str, Any]) -> None:
    """Writes the report as JSON, where one is asked for."""
    path, text = settings.report or "", json.dumps(report, indent=1) + "\n"
    if path.startswith("file://"):  # Hadoop would also change the mode of what is there, such as /dev/null
        os.makedirs(os.path.dirname(path[7:]), exist_ok=True)
        with open(path[7:], "w") as file:
            file.write(text)
    elif path:
        write_text(*open_path(spark, path), text)


def main(argv: list[str] | None = None) -> int:
    """Runs the job by the command line's options; returns the exit code."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # opens what the caller has closed of stdin to stderr
        pass
    os.close(number)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    spark = shared = SparkSession.getActiveSession()  # a notebook's session is used, and not stopped
    is_verbose = "--verbose" in (argv or sys.argv)
    try:
        spark, settings = start(parse_options(argv), shared)
        try:
            write_report(spark, settings, {"state": "started"})  # what forbids it is known before the work
        except Exception as error:
            raise ConfigError(f"--report: {explain(error)}") from error
        report = run(spark, settings)
        say(show(report))
        try:
            write_report(spark, settings, report)
        except Exception as error:
            raise JobError(f"--report: {explain(error)}", "the lake is written, its report is not") from error
        return 0
    except Exception as error:
        if is_verbose:
            traceback.print_exc()
        code = getattr(error, "exit_code", 1)
        state = "" if code == 2 else f"; {getattr(error, 'state', 'the lake is unchanged')}"
        with contextlib.suppress(OSError):
            print(f"etl.py: error: {explain(error)}{state}", file=sys.stderr, flush=True)
        return code
    finally:
        if spark and not shared:
            with contextlib.suppress(Exception):  # the JVM may have died
                spark.stop()


if __name__ == "__main__":
    sys.exit(main())
