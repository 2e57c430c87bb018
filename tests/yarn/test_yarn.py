"""The job on a real YARN: what it writes, where it finds dl.cfg, and what it does when its processes are killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from lakes import some_of_sample
from s3 import Request
from yarn_cluster import SPARK_HOME, Cluster, Submitted

pytestmark = pytest.mark.yarn

Moment = Callable[[Request], bool]
KillAt = Callable[[Moment, bool], list[str]]

ROOT = Path(__file__).parents[2]
PARTITIONS = {"songs": ("year",), "time": ("year", "month"), "songplays": ("year", "month")}


@dataclass
class Input:
    uri: str
    expected: oracle.Lake


@pytest.fixture(scope="session")
def inputs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    """Two cuts of the sample, of other days and songs: last night's and tonight's."""
    cluster.s3.make_bucket("raw")
    cluster.s3.make_bucket("lakes")
    found = {}
    for name, songs, days in (("old", slice(0, 20), slice(0, 3)), ("new", slice(10, 40), slice(2, 5))):
        folder = some_of_sample(ROOT / "data", tmp_path_factory.mktemp(name), songs, days)
        found[name] = Input(cluster.s3.upload(folder, "raw", name), oracle.read_lake(folder))
    return found


def submit_job(cluster: Cluster, mode: str, source: Input, prefix: str, folder: Path) -> Submitted:
    """Submits etl.py, which learns from a dl.cfg of --files alone where to read and write."""
    for name in ("code", "config", "elsewhere"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "etl.py", folder / "code")
    config = folder / "config" / "dl.cfg"
    config.write_text(
        f"[PATHS]\nINPUT_DATA = {source.uri}\nOUTPUT_DATA = s3a://lakes/{prefix}\n[LIMITS]\nMAX_REJECTED = 0.5\n"
    )
    return cluster.submit(mode, "--files", config, folder / "code" / "etl.py", "--verbose", cwd=folder / "elsewhere")


def read_table(folder: Path, name: str) -> list[tuple[Any, ...]]:
    keys = pa.schema([(column, pa.int32()) for column in PARTITIONS.get(name, ())])
    table = ds.dataset(folder / name, format="parquet", partitioning=ds.partitioning(keys, flavor="hive")).to_table()
    rows = table.select(oracle.COLUMNS[name]).to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=lambda row: row[0])


def check_lake(cluster: Cluster, prefix: str, expected: oracle.Lake, folder: Path) -> None:
    """The lake holds exactly the rows of one run, and nothing of an earlier or a dead one."""
    cluster.s3.download("lakes", prefix, folder)
    assert {name: read_table(folder, name) for name in oracle.COLUMNS} == expected.tables
    rejected = [json.loads(line) for path in folder.glob("_rejected/*") for line in path.read_text().splitlines()]
    assert len(rejected) == len(expected.rejected)
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "_runs" not in path.parts]
    ended = [json.loads(path.read_text()) for path in folder.glob("_runs/*/ended")]
    assert len(ended) == 1
    stray = [path for path in files if str(ended[0]["writes"][path.parts[0]]) not in path.name]
    assert stray == []
    assert not [path for path in files if re.search("/_temporary|/__magic", str(path))]
    assert not cluster.s3.uploads("lakes", prefix)


@pytest.fixture(scope="session")
def first_run(cluster: Cluster, inputs: dict[str, Input], tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A run in client mode, whose lake is the old one of the tests that follow."""
    return submit_job(cluster, "client", inputs["old"], "first", tmp_path_factory.mktemp("first"))


@pytest.fixture
def old_lake(cluster: Cluster, first_run: Submitted, request: pytest.FixtureRequest) -> str:
    """The prefix of a lake of this test's own, as the first run left it."""
    assert first_run.exit_code == 0, first_run.output
    prefix = re.sub(r"\W", "_", request.node.name)
    for key in cluster.s3.keys("lakes", "first/"):
        copied = prefix + key.removeprefix("first")
        cluster.s3.client.copy_object(Bucket="lakes", Key=copied, CopySource={"Bucket": "lakes", "Key": key})
    return prefix


