"""Errors of the real world: each ends in one line, its exit code, and a lake that is whole."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from harness import (
    BUCKET,
    Job,
    Nights,
    check_exact,
    check_whole,
    config_file,
    full_run,
    job,
    make_nights,
    names_in,
    s3_server,
)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(tmp_path_factory.getbasetemp())


@pytest.fixture
def lake(nights: Nights, tmp_path: Path) -> Path:
    """A copy of last night's lake."""
    return Path(shutil.copytree(nights.lake, tmp_path / "lake"))


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def the_line(code: int, errors: str, expected_code: int = 1) -> str:
    lines = errors.splitlines()
    assert code == expected_code, errors
    assert len(lines) == 1 and lines[0].startswith("etl.py: error: "), errors
    return lines[0]


def wait_for_work(running: Job, lake: Path) -> str:
    """Waits until the run has claimed the lake; its id."""
    known = names_in(lake / "_runs")
    assert running.until(lambda: names_in(lake / "_runs") > known), running.wait()
    (run,) = names_in(lake / "_runs") - known
    mark = lake / "_runs" / run / "started"
    assert running.until(lambda: mark.exists() and mark.stat().st_size > 0)
    return run


@pytest.mark.parametrize(("number", "code", "to_all"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_stopped_by_a_signal(
    number: signal.Signals, code: int, to_all: bool, nights: Nights, lake: Path, tmp_path: Path
) -> None:
    """Ctrl-C goes to the whole process group, a scheduler tells the process alone."""
    before = files_under(lake)
    with job(config_file(tmp_path), nights.new.folder, lake) as running:
        wait_for_work(running, lake)
        if to_all:
            running.signal_all(number)
        else:
            running.process.send_signal(number)
        line = the_line(*running.wait(), expected_code=code)
    assert line == "etl.py: error: interrupted; the lake is unchanged"
    assert files_under(lake) == before


@pytest.mark.long
def test_stopped_while_it_publishes(nights: Nights, lake: Path, tmp_path: Path) -> None:
    """The tables that are published stay, the others keep their old rows, and the next run completes them."""
    config = config_file(tmp_path)
    with job(config, nights.new.folder, lake) as running:
        run = wait_for_work(running, lake)
        assert running.until((lake / "_runs" / run / "users").exists)
        running.signal_all(signal.SIGINT)
        line = the_line(*running.wait(), expected_code=130)
    assert re.search(r"users.* hold this run's rows, .*run it again", line)
    check_whole(lake, nights.old.rows, nights.new.rows)
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


def test_two_runs_at_once(nights: Nights, lake: Path, tmp_path: Path) -> None:
    """The second names the first and stops; the first ends as if nothing had been."""
    config = config_file(tmp_path)
    with job(config, nights.new.folder, lake) as first:
        run = wait_for_work(first, lake)
        first.signal_all(signal.SIGSTOP)  # it stays at work for as long as this takes
        with job(config, nights.new.folder, lake) as second:
            line = the_line(*second.wait())
        assert f"run {run}" in line and f"process {first.process.pid} on " in line
        first.signal_all(signal.SIGCONT)
        assert first.wait()[0] == 0
    check_exact(lake, run, nights.new.rows)


@pytest.mark.long
def test_a_dead_runs_mark_from_another_host(nights: Nights, lake: Path, tmp_path: Path) -> None:
    """A mark of another machine blocks while its heart beats, and no longer once it has been silent."""
    config, mark = config_file(tmp_path), lake / "_runs" / "20200101T000000Z-0123abcd"
    mark.mkdir()
    (mark / "started").write_text(json.dumps({"host": "elsewhere", "pids": [1], "application": "local-1"}))
    with job(config, nights.new.folder, lake) as running:
        assert "process 1 on elsewhere" in the_line(*running.wait())
    long_ago = mark.stat().st_mtime - 3600
    os.utime(mark / "started", (long_ago, long_ago))
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


# Disks.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    if os.geteuid():
        pytest.skip("only root can mount a disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "lake", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.long
def test_full_disk(nights: Nights, small_disk: Path, tmp_path: Path) -> None:
    lake, config = small_disk / "lake", config_file(tmp_path)
    shutil.copytree(nights.lake, lake)
    free = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "ballast").write_bytes(bytes(free - 16384))
    before = files_under(lake)
    with job(config, nights.new.folder, lake) as running:
        line = the_line(*running.wait())
    assert "No space left on device" in line
    check_whole(lake, nights.old.rows, nights.new.rows)
    if "unchanged" in line:
        assert files_under(lake) == before
    (small_disk / "ballast").unlink()
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


def test_read_only_disk(nights: Nights, small_disk: Path, tmp_path: Path) -> None:
    lake = small_disk / "lake"
    shutil.copytree(nights.lake, lake)
    before = files_under(lake)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with job(config_file(tmp_path), nights.new.folder, lake) as running:
        line = the_line(*running.wait())
    assert "the lake is unchanged" in line and ("Read-only" in line or str(lake) in line), line
    assert files_under(lake) == before


# Memory.


def test_too_little_memory(nights: Nights, lake: Path, tmp_path: Path) -> None:
    before = files_under(lake)
    command = [
        sys.executable,
        ROOT / "etl.py",
        "--config",
        config_file(tmp_path),
        "--input",
        nights.new.folder,
        "--output",
        lake,
    ]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )  # fmt: skip
    line = the_line(done.returncode, done.stderr)
    assert "too little memory for Spark's JVM" in line
    assert files_under(lake) == before


# S3.


@pytest.mark.long
def test_deletes_refused(nights: Nights, tmp_path: Path) -> None:
    """Without the right to delete, the new rows are beside the old, which the line says; with it, the next run completes."""
    with s3_server() as server:
        source = server.upload(nights.new.folder, BUCKET, "raw")
        output = server.upload(nights.lake, BUCKET, "lake")
        server.before = lambda request: "AccessDenied" if request.verb == "DELETE" else None
        config = config_file(tmp_path, server.url)
        with job(config, source, output) as running:
            line = the_line(*running.wait())
        assert re.search("Access ?Denied|403", line)
        check_whole(server.download(BUCKET, "lake", tmp_path / "lake"), nights.old.rows, nights.new.rows)
        server.let_pass()
        run_id = full_run(config, source, output)
        check_exact(server.download(BUCKET, "lake", tmp_path / "lake"), run_id, nights.new.rows)
