"""A run that is killed at any moment leaves each table whole, and the next run leaves nothing else."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from harness import (
    Nights,
    Place,
    check_whole,
    job,
    killed_at,
    make_nights,
    on_disk,
    on_s3,
    plant_strangers,
    read_table,
    run_ends_exact,
    run_in_session,
    s3_server,
)
from pyspark.sql import SparkSession
from s3 import Request, S3Server

# Kills one after another on one lake, so that runs also follow killed runs. The quick ones on S3 stand in test_faults.py
LONG = [
    *("appending songs", "appended songs", "appended users", "appending songplays", "appended time"),
    *("verified time", "half deleted songs", "verified songplays", "half deleted songplays"),
]
FIRST = ["appended songs", "appending songplays", "verified songplays"]


@pytest.fixture(scope="module")
def nights(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(spark, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, nights: Nights, server: S3Server, tmp_path: Path) -> Place:
    """Tonight's input and last night's lake. On S3 a bulk delete has 5 keys at most, so that it takes several."""
    if request.param == "disk":
        nights.copy_to(tmp_path)
        return on_disk(nights.new.folder, tmp_path)
    defaults = (ROOT / "tests" / "spark-conf" / "spark-defaults.conf").read_text()
    (tmp_path / "spark-defaults.conf").write_text(f"{defaults}\nspark.hadoop.fs.s3a.bulk.delete.page.size 5\n")
    return on_s3(server, nights.new.folder, nights.lake, tmp_path, SPARK_CONF_DIR=str(tmp_path))


def killed_one_after_another(moments: list[str], nights: Nights, place: Place) -> None:
    for moment in moments:
        killed_at(moment, place)
        check_whole(place.look(), nights.old.rows, nights.new.rows)


@pytest.mark.parametrize("place", ["disk"], indirect=True)
def test_killed(spark: SparkSession, nights: Nights, place: Place) -> None:
    killed_one_after_another(["verified songs", "appended songplays"], nights, place)
    run_in_session(spark, nights, place.look())


@pytest.mark.long
def test_killed_at_each_step(nights: Nights, place: Place) -> None:
    killed_one_after_another(LONG, nights, place)
    run_ends_exact(place, nights.new.rows)


@pytest.mark.parametrize("moments", [FIRST[:1], pytest.param(FIRST, marks=pytest.mark.long)])
def test_killed_in_a_first_run(moments: list[str], spark: SparkSession, nights: Nights, tmp_path: Path) -> None:
    place = on_disk(nights.new.folder, tmp_path)
    for moment in moments:
        killed_at(moment, place)
        assert all({*read_table(place.look(), name)} <= {*rows} for name, rows in nights.new.rows.items())
    plant_strangers(place.look())
    run_in_session(spark, nights, place.look())


@pytest.mark.long
def test_killed_at_any_time(nights: Nights, place: Place) -> None:
    began = time.monotonic()
    run_ends_exact(place, nights.new.rows)
    seconds = time.monotonic() - began
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        with job(place) as running, contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(share * seconds)
        check_whole(place.look(), nights.new.rows)
    run_ends_exact(place, nights.new.rows)


@pytest.mark.long
@pytest.mark.parametrize(("table", "nth"), [("songs", 3), ("songplays", 1)])
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_killed_in_the_middle_of_a_commit_on_s3(
    table: str, nth: int, nights: Nights, server: S3Server, place: Place
) -> None:
    """When the nth upload of a table is completed, and others are not."""
    seen: list[Request] = []

    with job(place) as running:

        def kill(request: Request) -> None:
            is_commit = request.method == "POST" and "uploadId" in request.query
            if is_commit and f"/{table}/" in request.key:
                seen.append(request)
                if len(seen) == nth:
                    running.signal_all(signal.SIGKILL)

        server.after = kill
        running.wait()
        server.let_pass()
    assert len(seen) >= nth
    check_whole(place.look(), nights.old.rows, nights.new.rows)
    run_ends_exact(place, nights.new.rows)
