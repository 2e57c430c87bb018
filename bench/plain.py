"""The five tables as a good engineer writes them with Spark in an hour: what etl.py has to be worth its checks beside.

    python bench/plain.py INPUT OUTPUT

Spark's JSON source with a written schema, both inputs cached, ids from a digest of a play's key, copies dropped,
partitions as etl.py has them, plain overwrite. Lines that do not fit become rows of nulls and fall out, nothing is
checked, and of copies that differ any one stays. Local files only. Prints a JSON line with its seconds without the
session's start.
"""

import json
import sys
import time

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

SONG_SCHEMA = (
    "artist_id string, artist_latitude double, artist_longitude double, artist_location string, artist_name string, "
    "song_id string, title string, duration double, year int"
)
LOG_SCHEMA = (
    "artist string, firstName string, gender string, itemInSession bigint, lastName string, length double, "
    "level string, location string, page string, sessionId bigint, song string, ts bigint, userAgent string, "
    "userId string"
)
PLAY_KEY = ["ts", "userId", "sessionId", "itemInSession"]


def start_session() -> SparkSession:
    """A session with etl.py's own memory and partitions, so that only the way of working differs."""
    builder = SparkSession.builder.master("local[*]").appName("plain").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.memory", "2g").config("spark.sql.shuffle.partitions", "8")
    return builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()


def read(spark: SparkSession, folder: str, schema: str) -> DataFrame:
    return spark.read.schema(schema).option("recursiveFileLookup", True).json(folder, pathGlobFilter="*.json*").cache()


def write(table: DataFrame, path: str, *partitions: str) -> None:
    """One task a folder's files, so that a month is one file."""
    if partitions:
        table = table.repartition(*partitions)
    table.write.mode("overwrite").partitionBy(*partitions).parquet(path)


def main(source: str, target: str) -> None:
    spark = start_session()
    started = time.monotonic()
    songs = read(spark, f"{source}/song_data", SONG_SCHEMA).filter("song_id IS NOT NULL AND artist_id IS NOT NULL")
    events = read(spark, f"{source}/log_data", LOG_SCHEMA)

    song_table = songs.select("song_id", "title", "artist_id", "year", "duration").dropDuplicates(["song_id"])
    write(song_table, f"{target}/songs", "year")

    artists = songs.select(
        "artist_id",
        F.col("artist_name").alias("name"),
        F.col("artist_location").alias("location"),
        F.col("artist_latitude").alias("latitude"),
        F.col("artist_longitude").alias("longitude"),
    ).dropDuplicates(["artist_id"])
    write(artists, f"{target}/artists")

    latest = F.max_by(F.struct("firstName", "lastName", "gender", "level"), "ts").alias("latest")
    users = events.filter("userId <> ''").groupBy(F.col("userId").alias("user_id")).agg(latest)
    write(
        users.select(
            "user_id",
            F.col("latest.firstName").alias("first_name"),
            F.col("latest.lastName").alias("last_name"),
            "latest.gender",
            "latest.level",
        ),
        f"{target}/users",
    )

    start_time = F.timestamp_millis("ts")
    catalogue = songs.select(
        F.col("title").alias("song"),
        F.col("artist_name").alias("artist"),
        F.col("duration").alias("length"),
        "song_id",
        "artist_id",
    ).dropDuplicates(["song", "artist", "length"])
    plays = (
        events.filter("page = 'NextSong'")
        .dropDuplicates(PLAY_KEY)
        .join(catalogue, on=["song", "artist", "length"], how="left")
        .select(
            F.substring(F.sha2(F.concat_ws("|", *PLAY_KEY), 256), 1, 32).alias("songplay_id"),
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
        .cache()
    )
    times = (
        plays.select("start_time")
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
    write(times, f"{target}/time", "year", "month")
    write(plays, f"{target}/songplays", "year", "month")
    print(json.dumps({"seconds": round(time.monotonic() - started, 3)}))
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
