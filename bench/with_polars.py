"""The same five tables with Polars, on local files: what a user of one machine would pick instead of Spark.

    python bench/with_polars.py INPUT OUTPUT

Same rules for keys, copies and matches as etl.py, and the same partitions. It checks nothing, keeps no rejected
lines and overwrites in place. Prints a JSON line with its seconds.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import polars as pl
import polars_hash as plh

SONG_SCHEMA = {
    "song_id": pl.String,
    "title": pl.String,
    "artist_id": pl.String,
    "artist_name": pl.String,
    "artist_location": pl.String,
    "artist_latitude": pl.Float64,
    "artist_longitude": pl.Float64,
    "duration": pl.Float64,
    "year": pl.Int32,
}
LOG_SCHEMA = {
    "ts": pl.Int64,
    "userId": pl.String,
    "sessionId": pl.Int64,
    "itemInSession": pl.Int64,
    "page": pl.String,
    "level": pl.String,
    "firstName": pl.String,
    "lastName": pl.String,
    "gender": pl.String,
    "song": pl.String,
    "artist": pl.String,
    "length": pl.Float64,
    "location": pl.String,
    "userAgent": pl.String,
}
PLAY_KEY = ["ts", "userId", "sessionId", "itemInSession"]


def read(folder: Path, schema: dict[str, type[pl.DataType]]) -> pl.LazyFrame:
    files = [path for path in folder.rglob("*.json*") if path.name[0] not in "._"]
    return pl.scan_ndjson(files, schema=schema).collect().lazy()


def build_songs(song_rows: pl.LazyFrame) -> pl.LazyFrame:
    songs = song_rows.select("song_id", "title", "artist_id", pl.col("year").fill_null(0), "duration")
    order = ["song_id", pl.col("year") == 0, "title", "artist_id", "duration", "year"]
    return songs.sort(order, nulls_last=True).unique("song_id", keep="first", maintain_order=True)


def build_artists(song_rows: pl.LazyFrame) -> pl.LazyFrame:
    location = pl.col("artist_location").replace("", None)
    coordinates = pl.col("artist_latitude").is_not_null() & pl.col("artist_longitude").is_not_null()
    completeness = location.is_not_null().cast(pl.Int8) + coordinates.cast(pl.Int8)
    name_length = pl.col("artist_name").str.len_chars()
    order = ["artist_id", -completeness, name_length, "artist_name", "song_id", location]
    order += ["artist_latitude", "artist_longitude"]
    nulls_last = [False, False, True, True, False, False, False, False]
    return (
        song_rows.sort(order, nulls_last=nulls_last)
        .unique("artist_id", keep="first", maintain_order=True)
        .select(
            "artist_id",
            pl.col("artist_name").alias("name"),
            location.alias("location"),
            pl.col("artist_latitude").alias("latitude"),
            pl.col("artist_longitude").alias("longitude"),
        )
    )


def build_users(log_rows: pl.LazyFrame) -> pl.LazyFrame:
    order = ["ts", "sessionId", "itemInSession", "level", "firstName", "lastName", "gender"]
    events = log_rows.filter(pl.col("userId") != "")
    # Only a user's latest moment is sorted, not every event.
    return (
        events.filter((pl.col("ts") == pl.col("ts").max().over("userId")).fill_null(True))
        .sort(order)
        .unique("userId", keep="last", maintain_order=True)
        .select(
            pl.col("userId").alias("user_id"),
            pl.col("firstName").alias("first_name"),
            pl.col("lastName").alias("last_name"),
            "gender",
            "level",
        )
    )


def build_songplays(log_rows: pl.LazyFrame, song_rows: pl.LazyFrame) -> pl.LazyFrame:
    details = ["level", "song", "artist", "length", "location", "userAgent"]
    plays = (
        log_rows.filter(pl.col("page") == "NextSong")
        .select(PLAY_KEY + details)
        .sort(PLAY_KEY + details)
        .unique(PLAY_KEY, keep="first", maintain_order=True)
    )
    catalogue = song_rows.sort("song_id", "artist_id").unique(
        ["title", "artist_name", "duration"], keep="first", maintain_order=True
    )
    key = pl.concat_str(
        "ts", "sessionId", pl.col("itemInSession").cast(pl.String).fill_null(""), "userId", separator="|"
    )
    start_time = pl.from_epoch("ts", time_unit="ms").dt.cast_time_unit("us")
    return plays.join(
        catalogue,
        left_on=["song", "artist", "length"],
        right_on=["title", "artist_name", "duration"],
        how="left",
    ).select(
        plh.concat_str(key).chash.sha2_256().str.head(32).alias("songplay_id"),
        start_time.alias("start_time"),
        pl.col("userId").alias("user_id"),
        "level",
        "song_id",
        "artist_id",
        pl.col("sessionId").alias("session_id"),
        "location",
        pl.col("userAgent").alias("user_agent"),
        start_time.dt.year().alias("year"),
        start_time.dt.month().cast(pl.Int32).alias("month"),
    )


def build_time(songplays: pl.LazyFrame) -> pl.LazyFrame:
    start_time = pl.col("start_time").dt
    return (
        songplays.select("start_time", "year", "month")
        .unique()
        .with_columns(
            start_time.hour().cast(pl.Int32).alias("hour"),
            start_time.day().cast(pl.Int32).alias("day"),
            start_time.week().cast(pl.Int32).alias("week"),
            (start_time.weekday() % 7 + 1).cast(pl.Int32).alias("weekday"),
        )
    )


def main(source: Path, target: Path) -> None:
    started = time.monotonic()
    song_rows = read(source / "song_data", SONG_SCHEMA)
    log_rows = read(source / "log_data", LOG_SCHEMA)
    songplays = build_songplays(log_rows, song_rows).collect().lazy()
    shutil.rmtree(target, ignore_errors=True)
    for name, table, partitions in (
        ("songs", build_songs(song_rows), ["year"]),
        ("artists", build_artists(song_rows), []),
        ("users", build_users(log_rows), []),
        ("time", build_time(songplays), ["year", "month"]),
        ("songplays", songplays, ["year", "month"]),
    ):
        folder = target / name
        path = pl.PartitionBy(folder, key=partitions) if partitions else folder / "0.parquet"
        table.sink_parquet(path, compression="snappy", mkdir=True)
    print(json.dumps({"seconds": round(time.monotonic() - started, 3)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
