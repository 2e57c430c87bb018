"""The job against S3, through real S3A on moto's server; and how it finds its credentials, regions and errors."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
import pytest
from conftest import SAMPLE, run_etl
from lakes import contents_of, some_of_sample, tables_of
from s3 import KEYS, Request, S3Server

import etl

# What one run of the sample costs from S3 to S3, counted at the server.
SAMPLE_REQUESTS = {
    "DELETE": 16,
    "GET": 143,
    "HEAD": 154,
    "LIST": 102,
    "LIST UPLOADS": 10,
    "PUT": 63,
    "UPLOAD": 56,
}
PROVIDER = "fs.s3a.aws.credentials.provider"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(autouse=True)
def fresh(s3: S3Server) -> None:
    s3.requests.clear()
    s3.let_pass()


@dataclass
class Run:
    done: subprocess.CompletedProcess[str]
    report: dict[str, Any]
    requests: list[Request]
    counts: dict[str, int]


# Whole runs


@pytest.fixture(scope="module")
def s3_run(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The sample, from a bucket in Ireland to an empty one in Oregon, with the environment's credentials."""
    report = tmp_path_factory.mktemp("s3") / "report.json"
    s3.make_bucket("songs-in", "eu-west-1")
    s3.make_bucket("songs-out", "us-west-2")
    s3.upload(SAMPLE, "songs-in", "raw")
    s3.requests.clear()
    done = run_etl(
        "--input", "s3a://songs-in/raw", "--output", "s3a://songs-out/lake", "--report", report, **s3.environment
    )
    return Run(done, json.loads(report.read_text()), list(s3.requests), s3.counts())


def test_from_s3_to_s3_as_the_oracle_says(s3: S3Server, s3_run: Run, tmp_path: Path) -> None:
    assert tables_of(s3.download("songs-out", "lake", tmp_path)) == oracle.read_lake(SAMPLE).tables
    assert s3_run.done.stderr == ""


def test_nothing_else_is_left_in_the_bucket(s3: S3Server, s3_run: Run) -> None:
    run_id = s3_run.report["run_id"]
    own = re.compile(rf"lake/(\w+/([a-z_]+=[^/]+/)*part-\d{{5}}-[0-9a-f-]{{36}}[.-]\S+\.parquet|_runs/{run_id}/[\w.]+)")
    assert [key for key in s3.keys("songs-out") if not own.fullmatch(key)] == []
    assert s3.uploads("songs-out") == []


def test_the_input_bucket_is_only_read(s3_run: Run) -> None:
    assert {request.method for request in s3_run.requests if request.bucket == "songs-in"} == {"GET", "HEAD"}


def test_each_bucket_is_asked_in_its_own_region(s3_run: Run) -> None:
    regions = {"songs-in": "eu-west-1", "songs-out": "us-west-2"}
    data = [request for request in s3_run.requests if request.key]
    assert {(request.bucket, request.region) for request in data} == set(regions.items())


def test_each_input_file_is_read_once(s3_run: Run) -> None:
    read = [request.key for request in s3_run.requests if request.bucket == "songs-in" and request.verb == "GET"]
    files = [f"raw/{path.relative_to(SAMPLE)}" for path in oracle.input_files(SAMPLE)]
    assert sorted(read) == sorted(files)


def test_the_report_counts_the_requests(s3_run: Run) -> None:
    shown = s3_run.report["s3_requests"]
    assert shown["GET"] == s3_run.counts["GET"]
    line = "S3 requests: " + ", ".join(f"{kind} {count:,}" for kind, count in shown.items())
    assert line in s3_run.done.stdout.splitlines()


def test_s3_requests_do_not_rise(s3_run: Run) -> None:
    assert s3_run.counts == SAMPLE_REQUESTS, (
        f"if the change is meant, set SAMPLE_REQUESTS in tests/test_s3.py to {s3_run.counts} and say why in the commit"
    )


def test_from_local_files_over_a_lake_on_s3(s3: S3Server, s3_run: Run, tmp_path: Path) -> None:
    """Spelled s3://, with the keys of dl.cfg."""
    source = some_of_sample(SAMPLE, tmp_path / "in")
    before = contents_of(source)
    config = tmp_path / "dl.cfg"
    aws = "".join(f"{key} = {value}\n" for key, value in (s3.environment | {"AWS_ACCESS_KEY_ID": "AKIACONFIG"}).items())
    config.write_text(f"[AWS]\n{aws}[PATHS]\nINPUT_DATA = in\nOUTPUT_DATA = s3://songs-out/lake/\n")
    old = set(s3.keys("songs-out"))
    s3.requests.clear()
    run_etl("--config", config, AWS_ACCESS_KEY_ID="AKIAENV", AWS_SECRET_ACCESS_KEY="other")
    assert tables_of(s3.download("songs-out", "lake", tmp_path / "lake")) == oracle.read_lake(source).tables
    assert {request.access_key for request in s3.requests} == {"AKIACONFIG"}
    assert old and not old & set(s3.keys("songs-out"))
    assert contents_of(source) == before


