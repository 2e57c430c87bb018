"""What the reliability tests share: two inputs, lakes on disk and on S3, and the job as a process that can be killed."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import duckdb
import oracle
from conftest import PLAY, ROOT, SAMPLE, run, write_lines
from lakes import some_of_sample, tables_of
from pyspark.sql import SparkSession
from s3 import S3Server

FOLDERS = {"songs": "year=*/", "time": "year=*/month=*/", "songplays": "year=*/month=*/"}
STRANGERS = {"notes.txt": b"mine", "other/part-0.parquet": b"mine too", "songs/notes.txt": b"and mine"}
JOB_SECONDS = 900  # a loaded machine takes long, and so does S3 that goes silent
BUCKET = "lakes"

Rows = dict[str, "Counter[tuple[Any, ...]]"]


@dataclass(frozen=True)
class Input:
    """A folder of song_data and log_data, and the tables that it makes by the oracle."""

    folder: Path
    rows: Rows


def make_input(folder: Path, songs: slice, days: slice) -> Input:
    """A cut of the sample, with a line that is rejected and a file whose name is beyond ASCII."""
    some_of_sample(SAMPLE, folder, songs, days)
    write_lines(folder / "log_data" / "Ж 雨.json", PLAY | {"userId": "99"}, '{"page": 1')
    return Input(folder, {name: Counter(rows) for name, rows in oracle.read_lake(folder).tables.items()})


def make_inputs(folder: Path) -> tuple[Input, Input]:
    """Last night's and tonight's: some songs, days and users are in both."""
    return make_input(folder / "old", slice(0, 45), slice(0, 3)), make_input(folder / "new", slice(25, 70), slice(2, 5))


@dataclass(frozen=True)
class Nights:
    """Last night's input and tonight's, and last night's lake."""

    old: Input
    new: Input
    lake: Path

    def copy_to(self, folder: Path) -> Path:
        """A copy of the lake."""
        return Path(shutil.copytree(self.lake, folder / "lake"))


@functools.cache
def make_nights(spark: SparkSession, base: Path) -> Nights:
    """Made once for all tests below a folder; they work on copies."""
    folder = base / "nights"
    old, new = make_inputs(folder)
    run(spark, old.folder, folder / "lake", max_rejected=0.5)
    plant_strangers(folder / "lake")
    return Nights(old, new, folder / "lake")


def plant_strangers(lake: Path) -> None:
    for name, content in STRANGERS.items():
        (lake / name).parent.mkdir(parents=True, exist_ok=True)
        (lake / name).write_bytes(content)


# What an independent reader sees.


def read_table(lake: Path, name: str) -> Counter[tuple[Any, ...]]:
    """The rows that DuckDB finds by the pattern that docs/analysts.md gives."""
    pattern = f"{name}/{FOLDERS.get(name, '')}*.parquet"
    if not list(lake.glob(pattern)):
        return Counter()
    columns = ", ".join(oracle.COLUMNS[name])
    files = f"read_parquet('{lake}/{pattern}', hive_partitioning = true)"
    return Counter(duckdb.sql(f"SELECT {columns} FROM {files}").fetchall())


def check_whole(lake: Path, *states: Rows) -> None:
    """Each table holds every row of one of the runs."""
    for name in oracle.COLUMNS:
        found = read_table(lake, name)
        lacking = [sum((rows[name] - found).values()) for rows in states]
        assert 0 in lacking, f"{name} of {sum(found.values())} rows lacks {lacking} rows of the runs"


def check_exact(lake: Path, run_id: str, rows: Rows) -> None:
    """The lake holds the rows of this run and nothing else, but for the strangers; no file or folder is left over."""
    assert {name: Counter(found) for name, found in tables_of(lake).items()} == rows
    assert {name: read_table(lake, name) for name in rows} == rows
    paths = {str(path.relative_to(lake)): path for path in lake.rglob("*")}
    for name, content in STRANGERS.items():
        assert paths.pop(name).read_bytes() == content
    own = re.compile(rf"_lake|\w+/([^/]+=[^/]+/)*part-{run_id}-[^/]+")
    stray = [name for name, path in paths.items() if path.is_file() and not own.fullmatch(name)]
    empty = [name for name, path in paths.items() if path.is_dir() and not any(path.iterdir())]
    assert (stray, empty) == ([], [])


# Where a lake lies, and the job there as a process.


