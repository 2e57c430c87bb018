"""Measures etl.py beside its rivals, and against its targets.

    python bench/bench.py                          every part, at the scale that fits 15 minutes on 2 cores
    python bench/bench.py --only local --scale 1   one part, at the scale of the targets
    python bench/bench.py --only events --scale 1 --turns 2 --programs job,plain   some of its programs, twice

Writes bench/results.json and bench/results.svg. What was not run keeps its earlier figures, but for a part that was
run at another scale before. README.md in this folder says what each part and figure means.
"""

import argparse
import http.client
import json
import logging
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import matplotlib
import psutil
from moto.server import ThreadedMotoServer

HERE = Path(__file__).resolve().parent
JOB, UNCHECKED = HERE.parent / "etl.py", HERE / "unchecked.py"
CACHE = HERE / ".cache"  # data, tools and scratch; safe to delete
RESULTS = HERE / "results.json"
BEFORE = "b49cc57"  # the commit that the job has to be twice as fast as
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KEY, SECRET = "bench", "bench-secret"  # of the local server, which lives as long as its part
IN_BUCKET, LAKE_BUCKET = "source", "lake"
ROUNDS = 3  # --turns
WANTED: set[str] = set()  # --programs; empty: all but those that a part runs only when asked
FULL_SONGS, FULL_LOGS, FULL_EVENTS = 14_896, 30, 8_000  # the public data
FEW_SONGS = 1_000  # where events are what is measured
BARE_SESSION = "from pyspark.sql import SparkSession; print(SparkSession.builder.getOrCreate().range(10).count())"
BY_ARTIST = "[PARTITIONS]\nSONGS = year, artist_id\nTIME = year, month\nSONGPLAYS = year, month\n"
LAKE_COLUMNS = {
    "songs": "song_id, title, artist_id, year::INT, duration",
    "artists": "artist_id, name, location, latitude, longitude",
    "users": "user_id, first_name, last_name, gender, level",
    "time": "start_time::TIMESTAMP, hour, day, week, month::INT, year::INT, weekday",
    "songplays": "songplay_id, start_time::TIMESTAMP, user_id, level, song_id, artist_id, session_id, location,"
    " user_agent, year::INT, month::INT",
}


class Skipped(Exception):
    """A part that this machine cannot run; the text says why."""


@dataclass
class Run:
    """One run of one program."""

    seconds: float  # the whole process
    net: float  # as the program says, without its session's start
    peak_mb: int  # the most memory of the process and all its children together, a page that two share counted once
    cpu: float  # processor seconds of the same
    steps: dict[str, float] = field(default_factory=dict)
    files: int = 0  # the lake's data files, as the job reports them
    requests: dict[str, dict[str, int]] = field(default_factory=dict)  # by bucket and kind, counted at the server
    server_cpu: dict[str, float] = field(default_factory=dict)


@dataclass
class Figure:
    """A measured value beside its target: the median and the spread of the runs."""

    what: str
    values: list[float]
    target: float
    at_most: bool  # whether the target is a ceiling or a floor

    def summary(self) -> dict[str, Any]:
        median = statistics.median(self.values)
        return {
            "what": self.what,
            "median": round(median, 3),
            "low": round(min(self.values), 3),
            "high": round(max(self.values), 3),
            "runs": len(self.values),
            "target": self.target,
            "met": max(self.values) <= self.target if self.at_most else min(self.values) >= self.target,
            "at_most": self.at_most,
        }


Runs = dict[str, list[Run]]
Part = Callable[[float], tuple[Runs, list[Figure]]]


# Running programs


