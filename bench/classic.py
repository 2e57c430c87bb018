"""The job as its public versions do it, written afresh for the comparison: not for use.

    python bench/classic.py INPUT OUTPUT

Glob paths, inferred schemas, each input read again for each table, nothing cached, plain overwrite, songs by year and
artist_id, ids from monotonically_increasing_id. Same session settings outside EMR as etl.py (jars, endpoint), so that
only the way of working differs. Prints a JSON line with its seconds without the session's start.
"""

import json
import os
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

SDK = "2.29.52"
JARS = [f"software.amazon.awssdk:{part}:{SDK}" for part in ("s3", "s3-transfer-manager", "sts")]


def start_session(paths: list[str]) -> SparkSession:
    builder = SparkSession.builder.master("local[*]").appName("classic").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.session.timeZone", "UTC")
    if any(path.startswith("s3a://") for path in paths):
        builder = (
            builder.config("spark.jars.packages", ",".join(["org.apache.hadoop:hadoop-aws:3.4.1", *JARS]))
            .config("spark.jars.excludes", "software.amazon.awssdk:bundle")
            .config("spark.hadoop.fs.s3a.endpoint", os.environ["AWS_ENDPOINT_URL"])
            .config("spark.hadoop.fs.s3a.endpoint.region", os.environ["AWS_REGION"])
            .config("spark.hadoop.fs.s3a.path.style.access", "true")
        )
    return builder.getOrCreate()


def process_song_data(spark: SparkSession, source: str, target: str) -> None:
    df = spark.read.json(f"{source}/song_data/*/*/*/*.json")

    songs = df.select("song_id", "title", "artist_id", "year", "duration").dropDuplicates(["song_id"])
    songs.write.mode("overwrite").partitionBy("year", "artist_id").parquet(f"{target}/songs")

    columns = ["artist_id", "artist_name", "artist_location", "artist_latitude", "artist_longitude"]
    artists = df.select(*columns).dropDuplicates(["artist_id"])
    artists.write.mode("overwrite").parquet(f"{target}/artists")


def process_log_data(spark: SparkSession, source: str, target: str) -> None:
    df = spark.read.json(f"{source}/log_data/*/*/*.json").filter(F.col("page") == "NextSong")
    df = df.withColumn("start_time", F.timestamp_millis("ts"))

    users = df.select("userId", "firstName", "lastName", "gender", "level").dropDuplicates(["userId"])
    users.write.mode("overwrite").parquet(f"{target}/users")

    times = df.select(
        "start_time",
        F.hour("start_time").alias("hour"),
        F.dayofmonth("start_time").alias("day"),
        F.weekofyear("start_time").alias("week"),
        F.month("start_time").alias("month"),
        F.year("start_time").alias("year"),
        F.dayofweek("start_time").alias("weekday"),
    ).dropDuplicates(["start_time"])
    times.write.mode("overwrite").partitionBy("year", "month").parquet(f"{target}/time")

    songs = spark.read.json(f"{source}/song_data/*/*/*/*.json")
    plays = df.join(
        songs,
        on=(df.song == songs.title) & (df.artist == songs.artist_name) & (df.length == songs.duration),
        how="left",
    ).select(
        F.monotonically_increasing_id().alias("songplay_id"),
        "start_time",
        "userId",
        "level",
        "song_id",
        "artist_id",
        "sessionId",
        df.location,
        "userAgent",
        F.year("start_time").alias("year"),
        F.month("start_time").alias("month"),
    )
    plays.write.mode("overwrite").partitionBy("year", "month").parquet(f"{target}/songplays")


def main(source: str, target: str) -> None:
    spark = start_session([source, target])
    started = time.monotonic()
    process_song_data(spark, source, target)
    process_log_data(spark, source, target)
    print(json.dumps({"seconds": round(time.monotonic() - started, 3)}))
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
