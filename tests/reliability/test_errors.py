"""A run that is stopped or refused, and disks and memory that do not suffice: one line, and a lake that is whole."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from harness import (
    Nights,
    Place,
    check_whole,
    job,
    make_nights,
    on_disk,
    run_ends_exact,
    run_in_session,
)
from lakes import contents_of
from pyspark.sql import SparkSession

pytestmark = pytest.mark.usefixtures("interpreted")
INTERRUPTED = "etl.py: error: interrupted; each table is whole, and the next run removes what this one has left"


@pytest.fixture(scope="module")
def nights(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(spark, tmp_path_factory.getbasetemp())


@pytest.fixture
def place(nights: Nights, tmp_path: Path) -> Place:
    """Tonight's input and last night's lake."""
    nights.copy_to(tmp_path)
    return on_disk(nights.new.folder, tmp_path)


@pytest.fixture
def fails(fail: Callable[..., str], nights: Nights) -> Callable[..., str]:
    """Runs the job on tonight's input in this process until it fails; its one line."""

    def run_and_fail(lake: Path) -> str:
        line = fail("--input", nights.new.folder, "--output", lake, "--max-rejected", 0.5)
        assert re.fullmatch(r"etl\.py: error: [^\n]+\n", line)
        return line

    return run_and_fail


def test_a_second_run_is_refused_and_the_first_ends_at_a_signal(fails: Callable[..., str], place: Place) -> None:
    """A scheduler sends it to the process alone; Ctrl-C, which goes to the whole process group, stands in test_run.py."""
    lake = place.look()
    before = contents_of(lake)
    with job(place) as first:
        run_id = first.at_work(lake)
        first.signal_all(signal.SIGSTOP)  # it stays at work for as long as this takes
        locked = contents_of(lake)
        line = fails(lake)
        assert f"run {run_id}," in line and f"process {first.process.pid} on " in line
        assert contents_of(lake) == locked != before
        first.signal_all(signal.SIGCONT)
        first.process.send_signal(signal.SIGTERM)
        assert first.fails(expected_code=130) == INTERRUPTED
    left = {name: content for name, content in contents_of(lake).items() if name != "_probe" and run_id not in name}
    assert left == before


@pytest.mark.long
def test_stopped_while_it_publishes(nights: Nights, place: Place) -> None:
    """The tables that are published stay, the others keep their old rows, and the next run completes them."""
    lake = place.look()
    with job(place) as running:
        run_id = running.at_work(lake)
        running.until(lambda: list((lake / "users").glob(f"part-{run_id}*")))
        running.signal_all(signal.SIGINT)
        assert running.fails(expected_code=130) == INTERRUPTED
    check_whole(lake, nights.old.rows, nights.new.rows)
    run_ends_exact(place, nights.new.rows)


def test_a_lock_from_another_host_blocks_for_three_minutes(
    spark: SparkSession, fails: Callable[..., str], nights: Nights, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of an earlier version, which has no host's name; and where this host has an odd one."""
    monkeypatch.setattr(socket, "gethostname", lambda: "my,odd/host")
    run_id = "20200101T000000Z-0123abcd"
    locks = place.look() / f"_lock-{run_id}", place.look() / f"_lock-{run_id},elsewhere,1,2,local-1"
    for lock, process in zip(locks, ("process ? on ?", "process 1 on elsewhere"), strict=True):
        lock.touch()
        assert process in fails(place.look())
        os.utime(lock, (lock.stat().st_mtime - 170,) * 2)
        assert process in fails(place.look())
        os.utime(lock, (lock.stat().st_mtime - 11,) * 2)
    run_in_session(spark, nights, place.look())


# Disks and memory.


@pytest.fixture
def disk(nights: Nights, tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB with last night's lake."""
    if os.geteuid():
        pytest.skip("only root can mount a disk")
    (tmp_path / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "lake", tmp_path / "disk"], check=True)
    nights.copy_to(tmp_path / "disk")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


def test_a_full_disk(spark: SparkSession, fails: Callable[..., str], nights: Nights, disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 16384))
    before = contents_of(disk / "lake")
    line = fails(disk / "lake")
    assert "No space left on device" in line
    check_whole(disk / "lake", nights.old.rows, nights.new.rows)
    assert "unchanged" not in line or contents_of(disk / "lake") == before
    (disk / "ballast").unlink()
    run_in_session(spark, nights, disk / "lake")


def test_a_read_only_disk(fails: Callable[..., str], disk: Path) -> None:
    before = contents_of(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    line = fails(disk / "lake")
    assert "the lake is unchanged" in line and str(disk / "lake") in line
    assert contents_of(disk) == before


def test_too_little_memory(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))}
    command: list[str | Path] = [sys.executable, ROOT / "etl.py", "--output", tmp_path / "lake"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **limits)
    assert done.returncode == 1
    assert re.fullmatch("etl.py: error: too little memory for Spark's JVM: .*; the lake is unchanged\n", done.stderr)
    assert not (tmp_path / "lake").exists()
