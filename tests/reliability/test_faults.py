"""Faults between the job and S3: it gets through those that pass, and gives up soon at those that do not."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import KINDS, at_random, fault_proxy
from harness import (
    Nights,
    Place,
    check_whole,
    job,
    killed_at,
    make_nights,
    on_s3,
    run_ends_exact,
    s3_server,
)
from pyspark.sql import SparkSession
from s3 import S3Server

SHARE, SEED = 0.05, 20181101
SECONDS_TO_FAIL, SECONDS_TO_GIVE_UP = 120, 600  # at its start, and half-way


@pytest.fixture(scope="module")
def nights(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(spark, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def place(nights: Nights, server: S3Server, tmp_path: Path) -> Place:
    """Tonight's input and last night's lake."""
    return on_s3(server, nights.new.folder, nights.lake, tmp_path)


@pytest.mark.parametrize("kinds", [KINDS[:-1], pytest.param(KINDS[-1:], marks=pytest.mark.long)])
def test_killed_on_s3_and_then_faults_that_pass(
    kinds: tuple[str, ...], nights: Nights, server: S3Server, place: Place
) -> None:
    """With faults of these kinds at 5% of the requests; the run before was killed between two of its deletions."""
    killed_at("half deleted songs", place)
    check_whole(place.look(), nights.old.rows, nights.new.rows)
    with fault_proxy(server.port, at_random(dict.fromkeys(kinds, SHARE / len(kinds)), SEED)) as proxy:
        run_ends_exact(place, nights.new.rows, AWS_ENDPOINT_URL=proxy.endpoint)
    assert set(kinds) <= set(proxy.faults), proxy.faults


class Lasting:
    """The fault at all requests, from the moment on that a request is of this method and key."""

    def __init__(self, kind: str, method: str = "", key: str = "") -> None:
        self.kind, self.method, self.key, self.began = kind, method, key, 0.0

    def __call__(self, method: str, path: str) -> str:
        if self.method in method and self.key in path:
            self.began = self.began or time.monotonic()
        return self.kind if self.began else ""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gone", *KINDS])
@pytest.mark.parametrize("moment", ["from the start", "half-way"])
def test_faults_that_last(moment: str, kind: str, nights: Nights, server: S3Server, place: Place) -> None:
    """The old lake stays whole; the next run, with the server back, ends in its own rows alone."""
    is_late = moment == "half-way"
    fault = Lasting(kind, "PUT", "/songs/") if is_late else Lasting(kind)
    with fault_proxy(server.port, fault) as proxy, job(place, AWS_ENDPOINT_URL=proxy.endpoint) as running:
        line = running.fails()
        seconds = time.monotonic() - fault.began
    assert seconds < (SECONDS_TO_GIVE_UP if is_late else SECONDS_TO_FAIL)
    assert ("until the next run" if is_late else "the lake is unchanged") in line
    assert kind != "gone" or f":{proxy.server_port}" in line
    check_whole(place.look(), nights.old.rows)
    if is_late:
        run_ends_exact(place, nights.new.rows)


@pytest.mark.long
def test_ctrl_c_while_s3_is_silent(nights: Nights, server: S3Server, place: Place) -> None:
    fault = Lasting("hang", "PUT", "/songs/")
    with fault_proxy(server.port, fault) as proxy, job(place, AWS_ENDPOINT_URL=proxy.endpoint) as running:
        running.until(lambda: fault.began)
        running.signal_all(signal.SIGINT)
        asked = time.monotonic()
        time.sleep(2)
        running.signal_all(signal.SIGINT)  # a second one does not wait for the clean-up
        assert "interrupted" in running.fails(expected_code=130)
        assert time.monotonic() - asked < 10
    check_whole(place.look(), nights.old.rows)
    run_ends_exact(place, nights.new.rows)
