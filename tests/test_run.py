"""The job as a program on local files: what it prints, what it makes, how it fails."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
import pytest
from conftest import ROOT, SAMPLE, run_etl, run_python, settings, write_lines
from lakes import contents_of, data_files, rejected_of, tables_of
from pyspark.sql import SparkSession

import etl

SONG: dict[str, Any] = {
    "num_songs": 1, "artist_id": "AR1", "artist_latitude": None, "artist_longitude": None, "artist_location": "",
    "artist_name": "Ann", "song_id": "SO1", "title": "One", "duration": 1.5, "year": 2001,
}  # fmt: skip
PLAY: dict[str, Any] = {
    "artist": "Ann", "song": "One", "length": 1.5, "page": "NextSong", "ts": 1541105830796, "userId": "8",
    "sessionId": 139, "itemInSession": 0, "level": "free", "firstName": "Kay", "lastName": "X", "gender": "F",
}  # fmt: skip


@dataclass
class Runs:
    """Two runs of the sample into one lake, the second one elsewhere in the world."""

    lake: Path
    first: subprocess.CompletedProcess[str]
    report: dict[str, Any]
    rows: dict[str, list[tuple[Any, ...]]]
    files: dict[str, int]
    second: str
    terminal: str
    rows_again: dict[str, list[tuple[Any, ...]]]
    files_again: dict[str, int]


def run_on_terminal(cwd: Path, *arguments: object, **environment: str) -> tuple[str, str]:
    """Runs etl.py with its stderr on a terminal; what it printed to stdout and to the terminal."""
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def watch() -> None:
        try:
            while chunk := os.read(master, 4096):
                seen.append(chunk)
        except OSError:  # Linux's way to say that the other end is closed
            pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    command = [sys.executable, str(ROOT / "etl.py"), *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, cwd=cwd, env=os.environ | environment
    ) as process:
        os.close(slave)
        out = process.communicate(timeout=600)[0].decode()
    watcher.join()
    os.close(master)
    assert process.returncode == 0, out
    return out, b"".join(seen).decode()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    lake, report = folder / "a lake of 100% ü", folder / "report.json"
    first = run_etl("--output", lake, "--report", report)
    rows, files = tables_of(lake), data_files(lake)
    (lake / "songs" / "notes.txt").write_text("mine")
    year = next(path for path in (lake / "songplays").iterdir() if path.name.startswith("year="))
    shutil.copy(lake / next(iter(files)), year / "part-00000-of-another-job.bak")
    second, terminal = run_on_terminal(
        folder, "--config", ROOT / "dl.cfg", "--output", lake.name, TZ="Pacific/Auckland", LC_ALL="C"
    )
    files_again = data_files(lake)
    return Runs(
        lake, first, json.loads(report.read_text()), rows, files, second, terminal, tables_of(lake), files_again
    )


@pytest.fixture(scope="module")
def expected() -> oracle.Lake:
    return oracle.read_lake(SAMPLE)


def test_the_sample_becomes_what_the_oracle_says(runs: Runs, expected: oracle.Lake) -> None:
    for name, rows in expected.tables.items():
        assert runs.rows[name] == rows, name


def test_it_shows_each_step_and_a_table(runs: Runs, expected: oracle.Lake) -> None:
    lines = runs.first.stdout.splitlines()
    for start in ("read song_data: ", "read log_data: ", "built and checked 5 tables, ", "wrote "):
        assert [line for line in lines if line.startswith(start) and re.search(r" \d+\.\d s$", line)], start
    head = next(
        index for index, line in enumerate(lines) if line.split() == ["table", "rows", "files", "bytes", "seconds"]
    )
    shown = {line.split()[0]: line.split()[1] for line in lines[head + 1 : head + 6]}
    assert shown == {name: f"{len(rows):,}" for name, rows in expected.tables.items()}
    assert re.search(r"^plays that found their song: \d+\.\d%$", runs.first.stdout, re.MULTILINE)
    assert f"rejected lines: {len(expected.rejected)}" in runs.first.stdout
    assert re.search(rf"^done in \d+\.\d s, run {runs.report['run_id']}$", lines[-1])
    assert "S3" not in runs.first.stdout


def test_nothing_of_spark_is_printed(runs: Runs) -> None:
    assert runs.first.stderr == ""
    assert len(runs.first.stdout.splitlines()) == 4 + 6 + 3


def test_the_report_as_json(runs: Runs, expected: oracle.Lake) -> None:
    report = runs.report
    assert (report["state"], report["output"]) == ("done", f"file://{runs.lake}")
    assert report["strangers"] == [] and report["s3_requests"] == {}
    for name, counts in report["inputs"].items():
        rejected = sum(1 for line in expected.rejected if line.input == name)
        assert counts == {"files": expected.files[name], "lines": expected.lines[name], "rejected": rejected}
    for name, rows in expected.tables.items():
        table, sizes = (
            report["tables"][name],
            [size for file, size in runs.files.items() if file.startswith(f"{name}/")],
        )
        assert (table["rows"], table["files"], table["bytes"]) == (len(rows), len(sizes), sum(sizes))
        assert 0 <= table["mixed_seconds"] < table["seconds"] < report["seconds"]
    plays = expected.rows("songplays")
    assert report["matched_share"] == sum(1 for play in plays if play["song_id"]) / len(plays)
    assert set(report["steps"]) == {"read", "build", "write"}


def test_a_second_run_gives_an_equal_lake_whatever_the_time_zone_and_locale(runs: Runs) -> None:
    for name, rows in runs.rows.items():
        assert runs.rows_again[name] == rows, name


def test_no_file_of_the_first_run_is_left(runs: Runs) -> None:
    kept = runs.files.keys() & runs.files_again.keys()
    assert kept == set()
    names = {re.sub(r"part-\d{5}-[0-9a-f-]{36}", "", file) for file in runs.files_again}
    assert len(names) == len(runs.files) + 2  # as many folders, one file in each, and the strangers
    assert [
        path.name for path in runs.lake.rglob("*") if re.match(r"_temporary|\.spark|__magic|\..*\.crc", path.name)
    ] == []


def test_files_of_others_are_left_alone_and_reported(runs: Runs) -> None:
    assert "songs/notes.txt" in runs.files_again
    left = re.findall("^left alone, not written by this job: (.*)$", runs.second, re.MULTILINE)
    assert sorted(Path(file).name for file in left) == ["notes.txt", "part-00000-of-another-job.bak"]


def test_the_progress_bar_and_nothing_else_on_a_terminal(runs: Runs) -> None:
    assert re.search(r"\[Stage \d+:=*>", runs.terminal)
    assert re.sub(r"\r(\[Stage[^\r]*| +)", "", runs.terminal).strip() == ""


# Few and many rejected lines


@pytest.fixture(scope="module")
def bad_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input with three rejected lines, and songs whose artist_id is no name for a folder."""
    folder = tmp_path_factory.mktemp("bad") / "in"
    songs = [SONG | {"song_id": f"SO{n}", "artist_id": artist} for n, artist in enumerate(("AR/1", "AR=2%", "AR 3"))]
    write_lines(folder / "song_data" / "A" / "songs.json", *songs, "{broken")
    write_lines(
        folder / "log_data" / "2018" / "11" / "log.json", PLAY, PLAY | {"ts": 1541105830}, PLAY | {"userId": ""}
    )
    return folder


