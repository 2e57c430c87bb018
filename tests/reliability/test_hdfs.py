"""The job on a real HDFS: a run over last night's lake, also after a kill in the middle of its work."""

from __future__ import annotations

import getpass
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import ROOT
from harness import JOB_SECONDS, check_exact, check_whole, config_file, make_inputs, plant_strangers, started

sys.path.append(str(ROOT / "tests" / "yarn"))  # its jars hold HDFS too
from yarn_cluster import SPARK_HOME, YARN_JARS, fetch_jars, free_ports, write_xml

pytestmark = pytest.mark.long
START_SECONDS = 120


@contextmanager
def server(conf: Path, jars: Path, name: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command = [
        *java,
        "-cp",
        f"{conf}:{jars}/*:{SPARK_HOME}/jars/*",
        f"org.apache.hadoop.hdfs.server.{name}",
        *arguments,
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Hdfs:
    """One NameNode and one DataNode, of the Hadoop that pyspark bundles."""

    def __init__(self, folder: Path, jars: Path, stack: ExitStack) -> None:
        self.conf, self.jars = folder / "conf", jars
        ports = free_ports(2)
        self.uri = f"hdfs://127.0.0.1:{ports[0]}"
        self.conf.mkdir()
        write_xml(self.conf / "core-site.xml", {"fs.defaultFS": self.uri, "hadoop.tmp.dir": folder / "tmp"})
        write_xml(
            self.conf / "hdfs-site.xml",
            {
                "dfs.replication": 1,
                "dfs.namenode.http-address": f"127.0.0.1:{ports[1]}",
                "dfs.datanode.address": "127.0.0.1:0",
                "dfs.datanode.http.address": "127.0.0.1:0",
                "dfs.datanode.ipc.address": "127.0.0.1:0",
                "dfs.datanode.du.reserved": 0,
                "dfs.permissions.enabled": "false",
            },
        )
        with server(self.conf, jars, "namenode.NameNode", folder / "format.log", "-format", "-force") as formatting:
            assert formatting.wait(START_SECONDS) == 0, (folder / "format.log").read_text()
        stack.enter_context(server(self.conf, jars, "namenode.NameNode", folder / "name.log"))
        stack.enter_context(server(self.conf, jars, "datanode.DataNode", folder / "data.log"))
        give_up = time.monotonic() + START_SECONDS
        while "Live datanodes (1)" not in self.run("tools.DFSAdmin", "-report").stdout:
            assert time.monotonic() < give_up, f"HDFS did not start, see {folder}/*.log"

    def run(self, tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        classes = f"{self.conf}:{self.jars}/*:{SPARK_HOME}/jars/*"
        name = f"org.apache.hadoop.{'hdfs.' if '.' in tool else 'fs.'}{tool}"
        return subprocess.run(
            ["java", "-cp", classes, name, *map(str, arguments)], capture_output=True, text=True, check=False
        )

    def shell(self, *arguments: object) -> str:
        done = self.run("FsShell", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def download(self, path: str, folder: Path) -> Path:
        self.shell("-get", "-ignoreCrc", path, folder)
        return folder


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Hdfs]:
    jars = fetch_jars(YARN_JARS, pytestconfig.cache.mkdir("yarn-jars"))
    with ExitStack() as stack:
        yield Hdfs(tmp_path_factory.mktemp("hdfs"), jars, stack)


def command(program: Path, config: Path, *options: object) -> tuple[object, ...]:
    submit = (SPARK_HOME / "bin" / "spark-submit", "--master", "local[2]", "--conf", "spark.sql.shuffle.partitions=4")
    return (*submit, program, "--config", config, *options)


def full_run(hdfs: Hdfs, config: Path, source: str) -> str:
    """With paths as the file system's own users write them: below their home, and absolute."""
    options = ("--input", f"/raw/{source}", "--output", "lake")
    with started(command(ROOT / "etl.py", config, *options), HADOOP_CONF_DIR=str(hdfs.conf)) as running:
        return running.done()


def test_runs_on_hdfs(hdfs: Hdfs, tmp_path: Path) -> None:
    old, new = make_inputs(tmp_path / "raw")
    config = config_file(tmp_path)
    home = f"/user/{getpass.getuser()}"
    hdfs.shell("-mkdir", "-p", home)
    hdfs.shell("-put", tmp_path / "raw", "/raw")
    plant_strangers(tmp_path / "lake")
    hdfs.shell("-put", tmp_path / "lake", f"{home}/lake")
    run_id = full_run(hdfs, config, "old")
    check_exact(hdfs.download(f"{home}/lake", tmp_path / "first"), run_id, old.rows)

    options = ("--input", f"{hdfs.uri}/raw/new", "--output", f"{hdfs.uri}{home}/lake")
    environment = {"KILL": "half deleted songs", "PYTHONPATH": str(ROOT), "HADOOP_CONF_DIR": str(hdfs.conf)}
    program = Path(__file__).with_name("killer.py")
    with started(command(program, config, *options), **environment) as running:
        assert running.process.wait(JOB_SECONDS) == -signal.SIGKILL
    check_whole(hdfs.download(f"{home}/lake", tmp_path / "killed"), old.rows, new.rows)

    run_id = full_run(hdfs, config, "new")
    check_exact(hdfs.download(f"{home}/lake", tmp_path / "second"), run_id, new.rows)
