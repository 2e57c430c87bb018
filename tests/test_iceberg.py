"""Iceberg tables: nights that can be read and taken back, kills, two runs at once, what is refused and what is removed."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import engines
import oracle
import pyspark
import pytest
from conftest import PLAY, ROOT, SAMPLE, open_catalog, run, run_etl, run_python, settings, write_lines
from lakes import CATALOG, NAMESPACE, iceberg_table, some_of_sample, tables_of
from pyiceberg.catalog.glue import GlueCatalog
from pyspark.sql import SparkSession
from s3 import KEYS, S3Server, no_proxy_for

import etl
import laptop

pytestmark = pytest.mark.usefixtures("interpreted")
NAMES = ["rejected", *etl.TABLES]
Night = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The inputs of two nights."""
    folder = tmp_path_factory.mktemp("in")
    return [
        some_of_sample(SAMPLE, folder / "one", slice(10), slice(2)),
        some_of_sample(SAMPLE, folder / "two", slice(5, 20), slice(1, 3)),
    ]


@pytest.fixture(scope="module")
def expected(sources: list[Path]) -> list[Night]:
    return [oracle.read_lake(source).tables for source in sources]


@pytest.fixture(scope="module")
def nights(spark: SparkSession, sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A lake of both nights, for reading, and their reports."""
    lake = tmp_path_factory.mktemp("nights") / "lake"
    reports = [run(spark, source, lake, catalog=CATALOG, keep_days=9) for source in sources]
    return SimpleNamespace(lake=lake, reports=reports)


@pytest.fixture(scope="module")
def first_night(spark: SparkSession, sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of the first night, and beside it a copy."""
    lake = tmp_path_factory.mktemp("first") / "lake"
    run(spark, sources[0], lake, catalog=CATALOG)
    shutil.copytree(lake, lake.with_name("copy"))
    return lake


@pytest.fixture
def lake(first_night: Path) -> Path:
    """A lake of the first night, for a test to change: always at one place, for Iceberg's files name where they are."""
    shutil.rmtree(first_night)
    return Path(shutil.copytree(first_night.with_name("copy"), first_night))


def session_on(spark: SparkSession, lake: Path) -> SparkSession:
    session = spark.newSession()
    open_catalog(session, lake)
    return session


def files_of(lake: Path) -> set[str]:
    return {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")}


def test_the_program_writes_the_sample_with_nothing_set_up(tmp_path: Path) -> None:
    done = run_etl("--output", tmp_path / "lake", "--catalog", CATALOG)
    assert done.stderr == "" and done.stdout.splitlines()[5].split()[0] == "table"
    assert tables_of(tmp_path / "lake") == oracle.read_lake(SAMPLE).tables


# Nights


def test_both_nights_can_be_read_by_the_ids_of_their_runs(nights: SimpleNamespace, expected: list[Night]) -> None:
    ids = [report["run_id"] for report in nights.reports]
    assert [tables_of(nights.lake), *(tables_of(nights.lake, night) for night in ids)] == [expected[1], *expected]


def test_the_report_names_snapshots_sizes_and_the_time_of_the_commits(nights: SimpleNamespace) -> None:
    report = nights.reports[1]
    for name, table in report["tables"].items():
        stored = iceberg_table(nights.lake, name.lstrip("_"))
        current = stored.current_snapshot()
        assert current and current.summary
        assert (table["snapshot"], report["run_id"]) == (current.snapshot_id, current.summary["run-id"])
        files = [task.file for task in stored.scan().plan_files()]
        sizes = len(files), sum(file.file_size_in_bytes for file in files), sum(file.record_count for file in files)
        assert (table["files"], table["bytes"], table["rows"]) == sizes
        assert stored.refs()[report["run_id"]].max_ref_age_ms == 9 * 86_400_000
    seconds = [table["mixed_seconds"] for table in report["tables"].values()]
    assert 0 < seconds[0] < seconds[-1] == max(seconds) < report["seconds"]
    assert f"see {CATALOG}.rejected" not in etl.show(report)
    rejected = report["tables"] | {"_rejected": report["tables"]["_rejected"] | {"rows": 1}}
    assert f"see {CATALOG}.rejected" in etl.show(report | {"tables": rejected})


def test_the_schema_says_what_tables_and_columns_mean(nights: SimpleNamespace) -> None:
    for name, schema in etl.TABLES.items():
        stored = iceberg_table(nights.lake, name)
        assert {field.name: field.doc for field in stored.schema().fields} == {
            field.name: field.metadata["comment"] for field in schema
        }
        assert stored.properties["comment"] == etl.GRAINS[name]


@pytest.mark.parametrize("reader", ["duckdb", "spark"])
def test_the_queries_read_it(reader: str, nights: SimpleNamespace, expected: list[Night], spark: SparkSession) -> None:
    sql = "SELECT song_id, title, artist_id, year, duration FROM songs ORDER BY song_id"
    if reader == "spark":
        _, rows = engines.spark_query(session_on(spark, nights.lake), str(nights.lake), CATALOG)(sql)
    else:
        with engines.duckdb_engine(str(nights.lake)) as query:
            _, rows = query(sql)
    assert [tuple(row) for row in rows] == expected[1]["songs"]


def test_the_queries_take_output_and_catalog_of_dl_cfg(nights: SimpleNamespace, tmp_path: Path) -> None:
    config = write_lines(tmp_path / "dl.cfg", f"[PATHS]\nOUTPUT_DATA = {nights.lake}\n[LAKE]\nCATALOG = {CATALOG}")
    seen = list[object]()

    def work(query: engines.Query, options: argparse.Namespace) -> int:
        seen.extend([options.catalog, len(query("SELECT song_id FROM songs")[1])])
        return 0

    for more in ([], ["--catalog", "other.sparkify"]):
        assert engines.run(argparse.ArgumentParser(), ["--config", str(config), *more], work) == 0
    assert seen == [CATALOG, 15, "other.sparkify", 15]


DOC = (ROOT / "docs" / "iceberg.md").read_text("utf-8")


def test_the_commands_of_the_docs(
    nights: SimpleNamespace, expected: list[Night], spark: SparkSession, lake: Path, sources: list[Path]
) -> None:
    """The nights, one of them, what changed, and taking a run back."""
    first, second = (report["run_id"] for report in nights.reports)
    listing, night, changed = (text.replace("glue.", "lake.") for text in re.findall("```sql\n(.*?)```", DOC, re.S)[:3])
    session = session_on(spark, nights.lake)
    assert [row.run for row in session.sql(listing).collect()] == [first, second]
    [count] = session.sql(night.replace("RUN", first)).collect()
    assert count[0] == len(expected[0]["songplays"])
    rows = {tuple(row) for row in session.sql(changed.replace("OTHER", first)).collect()}
    assert rows == {*expected[1]["users"]} - {*expected[0]["users"]} != set()

    [first] = iceberg_table(lake, "songs").refs().keys() - {"main"}
    run(spark, sources[1], lake, catalog=CATALOG)
    [loop] = re.findall("```bash\n(for .*?)```", DOC, re.S)
    script = f"spark-sql() {{ cat; }}\n{loop.replace('glue.', 'lake.').replace('RUN', first)}"
    session = session_on(spark, lake)
    for statement in subprocess.check_output(["bash", "-c", script], text=True).split(";\n")[:-1]:
        session.sql(statement)
    assert tables_of(lake) == expected[0]
    run(spark, sources[1], lake, catalog=CATALOG)
    assert tables_of(lake) == expected[1]


def test_the_duckdb_program_of_the_docs(
    nights: SimpleNamespace, expected: list[Night], capsys: pytest.CaptureFixture[str]
) -> None:
    [program] = re.findall("```python\n(import duckdb.*?)```", DOC, re.S)
    download = 'duckdb.sql("INSTALL iceberg")\nduckdb.sql("LOAD iceberg")\n'
    assert download in program and "'lake/sparkify/" in program
    engines.load(duckdb.default_connection(), "avro", "iceberg")  # from PyPI
    exec(program.replace(download, "").replace("'lake/", f"'{nights.lake}/"))
    printed = capsys.readouterr().out
    for level, plays in Counter(play[3] for play in expected[1]["songplays"]).items():
        assert re.search(rf"{level}\W+{plays}\b", printed)


# Moments: kills and two runs at once


KILLED = """
import os, signal, sys, etl
commit, done = etl.IcebergLake._commit, []
def commit_some(self, name, snapshot):
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, name, snapshot)
    done.append(name)
etl.IcebergLake._commit = commit_some
etl.IcebergLake._clean = lambda self, name: os.kill(os.getpid(), signal.SIGKILL)
etl.main(sys.argv[2:])
"""


def test_runs_killed_between_their_commits_leave_each_table_of_one_night(
    spark: SparkSession, sources: list[Path], expected: list[Night], lake: Path
) -> None:
    """After two commits, and then after all of them, before the clean-up."""
    options = ["--input", str(sources[1]), "--output", str(lake), "--catalog", CATALOG]
    for commits in (2, len(NAMES)):
        command = [sys.executable, "-c", KILLED, str(commits), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600)
        assert done.returncode == -signal.SIGKILL
        assert tables_of(lake) == {name: expected[name in NAMES[:commits]][name] for name in etl.TABLES}
    run(spark, sources[1], lake, catalog=CATALOG)
    assert tables_of(lake) == expected[1]


@pytest.mark.parametrize("moment", ["before its commits", "between the first table's check and commit", "after two"])
def test_of_two_runs_one_wins_whole_and_the_other_fails(
    moment: str,
    spark: SparkSession,
    sources: list[Path],
    expected: list[Night],
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit, current, calls = etl.IcebergLake._commit, etl.IcebergLake._current, list[str]()

    def other() -> None:
        monkeypatch.undo()
        run(spark, sources[1], lake, catalog=CATALOG)

    def late_commit(self: etl.IcebergLake, name: str, snapshot: int) -> None:
        if len(calls) == (2 if moment == "after two" else 0):
            other()
        calls.append(name)
        commit(self, name, snapshot)

    def late_current(self: etl.IcebergLake, name: str) -> int | None:
        found = current(self, name)
        calls.append(name)
        if len(calls) == 3:  # when the run began, before the change and before the commit
            other()
        return found

    if moment.startswith("between"):
        monkeypatch.setattr(etl.IcebergLake, "_current", late_current)
    else:
        monkeypatch.setattr(etl.IcebergLake, "_commit", late_commit)
    with pytest.raises(etl.JobError, match=r"another run has taken lake\.sparkify") as failed:
        run(spark, sources[0], lake, catalog=CATALOG)
    assert failed.value.state.startswith("lake.sparkify.rejected, " if moment == "after two" else "the lake is unch")
    assert tables_of(lake) == expected[1]


def test_a_commit_that_meets_another_change_of_the_table_is_tried_again(
    spark: SparkSession, sources: list[Path], expected: list[Night], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, calls = etl.IcebergLake._current, list[str]()

    def meddle(self: etl.IcebergLake, name: str) -> int | None:
        found = current(self, name)
        calls.append(name)
        if len(calls) == 3:
            session_on(spark, lake).sql(f"ALTER TABLE {self.names[name]} SET TBLPROPERTIES ('of' = 'mine')")
        return found

    monkeypatch.setattr(etl.IcebergLake, "_current", meddle)
    run(spark, sources[1], lake, catalog=CATALOG)
    assert tables_of(lake) == expected[1]
    assert iceberg_table(lake, "rejected").properties["of"] == "mine"


@pytest.mark.parametrize("then", ["it is found", "the network goes", "no try is left"])
def test_a_commit_without_an_answer_is_looked_for_and_not_called_unchanged(
    then: str,
    spark: SparkSession,
    sources: list[Path],
    expected: list[Night],
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first commit, of the table rejected."""
    current, table = etl.IcebergLake._current, SimpleNamespace(looks=0)

    class Unanswered:
        def __init__(self, change: Any) -> None:
            self.change = change

        def __getattr__(self, name: str) -> Any:
            return lambda *values: Unanswered(getattr(self.change, name)(*values))

        def commit(self) -> None:
            self.change.commit()
            raise ValueError("org.apache.iceberg.exceptions.CommitStateUnknownException: no answer")

    def watch(self: etl.IcebergLake, name: str) -> int | None:
        table.looks += 1
        if table.looks == 4 and then == "the network goes":
            raise ConnectionError("no network")
        found = current(self, name)
        if table.looks == 2:
            real = self.tables[name]
            self.tables[name] = SimpleNamespace(
                refresh=real.refresh,
                currentSnapshot=real.currentSnapshot,
                manageSnapshots=lambda: Unanswered(real.manageSnapshots()),
            )
        return found

    monkeypatch.setattr(etl.IcebergLake, "_current", watch)
    monkeypatch.setattr(etl.IcebergLake, "_clean", lambda *_: None)
    if then == "it is found":
        run(spark, sources[1], lake, catalog=CATALOG)
        assert tables_of(lake) == expected[1]
        return
    if then == "no try is left":
        monkeypatch.setattr(etl, "COMMIT_TRIES", 1)
    with pytest.raises(etl.JobError) as failed:
        run(spark, sources[1], lake, catalog=CATALOG)
    rest = "hold this run's rows, the other tables another's; run it again"
    assert failed.value.state == f"maybe lake.sparkify.rejected {rest}"
    assert tables_of(lake) == expected[0]


def test_rows_that_are_not_found_again_are_not_published(
    spark: SparkSession, sources: list[Path], expected: list[Night], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange = etl.arrange
    monkeypatch.setattr(etl, "arrange", lambda name, rows, by: arrange(name, rows, by).offset(int(name == "songs")))
    with pytest.raises(
        etl.JobError, match=r"cannot write lake\.sparkify\.songs: it has \d+ rows after the write instead of \d+"
    ) as failed:
        run(spark, sources[1], lake, catalog=CATALOG)
    assert failed.value.state == "the lake is unchanged"
    assert tables_of(lake) == expected[0]


def test_rows_are_counted_in_the_files_themselves(
    spark: SparkSession, sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not in what Iceberg has noted of them."""
    load = etl.IcebergLake._load

    def cut_and_load(self: etl.IcebergLake, name: str) -> None:
        for path in (tmp_path / "lake" / NAMESPACE / "songs" / "data").rglob("*.parquet") if name == "songs" else ():
            os.truncate(path, path.stat().st_size // 2)
        load(self, name)

    monkeypatch.setattr(etl.IcebergLake, "_load", cut_and_load)
    with pytest.raises(etl.JobError, match=r"cannot write lake\.sparkify\.songs"):
        run(spark, sources[0], tmp_path / "lake", catalog=CATALOG)


# What is removed


def test_a_clean_up_that_fails_does_not_say_that_the_lake_is_of_two_runs(
    spark: SparkSession, sources: list[Path], expected: list[Night], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no right to delete")

    monkeypatch.setattr(etl.IcebergLake, "_clean", fail)
    with pytest.raises(etl.JobError, match="no right to delete") as failed:
        run(spark, sources[1], lake, catalog=CATALOG)
    assert failed.value.state == "the lake holds this run's rows, its old files are not all removed"
    assert tables_of(lake) == expected[1]


def test_files_of_a_dead_run_go_when_they_are_a_day_old(
    spark: SparkSession, sources: list[Path], expected: list[Night], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(lake)

    def die(*_: object) -> None:
        raise ValueError("dead")

    with monkeypatch.context() as patch:
        patch.setattr(etl.IcebergLake, "_commit", die)
        with pytest.raises(etl.JobError, match="dead"):
            run(spark, sources[1], lake, catalog=CATALOG)
    dead = files_of(lake) - before
    stray = lake / NAMESPACE / "songs" / "data" / "stray.parquet"
    shutil.copy(lake / next(iter(dead)), stray)
    assert tables_of(lake) == expected[0] and dead
    report = run(spark, sources[1], lake, catalog=CATALOG)
    assert dead <= files_of(lake) and stray.exists()
    monkeypatch.setattr(etl, "time", SimpleNamespace(time=lambda: time.time() + 90_000, monotonic=time.monotonic))
    run(spark, sources[0], lake, catalog=CATALOG)
    assert not dead & files_of(lake) and not stray.exists()
    assert tables_of(lake, report["run_id"]) == expected[1]


def test_nights_go_when_their_days_are_over_and_never_the_current_one(
    spark: SparkSession, sources: list[Path], expected: list[Night], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tmp_path / "lake"
    monkeypatch.setattr(etl, "DAY_MS", 1)  # so seven milliseconds
    before = {"songs": ("artist_id", "year"), "time": (), "songplays": ("year", "month")}
    after = {"songs": ("year",), "time": ("year", "month"), "songplays": ()}
    for night, partitions in ((1, before), (0, after)):
        report = run(spark, sources[night], lake, catalog=CATALOG, partitions=partitions)
        assert tables_of(lake) == expected[night]
        for name, columns in partitions.items():
            assert tuple(field.name for field in iceberg_table(lake, name).spec().fields) == columns
    for name in NAMES:
        table = iceberg_table(lake, name)
        assert [snapshot.summary["run-id"] for snapshot in table.snapshots() if snapshot.summary] == [report["run_id"]]
        stored = {Path(task.file.file_path).name for task in table.scan().plan_files()}
        assert {path.name for path in (lake / NAMESPACE / name / "data").rglob("*.parquet")} == stored


# What is refused


@pytest.mark.parametrize("harm", ["not the job's table", "a folder with files", "another output", "no catalog"])
def test_what_is_not_this_jobs_is_refused_in_one_line(
    harm: str, spark: SparkSession, sources: list[Path], lake: Path, tmp_path: Path, fail: Callable[..., str]
) -> None:
    words = {
        "not the job's table": "lake.other.songs at file:",
        "a folder with files": "holds files and is no table of lake.other",
        "another output": "no table of this job and this output",
        "no catalog": "Spark knows no catalog elsewhere",
    }
    catalog, output, session = "lake.other", lake, session_on(spark, lake)
    if harm == "not the job's table":
        session.sql("CREATE TABLE lake.other.songs (mine int) USING iceberg")
        session.sql("INSERT INTO lake.other.songs VALUES (7)")
    elif harm == "a folder with files":
        write_lines(lake / "other" / "songs" / "part.json", {"mine": 7})
    elif harm == "another output":
        catalog, output = CATALOG, tmp_path / "elsewhere"
    else:
        catalog = "elsewhere.sparkify"
    open_catalog(spark, lake)
    options = ("--input", sources[0], "--output", output, "--catalog", catalog)
    error = fail(*options, code=2 if harm == "no catalog" else 1)
    assert words[harm] in error and error.count("\n") == 1
    if harm == "not the job's table":
        assert [row.mine for row in session.table("lake.other.songs").collect()] == [7]


# Files


def test_queries_by_month_and_by_time_skip_files_that_are_sorted(spark: SparkSession, tmp_path: Path) -> None:
    """Three months of plays."""
    starts = [1_541_030_400_000 + day * 86_400_000 for day in range(90)]
    plays = [PLAY | {"ts": day + item, "itemInSession": item} for day in starts for item in range(3)]
    write_lines(tmp_path / "in" / "log_data" / "a.json", *plays)
    some_of_sample(SAMPLE, tmp_path / "in", slice(3), slice(0))
    (tmp_path / "lake" / NAMESPACE / "songs" / "data").mkdir(parents=True)  # as of a first run that died
    run(spark, tmp_path / "in", tmp_path / "lake", catalog=CATALOG)
    for name in ("songplays", "time"):
        table = iceberg_table(tmp_path / "lake", name)

        days = "start_time >= '2018-12-05T00:00:00+00:00' and start_time < '2018-12-06T00:00:00+00:00'"
        scans = [table.scan(), *(table.scan(row_filter) for row_filter in ("year = 2018 and month = 12", days))]
        found = [list(scan.plan_files()) for scan in scans]
        assert [len(files) for files in found] == [3, 1, 1]
        for task in found[0]:
            times = duckdb.sql(f"SELECT start_time FROM read_parquet('{task.file.file_path[5:]}')").fetchall()
            assert times == sorted(times)


# Glue and S3

# Of the lake in two nights: what is read grows with the nights that are kept, the rest does not
OTHER_THAN_READS = ({"PUT": 34, "LIST": 14, "DELETE": 1}, {"PUT": 41, "LIST": 20, "DELETE": 1})
MOST_READS = (120, 200)


def test_glue_and_its_files_are_reached_in_the_region_by_the_proxy_and_with_the_keys_of_s3a(
    spark: SparkSession, tmp_path: Path
) -> None:
    on_s3 = replace(settings(tmp_path, tmp_path), output="s3a://b/lake", catalog="glue.sparkify")
    access = {
        "fs.s3a.bucket.b.endpoint.region": "eu-west-1",
        "fs.s3a.proxy.host": "proxy.corp",
        "fs.s3a.proxy.port": "3128",
        "fs.s3a.proxy.username": "ann",
        "fs.s3a.proxy.password": "pw",
        "fs.s3a.access.key": "AKIA",
        "fs.s3a.secret.key": "secret",
        "fs.s3a.session.token": "token",
    }
    wanted = {
        "http.proxyHost": "proxy.corp",
        "http.proxyPort": "3128",
        "http.proxyUser": "ann",
        "http.proxyPassword": "pw",
        "aws.accessKeyId": "AKIA",
        "aws.secretAccessKey": "secret",
        "aws.sessionToken": "token",
    }
    system = etl.java(spark, "java.lang.System")
    try:
        session = spark.newSession()
        laptop.open_catalog(session, on_s3, access)
        assert {name: system.getProperty(name) for name in wanted} == wanted
        assert session.conf.get("spark.sql.catalog.glue.client.region") == "eu-west-1"
    finally:
        for name in wanted:
            system.clearProperty(name)


def test_on_s3_a_path_that_iceberg_would_cut_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    for output in ("s3a://b/my #lake", "s3://b/lake?"):
        with pytest.raises(etl.ConfigError, match=r"leaves out what follows"):
            etl.IcebergLake(spark, replace(settings(tmp_path, tmp_path), output=output, catalog=CATALOG), "run-a")


def test_packages_of_ones_own_do_not_replace_the_jars_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--packages org.postgresql:postgresql:42.7.4 pyspark-shell")
    with pytest.raises(laptop.SessionError, match="has --packages") as raised:
        laptop.create_session(settings(tmp_path, tmp_path, catalog=CATALOG))
    assert raised.value.exit_code == 2
    monkeypatch.delattr(laptop, "start")
    with pytest.raises(NameError, match="'start'"):  # so far comes a run that has no jars of its own
        laptop.create_session(settings(tmp_path, tmp_path))


def test_another_spark_than_the_jars_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyspark, "__version__", "4.3.0")
    with pytest.raises(
        laptop.SessionError, match=r"pyspark 4\.0, and 4\.3\.0 is installed.*requirements\.txt"
    ) as raised:
        laptop.create_session(settings(tmp_path, tmp_path, catalog=CATALOG))
    assert raised.value.exit_code == 2


def test_on_s3_the_tables_are_glues(
    sources: list[Path], expected: list[Night], monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Server() as s3:
        s3.make_bucket("songs", "eu-west-1")
        options = ("--output", "s3a://songs/lake", "--catalog", "glue.sparkify", "--report")
        for number, source in enumerate(sources):
            report = f"s3a://songs/r{number}.json"
            done = run_etl("--input", source, *options, report, **no_proxy_for(s3), **s3.environment)
            assert done.stderr == ""
            asked = Counter(
                request.verb
                for request in s3.requests
                if request.bucket == "songs" and request.key != f"r{number}.json"
            )
            assert asked.pop("GET") + asked.pop("HEAD") <= MOST_READS[number]
            assert asked == OTHER_THAN_READS[number]
            s3.requests.clear()
        run_id = json.loads(s3.client.get_object(Bucket="songs", Key="r0.json")["Body"].read())["run_id"]
        client = {"region": "eu-west-1", "access-key-id": KEYS["AWS_ACCESS_KEY_ID"], "endpoint": s3.url}
        client["secret-access-key"] = KEYS["AWS_SECRET_ACCESS_KEY"]
        catalog = GlueCatalog(
            "glue", **{f"{part}.{key}": value for part in ("s3", "glue") for key, value in client.items()}
        )
        for name, columns in oracle.COLUMNS.items():
            table = catalog.load_table(f"sparkify.{name}")
            assert table.location() == f"s3://songs/lake/sparkify/{name}"
            for night, rows in ((run_id, expected[0][name]), ("main", expected[1][name])):
                found = table.scan(snapshot_id=table.refs()[night].snapshot_id).to_arrow().select(columns).to_pylist()
                assert sorted((tuple(row.values()) for row in found), key=lambda row: row[0]) == rows
        [program] = re.findall("```python\n(from pyiceberg.*?)```", DOC, re.S)
        program = program.replace("RUN", run_id) + "print(len(plays), len(last_night))"
        place = {"PYICEBERG_CATALOG__GLUE__S3__ENDPOINT": s3.url, "PYICEBERG_CATALOG__GLUE__S3__REGION": "eu-west-1"}
        printed = run_python(program, ROOT, AWS_DEFAULT_REGION="eu-west-1", **place, **s3.environment)
        november = [play for play in expected[1]["songplays"] if play[1].month == 11]
        assert printed == f"{len(november)} {len(expected[0]['songplays'])}\n"
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        with engines.duckdb_engine("s3://songs/lake") as query:
            assert query("SELECT COUNT(*) FROM songplays")[1] == [(len(expected[1]["songplays"]),)]
        assert {key.split("/")[1] for key in s3.keys("songs", "lake/")} == {"sparkify"}
        assert s3.uploads("songs") == []
