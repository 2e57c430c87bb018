"""Faults between the job and S3: it gets through those that pass, and gives up soon at those that do not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from faults import KINDS, at_random, fault_proxy
from harness import (
    BUCKET,
    Nights,
    check_exact,
    check_whole,
    config_file,
    full_run,
    job,
    make_nights,
    s3_server,
)
from s3 import S3Server

SHARE = 0.05
SECONDS_TO_FAIL, SECONDS_TO_GIVE_UP = 120, 600  # at its start, and half-way
RAW, SEED = f"s3a://{BUCKET}/raw", 20181101


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server(nights: Nights) -> Iterator[S3Server]:
    with s3_server() as running:
        running.upload(nights.new.folder, BUCKET, "raw")
        yield running


@pytest.mark.parametrize(
    "kinds",
    [pytest.param(KINDS[:-1], id="mixed"), *(pytest.param((kind,), marks=pytest.mark.long, id=kind) for kind in KINDS)],
)
def test_faults_that_pass(kinds: tuple[str, ...], nights: Nights, server: S3Server, tmp_path: Path) -> None:
    """A kind at 5% of the requests, or those together that take no waiting: the run completes and the lake is right."""
    prefix = f"passing-{tmp_path.name}"
    server.upload(nights.lake, BUCKET, prefix)
    with fault_proxy(server.port, at_random(dict.fromkeys(kinds, SHARE / len(kinds)), SEED)) as proxy:
        config = config_file(tmp_path, proxy.endpoint)
        run_id = full_run(config, RAW, f"s3a://{BUCKET}/{prefix}")
    assert set(kinds) <= set(proxy.faults), proxy.faults
    check_exact(server.download(BUCKET, prefix, tmp_path / "lake"), run_id, nights.new.rows)
    assert not server.uploads(BUCKET, prefix)


def fails_in_time(
    choose: Callable[[str, str], str], nights: Nights, server: S3Server, tmp_path: Path
) -> tuple[str, float]:
    """Runs the job until it fails, which must leave the old lake whole; its one line, and the seconds after the first fault."""
    prefix = f"failing-{tmp_path.name}"
    server.upload(nights.lake, BUCKET, prefix)
    first_fault = 0.0

    def watched(method: str, path: str) -> str:
        nonlocal first_fault
        fault = choose(method, path)
        first_fault = first_fault or (time.monotonic() if fault else 0)
        return fault

    with fault_proxy(server.port, watched) as proxy:
        config = config_file(tmp_path, proxy.endpoint)
        with job(config, RAW, f"s3a://{BUCKET}/{prefix}") as running:
            line = running.fails()
            ended = time.monotonic()
    assert first_fault
    check_whole(server.download(BUCKET, prefix, tmp_path / "lake"), nights.old.rows)
    print(f"failed {ended - first_fault:.0f} s after the first fault: {line}")
    return line, ended - first_fault


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_faults_from_the_start(kind: str, nights: Nights, server: S3Server, tmp_path: Path) -> None:
    line, seconds = fails_in_time(lambda method, path: kind, nights, server, tmp_path)
    assert "the lake is unchanged" in line
    assert seconds < SECONDS_TO_FAIL


class HalfWay:
    """The fault at all requests, from the moment on that a file of the songs is sent."""

    def __init__(self, kind: str) -> None:
        self.kind, self.has_come = kind, False

    def __call__(self, method: str, path: str) -> str:
        self.has_come |= method == "PUT" and "/songs/" in path
        return self.kind if self.has_come else ""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gone", *KINDS])
def test_gone_half_way(kind: str, nights: Nights, server: S3Server, tmp_path: Path) -> None:
    """The next run, with the server back, ends in its own rows alone."""
    line, seconds = fails_in_time(HalfWay(kind), nights, server, tmp_path)
    assert "until the next run" in line
    assert seconds < SECONDS_TO_GIVE_UP
    prefix, config = f"failing-{tmp_path.name}", config_file(tmp_path, server.url)
    run_id = full_run(config, RAW, f"s3a://{BUCKET}/{prefix}")
    check_exact(server.download(BUCKET, prefix, tmp_path / "lake"), run_id, nights.new.rows)
    assert not server.uploads(BUCKET, prefix)


@pytest.mark.long
def test_ctrl_c_while_s3_is_silent(nights: Nights, server: S3Server, tmp_path: Path) -> None:
    prefix, half_way = f"silent-{tmp_path.name}", HalfWay("hang")
    server.upload(nights.lake, BUCKET, prefix)
    with ExitStack() as stack:
        proxy = stack.enter_context(fault_proxy(server.port, half_way))
        running = stack.enter_context(job(config_file(tmp_path, proxy.endpoint), RAW, f"s3a://{BUCKET}/{prefix}"))
        running.until(lambda: half_way.has_come)
        running.signal_all(signal.SIGINT)
        asked = time.monotonic()
        time.sleep(2)
        running.signal_all(signal.SIGINT)  # a second one does not wait for the clean-up
        assert "interrupted" in running.fails(expected_code=130)
        assert time.monotonic() - asked < 10
    check_whole(server.download(BUCKET, prefix, tmp_path / "lake"), nights.old.rows)