@pytest.fixture
def kill_at(cluster: Cluster) -> Iterator[KillAt]:
    """Kills a container, the application master's or an executor's, at the first S3 request that matches."""

    def start(matches: Moment, is_master: bool) -> list[str]:
        killed: list[str] = []

        def before(request: Request) -> None:
            if matches(request) and not killed:
                killed.append("")  # before the kill, for requests come from many threads
                killed[0] = cluster.kill_container(is_master)

        cluster.s3.before = before
        return killed

    yield start
    cluster.s3.let_pass()


class WritesPlays:
    """An executor sends a file of songplays; the dimensions are published by then."""

    def __init__(self, prefix: str) -> None:
        self.folder = f"{prefix}/songplays/"

    def __call__(self, request: Request) -> bool:
        return request.method == "PUT" and request.key.startswith(self.folder) and "uploadId" in request.query


class DeletesOldFiles:
    """The driver deletes, after the new songs are committed, read back and noted."""

    def __init__(self, prefix: str) -> None:
        self.runs, self.is_noted = f"{prefix}/_runs/", False

    def __call__(self, request: Request) -> bool:
        self.is_noted |= request.method == "PUT" and bool(re.fullmatch(f"{self.runs}[^/]+/songs", request.key))
        return self.is_noted and request.verb == "DELETE"


def test_the_nodes_python_has_pyspark_only(cluster: Cluster) -> None:
    """pandas and boto3 fail there, so a run that passes needs neither."""
    libraries = os.pathsep.join(map(str, SPARK_HOME.glob("python/lib/*.zip")))
    for module, code in (("pyspark.sql", 0), ("boto3", 1), ("pandas", 1), ("pyarrow", 1)):
        command = [str(cluster.node_python), "-c", f"import {module}"]
        tried = subprocess.run(command, check=False, env={"PYTHONPATH": libraries}, capture_output=True, text=True)
        assert tried.returncode == code, tried.stderr
        assert code == 0 or f"No module named '{module}'" in tried.stderr


def test_client_mode(cluster: Cluster, first_run: Submitted, inputs: dict[str, Input], tmp_path: Path) -> None:
    assert first_run.exit_code == 0, first_run.output
    check_lake(cluster, "first", inputs["old"].expected, tmp_path)


def test_cluster_mode_replaces_the_lake(
    cluster: Cluster, old_lake: str, inputs: dict[str, Input], tmp_path: Path
) -> None:
    run = submit_job(cluster, "cluster", inputs["new"], old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    check_lake(cluster, old_lake, inputs["new"].expected, tmp_path / "lake")
    starts = [json.loads(line) for line in cluster.python_starts.read_text().splitlines()]
    drivers = [start["found"] for start in starts if any(word.endswith("etl.py") for word in start["argv"])]
    assert len(drivers) >= 2
    assert all(found == ["pyspark"] for found in drivers)


def test_a_killed_executor_is_replaced(
    cluster: Cluster, old_lake: str, inputs: dict[str, Input], kill_at: KillAt, tmp_path: Path
) -> None:
    killed = kill_at(WritesPlays(old_lake), False)
    run = submit_job(cluster, "client", inputs["new"], old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    executors = [name for name in cluster.started_containers(run.application) if not name.endswith("_000001")]
    assert killed, "no S3 request was of that moment"
    assert killed[0] in executors
    assert len(executors) > 1
    check_lake(cluster, old_lake, inputs["new"].expected, tmp_path / "lake")


@pytest.mark.parametrize("moment", [pytest.param(WritesPlays, marks=pytest.mark.long), DeletesOldFiles])
def test_a_killed_application_master_is_replaced(
    cluster: Cluster,
    old_lake: str,
    inputs: dict[str, Input],
    kill_at: KillAt,
    tmp_path: Path,
    moment: Callable[[str], Moment],
) -> None:
    """The second attempt settles what the first one left, and completes."""
    killed = kill_at(moment(old_lake), True)
    run = submit_job(cluster, "cluster", inputs["new"], old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    assert killed, "no S3 request was of that moment"
    assert killed[0] in cluster.started_containers(run.application)
    assert cluster.attempts(run.application) == 2
    check_lake(cluster, old_lake, inputs["new"].expected, tmp_path / "lake")
