"""The job on a real YARN: what it writes, where it finds dl.cfg, and what it does when its processes are killed.

The machines have 4 vcores, and are set up and asked as the launcher does it on EMR.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
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

ROOT = Path(__file__).parents[2]
PARTITIONS = {"songs": ("year",), "time": ("year", "month"), "songplays": ("year", "month")}
Inputs = dict[str, tuple[str, oracle.Lake]]  # where each lies, and the tables that come of it
Submit = Callable[[str, str, str, Path], Submitted]
KillAt = Callable[[bool, int, str, str], list[str]]


@pytest.fixture(scope="session")
def inputs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Two cuts of the sample, of other days and songs: last night's and tonight's."""
    cluster.s3.make_bucket("raw")
    cluster.s3.make_bucket("lakes")
    found = {}
    for name, songs, days in (("old", slice(0, 20), slice(0, 3)), ("new", slice(10, 40), slice(2, 5))):
        folder = some_of_sample(ROOT / "data", tmp_path_factory.mktemp(name), songs, days)
        found[name] = (cluster.s3.upload(folder, "raw", name), oracle.read_lake(folder))
    return found


@pytest.fixture(scope="session")
def submit(cluster: Cluster, inputs: Inputs, launched: dict[str, list[str]]) -> Submit:
    """Submits etl.py, which learns from a dl.cfg of --files alone where to read and write."""

    def run(mode: str, source: str, prefix: str, folder: Path) -> Submitted:
        for name in ("code", "config", "elsewhere"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "etl.py", folder / "code")
        config, paths = (
            folder / "config" / "dl.cfg",
            f"INPUT_DATA = {inputs[source][0]}\nOUTPUT_DATA = s3a://lakes/{prefix}",
        )
        config.write_text(f"[PATHS]\n{paths}\n[LIMITS]\nMAX_REJECTED = 0.5\n")
        conf = [word for setting in launched["spark"] for word in ("--conf", setting)] if mode == "cluster" else []
        named = ["--config", "dl.cfg"] if mode == "cluster" else []
        words: list[str | Path] = [*conf, "--files", config, folder / "code" / "etl.py", *named, "--verbose"]
        return cluster.submit(mode, *words, cwd=folder / "elsewhere")

    return run


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
    assert not [path for path in folder.rglob("*") if re.search("/_temporary|/__magic", str(path))]
    assert not cluster.s3.uploads("lakes", prefix)


@pytest.fixture(scope="session")
def first_run(submit: Submit, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A run in client mode, whose lake is the old one of the tests that follow."""
    return submit("client", "old", "first", tmp_path_factory.mktemp("first"))


@pytest.fixture
def old_lake(cluster: Cluster, first_run: Submitted, request: pytest.FixtureRequest) -> str:
    """The prefix of a lake of this test's own, as the first run left it."""
    assert first_run.exit_code == 0, first_run.output
    prefix = re.sub(r"\W", "_", request.node.name)
    for key in cluster.s3.keys("lakes", "first/"):
        source = {"Bucket": "lakes", "Key": key}
        cluster.s3.client.copy_object(Bucket="lakes", Key=prefix + key.removeprefix("first"), CopySource=source)
    return prefix


@pytest.fixture
def kill_at(cluster: Cluster) -> Iterator[KillAt]:
    """Kills the master's or an executor's container at the first request with this verb that touches these keys."""

    def start(is_master: bool, number: int, verb: str, keys: str) -> list[str]:
        killed: list[str] = []

        def before(request: Request) -> None:
            touched = request.key if verb == "PUT" else f"{request.key} {request.body.decode(errors='replace')}"
            if request.verb.startswith(verb) and re.search(keys, touched) and not killed:
                killed.append("")  # before the kill, for requests come from many threads
                killed[0] = cluster.kill_container(is_master, number)

        cluster.s3.before = before
        return killed

    yield start
    cluster.s3.let_pass()


def test_the_nodes_python_has_pyspark_only(cluster: Cluster) -> None:
    """pandas and boto3 fail there, so a run that passes needs neither."""
    libraries = os.pathsep.join(map(str, SPARK_HOME.glob("python/lib/*.zip")))
    for module, code in (("pyspark.sql", 0), ("boto3", 1), ("pandas", 1), ("pyarrow", 1)):
        command = [str(cluster.node_python), "-c", f"import {module}"]
        tried = subprocess.run(command, check=False, env={"PYTHONPATH": libraries}, capture_output=True, text=True)
        assert tried.returncode == code, tried.stderr
        assert code == 0 or f"No module named '{module}'" in tried.stderr


def test_client_mode(cluster: Cluster, first_run: Submitted, inputs: Inputs, tmp_path: Path) -> None:
    assert first_run.exit_code == 0, first_run.output
    check_lake(cluster, "first", inputs["old"][1], tmp_path)


def test_cluster_mode_as_the_launcher_asks_replaces_the_lake(
    cluster: Cluster, old_lake: str, submit: Submit, inputs: Inputs, tmp_path: Path
) -> None:
    run = submit("cluster", "new", old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    check_lake(cluster, old_lake, inputs["new"][1], tmp_path / "lake")
    starts = [json.loads(line) for line in cluster.python_starts.read_text().splitlines()]
    drivers = [start["found"] for start in starts if any(word.endswith("etl.py") for word in start["argv"])]
    assert len(drivers) >= 2
    assert all(found == ["pyspark"] for found in drivers)
    assert [path.parts[-4] for path in cluster.masters(run.application)] == ["node0"]  # the one with the label CORE


def test_a_killed_executor_is_replaced(
    cluster: Cluster, old_lake: str, submit: Submit, inputs: Inputs, kill_at: KillAt, tmp_path: Path
) -> None:
    killed = kill_at(False, signal.SIGKILL, "PUT", f"{old_lake}/songplays/.*parquet")
    run = submit("client", "new", old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    executors = [name for name in cluster.started_containers(run.application) if not name.endswith("_000001")]
    assert killed, "no S3 request was of that moment"
    assert killed[0] in executors
    assert len(executors) > 1
    check_lake(cluster, old_lake, inputs["new"][1], tmp_path / "lake")


@pytest.mark.parametrize(
    ("number", "verb", "keys"),
    [
        pytest.param(signal.SIGTERM, "PUT", "/songplays/.*parquet", id="term_while_plays_are_written"),
        pytest.param(signal.SIGKILL, "DELETE", "/songs/year=(?!.*__magic)", id="kill_while_old_files_go"),
    ],
)
def test_a_killed_driver_is_started_again(
    cluster: Cluster, old_lake: str, submit: Submit, inputs: Inputs, kill_at: KillAt, tmp_path: Path,
    number: int, verb: str, keys: str,
) -> None:  # fmt: skip
    """The second attempt knows the lock of the first for dead, removes what it left, and completes."""
    killed = kill_at(True, number, verb, old_lake + keys)
    run = submit("cluster", "new", old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    assert killed, "no S3 request was of that moment"
    assert [path.name for path in cluster.masters(run.application)].count(killed[0]) == 1
    assert len(cluster.masters(run.application)) == 2
    check_lake(cluster, old_lake, inputs["new"][1], tmp_path / "lake")
