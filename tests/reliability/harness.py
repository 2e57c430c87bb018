"""What the reliability tests share: two inputs, lakes on disk and on S3, and the job as a process that can be killed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
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

import oracle
import pyarrow as pa
import pyarrow.dataset as ds
from conftest import ROOT, SAMPLE
from lakes import some_of_sample
from s3 import KEYS, S3Server

PARTITIONS = {"songs": {"year": pa.int32(), "artist_id": pa.string()}, "songplays": {"year": pa.int32()}}
STRANGERS = {"notes.txt": b"mine", "other/part-0.parquet": b"mine too", "songs/notes.txt": b"and mine"}
JOB_SECONDS = 600  # a loaded machine takes long
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
    """Last night's input and tonight's, and last night's lake, with how long that run took until it claimed the lake and after."""

    old: Input
    new: Input
    lake: Path
    start_seconds: float
    work_seconds: float


@functools.cache
def make_nights(base: Path) -> Nights:
    """Made once for all tests below a folder; they work on copies."""
    folder = base / "nights"
    folder.mkdir()
    old, new = make_inputs(folder)
    lake = folder / "lake"
    with job(config_file(folder), old.folder, lake) as running:
        assert running.until((lake / "_runs").is_dir), running.wait()
        claimed = time.monotonic()
        assert running.wait()[0] == 0
        ended = time.monotonic()
    check_whole(lake, old.rows)
    plant_strangers(lake)
    return Nights(old, new, lake, claimed - running.started_at, ended - claimed)


# What an independent reader sees.


def files_below(folder: Path) -> list[Path]:
    """All files; unlike rglob it bears folders that vanish meanwhile."""
    return [Path(path, name) for path, _, names in os.walk(folder) for name in names]


def visible(folder: Path, pattern: str) -> list[Path]:
    return [
        path
        for path in files_below(folder)
        if path.match(pattern) and not any(name[0] in "._" for name in path.relative_to(folder).parts)
    ]


def read_table(lake: Path, name: str) -> Counter[tuple[Any, ...]]:
    keys = ds.partitioning(pa.schema(list(PARTITIONS.get(name, {}).items())), flavor="hive")
    files = list(map(str, visible(lake / name, "*.parquet")))
    if not files:
        return Counter()
    table = ds.dataset(files, format="parquet", partitioning=keys, partition_base_dir=str(lake / name)).to_table()
    return Counter(tuple(row.values()) for row in table.select(oracle.COLUMNS[name]).to_pylist())


def check_whole(lake: Path, *states: Rows) -> None:
    """Each table holds every row of one of the runs."""
    for name in oracle.COLUMNS:
        found = read_table(lake, name)
        lacking = [sum((rows[name] - found).values()) for rows in states]
        assert 0 in lacking, f"{name} of {sum(found.values())} rows lacks {lacking} rows of the runs"


def check_exact(lake: Path, run_id: str, rows: Rows) -> None:
    """The lake holds the rows of this run and nothing else, but for the strangers; no file or folder is left over."""
    assert {name: read_table(lake, name) for name in oracle.COLUMNS} == rows
    paths = {str(path.relative_to(lake)): path for path in lake.rglob("*")}
    for name, content in STRANGERS.items():
        assert paths.pop(name).read_bytes() == content
    del paths["other"]
    ended = json.loads((lake / "_runs" / run_id / "ended").read_text())
    writes = [f"{name}/([^/]+=[^/]+/)*part-[0-9]+-{write}[^/]+" for name, write in ended["writes"].items()]
    own = re.compile("|".join([*writes, f"_runs/{run_id}/[^/]+"]))
    stray = [name for name, path in paths.items() if path.is_file() and not own.fullmatch(name)]
    empty = [name for name, path in paths.items() if path.is_dir() and not any(path.iterdir())]
    assert (stray, empty) == ([], [])


# The job as a process.


def config_file(folder: Path, endpoint: str = "") -> Path:
    """A dl.cfg by which songs go to many small folders, for deletes that take their time."""
    path = folder / "dl.cfg"
    aws = KEYS | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    keys = "".join(f"{name} = {value}\n" for name, value in aws.items())
    path.write_text(
        f"[AWS]\n{keys}[PARTITIONS]\nSONGS = year, artist_id\nTIME =\nSONGPLAYS = year\n[LIMITS]\nMAX_REJECTED = 0.5\n"
    )
    return path


@dataclass
class Job:
    """A run of etl.py, in a process group of its own that holds its JVM too."""

    process: subprocess.Popen[str]
    printed: IO[str]
    errors: IO[str]
    started_at: float = field(default_factory=time.monotonic)

    def kill(self) -> None:
        self.signal_all(signal.SIGKILL)
        self.process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        code = self.process.wait(JOB_SECONDS)
        self.errors.seek(0)
        return code, self.errors.read()

    def done(self) -> str:
        """The run's id, once it has ended well."""
        code, errors = self.wait()
        self.printed.seek(0)
        printed = self.printed.read()
        found = re.search(r"^done in .* s, run (\S+)$", printed, re.MULTILINE)
        assert code == 0 and found, printed + errors
        return found[1]

    def until(self, happens: Callable[[], bool]) -> bool:
        """Waits for a moment; False where the job ended before it came."""
        while self.process.poll() is None:
            if happens():
                return True
            assert time.monotonic() - self.started_at < JOB_SECONDS
            time.sleep(0.001)
        return False


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
def job(config: Path, source: object, output: object, **environment: str) -> Iterator[Job]:
    command = (sys.executable, ROOT / "etl.py", "--config", config, "--input", source, "--output", output)
    with started(command, **environment) as running:
        yield running


def full_run(config: Path, source: object, output: object, **environment: str) -> str:
    """Runs the job to its end; returns the run's id."""
    with job(config, source, output, **environment) as running:
        return running.done()


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


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def table_files(folder: Path) -> set[str]:
    """The names of a table's files that a reader sees."""
    return {path.name for pattern in ("*.parquet", "*.json") for path in visible(folder, pattern)}
