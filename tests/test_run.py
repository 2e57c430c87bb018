"""The job as a program on local files: what it prints, what it makes, how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import oracle
import pytest
from conftest import PLAY, ROOT, SAMPLE, SONG, run_etl, run_python, settings, write_lines
from lakes import contents_of, data_files, inputs_of, rejected_of, tables_of
from py4j.protocol import Py4JNetworkError
from pyspark.sql import DataFrame, SparkSession

import etl
import laptop

ETL = [sys.executable, str(ROOT / "etl.py")]


@dataclass
class Runs:
    """Two runs of the sample into one lake, the second one elsewhere in the world and with strangers' files there."""

    lake: Path
    first: subprocess.CompletedProcess[str]
    report: dict[str, Any]
    rows: dict[str, list[tuple[Any, ...]]]
    files: dict[str, int]
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("run")
    home, lake, report = folder / "home", folder / "lake", folder / "report.json"
    home.mkdir()
    (folder / "hosts").write_text("127.0.0.1 localhost\n")  # this machine's own name is not in it
    java = f"-Duser.home={home} -Djdk.net.hosts.file={folder}/hosts"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_LOCAL_IP")
        first = run_etl("--output", lake, "--report", report, cwd=home, HOME=str(home), JDK_JAVA_OPTIONS=java)
    assert list(home.iterdir()) == []  # a run on local files downloads nothing
    rows, files = tables_of(lake), data_files(lake)
    year = next(path for path in (lake / "songplays").iterdir() if path.name.startswith("year="))
    shutil.copy(lake / next(iter(files)), year / "part-00000-of-another-job.bak")
    (lake / "songs" / "notes.txt").write_text("mine")
    (lake / "songs" / "empty").mkdir()
    options = ("--config", ROOT / "dl.cfg", "--output", lake.name)
    second = run_etl(*options, cwd=folder, TZ="Pacific/Auckland", LC_ALL="C")
    return Runs(lake, first, json.loads(report.read_text()), rows, files, second)


@pytest.fixture(scope="module")
def expected() -> oracle.Lake:
    return oracle.read_lake(SAMPLE)


def test_the_sample_becomes_what_the_oracle_says(runs: Runs, expected: oracle.Lake) -> None:
    assert runs.rows == expected.tables


def test_it_shows_each_step_and_a_table_and_nothing_of_spark(runs: Runs, expected: oracle.Lake) -> None:
    lines = runs.first.stdout.splitlines()
    assert lines[0] == f"configuration: {ROOT}/dl.cfg"
    steps = ("read song_data: ", "read log_data: ", "built and checked 5 tables, ", "wrote ")
    for start, line in zip(steps, lines[1:5], strict=True):
        assert line.startswith(start) and re.search(r" \d+\.\d s$", line)
    assert lines[5].split() == ["table", "rows", "files", "bytes", "seconds"]
    shown = {line.split()[0]: line.split()[1:4] for line in lines[6:11]}
    assert shown == {
        name: [f"{len(rows):,}", *(f"{runs.report['tables'][name][size]:,}" for size in ("files", "bytes"))]
        for name, rows in expected.tables.items()
    }
    assert re.fullmatch(r"plays that found their song: \d+\.\d%", lines[11])
    assert lines[12] == f"rejected lines: {len(expected.rejected)}"
    assert re.fullmatch(rf"done in \d+\.\d s, run {runs.report['run_id']}", lines[13])
    assert (len(lines), runs.first.stderr) == (14, "")


def test_the_report_as_json(runs: Runs, expected: oracle.Lake) -> None:
    report = runs.report
    assert (report["state"], report["output"], report["strangers"]) == ("done", f"file://{runs.lake}", [])
    assert report["inputs"] == inputs_of(expected)
    for name, rows in expected.tables.items():
        table = report["tables"][name]
        sizes = [size for file, size in runs.files.items() if file.startswith(f"{name}/")]
        assert (table["rows"], table["files"], table["bytes"]) == (len(rows), len(sizes), sum(sizes))
        assert 0 <= table["mixed_seconds"] < table["seconds"] < report["seconds"]
    plays = expected.rows("songplays")
    assert report["matched_share"] == sum(1 for play in plays if play["song_id"]) / len(plays)
    assert set(report["steps"]) == {"read", "build", "write"}


