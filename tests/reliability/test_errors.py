"""Errors of the real world: each ends in one line, its exit code, and a lake that is whole."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from harness import (
    BUCKET,
    Nights,
    check_exact,
    check_whole,
    config_file,
    contents_of,
    copy_of,
    full_run,
    job,
    make_nights,
    s3_server,
)

INTERRUPTED = "interrupted; each table is whole, and the next run removes what this one has left"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(tmp_path_factory.getbasetemp())


@pytest.fixture
def lake(nights: Nights, tmp_path: Path) -> Path:
    return copy_of(nights.lake, tmp_path)


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_stopped_by_a_signal(number: signal.Signals, to_all: bool, nights: Nights, lake: Path, tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group, a scheduler tells the process alone."""
    before = contents_of(lake)
    with job(config_file(tmp_path), nights.new.folder, lake) as running:
        run = running.at_work(lake)
        if to_all:
            running.signal_all(number)
        else:
            running.process.send_signal(number)
        line = running.fails(expected_code=130)
    assert line == f"etl.py: error: {INTERRUPTED}"
    assert {name: content for name, content in contents_of(lake).items() if run not in name} == before


@pytest.mark.long
def test_stopped_while_it_publishes(nights: Nights, lake: Path, tmp_path: Path) -> None:
    """The tables that are published stay, the others keep their old rows, and the next run completes them."""
    config = config_file(tmp_path)
    with job(config, nights.new.folder, lake) as running:
        run = running.at_work(lake)
        running.until(lambda: list((lake / "users").glob(f"part-{run}*")))
        running.signal_all(signal.SIGINT)
        line = running.fails(expected_code=130)
    assert line == f"etl.py: error: {INTERRUPTED}"
    check_whole(lake, nights.old.rows, nights.new.rows)
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


def test_two_runs_at_once(nights: Nights, lake: Path, tmp_path: Path) -> None:
    """The second names the first and stops; the first ends as if nothing had been."""
    config = config_file(tmp_path)
    with job(config, nights.new.folder, lake) as first:
        run = first.at_work(lake)
        first.signal_all(signal.SIGSTOP)  # it stays at work for as long as this takes
        with job(config, nights.new.folder, lake) as second:
            line = second.fails()
        assert f"run {run}" in line and f"process {first.process.pid} on " in line
        first.signal_all(signal.SIGCONT)
        assert first.done() == run
    check_exact(lake, run, nights.new.rows)


@pytest.mark.long
def test_a_dead_runs_lock_from_another_host(nights: Nights, lake: Path, tmp_path: Path) -> None:
    """It blocks while its heart beats, and no longer once it has been silent for three minutes."""
    config, lock = config_file(tmp_path), lake / "_lock-20200101T000000Z-0123abcd,elsewhere,1,2,local-1"
    lock.touch()
    with job(config, nights.new.folder, lake) as running:
        assert "process 1 on elsewhere" in running.fails()
    long_ago = lock.stat().st_mtime - 181
    os.utime(lock, (long_ago, long_ago))
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


# Disks and memory.


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
    lake, config = copy_of(nights.lake, small_disk), config_file(tmp_path)
    free = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "ballast").write_bytes(bytes(free - 65536))
    before = contents_of(lake)
    with job(config, nights.new.folder, lake) as running:
        line = running.fails()
    assert "No space left on device" in line
    check_whole(lake, nights.old.rows, nights.new.rows)
    assert "unchanged" not in line or contents_of(lake) == before
    (small_disk / "ballast").unlink()
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


def test_read_only_disk(nights: Nights, small_disk: Path, tmp_path: Path) -> None:
    lake = copy_of(nights.lake, small_disk)
    before = contents_of(lake)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with job(config_file(tmp_path), nights.new.folder, lake) as running:
        line = running.fails()
    assert "the lake is unchanged" in line and str(lake) in line
    assert contents_of(lake) == before


def test_too_little_memory(nights: Nights, lake: Path, tmp_path: Path) -> None:
    before = contents_of(lake)
    options = ("--config", config_file(tmp_path), "--input", nights.new.folder, "--output", lake)
    done = subprocess.run(
        [sys.executable, ROOT / "etl.py", *options], capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch("etl.py: error: too little memory for Spark's JVM: .*; the lake is unchanged\n", done.stderr)
    assert contents_of(lake) == before


@pytest.mark.long
def test_deletes_refused(nights: Nights, tmp_path: Path) -> None:
    """Without the right to delete, nothing is written."""
    with s3_server() as server:
        source = server.upload(nights.new.folder, BUCKET, "raw")
        output = server.upload(nights.lake, BUCKET, "lake")
        server.before = lambda request: "AccessDenied" if request.verb == "DELETE" else None
        config = config_file(tmp_path, server.url)
        with job(config, source, output) as running:
            line = running.fails()
        assert re.search("Access ?Denied|403", line) and "the lake is unchanged" in line
        server.let_pass()
        check_whole(server.download(BUCKET, "lake", tmp_path / "lake"), nights.old.rows)