@dataclass(frozen=True)
class Place:
    """What a run is given, and a way to see the lake that it makes, in a folder."""

    source: object
    output: object
    look: Callable[[], Path]
    launcher: Sequence[object] = (sys.executable,)
    environment: dict[str, str] = field(default_factory=dict)


def on_disk(source: Path, folder: Path) -> Place:
    """The lake is FOLDER/lake, as it was put there or not there yet."""
    return Place(source, folder / "lake", lambda: folder / "lake")


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server with a bucket."""
    with S3Server() as server:
        server.make_bucket(BUCKET)
        yield server


def on_s3(server: S3Server, source: Path, lake: Path, folder: Path, **environment: str) -> Place:
    """The input and the lake uploaded; who looks sees an upload that was not ended as a file of that name."""
    prefix, seen = folder.name, folder / "seen"

    def look() -> Path:
        server.download(BUCKET, prefix, seen)
        for key in server.uploads(BUCKET, prefix):
            write_lines(seen / f"{key.removeprefix(prefix).lstrip('/')}.upload")
        return seen

    uris = server.upload(source, BUCKET, "raw"), server.upload(lake, BUCKET, prefix)
    return Place(*uris, look, environment=server.environment | environment)


@dataclass
class Job:
    """A run of etl.py, in a process group of its own that holds its JVM too."""

    process: subprocess.Popen[str]
    printed: IO[str]
    errors: IO[str]

    def signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        code = self.process.wait(JOB_SECONDS)
        self.errors.seek(0)
        return code, self.errors.read()

    def fails(self, expected_code: int = 1) -> str:
        """The one line that it ends with."""
        code, errors = self.wait()
        assert code == expected_code, errors
        assert re.fullmatch(r"etl\.py: error: [^\n]+\n", errors), errors
        return errors.strip()

    def done(self) -> str:
        """The run's id, once it has ended well."""
        code, errors = self.wait()
        self.printed.seek(0)
        printed = self.printed.read()
        found = re.search(r"^done in .* s, run (\S+)$", printed, re.MULTILINE)
        assert code == 0 and found, printed + errors
        return found[1]

    def until(self, happens: Callable[[], Any]) -> None:
        """Waits for a moment."""
        give_up = time.monotonic() + JOB_SECONDS
        while not happens():
            assert self.process.poll() is None, f"it ended before that moment: {self.wait()}"
            assert time.monotonic() < give_up
            time.sleep(0.01)

    def at_work(self, lake: Path) -> str:
        """Waits until the run has claimed the lake; its id."""
        self.until(lambda: list(lake.glob("_lock-*")))
        (lock,) = lake.glob("_lock-*")
        return lock.name.removeprefix("_lock-").partition(",")[0]


@contextlib.contextmanager
def job(place: Place, program: Path = ROOT / "etl.py", /, **environment: str) -> Iterator[Job]:
    """A run at work, which is killed with all that it started when the block is left."""
    options = ("--input", place.source, "--output", place.output, "--max-rejected", 0.5)
    # into files, for a full pipe would stop a program that nobody listens to
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*map(str, (*place.launcher, program, *options))], stdin=subprocess.DEVNULL, stdout=printed, stderr=errors,
            text=True, start_new_session=True, env=os.environ | place.environment | environment,
        )  # fmt: skip
        running = Job(process, printed, errors)
        try:
            yield running
        finally:
            running.signal_all(signal.SIGKILL)
            process.wait()


def killed_at(moment: str, place: Place) -> None:
    """Runs the job until it is killed at a moment of killer.py."""
    program = Path(__file__).with_name("killer.py")
    with job(place, program, KILL=moment, PYTHONPATH=str(ROOT)) as running:
        code, errors = running.wait()
        assert code == -signal.SIGKILL, f"{moment} did not come: {errors}"
        with contextlib.suppress(ProcessLookupError):  # until its JVM is dead too
            for _ in range(6000):
                os.killpg(running.process.pid, 0)
                time.sleep(0.01)


def run_in_session(spark: SparkSession, nights: Nights, lake: Path) -> None:
    """Runs the job on tonight's input in this process, which ends in its own rows alone."""
    report = run(spark, nights.new.folder, lake, max_rejected=0.5)
    check_exact(lake, report["run_id"], nights.new.rows)


def run_ends_exact(place: Place, rows: Rows, **environment: str) -> None:
    """Runs the job to its end, which leaves its own rows and nothing else."""
    with job(place, **environment) as running:
        run_id = running.done()
    check_exact(place.look(), run_id, rows)
