"""The job on a real HDFS: a run over last night's lake, also after a kill in the middle of its work."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from harness import Place, check_whole, killed_at, make_inputs, plant_strangers, run_ends_exact

sys.path.append(str(ROOT / "tests" / "yarn"))  # its jars hold HDFS too
from yarn_cluster import SPARK_HOME, YARN_JARS, fetch_jars, free_ports, write_xml

pytestmark = pytest.mark.long
START_SECONDS = 120
UTF8 = {"LC_ALL": "C.UTF-8"}  # for the file names of this machine
SUBMIT = (SPARK_HOME / "bin" / "spark-submit", "--master", "local[2]", "--conf", "spark.sql.shuffle.partitions=4")


def classes(conf: Path, jars: Path) -> str:
    return f"{conf}:{jars}/*:{SPARK_HOME}/jars/*"


@contextmanager
def server(conf: Path, jars: Path, name: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes(conf, jars)]
    command = [*java, f"org.apache.hadoop.hdfs.server.{name}", *arguments]
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
        name = f"org.apache.hadoop.{'hdfs.' if '.' in tool else 'fs.'}{tool}"
        command = ["java", "-cp", classes(self.conf, self.jars), name, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | UTF8)

    def shell(self, *arguments: object) -> str:
        done = self.run("FsShell", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Hdfs]:
    jars = fetch_jars(YARN_JARS, pytestconfig.cache.mkdir("yarn-jars"))
    with ExitStack() as stack:
        yield Hdfs(tmp_path_factory.mktemp("hdfs"), jars, stack)


def test_runs_on_hdfs(hdfs: Hdfs, tmp_path: Path) -> None:
    """With paths absolute, below the user's home and in full, and a file's name that Java's locale could not spell."""
    old, new = make_inputs(tmp_path / "raw")
    home = f"/user/{getpass.getuser()}"
    plant_strangers(tmp_path / "lake")
    hdfs.shell("-mkdir", "-p", home)
    hdfs.shell("-put", tmp_path / "raw", "/raw")
    hdfs.shell("-put", tmp_path / "lake", f"{home}/lake")

    def look() -> Path:
        shutil.rmtree(tmp_path / "seen", ignore_errors=True)
        hdfs.shell("-get", "-ignoreCrc", f"{home}/lake", tmp_path / "seen")
        return tmp_path / "seen"

    environment = {"HADOOP_CONF_DIR": str(hdfs.conf), "LC_ALL": "POSIX"}
    place = Place("/raw/old", "lake", look, SUBMIT, environment)
    run_ends_exact(place, old.rows)
    place = replace(place, source="hdfs:///raw/new", output=f"{hdfs.uri}{home}/lake")
    killed_at("half deleted songs", place)
    check_whole(look(), old.rows, new.rows)
    run_ends_exact(place, new.rows)
