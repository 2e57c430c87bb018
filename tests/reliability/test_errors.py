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
from faults import fault_proxy
from harness import (
    Input,
    Job,
    S3Server,
    check_exact,
    check_whole,
    config_file,
    full_run,
    job,
    make_inputs,
    names_in,
    plant_strangers,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Input, Input]:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def old_lake(inputs: tuple[Input, Input], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    full_run(config_file(folder), inputs[0].folder, folder / "lake")
    plant_strangers(folder / "lake")
    return folder / "lake"


@pytest.fixture
def lake(old_lake: Path, tmp_path: Path) -> Path:
    """A copy of last night's lake."""
    return Path(shutil.copytree(old_lake, tmp_path / "lake"))


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
    assert running.until((lake / "_runs" / run / "started").exists)
    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to_all", [True, False], ids=["group", "process"])
def test_stopped_by_a_signal(
    number: signal.Signals, code: int, to_all: bool, inputs: tuple[Input, Input], lake: Path, tmp_path: Path
) -> None:
    """Ctrl-C goes to the whole process group; a scheduler may tell the process alone or all of them."""
    before = files_under(lake)
    with job(config_file(tmp_path), inputs[1].folder, lake) as running:
        wait_for_work(running, lake)
        if to_all:
            running.signal_all(number)
        else:
            running.process.send_signal(number)
        line = the_line(*running.wait(), expected_code=code)
    assert line == "etl.py: error: interrupted; the lake is unchanged"
    assert files_under(lake) == before


def test_stopped_while_it_publishes(inputs: tuple[Input, Input], lake: Path, tmp_path: Path) -> None:
    """The tables that are published stay, the others keep their old rows, and the next run completes them."""
    config = config_file(tmp_path)
    with job(config, inputs[1].folder, lake) as running:
        run = wait_for_work(running, lake)
        assert running.until((lake / "_runs" / run / "users").exists)
        running.signal_all(signal.SIGINT)
        line = the_line(*running.wait(), expected_code=130)
    assert re.search(r"users.* hold this run's rows, .*run it again", line)
    check_whole(lake, inputs[0].rows, inputs[1].rows)
    check_exact(lake, full_run(config, inputs[1].folder, lake), inputs[1].rows)


def test_two_runs_at_once(inputs: tuple[Input, Input], lake: Path, tmp_path: Path) -> None:
    """The second names the first and stops; the first ends as if nothing had been."""
    config = config_file(tmp_path)
    with job(config, inputs[1].folder, lake) as first:
        run = wait_for_work(first, lake)
        first.signal_all(signal.SIGSTOP)  # it stays at work for as long as this takes
        with job(config, inputs[1].folder, lake) as second:
            line = the_line(*second.wait())
        assert f"run {run}" in line and f"process {first.process.pid} on " in line
        first.signal_all(signal.SIGCONT)
        assert first.wait()[0] == 0
    check_exact(lake, run, inputs[1].rows)


def test_a_dead_runs_mark_from_another_host(inputs: tuple[Input, Input], lake: Path, tmp_path: Path) -> None:
    """A mark of another machine blocks while its heart beats, and no longer once it has been silent."""
    config, mark = config_file(tmp_path), lake / "_runs" / "20200101T000000Z-0123abcd"
    mark.mkdir()
    (mark / "started").write_text(json.dumps({"host": "elsewhere", "pids": [1], "application": "local-1"}))
    with job(config, inputs[1].folder, lake) as running:
        assert "process 1 on elsewhere" in the_line(*running.wait())
    long_ago = mark.stat().st_mtime - 3600
    os.utime(mark / "started", (long_ago, long_ago))
    check_exact(lake, full_run(config, inputs[1].folder, lake), inputs[1].rows)


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


def test_full_disk(inputs: tuple[Input, Input], old_lake: Path, small_disk: Path, tmp_path: Path) -> None:
    lake, config = small_disk / "lake", config_file(tmp_path)
    shutil.copytree(old_lake, lake)
    free = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "ballast").write_bytes(bytes(free - 16384))
    before = files_under(lake)
    with job(config, inputs[1].folder, lake) as running:
        line = the_line(*running.wait())
    assert "No space left on device" in line
    check_whole(lake, inputs[0].rows, inputs[1].rows)
    if "unchanged" in line:
        assert files_under(lake) == before
    (small_disk / "ballast").unlink()
    check_exact(lake, full_run(config, inputs[1].folder, lake), inputs[1].rows)


def test_read_only_disk(inputs: tuple[Input, Input], old_lake: Path, small_disk: Path, tmp_path: Path) -> None:
    lake = small_disk / "lake"
    shutil.copytree(old_lake, lake)
    before = files_under(lake)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with job(config_file(tmp_path), inputs[1].folder, lake) as running:
        line = the_line(*running.wait())
    assert "the lake is unchanged" in line and ("Read-only" in line or str(lake) in line), line
    assert files_under(lake) == before


def test_file_in_the_way_of_a_table(inputs: tuple[Input, Input], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "songs").write_text("mine")
    with job(config_file(tmp_path), inputs[1].folder, lake) as running:
        line = the_line(*running.wait())
    assert str(lake / "songs") in line
    assert (lake / "songs").read_text() == "mine"


# Memory.


def test_too_little_memory(inputs: tuple[Input, Input], lake: Path, tmp_path: Path) -> None:
    before = files_under(lake)
    command = [sys.executable, ROOT / "etl.py", "--config", config_file(tmp_path), "--input", inputs[1].folder, "--output", lake]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )  # fmt: skip
    line = the_line(done.returncode, done.stderr)
    assert "too little memory for Spark's JVM" in line
    assert files_under(lake) == before


# S3.


def test_deletes_refused(inputs: tuple[Input, Input], old_lake: Path, tmp_path: Path) -> None:
    """Without the right to delete, the new rows are beside the old, which the line says; with it, the next run completes."""
    server = S3Server()
    source = server.upload(inputs[1].folder, "raw")
    output = server.upload(old_lake, "lake")

    def refuse_deletes(method: str, path: str) -> str:
        return "refuse" if method == "DELETE" or (method == "POST" and path.partition("?")[2].startswith("delete")) else ""

    with fault_proxy(server.port, refuse_deletes) as proxy:
        config = config_file(tmp_path, **server.aws, endpoint_url=proxy.endpoint)
        with job(config, source, output) as running:
            line = the_line(*running.wait())
    assert re.search("Access ?Denied|403", line)
    check_whole(server.download("lake", tmp_path / "lake"), inputs[0].rows, inputs[1].rows)
    config = config_file(tmp_path, **server.aws, endpoint_url=server.endpoint)
    run_id = full_run(config, source, output)
    check_exact(server.download("lake", tmp_path / "lake"), run_id, inputs[1].rows)
    server.stop()
