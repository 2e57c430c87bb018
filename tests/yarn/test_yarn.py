"""The job on a real YARN: what it writes, where it finds dl.cfg, and what it does when its processes are killed.

The machines have 4 vcores, and are set up and asked as the launcher does it on EMR.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import oracle
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from lakes import CATALOG, some_of_sample, tables_of
from s3 import Request
from yarn_cluster import Cluster, Submitted, fetch_jars, running_cluster

import laptop
from emr.__main__ import parse
from emr.request import make_plan

pytestmark = pytest.mark.yarn

ROOT = Path(__file__).parents[2]
PARTITIONS = {"songs": ("year",), "time": ("year", "month"), "songplays": ("year", "month")}
RIGHTS = {
    "LIST": "s3:ListBucket", "LIST UPLOADS": "s3:ListBucketMultipartUploads", "HEAD": "s3:GetObject", "GET": "s3:GetObject",
    "PUT": "s3:PutObject", "UPLOAD": "s3:PutObject", "DELETE": "s3:DeleteObject",
}  # fmt: skip
ABORT = ("s3:AbortMultipartUpload", "lakes")  # nothing is open when old files go
Inputs = dict[str, tuple[str, oracle.Lake]]  # where each lies, and the tables that come of it
Submit = Callable[..., Submitted]
KillAt = Callable[[bool, int, str, str], list[str]]


@pytest.fixture(scope="session")
def request_of_emr() -> dict[str, Any]:
    """What the launcher asks of EMR for a cluster of its own."""
    places = "--input s3://songs/raw --output s3://lake/sparkify --logs s3://logs/sparkify"
    request = make_plan(parse(f"run {places}".split()), "x").request
    assert request is not None
    return request


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, request_of_emr: dict[str, Any]
) -> Iterator[Cluster]:
    """YARN and S3, with the jars kept in pytest's cache from one session to the next."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a time limit leaves no servers
    folder, cache = tmp_path_factory.mktemp("yarn"), pytestconfig.cache.mkdir("yarn-jars")
    with running_cluster(folder, cache, request_of_emr["Configurations"][0]["Properties"]) as running:
        yield running
    signal.signal(signal.SIGTERM, before)


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
def submit(cluster: Cluster, inputs: Inputs, request_of_emr: dict[str, Any]) -> Submit:
    """Submits etl.py, which learns from a dl.cfg of --files alone where to read and write."""
    asked = itertools.pairwise(request_of_emr["Steps"][0]["HadoopJarStep"]["Args"])
    settings = [word for pair in asked if pair[0] == "--conf" for word in pair]

    def run(
        mode: str, source: str, prefix: str, folder: Path, more: Sequence[object] = (), *options: object
    ) -> Submitted:
        for name in ("code", "config", "elsewhere"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "etl.py", folder / "code")
        config = folder / "config" / "dl.cfg"
        paths = f"INPUT_DATA = {inputs[source][0]}\nOUTPUT_DATA = s3a://lakes/{prefix}"
        config.write_text(f"[PATHS]\n{paths}\n[LIMITS]\nMAX_REJECTED = 0.5\n")
        conf, named = (settings, ["--config", "dl.cfg"]) if mode == "cluster" else ([], [])
        words = [*conf, *more, "--files", config, folder / "code" / "etl.py", *named, "--verbose", *options]
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


def unused_rights(requests: list[Request], prefix: str) -> set[tuple[str, str]]:
    """What emr/iam/job.json grants beyond a run's requests, by action and bucket; each of these it must allow."""
    text = (ROOT / "emr" / "iam" / "job.json").read_text()
    for word, name in (
        ("INPUT_BUCKET", "raw"),
        ("INPUT_PREFIX", "new"),
        ("OUTPUT_BUCKET", "lakes"),
        ("OUTPUT_PREFIX", prefix),
    ):
        text = text.replace(word, name)
    granted = [(action, place.split(":::")[1]) for one in json.loads(text)["Statement"] for action in as_list(one["Action"]) for place in as_list(one["Resource"])]  # fmt: skip
    used = set[tuple[str, str]]()
    for request in requests:
        verb = "LIST" if not request.key and request.verb == "HEAD" else request.verb
        action = "s3:AbortMultipartUpload" if verb == "DELETE" and "uploadId" in request.query else RIGHTS[verb]
        for key in re.findall("<Key>(.*?)</Key>", request.body.decode(errors="replace")) or [request.key]:
            place = f"{request.bucket}/{key}".rstrip("/")
            assert any(action == name and fnmatch.fnmatchcase(place, where) for name, where in granted), (action, place)
            used.add((action, request.bucket))
    return {(action, place.split("/")[0]) for action, place in granted} - used


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


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
    assert drivers == len(drivers) * [["pyspark"]]  # neither boto3 nor pandas nor pyarrow
    assert len(drivers) >= 2
    assert [path.parts[-4] for path in cluster.masters(run.application)] == ["node0"]  # the one with the label CORE


def test_cluster_mode_writes_iceberg_tables_of_a_catalog_given_by_conf(
    submit: Submit, inputs: Inputs, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    jars = ",".join(map(str, fetch_jars(laptop.ICEBERG, pytestconfig.cache.mkdir("yarn-jars")).iterdir()))
    catalog = {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "hadoop", ".warehouse": f"file:{tmp_path}/lake"}
    conf = [word for key, value in catalog.items() for word in ("--conf", f"spark.sql.catalog.lake{key}={value}")]
    options = ("--catalog", CATALOG, "--output", f"file:{tmp_path}/lake")
    run = submit("cluster", "new", "unused", tmp_path, ["--jars", jars, *conf], *options)
    assert run.exit_code == 0, run.output
    assert tables_of(tmp_path / "lake") == inputs["new"][1].tables


def test_a_killed_executor_is_replaced(
    cluster: Cluster, old_lake: str, submit: Submit, inputs: Inputs, kill_at: KillAt, tmp_path: Path
) -> None:
    killed = kill_at(False, signal.SIGKILL, "PUT", f"{old_lake}/songplays/.*parquet")
    run = submit("client", "new", old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    containers = {path.name for path in cluster.folder.glob(f"node*/logs/{run.application}/container_*")}
    assert killed, "no S3 request was of that moment"
    assert killed[0] in containers
    assert len(containers) > 2  # the master, the killed executor, another
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
    """The second attempt knows the lock of the first for dead, removes what it left, and completes.

    All of that is within the rights of emr/iam/job.json.
    """
    killed, start = kill_at(True, number, verb, old_lake + keys), len(cluster.s3.requests)
    run = submit("cluster", "new", old_lake, tmp_path)
    assert run.exit_code == 0, run.output
    assert killed, "no S3 request was of that moment"
    assert [path.name for path in cluster.masters(run.application)].count(killed[0]) == 1
    assert len(cluster.masters(run.application)) == 2
    check_lake(cluster, old_lake, inputs["new"][1], tmp_path / "lake")
    unused = unused_rights(cluster.s3.requests[start:], old_lake)
    assert {right for right in unused if right[1] != "LOG_BUCKET"} <= ({ABORT} if number == signal.SIGKILL else set())