def test_a_public_input_bucket_and_a_local_lake(s3: S3Server, tmp_path: Path) -> None:
    """A profile's credentials that have no right to the bucket: it is read without any."""
    source = some_of_sample(SAMPLE, tmp_path / "in")
    (tmp_path / "config").write_text("[profile me]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n")
    s3.make_bucket("public-songs", "us-west-2")
    s3.upload(source, "public-songs", "raw", acl="public-read")
    s3.before = lambda request: "AccessDenied" if request.authorization else None
    run_etl(
        "--input", "s3://public-songs/raw", "--output", tmp_path / "lake",
        AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="me", AWS_ENDPOINT_URL=s3.url,
    )  # fmt: skip
    assert tables_of(tmp_path / "lake") == oracle.read_lake(source).tables
    assert s3.requests[0].access_key == "AKIAPROFILE"
    assert {request.authorization for request in s3.requests if request.key} == {""}


@pytest.mark.parametrize(("method", "bucket"), [("GET", "in"), ("PUT", "out")])
def test_a_right_that_only_the_run_misses(s3: S3Server, tmp_path: Path, method: str, bucket: str) -> None:
    """The buckets may be listed, but objects not read or written: one line, no minutes of retries."""
    for name in (f"{method.lower()}-in", f"{method.lower()}-out"):
        s3.make_bucket(name)
    s3.upload(some_of_sample(SAMPLE, tmp_path), f"{method.lower()}-in", "raw")
    refused = f"{method.lower()}-{bucket}"
    s3.before = lambda request: "AccessDenied" if (request.verb, request.bucket) == (method, refused) else None
    started = time.monotonic()
    done = run_etl(
        "--input", f"s3a://{method.lower()}-in/raw", "--output", f"s3a://{method.lower()}-out/lake", check=False, **s3.environment
    )  # fmt: skip
    assert time.monotonic() - started < 120
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", done.stderr)
    assert f"s3a://{refused}/" in done.stderr and "the lake is unchanged" in done.stderr
    assert re.search("AccessDenied|Access Denied|403|Forbidden", done.stderr)
    assert s3.keys(f"{method.lower()}-out") == []


# What stops a run before Spark starts


