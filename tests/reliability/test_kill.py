"""A run that is killed at any moment leaves each table whole, and the next run leaves nothing else."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from harness import (
    BUCKET,
    Nights,
    Rows,
    check_exact,
    check_whole,
    config_file,
    copy_of,
    full_run,
    job,
    killed_at,
    make_nights,
    plant_strangers,
    s3_server,
)
from s3 import Request, S3Server

# One after another on one lake, so that runs also follow killed runs
QUICK = ["half deleted songs", "appended songplays", "verified songs"]
LONG = [
    *("appending songs", "appended songs", "appended users", "appending songplays", "appended time"),
    *("verified time", "half deleted songs", "verified songplays", "half deleted songplays"),
]
LOCAL = [pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
ON_S3 = [pytest.param(QUICK[:2], id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
FIRST = [pytest.param(["appended songs"], id="quick"), pytest.param(["appended songs", "appending songplays", "verified songplays"], id="long", marks=pytest.mark.long)]  # fmt: skip


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.mark.parametrize("moments", LOCAL)
def test_killed_on_local_files(moments: list[str], nights: Nights, tmp_path: Path) -> None:
    lake, config = copy_of(nights.lake, tmp_path), config_file(tmp_path)
    for moment in moments:
        killed_at(moment, config, nights.new.folder, lake)
        check_whole(lake, nights.old.rows, nights.new.rows)
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


@pytest.mark.parametrize("moments", FIRST)
def test_killed_in_a_first_run(moments: list[str], nights: Nights, tmp_path: Path) -> None:
    lake, config = tmp_path / "lake", config_file(tmp_path)
    nothing: Rows = {name: type(rows)() for name, rows in nights.old.rows.items()}
    for moment in moments:
        killed_at(moment, config, nights.old.folder, lake)
        check_whole(lake, nothing, nights.old.rows)
    plant_strangers(lake)
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


@pytest.mark.long
@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_killed_at_any_time(share: float, nights: Nights, tmp_path: Path) -> None:
    lake, config = copy_of(nights.lake, tmp_path), config_file(tmp_path)
    with job(config, nights.new.folder, lake) as running, contextlib.suppress(subprocess.TimeoutExpired):
        running.process.wait(share * nights.seconds)
    check_whole(lake, nights.old.rows, nights.new.rows)
    check_exact(lake, full_run(config, nights.new.folder, lake), nights.new.rows)


@pytest.fixture(scope="module")
def small_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a bulk delete has 5 keys at most."""
    folder = tmp_path_factory.mktemp("conf")
    settings = (ROOT / "tests" / "spark-conf" / "spark-defaults.conf").read_text()
    folder.joinpath("spark-defaults.conf").write_text(f"{settings}\nspark.hadoop.fs.s3a.bulk.delete.page.size 5\n")
    return {"SPARK_CONF_DIR": str(folder)}


@pytest.mark.parametrize("moments", ON_S3)
def test_killed_on_s3(
    moments: list[str], nights: Nights, server: S3Server, small_pages: dict[str, str], tmp_path: Path
) -> None:
    prefix, config = f"killed-{tmp_path.name}", config_file(tmp_path, server.url)
    source, output = server.upload(nights.new.folder, BUCKET, "raw"), server.upload(nights.lake, BUCKET, prefix)
    for moment in moments:
        killed_at(moment, config, source, output, **small_pages)
        check_whole(server.download(BUCKET, prefix, tmp_path / "lake"), nights.old.rows, nights.new.rows)
    run_id = full_run(config, source, output, **small_pages)
    check_exact(server.download(BUCKET, prefix, tmp_path / "lake"), run_id, nights.new.rows)
    assert not server.uploads(BUCKET, prefix)


@pytest.mark.long
@pytest.mark.parametrize(("table", "nth"), [("songs", 3), ("songplays", 1)])
def test_killed_in_the_middle_of_a_commit_on_s3(
    table: str, nth: int, nights: Nights, server: S3Server, tmp_path: Path
) -> None:
    """When the nth upload of a table is completed, and others are not."""
    prefix, config = f"commit-{tmp_path.name}", config_file(tmp_path, server.url)
    source, output = server.upload(nights.new.folder, BUCKET, "raw"), server.upload(nights.lake, BUCKET, prefix)
    seen: list[Any] = []

    with job(config, source, output) as running:

        def kill(request: Request) -> None:
            is_commit = request.method == "POST" and "uploadId" in request.query
            if is_commit and request.key.startswith(f"{prefix}/{table}/"):
                seen.append(request)
                if len(seen) == nth:
                    running.signal_all(signal.SIGKILL)

        server.after = kill
        running.wait()
        server.let_pass()
    assert len(seen) >= nth
    check_whole(server.download(BUCKET, prefix, tmp_path / "lake"), nights.old.rows, nights.new.rows)
    run_id = full_run(config, source, output)
    check_exact(server.download(BUCKET, prefix, tmp_path / "lake"), run_id, nights.new.rows)
    assert not server.uploads(BUCKET, prefix)