def execute(command: list[str], env: Mapping[str, str] | None = None) -> tuple[Run, str]:
    """Runs a program to its end and watches its process tree; returns what it took and its standard output."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(env or {})})
        root, peak, cpu = psutil.Process(child.pid), 0, dict[int, float]()
        tree = [root]
        try:
            while child.poll() is None:
                resident = 0
                with suppress(psutil.NoSuchProcess):  # one that ended since it was listed
                    tree = [root, *root.children(recursive=True)]
                    for process in tree:
                        resident += process.memory_info().rss
                        times = process.cpu_times()
                        cpu[process.pid] = times.user + times.system
                    if resident > peak:  # only then, for it takes the kernel some ms for each GB
                        # a child that Java forks has its parent's memory itself for a moment, and so its size
                        memory = {process.memory_info().vms: process.memory_full_info().pss for process in tree}
                        peak = max(peak, sum(memory.values()))
                time.sleep(0.2)
        finally:  # also where the benchmark itself is stopped
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        seconds = time.monotonic() - started
        for stream in (out, err):
            stream.seek(0)
        if child.returncode:
            sys.exit(f"bench.py: {' '.join(command)} ended with {child.returncode}:\n{err.read()[-2000:]}")
        return Run(seconds, seconds, peak >> 20, round(sum(cpu.values()), 1)), out.read()


def run_job(source: str, target: str, *options: str, env: Mapping[str, str] | None = None, program: Path = JOB) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            sys.executable,
            str(program),
            "--input",
            source,
            "--output",
            target,
            "--report",
            str(report),
            *options,
        ]
        run, _ = execute(command, env)
        told = json.loads(report.read_text())
    run.net, run.steps = told["seconds"], told["steps"]
    run.files = sum(table["files"] for table in told["tables"].values())
    return run


def run_before(source: str, target: str, env: Mapping[str, str] | None = None) -> Run:
    """The job as it was at an earlier commit, out of git, with its own configuration."""
    folder = CACHE / BEFORE
    if not (folder / "etl.py").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = ["git", "-C", str(HERE.parent), "archive", BEFORE, "dl.cfg", "etl.py"]
        files = subprocess.run(archive, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(folder)], input=files, check=True)
    return run_job(source, target, "--config", str(folder / "dl.cfg"), env=env, program=folder / "etl.py")


def run_iceberg(source: str, target: str) -> Run:
    return run_job(source, target, "--catalog", "lake.sparkify")


def run_rival(name: str, source: str, target: str, env: Mapping[str, str] | None = None) -> Run:
    run, printed = execute([sys.executable, str(HERE / name), source, target], env)
    run.net = json.loads(printed.splitlines()[-1])["seconds"]
    return run


def side_by_side(
    programs: Mapping[str, Callable[[], Run]], once: Collection[str] = (), if_asked: Collection[str] = ()
) -> Runs:
    """Runs A B C, A B C, A B C, so that a slow minute of the machine meets all of them; the longest only once."""
    if unknown := WANTED - programs.keys():
        sys.exit(f"bench.py: no program {', '.join(unknown)} here, but {', '.join(programs)}")
    runs: Runs = {name: [] for name in programs}
    for turn in range(ROUNDS):
        for name, program in programs.items():
            if (turn and name in once) or (name not in WANTED if WANTED else name in if_asked):
                continue
            run = program()
            runs[name].append(run)
            told = f"{run.seconds:8.1f} s, {run.net:8.1f} s net, {run.cpu:8.1f} s of CPU, {run.peak_mb:6,} MB"
            print(f"  {name:<16}{told}, {run.files:4} files, {requests(run):6,} requests", flush=True)
    return runs


def ratios(above: list[Run], below: list[Run], value: Callable[[Run], float]) -> list[float]:
    """One ratio for each turn, none where one did not run; one that ran once stands against each run of the other."""
    if not (above and below):
        return []
    turns = max(len(above), len(below))
    above, below = (runs * turns if len(runs) == 1 else runs for runs in (above, below))
    return [value(a) / value(b) for a, b in zip(above, below, strict=True)]


def whole(run: Run) -> float:
    return run.seconds


def net(run: Run) -> float:
    return run.net


# Data and lakes


def make_data(songs: float, events: float, months: int = 1) -> str:
    songs, events = round(songs), round(events)
    version = zlib.crc32((HERE / "generate.py").read_bytes())
    folder = CACHE / "data" / f"{songs}-{events}-{months}-{version:08x}"
    if not folder.exists():
        print(f"  generating {songs:,} songs and {events:,} events")
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        sizes = ["--songs", str(songs), "--events", str(events), "--months", str(months)]
        execute([sys.executable, str(HERE / "generate.py"), *sizes, "--seed", "1", "--out", str(unfinished)])
        unfinished.rename(folder)
    return str(folder)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the same disk as the data, and gone afterwards."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        yield Path(folder)


def into_fresh_lake(program: Callable[[str], Run]) -> Callable[[], Run]:
    def run() -> Run:
        with scratch() as folder:
            return program(str(folder / "lake"))

    return run


def into_named_lake(lake: Path, program: Callable[[str], Run]) -> Callable[[], Run]:
    """The same, but the last run's lake stays to be looked at."""

    def run() -> Run:
        shutil.rmtree(lake, ignore_errors=True)
        return program(str(lake))

    return run


