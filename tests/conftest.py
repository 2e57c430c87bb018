"""One Spark session for all tests, one lake of the sample, and a way to run the job as a program."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyspark
import pytest
from frames import make_frame
from lakes import CATALOG
from pyspark.sql import DataFrame, SparkSession

import etl
import laptop

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data"
SONG: dict[str, Any] = {
    "num_songs": 1, "artist_id": "AR1", "artist_latitude": None, "artist_longitude": None, "artist_location": "",
    "artist_name": "Ann", "song_id": "SO1", "title": "One", "duration": 1.5, "year": 2001,
}  # fmt: skip
PLAY: dict[str, Any] = {
    "artist": "Ann", "song": "One", "length": 1.5, "page": "NextSong", "ts": 1541105830796, "userId": "8",
    "sessionId": 139, "itemInSession": 0, "level": "free", "firstName": "Kay", "lastName": "X", "gender": "F",
}  # fmt: skip
IS_LAPTOPS = pyspark.__version__.startswith(laptop.SPARK)  # the version for which laptop.py brings jars
ICEBERGS = {  # of the other versions
    "3.5": "org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.10.1",
    "4.1": "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0",
}
ICEBERG = ICEBERGS.get(pyspark.__version__[:3], laptop.ICEBERG)
PACKAGES = ",".join([ICEBERG, laptop.S3_CONF["spark.jars.packages"], laptop.ICEBERG_AWS] if IS_LAPTOPS else [ICEBERG])
AWS_NAMES = [name for name in os.environ if name.startswith("AWS_")]


def pytest_configure() -> None:
    """Spark of the tests and of the programs they start: quick to start, and nothing of this machine's AWS."""
    os.environ["SPARK_CONF_DIR"] = str(ROOT / "tests" / "spark-conf")
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    for name in AWS_NAMES:
        del os.environ[name]
    os.environ |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A small local session, with the job's own SQL settings.

    It downloads the jars of all tests, one worker after the other: two that download the same at once both fail.
    """
    conf = laptop.CONF | laptop.LOCAL_FILES_CONF | {"spark.master": "local[2]", "spark.sql.shuffle.partitions": "2"}
    conf |= {"spark.jars.packages": PACKAGES, "spark.jars.excludes": laptop.S3_CONF["spark.jars.excludes"]}
    with open(tmp_path_factory.getbasetemp().parent / "jars", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        session = SparkSession.builder.config(map={**conf, **etl.SQL_CONF}).getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def interpreted(spark: SparkSession) -> Iterator[None]:
    """Spark without code of its own for each plan: with a few rows, compiling it is most of the work."""
    off = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(etl, "SQL_CONF", etl.SQL_CONF | off)  # of the sessions that runs make
        for key, value in off.items():
            spark.conf.set(key, value)
        yield
    for key in off:
        spark.conf.unset(key)


@pytest.fixture(scope="session")
def sample_lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the sample's lake, as etl.run makes it. Read only: a test that changes it works on a copy."""
    lake = tmp_path_factory.mktemp("sample") / "lake"
    run(spark, SAMPLE, lake)
    return str(lake)


@pytest.fixture(scope="session")
def small_lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake of two songs and a play. Read only."""
    folder = tmp_path_factory.mktemp("small")
    run(spark, write_small(folder / "in"), folder / "lake")
    return folder / "lake"


@pytest.fixture
def lake(small_lake: Path, tmp_path: Path) -> Path:
    """A copy of that lake, for a test to change."""
    return Path(shutil.copytree(small_lake, tmp_path / "lake"))


def settings(source: Path, output: Path, **changes: Any) -> etl.Settings:
    """Settings on local folders, as shipped but for the changes."""
    partitions = {"songs": ("year",), "time": ("year", "month"), "songplays": ("year", "month")}
    return replace(etl.Settings(f"file://{source}", f"file://{output}", partitions), **changes)


def open_catalog(spark: SparkSession, lake: Path) -> None:
    """Sets up the catalog of a lake's Iceberg tables, with a local file system that can do all that Iceberg asks for."""
    laptop.open_catalog(spark, settings(lake, lake, catalog=CATALOG), {})
    for key, value in {"": "org.apache.hadoop.fs.LocalFileSystem", ".disable.cache": "true"}.items():
        spark.conf.set(f"spark.sql.catalog.lake.hadoop.fs.file.impl{key}", value)


def run(spark: SparkSession, source: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Runs the job in the tests' session; its report."""
    wanted = settings(source, output, **changes)
    if wanted.catalog:
        open_catalog(spark, output)
    return etl.run(spark, wanted, say=lambda line: None)


def run_etl(
    *arguments: object, check: bool = True, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs etl.py as a program, as a user would; its output as text."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "etl.py"), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=600, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_python(program: str, cwd: Path, **environment: str) -> str:
    """Runs a program that imports etl in a Python of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        capture_output=True, text=True, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, timeout=600,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def fail(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs etl.main in this process and session, which it must not stop; what it printed to stderr."""
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: spark)

    def run(*arguments: object, code: int = 1) -> str:
        assert etl.main([*map(str, arguments)]) == code
        assert spark.range(1).count() == 1
        return capfd.readouterr().err

    return run


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe whose reader has gone away."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def write_lines(path: Path, *lines: object) -> Path:
    """Writes JSON Lines: dicts as JSON, bytes and text as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = [
        line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def write_small(folder: Path) -> Path:
    """Makes an input of two songs and a play."""
    write_lines(folder / "song_data" / "a.json", SONG, SONG | {"song_id": "SO2", "title": "Two"})
    write_lines(folder / "log_data" / "a.json", PLAY)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An input of two songs and a play."""
    return write_small(tmp_path / "in")


@pytest.fixture
def frame(spark: SparkSession) -> Callable[..., DataFrame]:
    """Makes a frame of a schema from rows that name only the columns that matter."""
    return partial(make_frame, spark)
