"""A run that is killed at any moment leaves each table whole, and the next run leaves nothing else."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from harness import (
    BUCKET,
    Job,
    Nights,
    check_exact,
    check_whole,
    config_file,
    files_below,
    full_run,
    job,
    make_nights,
    names_in,
    s3_server,
    table_files,
    visible,
)
from s3 import Request, S3Server

DIMENSIONS = ("songs", "artists", "users", "time")


@dataclass(frozen=True)
class Moment:
    """When to kill: at a step of a table's publication, or at a share of the run's time."""

    step: str
    table: str = ""
    share: float = 0

    def __str__(self) -> str:
        return f"{self.step}-{self.table or self.share}"


def groups(moments: Sequence[object], size: int, *marks: pytest.MarkDecorator) -> list[Any]:
    """Moments that are tried one after another on one lake, so that runs also follow killed runs."""
    cut = [tuple(moments[start :: len(moments) // size]) for start in range(len(moments) // size)]
    return [pytest.param(group, id=" ".join(map(str, group)), marks=marks) for group in cut]


QUICK_MOMENTS = [
    Moment("deleting", "songs"),
    Moment("committed", "songplays"),
]
LONG_MOMENTS = [
    *(Moment(step, table) for table in (*DIMENSIONS, "songplays") for step in ("written", "committed", "noted")),
    *(Moment("started", share=share / 4) for share in range(4)),
    *(Moment("working", share=share / 10) for share in range(10)),
    Moment("deleting", "songs"),
]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return make_nights(tmp_path_factory.getbasetemp())


def wait_for(moment: Moment, running: Job, lake: Path, nights: Nights) -> bool:
    """Waits until the moment is there, by what can be seen from outside; False where it did not come."""
    known, folder = names_in(lake / "_runs"), lake / moment.table
    before = table_files(folder)
    if moment.step == "started":
        return running.until(lambda: time.monotonic() - running.started_at >= moment.share * nights.start_seconds)
    if not running.until(lambda: names_in(lake / "_runs") > known):
        return False
    (run,) = names_in(lake / "_runs") - known
    if moment.step == "working":
        claimed = time.monotonic()
        return running.until(lambda: time.monotonic() - claimed >= moment.share * nights.work_seconds)
    notes = lake / "_runs" / run
    if not running.until((notes / f"{moment.table}.before").exists):
        return False
    old = [path for path in visible(folder, "*.parquet") if path.name in before]
    if moment.step == "written":  # but not committed
        return running.until(lambda: any(path.match("part-*") for path in files_below(folder / "_temporary")))
    if moment.step == "committed":  # at least one file, and not yet noted
        return running.until(lambda: bool(table_files(folder) - before))
    if not running.until((notes / moment.table).exists):
        return False
    # paths are listed beforehand, for the deletes are quicker than a listing
    return moment.step == "noted" or running.until(lambda: not all(path.exists() for path in old))


@pytest.mark.parametrize("moments", [*groups(QUICK_MOMENTS, 2), *groups(LONG_MOMENTS, 3, pytest.mark.long)])
def test_killed_on_local_files(moments: tuple[Moment, ...], nights: Nights, tmp_path: Path) -> None:
    old, new = nights.old, nights.new
    lake, config = tmp_path / "lake", config_file(tmp_path)
    shutil.copytree(nights.lake, lake)
    for moment in moments:
        for _ in range(3):  # on a loaded machine the deletes can end before the kill comes
            before = table_files(lake / moment.table)
            with job(config, new.folder, lake) as running:
                assert wait_for(moment, running, lake, nights) or moment.step == "working", f"{moment} did not come"
                running.kill()
            check_whole(lake, old.rows, new.rows)
            if moment.step != "deleting" or table_files(lake / moment.table) & before:
                break
        else:
            pytest.fail("no kill came before the end of the deletes")
    check_exact(lake, full_run(config, new.folder, lake), new.rows)


# On S3 the moments are requests, which the server sees.


@dataclass(frozen=True)
class RequestMoment:
    """The run is killed at the nth request of a kind for a table, `before` the server obeys it or `after`."""

    kind: str
    table: str
    when: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.when}-{self.kind}-{self.table}-{self.nth}"

    def is_it(self, prefix: str, request: Request) -> bool:
        if self.kind == "note":
            return (
                request.method == "PUT" and re.fullmatch(f"{prefix}/_runs/[^/]+/{self.table}", request.key) is not None
            )
        if self.kind == "delete":
            return request.verb == "DELETE" and f"<Key>{prefix}/{self.table}/".encode() in request.body
        is_of_table = request.key.startswith(f"{prefix}/{self.table}/") and "uploadId" in request.query
        return is_of_table and request.method == {"upload": "PUT", "commit": "POST"}[self.kind]


S3_QUICK_MOMENTS = [RequestMoment("delete", "songs", "after", 2)]
S3_LONG_MOMENTS = [
    RequestMoment("commit", "songs", "after", 3),
    *(RequestMoment("commit", table, "before") for table in (*DIMENSIONS, "songplays")),
    *(RequestMoment("note", table, "after") for table in (*DIMENSIONS, "songplays")),
    RequestMoment("upload", "songs", "after", 5),
    RequestMoment("upload", "songplays", "before"),
    RequestMoment("commit", "songs", "after", 10),
    RequestMoment("note", "songplays", "before"),
    RequestMoment("delete", "songs", "before", 2),
]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def small_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a bulk delete has 10 keys at most, so that a table's deletes have a middle."""
    folder = tmp_path_factory.mktemp("conf")
    settings = (ROOT / "tests" / "spark-conf" / "spark-defaults.conf").read_text()
    folder.joinpath("spark-defaults.conf").write_text(f"{settings}\nspark.hadoop.fs.s3a.bulk.delete.page.size 10\n")
    return {"SPARK_CONF_DIR": str(folder)}


@pytest.fixture
def no_hooks(server: S3Server) -> Iterator[None]:
    yield
    server.let_pass()


@pytest.mark.usefixtures("no_hooks")
@pytest.mark.parametrize("moments", [*groups(S3_QUICK_MOMENTS, 1), *groups(S3_LONG_MOMENTS, 3, pytest.mark.long)])
def test_killed_on_s3(
    moments: tuple[RequestMoment, ...], nights: Nights, server: S3Server, small_pages: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    old, new = nights.old, nights.new
    prefix = f"killed-{tmp_path.name}"
    lake, config = tmp_path / "lake", config_file(tmp_path, server.url)
    source, output = server.upload(new.folder, BUCKET, "raw"), server.upload(nights.lake, BUCKET, prefix)
    for moment in moments:
        with job(config, source, output, **small_pages) as running:
            hook, is_killed = killer(running, moment, prefix)
            setattr(server, moment.when, hook)
            running.wait()
            server.let_pass()
            assert is_killed(), f"{moment} did not come"
        check_whole(server.download(BUCKET, prefix, lake), old.rows, new.rows)
    run_id = full_run(config, source, output, **small_pages)
    check_exact(server.download(BUCKET, prefix, lake), run_id, new.rows)
    assert not server.uploads(BUCKET, prefix)


def killer(running: Job, moment: RequestMoment, prefix: str) -> tuple[Callable[[Request], None], Callable[[], bool]]:
    """A hook that kills the job at the moment, and a way to ask whether it did."""
    seen = 0

    def hook(request: Request) -> None:
        nonlocal seen
        if moment.is_it(prefix, request):
            seen += 1
            if seen == moment.nth:
                running.signal_all(signal.SIGKILL)
                if moment.when == "before":
                    raise ConnectionAbortedError  # the request dies with its sender

    return hook, lambda: seen >= moment.nth