def fingerprint(lake: Path) -> dict[str, list[Any]]:
    """Rows of each table and a hash of them that does not depend on their order."""
    duckdb.execute("SET TimeZone = 'UTC'")
    return {
        table: duckdb.execute(
            f"SELECT count(*), bit_xor(hash({columns})), sum(hash({columns})) FROM read_parquet($files)",
            {"files": str(lake / table / "**/*.parquet")},
        ).fetchall()
        for table, columns in LAKE_COLUMNS.items()
    }


def require_equal_lakes(lakes: Path) -> None:
    """A rival that makes other tables is no rival: compares the lakes of the job, DuckDB and Polars row by row."""
    if not (lakes / "job").exists():
        return
    expected = fingerprint(lakes / "job")
    for name in ("duckdb", "polars"):
        if not (lakes / name).exists():
            continue
        for table, rows in fingerprint(lakes / name).items():
            if rows != expected[table]:
                sys.exit(f"bench.py: {table} of {name} is not the job's: {rows} instead of {expected[table]}")


# The S3 server


def build_tools() -> tuple[Path, Path]:
    """The S3 server and the counting proxy, built once into the cache."""
    folder = CACHE / "bin" / VERSITYGW.rpartition("@")[2]
    server, proxy = folder / "versitygw", folder / "proxy"
    if not shutil.which("go") and not (server.exists() and proxy.exists()):
        raise Skipped("the S3 server is built with Go, which is not on this machine")
    if not server.exists():
        print(f"  building {VERSITYGW}, about two minutes", flush=True)
        env = {**os.environ, "GOBIN": str(server.parent)}
        built = subprocess.run(["go", "install", VERSITYGW], env=env, capture_output=True, text=True, check=False)
        if built.returncode:
            raise Skipped(f"the S3 server could not be built: {built.stderr.strip().splitlines()[-1]}")
    source = HERE / "proxy.go"
    if not proxy.exists() or proxy.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["go", "build", "-o", str(proxy), str(source)], check=True)
    return server, proxy


