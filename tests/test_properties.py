"""The whole model against the oracle on event sets that Hypothesis makes.

Each example is one small universe of songs and events, whose every key has the universe's own prefix, so that all of
them fit into one input and one Spark job. The oracle computes each universe alone, which shows rows that get mixed up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import oracle
from conftest import write_lines
from frames import Row, in_order, rows_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import etl

UNIVERSES = 150
Universe = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # its songs and events

# Few values, so that copies, ties and matches are frequent; with nulls, empty texts and what sorts oddly.
few_texts = st.sampled_from(["a", "b", "B", "aa", "é", "\uffee", "\U0001d11e", "a|b", "", None])
few_doubles = st.sampled_from([9.0, 10.0, 200.12345, 0.0, -0.0, -1.5, 1e-300, 1e300, None])
few_integers = st.sampled_from([9, 10, 0, -1, 2**63 - 1, None])
few_ids = st.sampled_from(["1", "2", "10", "é"])
good_times = st.one_of(
    st.sampled_from([1_541_121_934_796, 1_541_121_934_797, 1_546_300_799_999, 1_546_300_800_000]),
    st.integers(946_684_800_000, 4_102_444_800_000),
)
odd_times = st.sampled_from(
    [None, 0, 946_684_799_999, 946_684_800_000, 1_541_121_934, 253_402_300_799_999, 253_402_300_800_000]
)
times = st.integers(0, 9).flatmap(lambda chance: odd_times if chance == 9 else good_times)
pages = st.sampled_from([*["NextSong"] * 6, "Home", "nextsong", "", None])
songs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"song_id": few_ids, "artist_id": few_ids, "title": few_texts, "artist_name": few_texts, "duration": few_doubles},
    optional={
        "artist_location": few_texts, "artist_latitude": few_doubles, "artist_longitude": few_doubles,
        "year": st.sampled_from([2001, 1999, 0, -1, None]),
    },
)  # fmt: skip
events: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"page": pages, "ts": times, "userId": few_ids, "sessionId": few_integers},
    optional={
        "itemInSession": few_integers, "level": few_texts, "song": few_texts, "artist": few_texts, "length": few_doubles,
        "location": few_texts, "userAgent": few_texts, "firstName": few_texts, "lastName": few_texts, "gender": few_texts,
    },
)  # fmt: skip


@st.composite
def universe(draw: st.DrawFn) -> Universe:
    """Songs and events; some events play one of the songs, and some come twice with a change."""
    catalogue = draw(st.lists(songs, min_size=1, max_size=6))
    log = draw(st.lists(events, min_size=1, max_size=8))
    for song in draw(st.lists(st.sampled_from(catalogue), max_size=4)):
        heard = {"song": song["title"], "artist": song["artist_name"], "length": song["duration"]}
        log.append(draw(events) | heard)
    for event in draw(st.lists(st.sampled_from(log), max_size=3)):
        log.append(event | {"level": draw(few_texts)})
    return catalogue, log


def universes() -> list[Universe]:
    found = []

    @settings(
        max_examples=UNIVERSES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(universe())
    def collect(example: Universe) -> None:
        found.append(example)

    collect()
    return found


def prefixed(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its ids, and what songs are found by, in the universe of this number."""
    keys = {"song_id", "artist_id", "userId", "title", "song"}
    return {name: f"{number}:{value}" if name in keys and value is not None else value for name, value in row.items()}


def build(song_rows: DataFrame, log_rows: DataFrame) -> dict[str, DataFrame]:
    plays = etl.build_songplays(log_rows, song_rows).persist()
    return {
        "songs": etl.build_songs(song_rows), "artists": etl.build_artists(song_rows),
        "users": etl.build_users(log_rows), "time": etl.build_time(plays), "songplays": plays,
    }  # fmt: skip


def test_all_universes_together_have_the_rows_that_the_oracle_computes_of_each(
    spark: SparkSession, tmp_path: Path
) -> None:
    catalogue, log, expected = [], [], dict[str, list[Row]]()
    for number, (some_songs, some_events) in enumerate(universes()):
        own_songs = [prefixed(number, song) for song in some_songs]
        own_events = [prefixed(number, event) for event in some_events]
        write_lines(tmp_path / str(number) / "song_data" / "a.json", *own_songs)
        write_lines(tmp_path / str(number) / "log_data" / "a.json", *own_events)
        for name, rows in oracle.read_lake(tmp_path / str(number)).tables.items():
            expected[name] = expected.get(name, []) + rows
        catalogue += own_songs
        log += own_events
    assert all(len(rows) > UNIVERSES for rows in expected.values())  # the examples are not empty ones
    assert sum(play[4] is not None for play in expected["songplays"]) > UNIVERSES // 5
    expected["time"] = [*set(expected["time"])]  # universes share moments

    write_lines(tmp_path / "all" / "song_data" / "a.json", *catalogue)
    write_lines(tmp_path / "all" / "log_data" / "a.json", *log)
    song_rows = etl.read_songs(spark, f"file://{tmp_path}/all/song_data").filter("reason is null").persist()
    log_rows = etl.read_logs(spark, f"file://{tmp_path}/all/log_data").filter("reason is null").persist()
    etl.check_tables(build(song_rows, log_rows), log_rows)
    shuffled = (rows.orderBy(F.rand(seed=7)).repartition(5) for rows in (song_rows, log_rows))
    for tables in (build(song_rows, log_rows), build(*shuffled)):
        for name, table in tables.items():
            assert rows_of(table) == sorted(expected[name], key=in_order), name
