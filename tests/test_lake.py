"""Replacing the rows of a lake: what it takes over and refuses, and that no row is ever lost, with two runs at once too."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pyspark
import pytest
from conftest import PLAY, run, write_lines
from lakes import contents_of, tables_of
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import etl

pytestmark = pytest.mark.usefixtures("interpreted")
OLD_FILE = "part-00000-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd.c000.snappy.parquet"


def lake_at(spark: SparkSession, folder: Path, run_id: str = "run-a") -> etl.Lake:
    """The lake of a run into this folder, without partitions."""
    return etl.Lake(spark, etl.Settings("", f"file://{folder}", {}), run_id)


def refuse_to_delete(*_: object) -> None:
    raise etl.JobError("no right to delete")


# What a run finds


def test_data_files_without_a_marker_are_refused_and_other_files_are_not(
    spark: SparkSession, fail: Callable[..., str], small: Path, lake: Path
) -> None:
    (lake / "_lake").unlink()
    before = contents_of(lake)
    error = fail("--input", small, "--output", lake)
    assert f"file:{lake}/songs holds data files" in error and error.count("\n") == 1
    assert contents_of(lake) == before
    for name in etl.TABLES:
        shutil.rmtree(lake / name)
    write_lines(lake / "songs" / "notes.txt", "mine")
    with lake_at(spark, lake).claimed():
        pass


def test_a_lake_of_an_earlier_version_is_taken_over_with_what_dead_runs_have_left(
    spark: SparkSession, small: Path, lake: Path
) -> None:
    (lake / "_lake").unlink()
    (lake / "_runs" / "20250101T000000Z-abc").mkdir(parents=True)
    [old] = (lake / "users").iterdir()
    old.rename(old.with_name(OLD_FILE))
    left = [
        lake / "songs" / name for name in ("_temporary/0/a", "__magic_job-1/a", ".spark-staging-1/a", "year=1/month=1")
    ]
    for folder in left:
        folder.mkdir(parents=True)
    for folder in (lake / "songs", *left[3:], *(lake / "songs").glob("year=2*")):
        (folder / ".part-0.parquet.crc").touch()  # as spark-submit leaves them on local files
    expected = tables_of(lake)
    task = left[0].with_name("task_1_m_000000")  # done, and not committed with its job
    [file] = shutil.copytree(lake / "songs" / "year=2001", task / "year=2001").glob("part-*")
    file.rename(file.with_name(OLD_FILE))
    run(spark, small, lake)
    assert tables_of(lake) == expected
    assert list(lake.rglob(".*")) == []
    assert [path.name for path in (lake / "songs").iterdir()] == ["year=2001"]
    assert not (lake / "users" / OLD_FILE).exists() and (lake / "_runs").exists() and (lake / "_lake").exists()


def test_an_empty_table_has_its_columns_for_every_reader(
    spark: SparkSession, small: Path, lake: Path, tmp_path: Path
) -> None:
    """A log without plays, over a lake with some; and plays again over the empty tables."""
    expected = tables_of(lake)
    quiet = write_lines(tmp_path / "quiet" / "log_data" / "a.json", PLAY | {"page": "Home"}).parents[1]
    shutil.copytree(small / "song_data", quiet / "song_data")
    report = run(spark, quiet, lake)
    assert report["matched_share"] is None and "found their song" not in etl.show(report)
    for name in ("songplays", "time"):
        columns = etl.TABLES[name].names
        assert spark.read.parquet(f"file://{lake}/{name}").columns == columns
        found = duckdb.sql(f"select * from read_parquet('{lake}/{name}/**/*.parquet', hive_partitioning=true)")
        assert (found.columns, found.fetchall()) == (columns, [])
    assert tables_of(lake)["users"] == expected["users"]
    run(spark, small, lake)
    assert tables_of(lake) == expected


def test_the_lake_is_marked_before_its_first_table_and_songplays_come_when_all_others_are_there(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, done = lake_at(spark, tmp_path / "lake"), list[str]()

    def replace(self: etl.Lake, name: str, table: DataFrame) -> dict[str, Any]:
        assert (tmp_path / "lake" / "_lake").exists()
        done.append(name)
        return {}

    monkeypatch.setattr(etl.Lake, "_replace", replace)
    no_frames: Any = dict.fromkeys(reversed(etl.OUTPUTS))
    lake.publish(no_frames)
    assert (sorted(done), done[-1]) == (sorted(etl.OUTPUTS), "songplays")


# What a run leaves


@pytest.mark.parametrize("partitions", [(), ("year",), ("artist_id",)])
def test_the_rows_of_a_file_are_sorted(
    spark: SparkSession, frame: Callable[..., DataFrame], partitions: tuple[str, ...]
) -> None:
    """Songs by their artist, so that a reader of one artist skips the rest."""
    rows = [{"song_id": f"SO{n}", "artist_id": f"AR{n * 7 % 5}", "year": 2000 + n % 2} for n in range(20)]
    songs = frame(etl.TABLES["songs"], *rows)
    file = F.spark_partition_id().alias("file")
    written = etl.arrange("songs", songs, partitions).select(file, *partitions, "artist_id", "song_id").collect()
    assert written == sorted(written) and len(written) == 20


def test_thousands_of_small_folders_are_shared_out_among_tasks_and_are_one_file_each(
    spark: SparkSession, frame: Callable[..., DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl, "FOLDERS_PER_TASK", 4)
    rows = [{"song_id": f"SO{n}", "artist_id": f"AR{n % 8}"} for n in range(80)]
    arranged = etl.arrange("songs", frame(etl.TABLES["songs"], *rows), ("artist_id",))
    found = arranged.select("artist_id", F.spark_partition_id().alias("task")).distinct().collect()
    assert (len(found), len({row["task"] for row in found})) == (8, 2)


def test_times_are_kept_with_statistics_that_readers_skip_by(small_lake: Path) -> None:
    """Which Spark's own type of old, INT96, has not."""
    for name in ("songplays", "time"):
        [file] = (small_lake / name).rglob("*.parquet")
        column = pq.ParquetFile(file).metadata.row_group(0).column(etl.TABLES[name].names.index("start_time"))
        assert (column.path_in_schema, column.physical_type, column.is_stats_set) == ("start_time", "INT64", True)