class S3:
    """A local S3 server, and moto's Glue, behind a proxy that counts their requests and delays their answers."""

    def __init__(self, stack: ExitStack) -> None:
        server, proxy = build_tools()
        self.root = stack.enter_context(scratch())
        for bucket in (IN_BUCKET, LAKE_BUCKET):
            (self.root / bucket).mkdir()
        # A socket's path has to be short, and the checkout's may not be.
        self.socket = Path(stack.enter_context(tempfile.TemporaryDirectory()), "s3")
        flags = ["--quiet", "--keep-alive", "--port", str(self.socket), "--access", KEY, "--secret", SECRET]
        self.server = stack.enter_context(
            started([str(server), *flags, "posix", "--default-etag", "0" * 32, str(self.root)])
        )
        while not self.socket.exists():
            if self.server.poll() is not None:
                raise Skipped("the S3 server does not start here")
            time.sleep(0.05)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
        catalog = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        catalog.start()
        stack.callback(catalog.stop)
        self.glue = ":".join(map(str, catalog.get_host_and_port()))
        self.proxy = stack.enter_context(started([str(proxy), str(self.socket), self.glue]))
        assert self.proxy.stdout
        self.url = f"http://127.0.0.1:{int(self.proxy.stdout.readline())}"
        self.env = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    def seed(self, data: str) -> str:
        """Puts the data into the bucket by links, without the gateway; returns its URI."""
        shutil.copytree(data, self.root / IN_BUCKET / "data", copy_function=os.link)
        return f"s3a://{IN_BUCKET}/data"

    def measured(self, program: Callable[[str], Run], delay_ms: int = 0) -> Callable[[], Run]:
        """The program with an empty lake as its argument, its requests counted from the first to the last."""

        def run() -> Run:
            shutil.rmtree(self.root / LAKE_BUCKET / "lake", ignore_errors=True)
            urllib.request.urlopen(f"http://{self.glue}/moto-api/reset", data=b"").close()
            self._counts("POST", f"?ms={delay_ms}")
            before = self._cpu()
            run = program(f"s3a://{LAKE_BUCKET}/lake")
            run.requests = self._counts("GET")
            run.server_cpu = {name: round(seconds - before[name], 1) for name, seconds in self._cpu().items()}
            return run

        return run

    def lake_files(self) -> int:
        return sum(path.is_file() for path in (self.root / LAKE_BUCKET / "lake").rglob("*"))

    def _cpu(self) -> dict[str, float]:
        times = {name: psutil.Process(getattr(self, name).pid).cpu_times() for name in ("server", "proxy")}
        return {name: time.user + time.system for name, time in times.items()}

    def _counts(self, method: str, query: str = "") -> dict[str, dict[str, int]]:
        request = urllib.request.Request(f"{self.url}/__counts__{query}", method=method)
        with urllib.request.urlopen(request) as answer:
            counts: dict[str, dict[str, int]] = json.load(answer)
        return counts


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def requests_of(run: Run, *buckets: str) -> int:
    return sum(sum(run.requests.get(bucket, {}).values()) for bucket in buckets)


def requests(run: Run) -> int:
    return requests_of(run, *run.requests)


# The parts


def sample(scale: float) -> tuple[Runs, list[Figure]]:
    """The sample as shipped, the whole process, against a bare Spark session that counts ten rows."""
    data = str(HERE.parent / "data")
    runs = side_by_side(
        {
            "job": into_fresh_lake(lambda lake: run_job(data, lake)),
            "bare session": lambda: execute([sys.executable, "-c", BARE_SESSION])[0],
        }
    )
    against = ratios(runs["job"], runs["bare session"], whole)
    return runs, [Figure("sample, whole process, against a bare Spark session", against, 2, at_most=True)]


def local(scale: float) -> tuple[Runs, list[Figure]]:
    """The full shape on local disk, against itself with Iceberg and the rivals."""
    data = make_data(FULL_SONGS * scale, FULL_EVENTS)
    with scratch() as lakes:
        runs = side_by_side(
            {
                "job": into_named_lake(lakes / "job", lambda lake: run_job(data, lake)),
                "before": into_fresh_lake(lambda lake: run_before(data, lake)),
                "iceberg": into_fresh_lake(lambda lake: run_iceberg(data, lake)),
                "duckdb": into_named_lake(lakes / "duckdb", lambda lake: run_rival("with_duckdb.py", data, lake)),
                "polars": into_named_lake(lakes / "polars", lambda lake: run_rival("with_polars.py", data, lake)),
                "classic": into_fresh_lake(lambda lake: run_rival("classic.py", data, lake)),
            },
            once=["classic"],
            if_asked=["before"],
        )
        require_equal_lakes(lakes)
    job = runs["job"]
    return runs, [
        Figure("full shape, local, against before", ratios(job, runs["before"], whole), 1.1, at_most=True),
        Figure("full shape, local, Iceberg against folders", ratios(runs["iceberg"], job, whole), 1.2, at_most=True),
        Figure("full shape, local, times faster than classic", ratios(runs["classic"], job, whole), 18, at_most=False),
        Figure("full shape, local, net, against DuckDB", ratios(job, runs["duckdb"], net), 2, at_most=True),
    ]


