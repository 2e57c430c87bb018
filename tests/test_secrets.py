"""A secret of dl.cfg is nowhere to be seen: process list, logs, event log, UI, report, lake, errors."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLE, run_etl
from lakes import contents_of, some_of_sample
from s3 import Request, S3Server

KEY, SECRET, TOKEN = "AKIASECRETS", "%s-wJalrXUtn/FEMI%(x)s+K7", "%t-FwoGZXIvYXdzE%B2/+c="
# The job as it is, but for the UI and the event log, which it leaves off outside a cluster.
PROGRAM = """
import sys, etl, laptop
laptop.CONF |= {"spark.ui.enabled": "true", "spark.ui.port": sys.argv[1], "spark.eventLog.enabled": "true",
                "spark.eventLog.dir": sys.argv[2], "spark.eventLog.compress": "false", "spark.port.maxRetries": "0"}
sys.exit(etl.main(sys.argv[3:]))
"""
REST = "api/v1/applications/{}/"
PAGES = ("environment/", "SQL/", "jobs/", "executors/", f"{REST}environment", f"{REST}sql?details=true")


@dataclass
class Seen:
    """What could be seen of a run, from outside and afterwards."""

    printed: str = ""
    command_lines: set[bytes] = field(default_factory=set)
    pages: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    events: bytes = b""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def write_config(folder: Path, s3: S3Server) -> Path:
    path = folder / "dl.cfg"
    path.write_text(
        f"[AWS]\nAWS_ACCESS_KEY_ID = {KEY}\nAWS_SECRET_ACCESS_KEY = {SECRET}\nAWS_SESSION_TOKEN = {TOKEN}\nAWS_ENDPOINT_URL = {s3.url}\n"
        "[PATHS]\nINPUT_DATA = in\nOUTPUT_DATA = s3a://secrets/lake\n"
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


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def seen(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A run with --verbose, held before its last table until the UI's pages are read."""
    folder, seen = tmp_path_factory.mktemp("secrets"), Seen()
    config, events = write_config(folder, s3), folder / "events"
    events.mkdir()
    some_of_sample(SAMPLE, folder / "in")
    s3.make_bucket("secrets")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reached, looked = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if request.method == "PUT" and "/songplays/" in request.key:  # late: the jobs and queries of the run are shown
            reached.set()
            looked.wait(60)

    s3.before = hold
    arguments = ("--verbose", "--config", config, "--report", folder / "report.json")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port), f"file://{events}", *map(str, arguments)], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip

    def watch() -> None:
        while process.poll() is None:
            seen.command_lines |= command_lines(process.pid)
            if reached.is_set() and not looked.is_set():
                try:
                    ui = f"http://127.0.0.1:{port}"
                    application = json.loads(fetch(f"{ui}/api/v1/applications"))[0]["id"]
                    seen.pages = {page: fetch(f"{ui}/{page.format(application)}") for page in PAGES}
                finally:
                    looked.set()
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    seen.printed = process.communicate(timeout=600)[0]
    watcher.join()
    assert process.returncode == 0, seen.printed
    s3.let_pass()
    seen.events = b"".join(path.read_bytes() for path in events.rglob("events_*"))
    seen.files = contents_of(s3.download("secrets", "lake", folder / "lake"))
    seen.files["report"] = (folder / "report.json").read_bytes()
    return seen


def assert_hidden(text: str | bytes) -> None:
    """Neither the secret nor the token, also not as they would stand in JSON, HTML or a URL."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    for secret in (SECRET, TOKEN):
        for form in (secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), urllib.request.pathname2url(secret)):
            assert form not in text


def test_the_secret_was_used(s3: S3Server, seen: Seen) -> None:
    assert {request.access_key for request in s3.requests} == {KEY}


def test_not_on_a_command_line(seen: Seen) -> None:
    assert any(b"org.apache.spark.deploy.SparkSubmit" in line for line in seen.command_lines)
    for line in seen.command_lines:
        assert_hidden(line)
        assert KEY.encode() not in line


def test_not_in_what_is_printed_logged_or_written(seen: Seen) -> None:
    assert "done in" in seen.printed and b"SparkListenerApplicationEnd" in seen.events
    assert "_lake" in seen.files and b"done" in seen.files["report"]
    assert_hidden(seen.printed)
    for content in (seen.events, *seen.files.values()):
        assert_hidden(content)


def test_not_in_the_ui(seen: Seen) -> None:
    assert seen.pages.keys() == set(PAGES)
    assert "spark.eventLog.dir" in seen.pages["environment/"]
    assert "Scan" in seen.pages[f"{REST}sql?details=true"]
    for page in seen.pages.values():
        assert_hidden(page)


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"])
def test_not_in_the_error_of_a_refusal(s3: S3Server, tmp_path: Path, code: str) -> None:
    s3.before = lambda request: code
    done = run_etl("--config", write_config(tmp_path, s3), "--verbose", check=False)
    s3.let_pass()
    assert done.returncode == 1
    assert code in done.stderr.splitlines()[-1] and "Traceback" in done.stderr
    assert_hidden(done.stdout + done.stderr)
