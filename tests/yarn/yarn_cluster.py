"""A real YARN on this machine, with an S3 server beside it, set up as a platform sets up its clusters.

Jars, committer, credentials and endpoint come from the cluster's configuration files, and the nodes' Python has nothing
but pyspark's own files: a job that brings or needs more fails here as it would there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyspark
from s3 import S3Server

import laptop

SPARK_HOME = Path(pyspark.__file__).parent
HADOOP_VERSION = next(SPARK_HOME.glob("jars/hadoop-client-api-*.jar")).stem.rpartition("-")[2]
SDK_VERSION = "2.29.52"
NODES = 2
START_SECONDS = 90

# What YARN's servers need beside pyspark's own jars, most of it in hadoop-client-minicluster.
YARN_JARS = f"""org.apache.hadoop:hadoop-client-minicluster:{HADOOP_VERSION} org.bouncycastle:bcpkix-jdk18on:1.80
    org.bouncycastle:bcutil-jdk18on:1.80 javax.xml.bind:jaxb-api:2.2.11 com.sun.xml.bind:jaxb-impl:2.2.3-1
    javax.activation:javax.activation-api:1.2.0"""
# S3A and the magic committer, less what pyspark has.
S3A_JARS = f"""org.apache.hadoop:hadoop-aws:{HADOOP_VERSION} org.wildfly.openssl:wildfly-openssl:1.1.3.Final
    org.apache.spark:spark-hadoop-cloud_2.13:{pyspark.__version__} software.amazon.awssdk:s3:{SDK_VERSION}
    software.amazon.awssdk:s3-transfer-manager:{SDK_VERSION} software.amazon.awssdk:sts:{SDK_VERSION}"""
EXCLUDED = ("io.netty", "org.slf4j", "org.apache.httpcomponents", "commons-codec", "commons-logging")


def fetch_jars(wanted: str, cache: Path) -> Path:
    """A folder with these jars of Maven Central: by the Ivy that pyspark bundles; Amazon's with what they need."""
    folder = cache / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    if not folder.is_dir():
        lines = ['<ivy-module version="2.0"><info organisation="test" module="yarn"/><dependencies>']
        for organisation, name, revision in (each.split(":") for each in wanted.split()):
            more = 'conf="default"' if "awssdk" in organisation else 'transitive="false"'
            lines.append(f'<dependency org="{organisation}" name="{name}" rev="{revision}" {more}/>')
        lines += [*(f'<exclude org="{name}"/>' for name in EXCLUDED), "</dependencies></ivy-module>"]
        ivy = next(SPARK_HOME.glob("jars/ivy-*.jar"))
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            module = Path(unfinished, "ivy.xml")
            module.write_text("".join(lines))
            options = (
                f"-Divy.default.ivy.user.dir={cache} -Divy.maven.lookup.sources=false -Divy.maven.lookup.javadoc=false"
            )
            words = f"-ivy {module} -error -cache {cache}/ivy -types jar -retrieve {unfinished}/jars/[artifact]-[revision].[ext]"
            command = ["java", *options.split(), "-jar", str(ivy), *words.split()]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
            os.rename(f"{unfinished}/jars", folder)
    return folder


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def find_java_home() -> str:
    command = ["java", "-XshowSettings:properties", "-version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return next(line.split("=")[1].strip() for line in shown.stderr.splitlines() if " java.home =" in line)


def write_xml(path: Path, properties: dict[str, object]) -> None:
    pairs = ((name, escape(str(value))) for name, value in properties.items())
    items = (f"<property><name>{name}</name><value>{value}</value></property>\n" for name, value in pairs)
    path.write_text(f"<configuration>\n{''.join(items)}</configuration>\n")


@dataclass
class Submitted:
    """A run of spark-submit that has ended, with what its driver printed."""

    exit_code: int
    application: str
    output: str


@dataclass
class Cluster:
    """Its settings are the platform's, and yarn_site is what the launcher asks of the platform."""

    folder: Path
    s3: S3Server
    yarn_jars: Path
    s3a_jars: Path
    yarn_site: dict[str, str]
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node_python = self._make_node_python()
        ports = [f"127.0.0.1:{port}" for port in free_ports(5)]
        self.web = f"http://{ports[4]}"
        self.hadoop_conf, self.spark_conf = self.folder / "hadoop-conf", self.folder / "spark-conf"
        names = ("address", "scheduler.address", "resource-tracker.address", "admin.address", "webapp.address")
        addresses = {f"yarn.resourcemanager.{name}": port for name, port in zip(names, ports, strict=True)}
        self._write_hadoop_conf(self.hadoop_conf, addresses)
        self._write_spark_conf()
        foreign = ("AWS_", "HADOOP_", "JAVA_", "PYSPARK_", "PYTHON", "SPARK_", "YARN_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HADOOP_CONF_DIR": str(self.hadoop_conf),
            "JAVA_HOME": find_java_home(),
            "SPARK_CONF_DIR": str(self.spark_conf),
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_LOCAL_IP": "127.0.0.1",
        }

    # configuration, as a platform has it

    def _make_node_python(self) -> Path:
        """A Python without any package, which notes each of its starts and what could be imported there."""
        home = self.folder / "node-python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
        packages = next(home.glob("lib/python*/site-packages"))
        self.python_starts = self.folder / "python-starts.jsonl"
        (packages / "sitecustomize.py").write_text(
            "import importlib.util, json, sys\nnames = 'boto3 botocore numpy pandas pyarrow pyspark'.split()\n"
            "found = [name for name in names if importlib.util.find_spec(name)]\n"
            f"with open({str(self.python_starts)!r}, 'a') as file:\n"
            "    file.write(json.dumps({'argv': sys.orig_argv, 'found': found}) + '\\n')\n"
        )
        return home / "bin" / "python"

    def _write_hadoop_conf(self, folder: Path, more: dict[str, Any]) -> None:
        """The settings of the ResourceManager and of clients, and of a NodeManager with some more."""
        folder.mkdir()
        core = {
            "fs.defaultFS": "file:///", "hadoop.tmp.dir": self.folder / "tmp",
            "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem", "fs.s3a.access.key": "platform",
            "fs.s3a.secret.key": "platform", "fs.s3a.endpoint": self.s3.url, "fs.s3a.endpoint.region": "us-east-1",
            "fs.s3a.path.style.access": "true", "fs.s3a.committer.name": "magic",
        }  # fmt: skip
        scheduler = {
            "queues": "default", "default.capacity": 100, "accessible-node-labels": "*",
            "accessible-node-labels.CORE.capacity": 100, "default.accessible-node-labels.CORE.capacity": 100,
        }  # fmt: skip
        # The nodes are as an m5.xlarge, and as EMR's have a label where they are core nodes.
        yarn = {
            "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 200,
            "yarn.scheduler.minimum-allocation-mb": 128, "yarn.nodemanager.resource.cpu-vcores": 4,
            "yarn.node-labels.configuration-type": "distributed",
            "yarn.node-labels.fs-store.root-dir": (self.folder / "labels").as_uri(),
        }  # fmt: skip
        write_xml(folder / "core-site.xml", core)
        queues: dict[str, Any] = {f"yarn.scheduler.capacity.root.{name}": value for name, value in scheduler.items()}
        queues["yarn.scheduler.capacity.maximum-am-resource-percent"] = 1.0
        write_xml(folder / "capacity-scheduler.xml", queues)
        self.yarn_properties = {**yarn, **more, **self.yarn_site}
        write_xml(folder / "yarn-site.xml", self.yarn_properties)

    def _write_node_conf(self, node: Path, label: str) -> Path:
        """The configuration of one NodeManager: the cluster's and its own folders, ports and label."""
        folder = node / "conf"
        shutil.copytree(self.hadoop_conf, folder)
        # A full disk of the test's machine is not what is tested.
        own: dict[str, Any] = {
            "yarn.nodemanager.address": "127.0.0.1:0", "yarn.nodemanager.localizer.address": "127.0.0.1:0",
            "yarn.nodemanager.webapp.address": "127.0.0.1:0",
            "yarn.nodemanager.local-dirs": node / "local", "yarn.nodemanager.log-dirs": node / "logs",
            "yarn.nodemanager.resource.memory-mb": 3072, "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.node-labels.provider": "config",
            "yarn.nodemanager.node-labels.provider.configured-node-partition": label,
            "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 100,
        }  # fmt: skip
        write_xml(folder / "yarn-site.xml", {**self.yarn_properties, **own})
        return folder

    def _write_spark_conf(self) -> None:
        self.spark_conf.mkdir()
        cloud = "org.apache.spark.internal.io.cloud"
        quick_start = f"-XX:+UseSerialGC {laptop.SMALL_INPUT_JAVA}"  # the runs are short, and the machine is small
        conf = {
            "spark.driver.extraJavaOptions": quick_start, "spark.executor.extraJavaOptions": quick_start,
            "spark.yarn.am.extraJavaOptions": quick_start, "spark.sql.shuffle.partitions": 4,
            "spark.yarn.jars": f"local:{SPARK_HOME}/jars/*", "spark.driver.extraClassPath": f"{self.s3a_jars}/*",
            "spark.executor.extraClassPath": f"{self.s3a_jars}/*", "spark.pyspark.python": self.node_python,
            "spark.sql.sources.commitProtocolClass": f"{cloud}.PathOutputCommitProtocol",
            "spark.sql.parquet.output.committer.class": f"{cloud}.BindingParquetOutputCommitter",
            "spark.driver.memory": "768m", "spark.executor.memory": "768m", "spark.executor.instances": 1,
            "spark.executor.cores": 2, "spark.yarn.am.memory": "256m",
            "spark.yarn.stagingDir": (self.folder / "staging").as_uri(), "spark.ui.enabled": "false",
        }  # fmt: skip
        text = "".join(f"{name} {value}\n" for name, value in conf.items())
        (self.spark_conf / "spark-defaults.conf").write_text(text)

    # servers

    def start(self) -> None:
        self._start_java("server.resourcemanager.ResourceManager", self.folder / "rm.log", self.hadoop_conf)
        label = ("client.cli.RMAdminCLI", self.folder / "label.log", self.hadoop_conf)  # as EMR does for core nodes
        if self._start_java(*label, "-addToClusterNodeLabels", "CORE(exclusive=false)").wait(START_SECONDS):
            raise RuntimeError(f"YARN took no label, see {self.folder}/label.log")
        self.servers.pop()
        for number in range(NODES):
            node = self.folder / f"node{number}"
            node.mkdir()
            conf = self._write_node_conf(node, "CORE" if number == 0 else "")
            self._start_java("server.nodemanager.NodeManager", node / "nm.log", conf)
        give_up = time.monotonic() + START_SECONDS
        while self._count_nodes() < NODES:
            if any(server.poll() is not None for server in self.servers) or time.monotonic() > give_up:
                raise RuntimeError(f"YARN did not start, see {self.folder}/rm.log and node*/nm.log")
            time.sleep(0.5)

    def _start_java(self, name: str, log: Path, conf: Path, *words: str) -> subprocess.Popen[bytes]:
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        options.append("--add-opens=java.base/java.lang=ALL-UNNAMED")
        java = [f"{self.env['JAVA_HOME']}/bin/java", *options, "-cp", f"{conf}:{self.yarn_jars}/*:{SPARK_HOME}/jars/*"]
        command = [*java, f"org.apache.hadoop.yarn.{name}", *words]
        with log.open("wb") as file:
            files: dict[str, Any] = {"stdout": file, "stderr": file, "cwd": log.parent}
            self.servers.append(subprocess.Popen(command, env=self.env, start_new_session=True, **files))
        return self.servers[-1]

    def _count_nodes(self) -> int:
        try:
            return int(self._ask("metrics")["activeNodes"])
        except OSError:
            return 0

    def _ask(self, what: str) -> dict[str, Any]:
        """An answer of the ResourceManager's REST interface, which has no root element with these shaded libraries."""
        with urllib.request.urlopen(f"{self.web}/ws/v1/cluster/{what}", timeout=10) as response:
            return dict(json.load(response))

    def stop(self) -> None:
        """Ends the servers, and then the containers that are left; there is no state to save."""
        for server in self.servers:
            server.kill()
            server.wait()
        for group in self.containers().values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    # what runs on it

    def containers(self) -> dict[str, int]:
        """The containers that run, with their process groups."""
        groups = {}
        for path in self.folder.glob("node*/local/nmPrivate/application_*/container_*/container_*.pid"):
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                group = int(path.read_text())
                os.killpg(group, 0)
                groups[path.stem] = group
        return groups

    def kill_container(self, is_master: bool, number: int = signal.SIGKILL) -> str:
        """Kills the application master's container or an executor's, all of its processes at once; its name."""
        for name, group in sorted(self.containers().items()):
            if name.endswith("_000001") == is_master:
                os.killpg(group, number)
                return name
        raise RuntimeError("there is no such container")

    def masters(self, application: str) -> list[Path]:
        """The folders of the containers in which the application's attempts ran, by node."""
        return sorted(self.folder.glob(f"node*/logs/{application}/container_*_000001"))

    def logs(self, application: str) -> str:
        """What the containers of an application wrote."""
        paths = sorted(self.folder.glob(f"node*/logs/{application}/container_*/std*"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')}" for path in paths)

    def submit(self, mode: str, *arguments: str | Path, cwd: Path, seconds: float = 400) -> Submitted:
        command = [SPARK_HOME / "bin" / "spark-submit", "--master", "yarn", "--deploy-mode", mode, *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, cwd=cwd, env=self.env, start_new_session=True, **pipes)
        timer = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))  # then its exit code is -9
        timer.start()
        try:
            output, _ = process.communicate()
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        applications = sorted({word for word in output.replace(",", " ").split() if word.startswith("application_")})
        application = applications[0].rstrip(".") if applications else ""
        return Submitted(process.returncode, application, output + self.logs(application))


@contextlib.contextmanager
def running_cluster(folder: Path, cache: Path, yarn_site: dict[str, str]) -> Iterator[Cluster]:
    yarn_jars, s3a_jars = fetch_jars(YARN_JARS, cache), fetch_jars(S3A_JARS, cache)
    with S3Server() as s3:
        cluster = Cluster(folder, s3, yarn_jars, s3a_jars, yarn_site)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