def s3(scale: float) -> tuple[Runs, list[Figure]]:
    """The full shape on S3: with 10 and 25 ms added to each answer, with Iceberg, with songs by year and artist_id."""
    data = make_data(FULL_SONGS * scale, FULL_EVENTS)
    per_file: list[float] = []
    with ExitStack() as stack:
        server = S3(stack)
        source = server.seed(data)
        config = server.root / "by_artist.cfg"
        config.write_text(BY_ARTIST)

        def by_year(lake: str) -> Run:
            return run_job(source, lake, env=server.env)

        def by_artist(lake: str) -> Run:
            return run_job(source, lake, "--config", str(config), env=server.env)

        def iceberg(lake: str) -> Run:
            return run_job(source, lake, "--catalog", "glue.sparkify", env=server.env)

        def counted_by_artist() -> Run:
            run = server.measured(by_artist)()
            per_file.append(requests_of(run, LAKE_BUCKET) / server.lake_files())
            return run

        runs = side_by_side(
            {
                **{f"job {ms} ms": server.measured(by_year, ms) for ms in (0, 10, 25)},
                "before": server.measured(lambda lake: run_before(source, lake, server.env)),
                "iceberg": server.measured(iceberg),
                "job by artist": counted_by_artist,
                "classic": server.measured(lambda lake: run_rival("classic.py", source, lake, server.env)),
            },
            once=["job 10 ms", "job by artist", "classic"],
            if_asked=["before"],
        )
    at_once, classic = runs["job 0 ms"], runs["classic"]
    songs_written = ratios(classic, runs["job by artist"], whole)
    besides = 30_350 - 2 * (FULL_SONGS + FULL_LOGS)  # what was asked for beside two requests for each input file
    target = round(1.1 * (2 * (round(FULL_SONGS * scale) + FULL_LOGS) + besides))
    in_tables = ratios(runs["iceberg"], at_once, requests)
    total = [float(requests(run)) for run in at_once]
    return runs, [
        Figure("full shape, S3 requests", total, target, at_most=True),
        Figure("full shape, S3, against before", ratios(at_once, runs["before"], whole), 1.1, at_most=True),
        Figure("full shape, S3, Iceberg against folders", ratios(runs["iceberg"], at_once, whole), 1.2, at_most=True),
        Figure("full shape, S3 requests, Iceberg against folders", in_tables, 1.2, at_most=True),
        Figure("full shape, S3, times faster than classic", ratios(classic, at_once, whole), 8, at_most=False),
        Figure("full shape, S3, 25 ms against 0 ms", ratios(runs["job 25 ms"], at_once, whole), 1.3, at_most=True),
        Figure("songs by artist, S3 requests a file", per_file, 4, at_most=True),
        Figure("songs by artist, S3, times faster than classic", songs_written, 3, at_most=False),
    ]


def events(scale: float) -> tuple[Runs, list[Figure]]:
    """2 million events on local disk, against a plain Spark job, DuckDB and Polars; and in twelve months, no target."""
    data = make_data(FEW_SONGS, 2_000_000 * scale)

    def in_12_months(lake: str) -> Run:
        return run_job(make_data(FEW_SONGS, 2_000_000 * scale, months=12), lake)

    runs = side_by_side(
        {
            "job": into_fresh_lake(lambda lake: run_job(data, lake)),
            "job unchecked": into_fresh_lake(lambda lake: run_job(data, lake, program=UNCHECKED)),
            "plain": into_fresh_lake(lambda lake: run_rival("plain.py", data, lake)),
            "duckdb": into_fresh_lake(lambda lake: run_rival("with_duckdb.py", data, lake)),
            "polars": into_fresh_lake(lambda lake: run_rival("with_polars.py", data, lake)),
            "before": into_fresh_lake(lambda lake: run_before(data, lake)),
            "iceberg": into_fresh_lake(lambda lake: run_iceberg(data, lake)),
            "job 12 months": into_fresh_lake(in_12_months),
        },
        once=["job 12 months"],
        if_asked=["before"],
    )
    job = runs["job"]
    without = ratios(runs["job unchecked"], job, net)
    return runs, [
        Figure("2 million events, against plain", ratios(job, runs["plain"], whole), 0.9, at_most=True),
        Figure("2 million events, against before", ratios(job, runs["before"], whole), 0.5, at_most=True),
        Figure("2 million events, net, against DuckDB", ratios(job, runs["duckdb"], net), 5, at_most=True),
        Figure("2 million events, Iceberg against folders", ratios(runs["iceberg"], job, whole), 1.2, at_most=True),
        Figure(
            "2 million events, checks, percent of the run", [100 * (1 - share) for share in without], 8, at_most=True
        ),
    ]


