"""A secret of dl.cfg is nowhere to be seen: process list, logs, event log, report, lake, errors."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT, write_small
from lakes import contents_of
from pyspark.sql import SparkSession
from s3 import S3Server

import etl

KEY, SECRET, TOKEN = "AKIASECRETS", "%s-wJalrXUtn/FEMI%(x)s+K7", "%t-FwoGZXIvYXdzE%B2/+c="
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "other"}  # dl.cfg wins
# The job as it is, but for the event log, which it leaves off outside a cluster, and all settings in what it prints.
PROGRAM = """
import sys, etl, laptop
laptop.CONF |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": sys.argv[1], "spark.eventLog.compress": "false"}
for lake in (etl.Lake, etl.IcebergLake):
    def publish_and_show(self, tables, publish=lake.publish):
        print(self.spark.sql("SET -v").collect(), self.spark.sql("SET").collect())
        return publish(self, tables)
    lake.publish = publish_and_show
sys.exit(etl.main(sys.argv[2:]))
"""


@dataclass
class Seen:
    """What could be seen of a run, from outside and afterwards."""

    lake: str  # what lies in the output of this kind of lake
    printed: str = ""
    command_lines: set[bytes] = field(default_factory=set)
    access_keys: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    events: bytes = b""


def write_config(folder: Path, s3: S3Server) -> Path:
    path = folder / "dl.cfg"
    path.write_text(
        f"[AWS]\nAWS_ACCESS_KEY_ID = {KEY}\nAWS_SECRET_ACCESS_KEY = {SECRET}\nAWS_SESSION_TOKEN = {TOKEN}\nAWS_ENDPOINT_URL = {s3.url}\n"
        "[PATHS]\nINPUT_DATA = in\nOUTPUT_DATA = s3://secrets/lake/\n"
    )
    return path


def command_lines(group: int) -> set[bytes]:
    """The command lines of all processes of a group, which ps shows to everybody."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if os.getpgid(int(process.name)) == group:
                found.add((process / "cmdline").read_bytes())
    return found


@pytest.fixture(scope="module", params=["", "glue.sparkify"], ids=["folders", "iceberg"])
def seen(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Seen:
    """A run with --verbose."""
    folder, seen = tmp_path_factory.mktemp("secrets"), Seen("sparkify" if request.param else "_lake")
    (folder / "events").mkdir()
    write_small(folder / "in")
    with S3Server() as s3:
        s3.make_bucket("secrets")
        arguments = ("--verbose", "--config", write_config(folder, s3), "--report", folder / "report.json")
        arguments += ("--catalog", request.param) if request.param else ()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, f"file://{folder}/events", *map(str, arguments)], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | ENVIRONMENT, start_new_session=True,
        )  # fmt: skip

        def watch() -> None:
            while process.poll() is None:
                seen.command_lines |= command_lines(process.pid)
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        seen.printed = process.communicate(timeout=600)[0]
        watcher.join()
        assert process.returncode == 0, seen.printed
        seen.access_keys = {request.access_key for request in s3.requests}
        seen.files = contents_of(s3.download("secrets", "lake", folder / "lake"))
    seen.events = b"".join(path.read_bytes() for path in (folder / "events").rglob("events_*"))
    seen.files["report"] = (folder / "report.json").read_bytes()
    return seen


def assert_hidden(text: str | bytes) -> None:
    """Neither the secret nor the token, also not as they would stand in JSON, HTML or a URL."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    for secret in (SECRET, TOKEN):
        for form in (secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), urllib.request.pathname2url(secret)):
            assert form not in text


def test_the_secret_was_used_and_is_not_on_a_command_line(seen: Seen) -> None:
    assert seen.access_keys == {KEY}
    assert any(b"org.apache.spark.deploy.SparkSubmit" in line for line in seen.command_lines)
    for line in seen.command_lines:
        assert_hidden(line)
        assert KEY.encode() not in line


def test_not_in_what_is_printed_logged_or_written(seen: Seen) -> None:
    assert "done in" in seen.printed and "spark.driver.memory" in seen.printed
    assert b"SparkListenerApplicationEnd" in seen.events
    assert seen.lake in {name.split("/")[0] for name in seen.files} and b"done" in seen.files["report"]
    assert_hidden(seen.printed)
    for content in (seen.events, *seen.files.values()):
        assert_hidden(content)


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"])
def test_not_in_the_error_of_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str) -> None:
    with S3Server() as s3, pytest.MonkeyPatch.context() as patch:
        patch.setattr(SparkSession, "getActiveSession", lambda: None)
        s3.before = lambda request: code
        assert etl.main(["--config", str(write_config(tmp_path, s3)), "--verbose"]) == 1
    printed = capsys.readouterr()
    assert code in printed.err.splitlines()[-1] and "Traceback" in printed.err
    assert_hidden(printed.out + printed.err)