@pytest.mark.parametrize("harm", ["a row is not written", "a file is cut", "the write fails"])
def test_a_run_that_fails_takes_back_its_own_files_and_no_others(
    fail: Callable[..., str], small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    before, others = {name: contents_of(lake / name) for name in ("songs", "songplays")}, lake / "songs" / OLD_FILE
    append, count = etl.Lake._append, etl.Lake._count

    def harmful_append(self: etl.Lake, name: str, table: DataFrame) -> int:
        rows = append(self, name, table)
        if name == "songs":
            others.write_bytes(b"of another run")
            if harm == "the write fails":
                raise etl.JobError("the storage is full")
        return rows

    def harmful_count(self: etl.Lake, name: str, schema: Any, files: dict[str, int]) -> int:
        for path, size in ((file.removeprefix("file:"), size) for file, size in files.items() if name == "songs"):
            if harm == "a file is cut":
                os.truncate(path, size // 2)
            elif harm == "a row is not written":
                pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
        return count(self, name, schema, files)

    monkeypatch.setattr(etl.Lake, "_append", harmful_append)
    monkeypatch.setattr(etl.Lake, "_count", harmful_count)
    error = fail("--input", small, "--output", lake)
    words = {"a row is not written": "rows after the write instead of 2", "the write fails": "is full"}
    assert words.get(harm, f"cannot write file:{lake}/songs") in error
    assert "files of both runs may lie in songs" in error  # those of another run, which came meanwhile
    assert error.count("\n") == 1
    assert others.read_bytes() == b"of another run"
    others.unlink()
    left = {name: contents_of(lake / name) for name in before}
    if pyspark.__version__ < "4":  # its files do not have the run's id, so they stay beside the old until the next run
        assert all(before[name].items() <= left[name].items() for name in before)
    else:
        assert left == before


def test_the_rows_that_were_checked_are_written_and_not_computed_again(
    spark: SparkSession, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange, kept = etl.arrange, {}

    def watched(name: str, table: DataFrame, partitions: tuple[str, ...]) -> DataFrame:
        arranged = arrange(name, table, partitions)
        kept[name] = table.storageLevel.useMemory
        return arranged

    monkeypatch.setattr(etl, "arrange", watched)
    run(spark, small, tmp_path / "lake")
    assert {name for name, is_kept in kept.items() if is_kept} == set(etl.TABLES)


@pytest.mark.parametrize("fails", [False, True])
def test_a_session_that_was_there_before_is_left_as_it_was(
    spark: SparkSession, small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Its settings, Hadoop's, its frames that are kept in memory and no others; and it goes on."""
    session = spark.newSession()
    session.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    session.conf.unset("spark.sql.files.openCostInBytes")
    spark.catalog.clearCache()  # of other tests
    mine = session.range(3).persist()
    mine.count()
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: session)
    if fails:
        monkeypatch.setattr(etl, "build_time", lambda plays: 1 / 0)

    def state() -> tuple[Any, ...]:
        properties = spark._jsc.hadoopConfiguration().getPropsWithPrefix("")
        hadoop = etl.java(spark, "java.util.TreeMap")(properties).toString()
        kept = sorted(spark.sparkContext._jsc.getPersistentRDDs())
        return session.sql("SET").collect(), hadoop, kept, mine.storageLevel, os.environ.copy()

    before = state()
    assert etl.main(["--input", str(small), "--output", str(lake)]) == int(fails)
    assert state() == before and len(before[2]) == 1
    mine.unpersist()
    assert spark._jsparkSession.sharedState().cacheManager().isEmpty()


def test_a_lock_is_renewed_until_the_run_ends_or_another_takes_over(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert etl.HEARTBEAT_SECONDS * 3 < etl.DEAD_AFTER_SECONDS
    monkeypatch.setattr(etl, "HEARTBEAT_SECONDS", 0.01)
    lake = lake_at(spark, tmp_path / "lake")
    application = spark.sparkContext.applicationId
    tmp_path.joinpath("lake").mkdir()
    of_its_own = tmp_path / "lake" / f"_lock-run-b,elsewhere,1,2,{application}"  # of an attempt before, on YARN
    of_its_own.touch()
    beats, write, failures = threading.Semaphore(0), etl.write_text, iter([True])

    def write_and_tell(*file: Any) -> None:
        if next(failures, False):
            raise etl.JobError("no network for a moment")
        write(*file)
        beats.release()

    with lake.claimed():
        assert not of_its_own.exists()
        lock = Path(lake.lock.toString().removeprefix("file:"))
        os.utime(lock, (0, 0))
        monkeypatch.setattr(etl, "write_text", write_and_tell)
        assert beats.acquire(timeout=60) and lock.stat().st_mtime > 0
    assert list(lock.parent.iterdir()) == []  # a folder that was there stays
    has_ended = iter((False, True))
    a_beat: Any = SimpleNamespace(wait=lambda seconds: next(has_ended))
    lake._renew_lock(a_beat)
    assert not lock.exists()
    with pytest.raises(etl.JobError, match="another run has taken over") as raised:
        lake._replace("users", spark.range(0))
    assert "run-a was silent too long" in str(raised.value)


def test_a_lock_of_another_machine_of_the_same_name_is_alive(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = etl.Settings("", f"file://{tmp_path}/lake", {})
    monkeypatch.setattr(uuid, "getnode", lambda: 1)
    theirs = etl.Lake(spark, settings, "run-a").lock.getName().split(",")
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / ",".join([*theirs[:2], "0", "0", "local-1"])).touch()  # no process has the number 0
    monkeypatch.setattr(uuid, "getnode", lambda: 2)
    with pytest.raises(etl.JobError, match="another run is at work"), etl.Lake(spark, settings, "run-b").claimed():
        pass
    monkeypatch.setattr(uuid, "getnode", lambda: 1)
    with etl.Lake(spark, settings, "run-b").claimed():
        pass
    half_dead = tmp_path / "lake" / ",".join([*theirs[:2], "0", str(os.getpid()), "local-1"])  # its JVM still writes
    half_dead.touch()
    with pytest.raises(etl.JobError, match="another run is at work"), etl.Lake(spark, settings, "run-b").claimed():
        pass


def test_a_lock_of_another_machine_is_dead_after_a_silence(spark: SparkSession, tmp_path: Path) -> None:
    theirs = tmp_path / "lake" / "_lock-run-b,elsewhere,1,2,local-1"
    theirs.parent.mkdir()
    theirs.touch()
    lake = lake_at(spark, tmp_path / "lake")
    now, silence = theirs.stat().st_mtime, etl.DEAD_AFTER_SECONDS
    os.utime(theirs, (now, now - silence + 60))
    with pytest.raises(etl.JobError, match="run run-b, process 1 on elsewhere"), lake.claimed():
        pass
    os.utime(theirs, (now, now - silence - 1))
    with lake.claimed():
        assert not theirs.exists()


def test_a_strangers_file_that_comes_meanwhile_is_none_of_the_runs(
    spark: SparkSession, small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, expected = etl.Lake._append, tables_of(lake)

    def append_beside(self: etl.Lake, name: str, table: DataFrame) -> int:
        (lake / name).mkdir(exist_ok=True)
        (lake / name / "notes.txt").write_text("mine")
        return append(self, name, table)

    monkeypatch.setattr(etl.Lake, "_append", append_beside)
    run(spark, small, lake)
    assert tables_of(lake) == expected and (lake / "_rejected" / "notes.txt").exists()


def test_a_folder_of_checksums_alone_is_no_reason_to_stop(spark: SparkSession, tmp_path: Path) -> None:
    """On the file system of spark-submit, which does not list them."""
    lake = lake_at(spark, tmp_path / "lake")
    (tmp_path / "lake" / "songs" / "year=1").mkdir(parents=True)
    (tmp_path / "lake" / "songs" / "year=1" / ".part-0.parquet.crc").touch()
    lake.fs = etl.java(spark, "org.apache.hadoop.fs.LocalFileSystem")()
    lake.fs.initialize(lake.root.toUri(), spark._jsc.hadoopConfiguration())
    lake._tidy(lake._path("songs"))
    assert (tmp_path / "lake" / "songs" / "year=1").exists()


def test_what_readers_do_not_see_is_told_by_the_names_in_the_table_alone(spark: SparkSession, tmp_path: Path) -> None:
    lake = lake_at(spark, tmp_path / ".mine" / "_lakes")
    for name in ("year=1/a", "_temporary/0/a", "year=1/.a.crc"):
        write_lines(tmp_path / ".mine" / "_lakes" / "songs" / name, "1234")
    assert lake._files("songs") == {f"file:{tmp_path}/.mine/_lakes/songs/year=1/a": 5}


def test_no_right_to_delete_stops_a_run_before_its_first_table(spark: SparkSession, tmp_path: Path) -> None:
    lake = lake_at(spark, tmp_path / "lake")
    real = lake.fs
    lake.fs = SimpleNamespace(
        exists=real.exists, create=real.create, listStatus=real.listStatus, delete=refuse_to_delete
    )
    with pytest.raises(etl.JobError, match="no right to delete"), lake.claimed():
        pytest.fail("it went on")


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("part-00000-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd.c000.snappy.parquet", True),
        ("part-123456-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd.c000.snappy.parquet", True),  # of many tasks
        ("part-20250101T000000Z-0a1b2c3d-00000-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd-c000.json", True),
        ("part-00000.parquet", False),
        ("part-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd.parquet", False),
        ("my-part-00000-0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd.parquet", False),
    ],
)
def test_data_files_are_told_from_others_by_sparks_way_to_name_them(name: str, is_ours: bool) -> None:
    assert etl.write_id(f"file:/lake/songs/year=1/{name}") == "0b0d0f43-ce4e-4dd4-a8d3-8cbb96a8a4bd" * is_ours


def test_new_files_are_the_runs_where_they_have_its_id_or_are_all_of_one_write(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = lake_at(spark, tmp_path)
    of_another_write = OLD_FILE.replace("0b0d", "1b0d")
    named = OLD_FILE.replace("part-", "part-run-a-")
    for come, new in (("notes.txt", []), (OLD_FILE, [OLD_FILE]), (of_another_write, []), (named, [named])):
        write_lines(tmp_path / "songs" / come, "1234")
        assert [Path(file).name for file in lake._new_files("songs", {})] == new


def test_on_s3_files_are_deleted_some_at_a_time_and_all_of_them(spark: SparkSession, tmp_path: Path) -> None:
    lake, requests = lake_at(spark, tmp_path / "lake"), list[list[str]]()

    def delete(paths: list[Any]) -> list[Any]:
        requests.append([path.getName() for path in paths])
        return []

    bulk = SimpleNamespace(pageSize=lambda: 2, bulkDelete=delete)
    capable: Any = {"hasPathCapability": lambda *_: True, "createBulkDelete": lambda path: bulk}
    lake.fs = SimpleNamespace(exists=lake.fs.exists, **capable)
    lake._delete("songs", [f"file:///{name}" for name in "abcde"])
    assert requests == [["a", "b"], ["c", "d"], ["e"]]


def test_old_files_that_cannot_be_deleted_are_told_as_rows_of_both_runs(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl.Lake, "_append", lambda *_: 0)
    monkeypatch.setattr(etl.Lake, "_delete", refuse_to_delete)
    lake = lake_at(spark, tmp_path / "lake")
    of_no_rows: Any = SimpleNamespace(schema=None)
    with pytest.raises(etl.JobError, match="no right to delete") as raised, lake.claimed():
        lake._replace("users", of_no_rows)
    assert raised.value.state == (
        "users hold this run's rows, the other tables the last run's; run it again; "
        "files of both runs may lie in users until the next run"
    )


def test_a_file_that_s3_does_not_delete_fails_the_run(spark: SparkSession, tmp_path: Path) -> None:
    lake = lake_at(spark, tmp_path / "lake")
    failed = SimpleNamespace(getKey=lambda: lake._path("songs/a"), getValue=lambda: "AccessDenied")
    bulk = SimpleNamespace(pageSize=lambda: 250, bulkDelete=lambda paths: [failed])
    lake.fs = SimpleNamespace(hasPathCapability=lambda *_: True, createBulkDelete=lambda path: bulk)
    with pytest.raises(etl.JobError, match=r"cannot delete file:.*/lake/songs/a: AccessDenied"):
        lake._delete("songs", ["file:///a"])


# Two runs that overlap in spite of the lock


class Schedule:
    """Two runs, each in a thread, of which one at a time goes on by a step. `holds` is asked after each step."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.go = [threading.Semaphore(0), threading.Semaphore(0)]
        self.paused = [threading.Semaphore(0), threading.Semaphore(0)]

    def pause(self, who: int) -> None:
        self.paused[who].release()
        self.go[who].acquire()

    def play(self, order: tuple[int, ...], runs: list[Callable[[], object]], holds: Callable[[], bool]) -> None:
        has_ended = [False, False]

        def work(who: int) -> None:
            self.go[who].acquire()
            try:
                with contextlib.suppress(etl.JobError):
                    runs[who]()
            finally:
                has_ended[who] = True
                self.paused[who].release()

        done = [self.pool.submit(work, who) for who in (0, 1)]
        broken = []
        for who in (*order, *[0] * 9, *[1] * 9):
            if not has_ended[who]:
                self.go[who].release()
                self.paused[who].acquire()
                broken += [] if holds() else [who]
        for each in done:
            each.result()
        assert not broken, order


@pytest.fixture(scope="module")
def schedule() -> Iterator[Schedule]:
    with ThreadPoolExecutor(2) as pool:
        yield Schedule(pool)


NAMED, UNNAMED = "files named with the run's id", "files named as by Spark 3.5"


@pytest.mark.parametrize(
    ("fails_at", "naming"),
    [("nothing", NAMED), ("the append", NAMED), ("the read-back", NAMED), ("the read-back", UNNAMED)],
)
def test_two_runs_lose_no_row_in_any_order_of_their_steps(
    spark: SparkSession, schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str, naming: str
) -> None:
    """Of list, append, read back and delete, with one row a file; the first run may fail."""
    table, who_of = tmp_path / "users", {"run-a": 0, "run-b": 1}
    delete = etl.Lake._delete

    def file_of(writer: str, number: int) -> Path:
        name = f"{writer}-" if naming == NAMED or writer == "old" else ""
        return table / f"part-{name}{number:05}-00000000-0000-4000-8000-{writer.encode().hex():0>12}.parquet"

    def append(self: etl.Lake, *_: object) -> int:
        schedule.pause(who_of[self.run_id])
        for number in range(2):
            file_of(self.run_id, number).write_text("a row")
            if (self.run_id, fails_at) == ("run-a", "the append"):
                raise etl.JobError("the storage is full")
        return 2

    def count(self: etl.Lake, name: str, schema: object, files: dict[str, int]) -> int:
        schedule.pause(who_of[self.run_id])
        is_wrong = (self.run_id, fails_at) == ("run-a", "the read-back")
        return -1 if is_wrong else sum(Path(file.removeprefix("file:")).exists() for file in files)

    def delete_later(self: etl.Lake, name: str, files: list[str]) -> None:
        schedule.pause(who_of[self.run_id])
        delete(self, name, files)

    def is_whole() -> bool:
        return any(all(file_of(writer, number).exists() for number in range(2)) for writer in ("old", *who_of))

    for hook, replaced in {"_append": append, "_count": count, "_delete": delete_later}.items():
        monkeypatch.setattr(etl.Lake, hook, replaced)
    lakes = [lake_at(spark, tmp_path, run_id) for run_id in who_of]
    of_two_rows: Any = SimpleNamespace(schema=None)
    for lake in lakes:
        etl.write_text(lake.fs, lake.lock, "")
    # of both runs; one that fails at the append reads nothing back, one of unnamed files has nothing to delete
    steps = 7 if fails_at == "the append" or naming == UNNAMED else 8
    orders = [tuple(int(step in of_b) for step in range(steps)) for of_b in combinations(range(steps), 4)]
    for order in orders[: 35 if fails_at == "nothing" else None]:  # the rest would only change the runs' names
        shutil.rmtree(table, ignore_errors=True)
        table.mkdir()
        for number in range(2):
            file_of("old", number).write_text("a row")
        schedule.play(order, [partial(lake._replace, "users", of_two_rows) for lake in lakes], is_whole)


def test_two_runs_that_write_at_once_leave_all_rows_of_one_of_them(
    spark: SparkSession, small: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Spark's own committer, whose files of unfinished writes lie in one folder; the lock does not help here."""
    both, append = {name: threading.Barrier(2) for name in etl.TABLES}, etl.Lake._append

    def append_together(self: etl.Lake, name: str, table: DataFrame) -> int:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other run has ended before
            both[name].wait()
        return append(self, name, table)

    def work(_: int) -> None:
        with contextlib.suppress(etl.JobError):
            run(spark, small, lake)
        for barrier in both.values():
            barrier.abort()

    expected, before = {name: set(rows) for name, rows in tables_of(lake).items()}, contents_of(lake)
    monkeypatch.setattr(etl.Lake, "_append", append_together)
    monkeypatch.setattr(etl.Lake, "_refuse_others", lambda lake: None)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert {name: set(rows) for name, rows in tables_of(lake).items()} == expected
    assert contents_of(lake) != before
    monkeypatch.undo()
    run(spark, small, lake)
    assert tables_of(lake) == {name: sorted(rows) for name, rows in expected.items()}