def growth(scale: float) -> tuple[Runs, list[Figure]]:
    """10 million events on local disk, against a plain Spark job and DuckDB, and against a tenth of them."""
    data = make_data(FEW_SONGS, 10_000_000 * scale)

    def few(lake: str) -> Run:
        return run_job(make_data(FEW_SONGS, 1_000_000 * scale), lake)

    runs = side_by_side(
        {
            "job": into_fresh_lake(lambda lake: run_job(data, lake)),
            "plain": into_fresh_lake(lambda lake: run_rival("plain.py", data, lake)),
            "duckdb": into_fresh_lake(lambda lake: run_rival("with_duckdb.py", data, lake)),
            "1 million": into_fresh_lake(few),
        },
        once=["job", "plain", "duckdb"],
    )
    job = runs["job"]
    peak = [run.peak_mb / 1024 for run in job]
    return runs, [
        Figure("10 million events, against plain", ratios(job, runs["plain"], whole), 0.9, at_most=True),
        Figure("10 million events, net, against DuckDB", ratios(job, runs["duckdb"], net), 5, at_most=True),
        Figure("1 to 10 million events, growth", ratios(job, runs["1 million"], net), 9, at_most=True),
        Figure("10 million events, peak GB of the process tree", peak, 3, at_most=True),
    ]


def cold(scale: float) -> tuple[Runs, list[Figure]]:
    """The first S3 run on a machine: what an empty jar cache has to be filled with. One run: it is the network's."""
    with ExitStack() as stack:
        server = S3(stack)
        jars = stack.enter_context(scratch())
        source = server.seed(str(HERE.parent / "data"))
        env = {**server.env, "PYSPARK_SUBMIT_ARGS": f"--conf spark.jars.ivy={jars} pyspark-shell"}
        run = server.measured(lambda lake: run_job(source, lake, env=env))()
        # Ivy keeps each jar twice: as downloaded in cache, and a copy for Spark in jars.
        megabytes = sum(path.stat().st_size for path in (jars / "cache").rglob("*.jar")) / 1e6
    return {"job": [run]}, [Figure("cold start on S3, MB of jars", [megabytes], 16, at_most=True)]


def proxy(scale: float) -> tuple[Runs, list[Figure]]:
    """What the proxy itself adds: the same request through it and straight to the server, one at a time."""

    def median_ms(connection: http.client.HTTPConnection) -> float:
        taken = []
        for _ in range(1000):
            since = time.monotonic()
            connection.request("HEAD", f"/{IN_BUCKET}/data")
            connection.getresponse().read()
            taken.append(1000 * (time.monotonic() - since))
        return statistics.median(taken)

    with ExitStack() as stack:
        server = S3(stack)
        straight = http.client.HTTPConnection("localhost")
        straight.sock = socket.socket(socket.AF_UNIX)
        straight.sock.connect(str(server.socket))
        through = http.client.HTTPConnection(server.url.removeprefix("http://"))
        for _ in range(ROUNDS):
            times = f"{median_ms(straight):.2f} ms straight, {median_ms(through):.2f} ms through the proxy"
            print(f"  a request takes {times}")
    return {}, []


# Each part with the scale at which all of them together stay under 15 minutes on 2 cores; the targets are for scale 1.
PARTS: dict[str, tuple[Part, float]] = {
    "sample": (sample, 1),
    "local": (local, 0.01),
    "s3": (s3, 0.005),
    "events": (events, 0.02),
    "growth": (growth, 0.01),
}
ONLY_ALONE: dict[str, tuple[Part, float]] = {"cold": (cold, 1), "proxy": (proxy, 1)}