def test_a_second_run_gives_an_equal_lake_of_new_files(runs: Runs) -> None:
    assert tables_of(runs.lake) == runs.rows
    files = data_files(runs.lake)
    assert runs.files.keys() & files.keys() == set()
    assert len(files) == len(runs.files) + 2  # as many, and the strangers
    assert {path.name for path in runs.lake.iterdir()} == {"_lake", *oracle.COLUMNS}
    leftovers = re.compile(r"_temporary|\.spark|__magic|\..*\.crc|_SUCCESS")
    assert [path for path in runs.lake.rglob("*") if leftovers.match(path.name)] == []


def test_files_of_others_are_left_alone_and_reported(runs: Runs) -> None:
    assert (runs.lake / "songs" / "notes.txt").read_text() == "mine" and (runs.lake / "songs" / "empty").exists()
    left = re.findall("^left alone, not written by this job: (.*)$", runs.second.stdout, re.MULTILINE)
    assert sorted(Path(file).name for file in left) == ["notes.txt", "part-00000-of-another-job.bak"]


# Odd places: file names, locales, streams that are closed, rejected lines, partitions of one's own


@pytest.fixture(scope="module")
def odd_input(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input and its dl.cfg: names beyond ASCII, three rejected lines, songs whose artist_id is no name for a folder."""
    folder = tmp_path_factory.mktemp("odd") / "tägliche Läufe [1]{a}"
    songs = [SONG | {"song_id": f"SO{n}", "artist_id": artist} for n, artist in enumerate(("AR/1", "AR=2%", "AR 3"))]
    write_lines(folder / "in" / "song_data" / "Ä" / "Жé.json", *songs, "{broken")
    write_lines(folder / "in" / "log_data" / "雨.json", PLAY, PLAY | {"ts": 1541105830}, PLAY | {"userId": ""})
    write_lines(folder / "in" / "log_data" / "2018" / "𝄞.json", PLAY | {"itemInSession": 1})
    (folder / "dl.cfg").write_text(
        "[PATHS]\nINPUT_DATA = in\n[PARTITIONS]\nSONGS = year, artist_id\nTIME =\n[LIMITS]\nMAX_REJECTED = 0.7\n"
    )
    return folder


def test_a_run_in_an_odd_place_makes_the_whole_lake(odd_input: Path, tmp_path: Path) -> None:
    """A locale that is not installed, nothing else in the environment, all streams closed."""
    lake = tmp_path / "la[k]e*"
    program = f"{sys.executable} -u {ROOT}/etl.py --config '{odd_input}/dl.cfg' --output '{lake}'"
    command = f"env -i PATH=$PATH LC_ALL=en_US.UTF-8 {program} <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert tables_of(lake) == oracle.read_lake(odd_input / "in").tables
    assert rejected_of(lake, odd_input / "in") == oracle.read_lake(odd_input / "in").rejected
    assert len(list((lake / "songs" / "year=2001").glob("artist_id=*/*.parquet"))) == 3
    assert len(list((lake / "time").glob("*.parquet"))) == 1


# Errors: one line and an exit code; where the job stops after Spark's start, the session is the tests' own


def assert_one_line(error: str, *words: object) -> None:
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", error), error
    for word in words:
        assert str(word) in error


NO_FILE = "no *.json or *.json.gz file below file://{0}/{1}"
FAILURES: dict[str, tuple[str, str, int, str]] = {
    "no input": ("--input", "none", 1, "none"),
    "no song file": ("--input", "no-songs", 1, NO_FILE.format("{0}", "no-songs/song_data")),
    "no log file": ("--input", "no-logs", 1, NO_FILE.format("{0}", "no-logs/log_data")),
    "no line in the logs": ("--input", "no-lines", 1, "no line in any file below file://{0}/no-lines/log_data"),
    "an output that is a file": ("--output", "a-file", 1, "{0}/a-file"),
    "a report that is a folder": ("--report", "no-lines", 2, "--report"),
    "a report below a file": ("--report", "a-file/r.json", 2, "--report"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_work_is_one_line_and_leaves_everything_as_it_was(
    fail: Callable[..., str], small: Path, tmp_path: Path, name: str
) -> None:
    option, place, code, words = FAILURES[name]
    (tmp_path / "a-file").write_text("mine")
    for copy, empty in {"no-songs": "song_data", "no-logs": "log_data"}.items():
        shutil.copytree(small, tmp_path / copy)
        (tmp_path / copy / empty / "a.json").rename(tmp_path / copy / empty / "a.txt")
    shutil.copytree(small, tmp_path / "no-lines")
    (tmp_path / "no-lines" / "log_data" / "a.json").write_text("\n \n")
    before, paths = contents_of(tmp_path), {*tmp_path.rglob("*")}
    error = fail("--input", small, "--output", tmp_path / "lake", option, tmp_path / place, code=code)
    assert_one_line(error, words.format(tmp_path), tmp_path, "" if code == 2 else "; the lake is unchanged\n")
    assert (contents_of(tmp_path), {*tmp_path.rglob("*")}) == (before, paths)


def test_a_report_that_cannot_be_written_in_the_end(
    fail: Callable[..., str], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, build_time = tmp_path / "of" / "r.json", etl.build_time

    def build_in_the_way(songplays: DataFrame) -> DataFrame:
        assert json.loads(report.read_text()) == {"state": "started"}
        report.unlink()
        report.mkdir()
        return build_time(songplays)

    monkeypatch.setattr(etl, "build_time", build_in_the_way)
    error = fail("--input", small, "--output", tmp_path / "lake", "--report", report)
    assert_one_line(error, "--report", report, "; the lake is written, its report is not\n")
    assert tables_of(tmp_path / "lake") == oracle.read_lake(small).tables


def test_a_report_leaves_the_mode_of_what_was_there(spark: SparkSession, tmp_path: Path) -> None:
    """Of /dev/null, for one."""
    report = tmp_path / "null"
    report.touch(0o666)
    report.chmod(0o666)
    for state in ("started", "done"):
        etl.write_report(spark, settings(tmp_path, tmp_path, report=f"file://{report}"), {"state": state})
    assert json.loads(report.read_text()) == {"state": "done"} and report.stat().st_mode & 0o777 == 0o666


def test_a_file_in_the_way_of_a_table(fail: Callable[..., str], small: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "lake" / "songs", "mine")
    assert_one_line(fail("--input", small, "--output", tmp_path / "lake"), tmp_path / "lake" / "songs")
    assert (tmp_path / "lake" / "songs").read_bytes() == b"mine\n"


def test_more_rejected_lines_than_allowed_fail_the_run_and_just_as_many_do_not(
    fail: Callable[..., str], odd_input: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--input", str(odd_input / "in"), "--output", str(tmp_path / "lake"), "--max-rejected")
    error = fail(*options, "0.49")
    assert_one_line(
        error,
        "2 of 4 lines",
        f"file://{odd_input}/in/log_data",
        "0.49",
        "MAX_REJECTED",
        "ts is not in UTC",
        "unchanged",
    )
    assert "None" not in error and not (tmp_path / "lake").exists()
    assert etl.main([*options, "0.5"]) == 0
    assert f"rejected lines: 3, see file://{tmp_path}/lake/_rejected\n" in capfd.readouterr().out


def test_verbose_shows_the_trace(fail: Callable[..., str], tmp_path: Path) -> None:
    *trace, error = fail("--verbose", "--input", tmp_path / "none", "--output", tmp_path / "lake").splitlines()
    assert "Traceback (most recent call last):" in trace
    assert error.startswith("etl.py: error: ")


NEW_JAVA = "#!/bin/sh\necho 'java.lang.UnsupportedOperationException: getSubject is not supported' >&2\nexit 1\n"
BAD_MASTER = (
    "#!/bin/sh\necho 'org.apache.spark.SparkException: Could not parse Master URL' >&2\n"
    "echo '\tat java.base/java.lang.Thread.run(Thread.java:840)' >&2\nexit 1\n"
)
OLD_JAVA = (
    "#!/bin/sh\necho 'Error: A JNI error has occurred' >&2\n"
    "echo 'Exception in thread \"main\" java.lang.UnsupportedClassVersionError: org/apache/spark/launcher/Main' >&2\nexit 1\n"
)
NO_JARS = "#!/bin/sh\necho 'RuntimeException: [unresolved dependency: org.apache#jars;1: not found]' >&2\nexit 1\n"
FULL = "#!/bin/sh\necho 'Could not reserve enough space for 2097152KB object heap' >&2\nexit 1\n"
STARTS: dict[str, tuple[dict[str, str], int, list[str]]] = {
    "no Java on the PATH": ({"PATH": "{folder}", "JAVA_HOME": ""}, 1, ["Java 17 or 21", "apt-get install"]),
    "no Java in JAVA_HOME": ({"JAVA_HOME": "{folder}"}, 1, ["Java 17 or 21", "apt-get install", "{folder}"]),
    "a Java that is too old": ({"JAVA_HOME": "{folder}/old"}, 1, ["Java 17 or 21", "older"]),
    "a Java that is too new": ({"JAVA_HOME": "{folder}/new"}, 1, ["Java 17 or 21", "newer"]),
    "too little memory": ({"JAVA_HOME": "{folder}/full"}, 1, ["too little memory for Spark's JVM: Could not reserve enough"]),
    "no Maven Central": ({"JAVA_HOME": "{folder}/jarless"}, 1, ["cannot download jars", "org.apache#jars;1", "Maven Central"]),
    "a setting that Java refuses": ({"JAVA_TOOL_OPTIONS": "-XX:+Nope"}, 1, ["setting of yours: Unrecognized VM option"]),
    "a setting that Spark refuses": ({"JAVA_HOME": "{folder}/bad"}, 1, ["Spark did not start: org", "Could not parse Master URL"]),
    "arguments without pyspark-shell": ({"PYSPARK_SUBMIT_ARGS": "--driver-memory 1g"}, 2, ["PYSPARK_SUBMIT_ARGS", "pyspark-shell"]),
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_a_java_that_does_not_start(tmp_path: Path, start: str) -> None:
    programs = {"old": OLD_JAVA, "new": NEW_JAVA, "bad": BAD_MASTER, "jarless": NO_JARS, "full": FULL}
    for name, program in programs.items():
        java = tmp_path / name / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text(program)
        java.chmod(0o755)
    environment, code, words = STARTS[start]
    given: dict[str, Any] = {name: value.format(folder=tmp_path) for name, value in environment.items()}
    done = run_etl("--output", tmp_path / "lake", check=False, **given)
    assert done.returncode == code
    assert_one_line(done.stderr, *(word.format(folder=tmp_path) for word in words))


JAVA_SAID = "An error occurred while calling o1.parquet.\n: a.JobAborted: Aborted.\n{}\n\tat a.B.c(B.java:1)\n"
EXPLAINED: list[tuple[Exception, str]] = [
    (etl.ConfigError("it said\nno\nand no"), "it said no and no"),
    (ConnectionRefusedError(111, "Connection refused"), "Spark's JVM has ended"),
    (Py4JNetworkError("Answer from Java side is empty"), "Spark's JVM has ended"),
    (ValueError(), "ValueError"),
    (ValueError(JAVA_SAID.format("")), "Aborted."),
    (ValueError(JAVA_SAID.format("Caused by: a.B: no\nCaused by: java.io.IOException: No space")), "No space"),
    (
        ValueError(JAVA_SAID.format("Lost task 0.0 (TID 1) (host executor 12): java.io.IOException: No space")),
        "No space",
    ),
    *[
        (ValueError(JAVA_SAID.format(f"Caused by: {cause}")), cause)
        for cause in ("java.net.UnknownHostException: s3.corp", "java.lang.ClassNotFoundException: org.X")
    ],
]


@pytest.mark.parametrize(("error", "line"), EXPLAINED)
def test_an_error_is_one_line_whatever_the_program_behind_it_says(error: Exception, line: str) -> None:
    assert etl.explain(error) == line


def test_a_reader_that_goes_away_is_no_reason_to_stop(unread: int) -> None:
    program = "import sys, etl; etl.say('a'); etl.say('b'); print('c', flush=True); print('d', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=unread, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"d\n")


def test_a_line_for_which_the_reader_has_no_letter_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with open(1, "w", encoding="ascii", closefd=False) as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        etl.say("left alone: /lake/Mélodie")
    assert capfdbinary.readouterr().out == b"'left alone: /lake/M\\xe9lodie'\n"


def test_a_session_with_static_settings_of_a_catalog_can_be_had(spark: SparkSession) -> None:
    """As with spark.sql.catalog.spark_catalog.defaultDatabase in spark-defaults.conf."""
    key = "spark.sql.catalog.spark_catalog.defaultDatabase"
    given: Any = spark._jsparkSession.sharedState().conf()
    own: Any = spark._jsparkSession.sessionState().conf()
    given.set(key, "default")
    own.setConfString(key, "default")
    try:
        assert etl.new_session(spark, {}).conf.get(key) == "default"
    finally:
        given.remove(key)
        own.unsetConf(key)


def test_a_session_has_the_secrets_of_a_catalog_that_sql_does_not_show(spark: SparkSession) -> None:
    key = "spark.sql.catalog.theirs.rest.access-key-secret"
    spark.conf.set(key, "hidden")
    try:
        assert etl.new_session(spark, {}).conf.get(key) == "hidden"
    finally:
        spark.conf.unset(key)


def test_without_laptop_py_and_spark_submit_it_says_so(tmp_path: Path) -> None:
    shutil.copy(ROOT / "etl.py", tmp_path)
    done = subprocess.run([sys.executable, tmp_path / "etl.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert_one_line(done.stderr, "laptop.py", "spark-submit")


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal, which for SIGTERM no Python program has by itself."""
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("moment", ["+0", "+0.1", "+0.3", "configuration:+0", "configuration:+1", "configuration:+2"])
def test_ctrl_c_at_any_moment_is_one_line(small: Path, tmp_path: Path, moment: str) -> None:
    """So many seconds after it listens, which is before it imports Spark, and after lines of the output."""
    start, _, seconds = moment.rpartition("+")
    command = [*ETL, "--input", str(small), "--output", str(tmp_path / "lake")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        if start:
            assert any(line.startswith(start) for line in process.stdout)
        while process.poll() is None and not catches(process, signal.SIGTERM):
            time.sleep(0.001)
        time.sleep(float(seconds))
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert_one_line(error, "interrupted")


def test_an_interruption_that_nobody_hears_ends_it_all_the_same() -> None:
    program = "import os, etl; os.close(2); etl.interrupt()"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 130


def test_the_child_that_becomes_java_does_not_tell_of_an_interruption_too() -> None:
    program = "import os, etl; child = os.fork(); child and os.waitpid(child, 0); etl.interrupt()"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True)
    assert_one_line(result.stderr, "interrupted")


def test_a_run_on_local_files_has_none_of_hadoops_defaults_and_leaves_no_folder(small: Path, tmp_path: Path) -> None:
    """Spark copies all settings for each file that it reads."""
    (tmp_path / "tmp").mkdir()
    (small / "log_data" / ".#a.json").symlink_to("an editor's lock")  # which has no size
    program = (
        "import laptop; from conftest import Path, settings\n"
        f"spark = laptop.create_session(settings(Path({str(small)!r}), Path({str(tmp_path / 'lake')!r})))\n"
        "assert spark._jsc.hadoopConfiguration().size() < 50\n"
        "assert spark.sparkContext.uiWebUrl is None  # which shows everybody the settings\n"
        "assert not spark._jvm.java.lang.System.getenv('HTTPS_PROXY')  # S3A has settings for it\n"
        "assert spark._jvm.java.lang.Runtime.getRuntime().maxMemory() > 1.5 * 2**30\n"
        "[code] = [p for p in spark._jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans() if p.getName() == 'CodeCache']\n"
        "assert code.getUsage().getMax() > 2e8  # several runs in one session fill Java's 48 MB, and then Spark stops\n"
        "import os; assert os.environ['HTTPS_PROXY'] == 'http://proxy.corp'  # for what comes after it\n"
    )
    environment = {
        "TMPDIR": str(tmp_path / "tmp"),
        "SPARK_CONF_DIR": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "HTTPS_PROXY": "http://proxy.corp",
    }
    assert run_python(program, tmp_path, **environment) == ""
    assert list((tmp_path / "tmp").glob("tmp*")) == []


@pytest.mark.parametrize(("size", "cores", "partitions"), [(0, 16, "8"), (1, 2, "8"), (1, 16, "16")])
def test_large_inputs_have_javas_second_compiler_and_a_partition_for_each_core(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, cores: int, partitions: str
) -> None:
    started: list[dict[str, str]] = []

    def start(conf: dict[str, str], verbose: bool) -> NoReturn:
        started.append(conf)
        raise laptop.SessionError("enough")

    with open(small / "log_data" / "b.json", "w") as file:
        file.truncate(size * laptop.SMALL_INPUT_BYTES)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(laptop, "start", start)
    with pytest.raises(laptop.SessionError, match="enough"):
        laptop.create_session(settings(small, tmp_path / "lake"))
    [conf] = started
    assert conf["spark.sql.shuffle.partitions"] == partitions
    assert ("TieredStopAtLevel" in conf.get("spark.driver.defaultJavaOptions", "")) == (not size)


def test_importing_it_does_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; before = dict(os.environ), signal.getsignal(signal.SIGTERM); import etl, laptop\n"
        "from pyspark import SparkContext\n"
        "assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before\n"
        "assert SparkContext._gateway is None and 'boto3' not in sys.modules\n"
    )
    assert run_python(program, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