@pytest.fixture
def fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3: S3Server
) -> Iterator[Callable[..., str]]:
    """Runs etl.main in this process, with the environment's credentials; its error line, which comes in seconds."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGTERM)

    def run(source: str, output: str) -> str:
        started = time.monotonic()
        assert etl.main(["--input", source, "--output", output]) == 1
        assert time.monotonic() - started < 30
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"etl\.py: error: [^\n]+; the lake is unchanged\n", err)
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in err
        return err

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_bucket_that_is_missing(s3: S3Server, fail: Callable[..., str], missing: str) -> None:
    s3.make_bucket("there")
    uris = ["s3a://not-there/x", "s3a://there/y"]
    error = fail(*(uris if missing == "input" else uris[::-1]))
    assert "s3a://not-there/x" in error and "NoSuchBucket" in error


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_credentials_that_s3_refuses(s3: S3Server, fail: Callable[..., str], code: str) -> None:
    s3.before = lambda request: code
    error = fail("s3a://songs-in/raw", "s3a://songs-out/lake")
    assert "s3a://songs-in/raw" in error and code in error and f"The test says {code}" in error


def test_a_wrong_region_is_set_right(s3: S3Server) -> None:
    s3.make_bucket("oregon", "us-west-2")
    s3.before = (
        lambda request: "PermanentRedirect" if request.verb == "LIST" and request.region != "us-west-2" else None
    )
    conf = conf_of("s3a://oregon/raw", **s3.environment, AWS_REGION="eu-west-3")
    assert "eu-west-3" in {request.region for request in s3.requests}
    assert conf["fs.s3a.bucket.oregon.endpoint.region"] == "us-west-2"


def test_an_input_that_nobody_may_list(s3: S3Server, fail: Callable[..., str]) -> None:
    s3.before = lambda request: "AccessDenied" if request.bucket == "closed-in" else None
    error = fail("s3a://closed-in/raw", "s3a://songs-out/lake")
    assert "s3a://closed-in/raw" in error and "AccessDenied" in error


def test_an_output_that_may_not_be_listed_is_not_tried_without_credentials(
    s3: S3Server, fail: Callable[..., str]
) -> None:
    s3.make_bucket("open-in")
    s3.before = lambda request: "AccessDenied" if request.bucket == "closed-out" else None
    error = fail("s3a://open-in/raw", "s3a://closed-out/lake")
    assert "s3a://closed-out/lake" in error and "AccessDenied" in error
    assert all(request.authorization for request in s3.requests)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, fail: Callable[..., str]) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "127.0.0.1:1" in fail("s3a://songs-in/raw", "s3a://songs-out/lake")


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch, fail: Callable[..., str]) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in fail("s3a://songs-in/raw", "s3a://songs-out/lake")


# Where the credentials come from


def conf_and_size_of(source: str, output: str = "file:///lake", **aws: str) -> tuple[dict[str, str], int]:
    given = dict.fromkeys((*KEYS, "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"), "") | aws
    return etl.s3_conf(etl.Settings(source, output, {}, aws=given))


def conf_of(source: str, output: str = "file:///lake", **aws: str) -> dict[str, str]:
    return conf_and_size_of(source, output, **aws)[0]


def test_local_paths_need_no_s3() -> None:
    assert conf_of("file:///in") == {}


def test_keys_of_dl_cfg_before_those_of_the_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.make_bucket("keyed", "eu-central-1")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    conf = conf_of(
        "s3a://keyed/raw", AWS_ACCESS_KEY_ID="AKIACONFIG", AWS_SECRET_ACCESS_KEY="%own", AWS_SESSION_TOKEN="%token"
    )
    assert (conf["fs.s3a.access.key"], conf["fs.s3a.secret.key"], conf["fs.s3a.session.token"]) == (
        "AKIACONFIG",
        "%own",
        "%token",
    )
    assert conf[PROVIDER].endswith(".TemporaryAWSCredentialsProvider")
    conf = conf_of("s3a://keyed/raw")
    assert (conf["fs.s3a.access.key"], conf["fs.s3a.secret.key"]) == tuple(KEYS.values())
    assert "fs.s3a.session.token" not in conf and conf[PROVIDER].endswith(".SimpleAWSCredentialsProvider")
    assert conf["fs.s3a.bucket.keyed.endpoint.region"] == "eu-central-1"
    assert conf["fs.s3a.endpoint"] == s3.url


def test_a_profile(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3.make_bucket("profiled")
    (tmp_path / "config").write_text(
        "[profile me]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = mine\naws_session_token = one\nregion = eu-west-3\n"
        f"endpoint_url = {s3.url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "me")
    conf = conf_of("file:///in", "s3a://profiled/lake")
    assert (conf["fs.s3a.access.key"], conf["fs.s3a.secret.key"], conf["fs.s3a.session.token"]) == (
        "AKIAPROFILE",
        "mine",
        "one",
    )
    assert s3.requests[0].region == "eu-west-3"


def test_without_credentials_a_public_bucket_is_read(s3: S3Server) -> None:
    s3.make_bucket("open-to-all")
    conf = conf_of("s3a://open-to-all/raw", AWS_ENDPOINT_URL=s3.url)
    assert conf[PROVIDER].endswith(".AnonymousAWSCredentialsProvider")
    assert "fs.s3a.access.key" not in conf
    assert {request.authorization for request in s3.requests} == {""}


def test_only_the_public_bucket_goes_without_credentials(s3: S3Server) -> None:
    for name in ("theirs", "ours"):
        s3.make_bucket(name)
    s3.before = lambda request: "AccessDenied" if request.bucket == "theirs" and request.authorization else None
    conf = conf_of("s3a://theirs/raw", "s3a://ours/lake", **s3.environment)
    assert conf["fs.s3a.bucket.theirs.aws.credentials.provider"].endswith(".AnonymousAWSCredentialsProvider")
    assert conf[PROVIDER].endswith(".SimpleAWSCredentialsProvider")
    assert "fs.s3a.bucket.ours.aws.credentials.provider" not in conf


def test_one_bucket_for_both(s3: S3Server) -> None:
    """What its owner may write must not be read without credentials."""
    s3.make_bucket("both")
    conf = conf_of("s3a://both/raw", "s3a://both/lake", **s3.environment)
    assert conf[PROVIDER].endswith(".SimpleAWSCredentialsProvider")
    assert "fs.s3a.bucket.both.aws.credentials.provider" not in conf
    s3.before = lambda request: (
        "AccessDenied" if request.query["prefix"][0].startswith("raw/") and request.authorization else None
    )
    with pytest.raises(etl.JobError, match=r"s3a://both/raw.*AccessDenied"):
        conf_of("s3a://both/raw", "s3a://both/lake", **s3.environment)


def test_the_inputs_size_is_told_by_its_first_files(s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("sized")
    source = some_of_sample(SAMPLE, tmp_path / "in")
    s3.upload(source, "sized", "raw")
    s3.upload(source, "sized", "lake")
    _, size = conf_and_size_of("s3a://sized/raw", "s3a://sized/lake", **s3.environment)
    assert size == sum(map(len, contents_of(source).values()))
