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
import pyarrow as pa
import pyarrow.dataset as ds
from conftest import ROOT, SAMPLE
from lakes import some_of_sample
from s3 import KEYS, S3Server

INT = pa.int32()
PARTITIONS = {"songs": {"year": INT}, "time": {"year": INT, "month": INT}, "songplays": {"year": INT, "month": INT}}
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
    """A cut of the sample, with a line that is rejected."""
    some_of_sample(SAMPLE, folder, songs, days)
    (folder / "log_data" / "bad.json").write_text('{"page": 1\n')
    return Input(folder, {name: Counter(rows) for name, rows in oracle.read_lake(folder).tables.items()})


def make_inputs(folder: Path) -> tuple[Input, Input]:
    """Last night's and tonight's: some songs, days and users are in both."""
    return make_input(folder / "old", slice(0, 45), slice(0, 3)), make_input(folder / "new", slice(25, 70), slice(2, 5))


@dataclass(frozen=True)
class Nights:
    """Last night's input and tonight's, last night's lake, and how long that run took."""

    old: Input
    new: Input
    lake: Path
    seconds: float


@functools.cache
def make_nights(base: Path) -> Nights:
    """Made once for all tests below a folder; they work on copies."""
    folder = base / "nights"
    folder.mkdir()
    old, new = make_inputs(folder)
    lake, began = folder / "lake", time.monotonic()
    full_run(config_file(folder), old.folder, lake)
    seconds = time.monotonic() - began
    check_whole(lake, old.rows)
    plant_strangers(lake)
    return Nights(old, new, lake, seconds)


# What an independent reader sees.


def files_below(folder: Path) -> list[Path]:
    """All files; unlike rglob it bears folders that vanish meanwhile."""
    return [Path(path, name) for path, _, names in os.walk(folder) for name in names]


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_below(folder)}


def read_table(lake: Path, name: str) -> Counter[tuple[Any, ...]]:
    keys = ds.partitioning(pa.schema(list(PARTITIONS.get(name, {}).items())), flavor="hive")
    below = [path for path in files_below(lake / name) if path.suffix == ".parquet"]
    files = [str(path) for path in below if not any(part[0] in "._" for part in path.relative_to(lake / name).parts)]
    if not files:
        return Counter()
    table = ds.dataset(files, format="parquet", partitioning=keys, partition_base_dir=str(lake / name)).to_table()
    return Counter(tuple(row.values()) for row in table.select(oracle.COLUMNS[name]).to_pylist())


def read_by_pattern(lake: Path, name: str) -> int:
    """The rows that DuckDB finds by the pattern that docs/analysts.md gives."""
    pattern = "/".join([name, *(f"{column}=*" for column in PARTITIONS.get(name, {})), "*.parquet"])
    if not list(lake.glob(pattern)):
        return 0
    return int(duckdb.sql(f"SELECT count(*) FROM read_parquet('{lake}/{pattern}')").fetchall()[0][0])


def check_whole(lake: Path, *states: Rows) -> None:
    """Each table holds every row of one of the runs."""
    for name in oracle.COLUMNS:
        found = read_table(lake, name)
        lacking = [sum((rows[name] - found).values()) for rows in states]
        assert 0 in lacking, f"{name} of {sum(found.values())} rows lacks {lacking} rows of the runs"
        assert read_by_pattern(lake, name) == sum(found.values())


def check_exact(lake: Path, run_id: str, rows: Rows) -> None:
    """The lake holds the rows of this run and nothing else, but for the strangers; no file or folder is left over."""
    assert {name: read_table(lake, name) for name in oracle.COLUMNS} == rows
    paths = {str(path.relative_to(lake)): path for path in lake.rglob("*")}
    for name, content in STRANGERS.items():
        assert paths.pop(name).read_bytes() == content
    del paths["other"]
    own = re.compile(rf"_lake|\w+/([^/]+=[^/]+/)*part-{run_id}-[^/]+")
    stray = [name for name, path in paths.items() if path.is_file() and not own.fullmatch(name)]
    empty = [name for name, path in paths.items() if path.is_dir() and not any(path.iterdir())]
    assert (stray, empty) == ([], [])


# The job as a process.


def config_file(folder: Path, endpoint: str = "") -> Path:
    path = folder / "dl.cfg"
    aws = KEYS | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    keys = "".join(f"{name} = {value}\n" for name, value in aws.items())
    path.write_text(f"[AWS]\n{keys}[LIMITS]\nMAX_REJECTED = 0.5\n")
    return path


@dataclass
class Job:
    """A run of etl.py, in a process group of its own that holds its JVM too."""

    process: subprocess.Popen[str]
    printed: IO[str]
    errors: IO[str]
    started_at: float = field(default_factory=time.monotonic)

    def signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal_all(signal.SIGKILL)
        self.process.wait()

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
        while not happens():
            assert self.process.poll() is None, f"it ended before that moment: {self.wait()}"
            assert time.monotonic() - self.started_at < JOB_SECONDS
            time.sleep(0.01)

    def at_work(self, lake: Path) -> str:
        """Waits until the run has claimed the lake; its id."""
        self.until(lambda: list(lake.glob("_lock-*")))
        (lock,) = lake.glob("_lock-*")
        return lock.name.removeprefix("_lock-").partition(",")[0]


@contextlib.contextmanager
def started(command: Sequence[object], **environment: str) -> Iterator[Job]:
    """A program at work, which is killed with all that it started when the block is left."""
    # into files, for a full pipe would stop a program that nobody listens to
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=printed, stderr=errors, text=True,
            start_new_session=True, env=os.environ | environment,
        )  # fmt: skip
        running = Job(process, printed, errors)
        try:
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def job(
    config: Path, source: object, output: object, program: Path = ROOT / "etl.py", **environment: str
) -> Iterator[Job]:
    command = (sys.executable, program, "--config", config, "--input", source, "--output", output)
    with started(command, **environment) as running:
        yield running


def full_run(config: Path, source: object, output: object, **environment: str) -> str:
    """Runs the job to its end; returns the run's id."""
    with job(config, source, output, ROOT / "etl.py", **environment) as running:
        return running.done()


def killed_at(moment: str, config: Path, source: object, output: object, **environment: str) -> None:
    """Runs the job until it is killed at a moment of killer.py."""
    program = Path(__file__).with_name("killer.py")
    with job(config, source, output, program, KILL=moment, PYTHONPATH=str(ROOT), **environment) as running:
        code, errors = running.wait()
        assert code == -signal.SIGKILL, f"{moment} did not come: {errors}"


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server with a bucket."""
    with S3Server() as server:
        server.make_bucket(BUCKET)
        yield server


def plant_strangers(lake: Path) -> None:
    for name, content in STRANGERS.items():
        (lake / name).parent.mkdir(parents=True, exist_ok=True)
        (lake / name).write_bytes(content)


def copy_of(lake: Path, folder: Path) -> Path:
    return Path(shutil.copytree(lake, folder / "lake"))