# Results


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def draw(parts: Mapping[str, Any]) -> None:
    """A row for each figure: how far it is from its target, its spread as a bar; right of the line is better."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
    from matplotlib.figure import Figure as Canvas

    rows = [(part["scale"], figure) for part in parts.values() for figure in part["figures"]]
    canvas = Canvas(figsize=(10, 1.3 + 0.3 * len(rows)), layout="constrained")
    axes = canvas.subplots()
    for row, (_, figure) in enumerate(rows):
        sign = -1 if figure["at_most"] else 1
        low, median, high = ((figure[name] / figure["target"]) ** sign for name in ("low", "median", "high"))
        axes.plot([low, high], [row, row], color="0.7", linewidth=5, solid_capstyle="round")
        axes.plot(median, row, "o", color="black", markerfacecolor="black" if figure["met"] else "white")
        reached = f"{figure['median']:,.0f}" if figure["median"] >= 1000 else f"{figure['median']:.3g}"
        limit = f"{'at most' if figure['at_most'] else 'at least'} {figure['target']:,g}"
        axes.text(1.01, row, f"{reached}, target {limit}", transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 1 / 4), max(right, 4))
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.xaxis.set_major_formatter("{x:g}")
    scales = [f" (at {scale:g} of the size)" if scale != 1 else "" for scale, _ in rows]
    axes.set_yticks(range(len(rows)), [figure["what"] + scale for scale, (_, figure) in zip(scales, rows, strict=True)])
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("times better than the target; filled: met by all runs; grey: lowest to highest of the runs")
    met = sum(figure["met"] for _, figure in rows)
    axes.set_title(f"The job meets {met} of its {len(rows)} targets", loc="left", fontsize=12)
    canvas.savefig(HERE / "results.svg", metadata={"Date": None}, bbox_inches="tight")


def main() -> None:
    global ROUNDS
    parser = argparse.ArgumentParser(description="Measures etl.py beside its rivals and against its targets.")
    parser.add_argument("--only", choices=[*PARTS, *ONLY_ALONE], help="one part instead of all")
    parser.add_argument("--scale", type=float, help="1 is the size the targets are for; only with --only")
    parser.add_argument("--turns", type=int, default=ROUNDS, help="how often each program runs; default: 3")
    parser.add_argument("--programs", metavar="A,B", help="only these programs of the part; only with --only")
    options = parser.parse_args()
    ROUNDS = options.turns
    WANTED.update(options.programs.split(",") if options.programs else ())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and scratch folders go too
    if (options.scale is not None or WANTED) and not options.only:
        parser.error("--scale and --programs need --only")
    if options.turns < 1 or (options.scale is not None and options.scale <= 0):
        parser.error("--turns and --scale are above zero")

    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parts": {}}
    results["machine"] = machine()
    began = time.monotonic()
    for name in [options.only] if options.only else PARTS:
        part, default_scale = (PARTS | ONLY_ALONE)[name]
        scale = default_scale if options.scale is None else options.scale
        print(f"{name}, scale {scale:g}", flush=True)
        try:
            runs, figures = part(scale)
        except Skipped as reason:
            print(f"  skipped: {reason}")
            continue
        summaries = [figure.summary() for figure in figures if figure.values]
        for figure in summaries:
            spread = f"{figure['low']:g} to {figure['high']:g}"
            print(f"  {figure['what']}: {figure['median']:g} ({spread}), target {figure['target']:g}")
        if runs:
            raw = {program: [asdict(run) for run in taken] for program, taken in runs.items() if taken}
            kept = results["parts"].get(name, {})
            if kept.get("scale") == scale:  # what was not run now keeps its figures, and its runs
                taken_again = {figure["what"] for figure in summaries}
                summaries = [figure for figure in kept["figures"] if figure["what"] not in taken_again] + summaries
                raw = kept["runs"] | raw
            results["parts"][name] = {"scale": scale, "figures": summaries, "runs": raw}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            draw(results["parts"])
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