@pytest.fixture(scope="module")
def bad_run(bad_lines: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = bad_lines.parent
    config = folder / "dl.cfg"
    config.write_text(
        "[PATHS]\nINPUT_DATA = in\n[PARTITIONS]\nSONGS = year, artist_id\nTIME =\n[LIMITS]\nMAX_REJECTED = 0.7\n"
    )
    home = folder / "home"
    home.mkdir()
    done = run_etl("--config", config, cwd=home, HOME=str(home), JAVA_TOOL_OPTIONS=f"-Duser.home={home}")
    return folder / "lake", done


def test_a_few_rejected_lines_are_kept_with_their_reason(bad_lines: Path, bad_run: tuple[Path, Any]) -> None:
    lake, done = bad_run
    assert rejected_of(lake, bad_lines) == oracle.read_lake(bad_lines).rejected
    assert f"rejected lines: 3, see file://{lake}/_rejected" in done.stdout


def test_songs_by_year_and_artist_and_time_in_one_folder(bad_lines: Path, bad_run: tuple[Path, Any]) -> None:
    lake, _ = bad_run
    assert tables_of(lake) == oracle.read_lake(bad_lines).tables
    assert len(list((lake / "songs" / "year=2001").glob("artist_id=*/*.parquet"))) == 3
    assert len(list((lake / "time").glob("*.parquet"))) == 1


def test_a_run_on_local_files_downloads_nothing(bad_run: tuple[Path, Any]) -> None:
    assert list((bad_run[0].parent / "home").iterdir()) == []


def test_too_many_rejected_lines_leave_the_old_lake_as_it_is(bad_lines: Path, bad_run: tuple[Path, Any]) -> None:
    lake, _ = bad_run
    before = contents_of(lake)
    done = run_etl("--input", bad_lines, "--output", lake, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", done.stderr)
    assert re.search(r"1 of 4 lines of .*song_data|2 of 3 lines of .*log_data", done.stderr)
    for words in ("0.01", "MAX_REJECTED", f"file://{bad_lines}", "the lake is unchanged"):
        assert words in done.stderr
    assert contents_of(lake) == before


# Errors: one line and an exit code. The session is the tests' own, which spares a JVM for each.


@pytest.fixture
def fail(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Runs etl.main in this process; its error line."""
    monkeypatch.setattr(etl, "create_session", lambda settings, verbose: spark)
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> str:
        assert etl.main([*map(str, arguments)]) == 1
        return capfd.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, handler)


def assert_one_line(error: str, *words: object) -> None:
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", error), error
    for word in words:
        assert str(word) in error


def test_a_missing_input_folder(fail: Callable[..., str], tmp_path: Path) -> None:
    assert_one_line(fail("--input", tmp_path / "none", "--output", tmp_path / "lake"), tmp_path / "none", "unchanged")
    assert contents_of(tmp_path) == {}


@pytest.mark.parametrize("empty", ["song_data", "log_data"])
def test_an_input_without_a_file(fail: Callable[..., str], tmp_path: Path, empty: str) -> None:
    source = tmp_path / "in"
    write_lines(source / "song_data" / "A" / "a.json", SONG)
    write_lines(source / "log_data" / "a.json", PLAY)
    before = contents_of(source)
    for path in (source / empty).rglob("*.json"):
        path.rename(path.with_suffix(".txt"))
    error = fail("--input", source, "--output", tmp_path / "lake")
    assert_one_line(error, f"no *.json or *.json.gz file below file://{source}/{empty}")
    assert len(contents_of(tmp_path)) == len(before)


def test_an_output_that_is_a_file(fail: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("mine")
    assert_one_line(fail("--output", tmp_path / "lake"), tmp_path / "lake")
    assert contents_of(tmp_path) == {"lake": b"mine"}


def test_a_file_in_the_way_of_a_table(fail: Callable[..., str], tmp_path: Path) -> None:
    source, lake = tmp_path / "in", tmp_path / "lake"
    write_lines(source / "song_data" / "a.json", SONG)
    write_lines(source / "log_data" / "a.json", PLAY)
    write_lines(lake / "songs", "mine")
    assert_one_line(fail("--input", source, "--output", lake), lake / "songs")
    assert (lake / "songs").read_bytes() == b"mine\n"


@pytest.mark.parametrize("harm", ["a row is not written", "a file is cut"])
def test_new_files_that_do_not_read_back_are_taken_away(
    fail: Callable[..., str], spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harm: str
) -> None:
    source, lake = tmp_path / "in", tmp_path / "lake"
    write_lines(source / "song_data" / "a.json", SONG, SONG | {"song_id": "SO2", "title": "Two"})
    write_lines(source / "log_data" / "a.json", PLAY)
    etl.run(spark, settings(source, lake), say=lambda line: None)
    before = [contents_of(lake / name) for name in ("songs", "songplays")]
    arrange, count_rows = etl.arrange, etl.Lake._count_rows

    def cut(lake: etl.Lake, files: dict[str, int]) -> int:
        for file, size in files.items():
            os.truncate(file.removeprefix("file:"), size // 2)
        return count_rows(lake, files)

    if harm == "a row is not written":
        monkeypatch.setattr(
            etl, "arrange", lambda table, *how: arrange(table, *how).filter("title <> 'Two'" if "title" in table.columns else "true")
        )  # fmt: skip
        words = [f"file://{lake}/songs has 1 rows after the write instead of 2"]
    else:
        monkeypatch.setattr(etl.Lake, "_count_rows", cut)
        words = ["cannot read file:", str(lake), "back: it does not end like a parquet file"]
    assert_one_line(fail("--input", source, "--output", lake), *words, "the other tables the last run's")
    assert [contents_of(lake / name) for name in ("songs", "songplays")] == before


def test_a_footer_longer_than_what_is_read_of_it_at_first(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(etl, "FOOTER_BYTES", 16)
    write_lines(tmp_path / "in" / "song_data" / "a.json", SONG, SONG | {"song_id": "SO2"})
    write_lines(tmp_path / "in" / "log_data" / "a.json", PLAY)
    report = etl.run(spark, settings(tmp_path / "in", tmp_path / "lake"), say=lambda line: None)
    assert [report["tables"][name]["rows"] for name in etl.TABLES] == [2, 1, 1, 1, 1]


def test_verbose_shows_the_trace(fail: Callable[..., str], tmp_path: Path) -> None:
    *trace, error = fail("--verbose", "--input", tmp_path / "none", "--output", tmp_path / "lake").splitlines()
    assert "Traceback (most recent call last):" in trace
    assert error.startswith("etl.py: error: ")


@pytest.mark.parametrize("place", ["PATH", "JAVA_HOME"])
def test_no_java(tmp_path: Path, place: str) -> None:
    environment: dict[str, Any] = (
        {"PATH": str(tmp_path), "JAVA_HOME": ""} if place == "PATH" else {"JAVA_HOME": str(tmp_path)}
    )
    done = run_etl("--output", tmp_path / "lake", check=False, **environment)
    assert done.returncode == 1
    assert_one_line(done.stderr, "Java 17 or newer", "apt-get install", *([tmp_path] if place == "JAVA_HOME" else []))


def test_a_java_that_is_too_old(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(
        "#!/bin/sh\necho 'Error: A JNI error has occurred' >&2\n"
        "echo 'Exception in thread \"main\" java.lang.UnsupportedClassVersionError: org/apache/spark/launcher/Main' >&2\nexit 1\n"
    )
    java.chmod(0o755)
    done = run_etl("--output", tmp_path / "lake", check=False, JAVA_HOME=str(tmp_path))
    assert done.returncode == 1
    assert_one_line(done.stderr, "Java 17 or newer", "older")


@pytest.fixture(scope="module")
def own_session(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a session of the job's own says of itself, started with an archive of classes that does not fit."""
    folder = tmp_path_factory.mktemp("session")
    archive = folder / "of another Java.jsa"
    archive.write_text("nothing that Java knows")
    program = (
        f"import etl; etl.CLASS_ARCHIVE = {str(archive)!r}\n"
        f"spark = etl.create_session(etl.Settings({SAMPLE.as_uri()!r}, {(folder / 'lake').as_uri()!r}, {{}}))\n"
        f"print(etl.read_songs(spark, {(SAMPLE / 'song_data').as_uri()!r}).count())\n"
        "print(spark._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments())\n"
        "settings = spark._jsparkSession.sessionState().newHadoopConf()\n"  # as a read gets them
        "names = 'yarn.acl.enable', 'mapreduce.job.maps', 'fs.s3a.threads.max', 'io.file.buffer.size', 'mine.own'\n"
        "print(*(settings.get(name) for name in names))\n"
        "print(*(settings.getPropertySources(name) is not None for name in names))\n"
    )
    return run_python(program, folder, PYSPARK_SUBMIT_ARGS="--conf spark.hadoop.mine.own=7 pyspark-shell").splitlines()


def test_an_archive_of_classes_that_does_not_fit_is_no_harm(own_session: list[str]) -> None:
    lines, arguments = own_session[:2]
    assert int(lines) == 81
    assert re.search(r"-XX:SharedArchiveFile=[^,]*/of another Java\.jsa", arguments)
    assert "-XX:TieredStopAtLevel=1" in arguments


def test_hadoops_defaults_stay_away_while_files_are_read(own_session: list[str]) -> None:
    """Of those that a reader asks for, and of the user's own settings, none is dropped."""
    values, sources = own_session[2:]
    assert values.split() == ["None", "None", "None", "65536", "7"]
    assert sources.split() == ["False", "False", "False", "True", "True"]


def test_importing_it_does_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; before = dict(os.environ), signal.getsignal(signal.SIGTERM); import etl\n"
        "from pyspark import SparkContext\n"
        "assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before\n"
        "assert SparkContext._gateway is None and 'boto3' not in sys.modules\n"
    )
    assert run_python(program, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
