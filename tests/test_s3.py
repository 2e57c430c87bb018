"""The job against S3, through real S3A on moto's server; and how it finds its credentials, regions and errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import engines
import oracle
import pytest
from botocore.exceptions import ClientError
from conftest import PLAY, SAMPLE, run_etl, run_python, write_lines, write_small
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lakes import contents_of, some_of_sample, tables_of
from pyspark.sql import SparkSession
from s3 import KEYS, Request, S3Server, no_proxy_for

import etl
import laptop

# What one run of the sample costs from S3 to S3, counted at the server.
SAMPLE_REQUESTS = {"DELETE": 16, "GET": 174, "HEAD": 312, "LIST": 136, "LIST UPLOADS": 10, "PUT": 52, "UPLOAD": 56}
CODES = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
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
    source: Path
    requests: list[Request]
    counts: dict[str, int]


# Whole runs


@pytest.fixture(scope="module")
def s3_run(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The sample and a file with a name beyond ASCII, from a bucket in Ireland to the root of an empty one in Oregon."""
    source = tmp_path_factory.mktemp("s3") / "in"
    some_of_sample(SAMPLE, source, slice(None), slice(None))
    write_lines(source / "log_data" / "Ж 雨 é.json", PLAY)
    for bucket, region in REGIONS.items():
        s3.make_bucket(bucket, region)
    s3.upload(source, "songs-in", "raw")
    s3.requests.clear()
    uris = ("--input", "s3a://songs-in/raw", "--output", "s3a://songs-out", "--report", "s3a://reports/of/r.json")
    done = run_etl(*uris, LC_ALL="C", AWS_CA_BUNDLE="/not/for/http", **no_proxy_for(s3), **s3.environment)
    requests, counts = list(s3.requests), s3.counts()
    report = json.loads(s3.client.get_object(Bucket="reports", Key="of/r.json")["Body"].read())
    return Run(done, report, source, requests, counts)


REGIONS = {"songs-in": "eu-west-1", "songs-out": "us-west-2", "reports": "us-east-2"}


def test_from_s3_to_s3_as_the_oracle_says(s3: S3Server, s3_run: Run, tmp_path: Path) -> None:
    assert tables_of(s3.download("songs-out", "", tmp_path)) == oracle.read_lake(s3_run.source).tables
    assert (s3_run.done.stderr, s3_run.report["output"]) == ("", "s3a://songs-out")


def test_nothing_else_is_left_in_the_bucket(s3: S3Server, s3_run: Run) -> None:
    part = rf"part-{s3_run.report['run_id']}-\d{{5}}-[0-9a-f-]{{36}}[.-]\S+\.parquet"
    own = re.compile(rf"\w+/([a-z_]+=[^/]+/)*{part}|_lake")
    assert [key for key in s3.keys("songs-out") if not own.fullmatch(key)] == []
    assert s3.uploads("songs-out") == []


def test_each_bucket_is_asked_in_its_own_region_and_the_input_only_read(s3_run: Run) -> None:
    data = [request for request in s3_run.requests if request.key]
    assert {(request.bucket, request.region) for request in data} == set(REGIONS.items())
    assert {request.method for request in s3_run.requests if request.bucket == "songs-in"} == {"GET", "HEAD"}


def test_each_input_file_is_read_once(s3_run: Run) -> None:
    read = [request.key for request in s3_run.requests if request.bucket == "songs-in" and request.verb == "GET"]
    files = [f"raw/{path.relative_to(s3_run.source)}" for path in oracle.input_files(s3_run.source)]
    assert sorted(read) == sorted(files)


def test_s3_requests_do_not_rise(s3_run: Run) -> None:
    assert s3_run.counts == SAMPLE_REQUESTS, (
        f"if the change is meant, set SAMPLE_REQUESTS in tests/test_s3.py to {s3_run.counts} and say why in the commit"
    )


def test_a_public_input_bucket_a_local_lake_and_a_report_on_s3(s3: S3Server, tmp_path: Path) -> None:
    """A profile's credentials that have no right to the input's bucket: it is read without any."""
    source, lake = write_small(tmp_path / "in"), tmp_path / "lake"
    (tmp_path / "config").write_text("[profile me]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n")
    s3.make_bucket("public-songs", "us-west-2")
    s3.make_bucket("far-reports", "ap-south-1")
    s3.upload(source, "public-songs", "raw", acl="public-read")
    s3.before = lambda request: "AccessDenied" if request.authorization and request.bucket == "public-songs" else None
    profile: dict[str, Any] = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "me",
        "AWS_ENDPOINT_URL": s3.url,
    }
    run_etl("--input", "s3://public-songs/raw", "--output", lake, "--report", "s3://far-reports/r.json", **profile)
    assert tables_of(lake) == oracle.read_lake(source).tables
    asked = {(request.bucket, request.access_key) for request in s3.requests if request.key}
    assert asked == {("public-songs", ""), ("far-reports", "AKIAPROFILE")}
    report = json.loads(s3.client.get_object(Bucket="far-reports", Key="r.json")["Body"].read())
    assert (report["state"], report["output"]) == ("done", f"file://{lake}")


# What stops a run that has begun; in one session, which is at the buckets' place

SEVERAL_RUNS = """
import json, os, sys, etl, laptop
laptop.create_session(etl.make_settings(etl.parse_options(["--input", "s3a://begun-in", "--output", "s3a://begun-out"])))
hadoop = etl.SparkSession.getActiveSession()._jsc.hadoopConfiguration()
hadoop.set("fs.s3a.bucket.begun-gone.endpoint", "http://127.0.0.1:9")
os.dup2(1, 2)
for name in json.loads(os.environ["RUNS"]):
    output = f"s3a://begun-{'gone' if name == 'gone' else 'out'}/{name}"
    code = etl.main(["--input", "s3a://begun-in/" + name, "--output", output])
    print("exit", code, "of", name, flush=True)
assert not hadoop.getPropsWithPrefix("yarn.")  # no class of S3A has brought back what slows down the reading
assert hadoop.get("mapreduce.fileoutputcommitter.algorithm.version") == "1"  # whole tasks only
"""
BEGUN = {  # what stands in its one line
    "two-keys": ["s3a://begun-in/two-keys/log_data/2018/a.json", "slashes"],
    "one-key": ["log_data/", "a.json"],
    "no-get": ["s3a://begun-in/no-get/", "403"],
    "no-put": ["s3a://begun-out/no-put/", "403"],
    "gone": ["s3a://begun-gone/gone/", "Connect to 127.0.0.1:9 "],
}


@pytest.fixture(scope="module")
def begun(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the runs printed that find keys with two slashes, a right to list only, or at the output's place no server."""
    folder = tmp_path_factory.mktemp("begun")
    for bucket in ("begun-in", "begun-out"):
        s3.make_bucket(bucket)
    for name in BEGUN:
        s3.upload(write_small(folder / name), "begun-in", name)
    for name, keys in {"two-keys": ("2018/a.json", "2018//a.json"), "one-key": ("2018//a.json",)}.items():
        for number, key in enumerate(keys):
            line = json.dumps(PLAY | {"itemInSession": number}) + "\n"
            s3.client.put_object(Bucket="begun-in", Key=f"{name}/log_data/{key}", Body=line * (number + 1))
    refused = {("GET", "begun-in", "no-get"), ("PUT", "begun-out", "no-put")}
    s3.before = lambda request: (
        "AccessDenied" if (request.verb, request.bucket, request.key.partition("/")[0]) in refused else None
    )
    started = time.monotonic()
    printed = run_python(SEVERAL_RUNS, folder, RUNS=json.dumps([*BEGUN]), **s3.environment)
    assert time.monotonic() - started < 240  # no minutes of retries
    return {name: lines for lines, name in re.findall(r"((?:.*\n)*?)exit 1 of (.*)\n", printed)}


@pytest.mark.parametrize("name", BEGUN)
def test_a_run_stops_in_one_line(s3: S3Server, begun: dict[str, str], name: str) -> None:
    """Two keys differ only in slashes, one has two of them, a right to read or to write is missing, a server is gone."""
    [error] = [line for line in begun[name].splitlines() if line.startswith("etl.py: error: ")]
    assert error == begun[name].splitlines()[-1] and error.endswith("; the lake is unchanged")
    assert [word for word in BEGUN[name] if word not in error] == []
    assert [key for key in s3.keys("begun-out") if key != "_lake"] == []


# What stops a run before Spark starts


IN, OUT = {"--input": "s3a://nowhere/x"}, {"--output": "s3a://nowhere/x"}
ALL = {"*": "AccessDenied"}
# The options, the environment, what S3 answers for which bucket, the exit code, and what stands in the line.
REFUSED: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str], int, list[str]]] = {
    "no input bucket": (IN, {}, {}, 1, ["s3a://nowhere/x", "NoSuchBucket"]),
    "no output bucket": (OUT, {}, {}, 1, ["s3a://nowhere/x", "NoSuchBucket"]),
    "no report bucket": ({"--report": "s3a://nowhere/x"}, {}, {}, 1, ["s3a://nowhere/x", "NoSuchBucket"]),
    "an input that nobody may list": ({}, {}, {"there": "AccessDenied"}, 1, ["s3a://there/raw", "AccessDenied"]),
    "an output that may not be listed": (OUT, {}, {"nowhere": "AccessDenied"}, 1, ["s3a://nowhere/x", "AccessDenied"]),
    "no credentials": ({}, dict.fromkeys(KEYS, ""), ALL, 1, ["s3a://there/raw", "no AWS credentials were found"]),
    "a server that is not there": ({}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, {}, 1, ["127.0.0.1:1"]),
    "an endpoint that is no URL": ({}, {"AWS_ENDPOINT_URL": "minio:9000"}, {}, 1, ["s3a://there/raw", "minio:9000"]),
    "a profile that is not there": ({}, {"AWS_PROFILE": "nobody"}, {}, 1, ["nobody"]),
    **{code: ({}, {}, {"*": code}, 1, ["s3a://there/raw", f"The test says {code}"]) for code in CODES},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_that_cannot_work_stops_in_seconds(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    changed, environment, answers, code, words = REFUSED[name]
    s3.make_bucket("there")
    s3.before = lambda request: answers.get(request.bucket, answers.get("*"))
    for key, value in (s3.environment | environment).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    options = {"--input": "s3a://there/raw", "--output": "s3a://there/lake"} | changed
    started = time.monotonic()
    assert etl.main([word for option in options.items() for word in option]) == code
    assert time.monotonic() - started < 30
    error = capsys.readouterr().err
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", error)
    assert [word for word in words if word not in error] == []
    assert code == 2 or error.endswith("; the lake is unchanged\n")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in error
    if name == "an output that may not be listed":  # and is not tried without credentials
        assert all(request.authorization for request in s3.requests)


def test_an_s3_that_is_silent_is_given_up_in_two_minutes() -> None:
    config = laptop.s3_client(boto3.Session("any", "key"), None, is_signed=True).meta.config
    assert (config.connect_timeout + config.read_timeout) * config.retries["total_max_attempts"] <= 120
    limits = {key.removeprefix("fs.s3a."): value.removesuffix("s") for key, value in laptop.S3A_CONF.items()}
    tries = int(limits["attempts.maximum"]) * (1 + int(limits["retry.limit"]))
    for name in ("connection.establish.timeout", "connection.timeout", "connection.request.timeout"):
        assert int(limits[name]) * tries <= 120


# Where the credentials, regions and endpoints come from


def access(*uris: str, **aws: str) -> tuple[dict[str, str], int]:
    return laptop.s3a_access([*uris], etl.DEFAULTS["AWS"] | aws)


def keys_of(conf: dict[str, str]) -> list[str | None]:
    return [conf.get(f"fs.s3a.{name}") for name in ("access.key", "secret.key", "session.token")]


@pytest.mark.parametrize(
    ("given", "missing"),
    [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"), ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")],
)  # fmt: skip
def test_half_of_a_key_in_dl_cfg_is_refused(given: str, missing: str) -> None:
    with pytest.raises(laptop.SessionError, match=missing) as raised:
        access("s3a://any/raw", **{given: "hidden/half"})
    assert raised.value.exit_code == 2 and "hidden/half" not in str(raised.value)


def test_a_profile_with_its_region_and_endpoint(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3.make_bucket("profiled")
    (tmp_path / "config").write_text(
        "[profile me]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = mine\naws_session_token = one\nregion = eu-west-3\n"
        f"endpoint_url = {s3.url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "me")
    conf, _ = access("file:///in", "s3a://profiled/lake")
    assert keys_of(conf) == ["AKIAPROFILE", "mine", "one"]
    assert conf[PROVIDER].endswith(".TemporaryAWSCredentialsProvider")
    assert s3.requests[0].region == "eu-west-3"


@pytest.mark.parametrize(("token", "kind"), [("one", "Temporary"), ("", "Simple")])
def test_the_key_of_dl_cfg_is_used_whole_and_nothing_of_the_environments(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, token: str, kind: str
) -> None:
    s3.make_bucket("configured")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "other")
    conf, _ = access("s3a://configured/raw", AWS_SESSION_TOKEN=token, **s3.environment)
    assert keys_of(conf) == [*KEYS.values(), token or None]
    assert conf[PROVIDER].endswith(f".{kind}AWSCredentialsProvider")


@pytest.mark.parametrize("program", ["/nowhere/keys", "echo no JSON", "false"])
def test_a_program_of_a_profile_that_gives_no_credentials_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(laptop.SessionError, match="cannot get AWS credentials"):
        access("s3a://any/raw")


@pytest.mark.parametrize("place", ["environment", "dl.cfg"])
def test_a_wrong_region_is_set_right(s3: S3Server, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    bucket = f"oregon-{place}"
    s3.make_bucket(bucket, "us-west-2")
    monkeypatch.setenv("AWS_REGION", "eu-west-3" if place == "environment" else "eu-west-2")
    s3.before = (
        lambda request: "PermanentRedirect" if request.verb == "LIST" and request.region != "us-west-2" else None
    )
    conf, _ = access(f"s3a://{bucket}/raw", **s3.environment, AWS_REGION="eu-west-3" if place == "dl.cfg" else "")
    assert "eu-west-3" in {request.region for request in s3.requests}
    assert conf[f"fs.s3a.bucket.{bucket}.endpoint.region"] == "us-west-2"


def client_of(url: str, region: str, headers: dict[str, str]) -> Any:
    """A client whose server answers a question for a bucket with these headers."""
    answer = {"ResponseMetadata": {"HTTPHeaders": headers}}
    return SimpleNamespace(
        meta=SimpleNamespace(endpoint_url=url, region_name=region), head_bucket=lambda Bucket: answer
    )


@pytest.mark.parametrize(
    ("url", "is_given"),
    [
        ("https://s3.amazonaws.com", False),
        ("https://s3.eu-west-1.amazonaws.com", False),
        ("https://s3.cn-north-1.amazonaws.com.cn", False),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", False),
        ("https://s3-fips.dualstack.us-east-1.amazonaws.com", False),
        ("https://bucket.vpce-0a1b-c2.s3.eu-west-1.vpce.amazonaws.com", True),
        ("https://minio.corp:9000", True),
    ],
)
def test_an_endpoint_that_is_not_awss_usual_one_is_used(url: str, is_given: bool) -> None:
    conf = laptop.bucket_conf(client_of(url, "us-east-1", {"x-amz-bucket-region": "eu-west-1"}), "lake")
    assert conf.get("fs.s3a.endpoint") == (url if is_given else None)
    assert conf.get("fs.s3a.endpoint.fips") == ("true" if "fips" in url else None)


@pytest.mark.parametrize(
    ("variables", "host", "user"),
    [
        ({"HTTPS_PROXY": "http://a%40b:pw@proxy.corp:3128"}, "proxy.corp:3128", "a@b:pw"),
        ({"https_proxy": "proxy.corp"}, "proxy.corp:80", "None:None"),
        ({"HTTPS_PROXY": "https://proxy.corp"}, "proxy.corp:443", "None:None"),
        ({"HTTPS_PROXY": "http://proxy.corp:3128", "NO_PROXY": ".amazonaws.com"}, "None:None", "None:None"),
        ({"HTTP_PROXY": "http://proxy.corp:3128"}, "None:None", "None:None"),
        (
            {"HTTP_PROXY": "http://proxy.corp:3128", "AWS_ENDPOINT_URL": "http://minio.corp"},
            "proxy.corp:3128",
            "None:None",
        ),
    ],
)
def test_s3a_goes_by_the_proxy_that_boto3_goes_by(
    variables: dict[str, str], host: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url = variables.get("AWS_ENDPOINT_URL", "https://s3.eu-west-1.amazonaws.com")
    conf = laptop.bucket_conf(client_of(url, "eu-west-1", {}), "lake")
    found = [conf.get(f"fs.s3a.proxy.{name}") for name in ("host", "port", "username", "password")]
    assert ["{}:{}".format(*found[:2]), "{}:{}".format(*found[2:])] == [host, user]
    assert (conf.get("fs.s3a.proxy.ssl.enabled") == "true") == any(
        value.startswith("https:") for value in variables.values()
    )


def test_who_may_list_a_prefix_only_is_told_the_buckets_region() -> None:
    answer: Any = {"Error": {}, "ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": "eu-west-1"}}}

    def refuse(Bucket: str) -> None:
        raise ClientError(answer, "HeadBucket")

    client = SimpleNamespace(meta=SimpleNamespace(endpoint_url="https://s3.amazonaws.com"), head_bucket=refuse)
    client.meta.region_name = "us-east-1"
    assert laptop.bucket_conf(client, "lake") == {"fs.s3a.bucket.lake.endpoint.region": "eu-west-1"}


def test_a_server_that_tells_no_region_is_asked_in_the_callers_own() -> None:
    conf = laptop.bucket_conf(client_of("https://minio.corp:9000", "eu-west-1", {}), "lake")
    assert conf["fs.s3a.bucket.lake.endpoint.region"] == "eu-west-1"


def test_without_credentials_a_public_bucket_is_read(s3: S3Server) -> None:
    s3.make_bucket("open-to-all")
    conf, _ = access("s3a://open-to-all/raw", AWS_ENDPOINT_URL=s3.url)
    assert conf[PROVIDER].endswith(".AnonymousAWSCredentialsProvider")
    assert keys_of(conf) == [None] * 3 and {request.authorization for request in s3.requests} == {""}


def test_only_a_public_input_in_a_bucket_of_its_own_goes_without_credentials(s3: S3Server) -> None:
    for name in ("theirs", "ours"):
        s3.make_bucket(name)
    s3.before = lambda request: (
        "AccessDenied" if "raw/" in str(request.query.get("prefix")) and request.authorization else None
    )
    conf, _ = access("s3a://theirs/raw", "s3a://ours/lake", **s3.environment)
    assert conf["fs.s3a.bucket.theirs.aws.credentials.provider"].endswith(".AnonymousAWSCredentialsProvider")
    assert conf[PROVIDER].endswith(".SimpleAWSCredentialsProvider")
    assert "fs.s3a.bucket.ours.aws.credentials.provider" not in conf
    conf, _ = access(*["s3a://theirs/raw"] * 2, **s3.environment)  # as the questions on Spark do
    assert conf["fs.s3a.bucket.theirs.aws.credentials.provider"].endswith(".AnonymousAWSCredentialsProvider")
    for written in (["s3a://ours/lake"], ["file:///lake", "s3a://ours/report.json"]):
        with pytest.raises(laptop.SessionError, match=r"s3a://ours/raw.*AccessDenied"):
            access("s3a://ours/raw", *written, **s3.environment)


def test_the_inputs_size_is_told_by_its_first_files(s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("sized")
    source = write_small(tmp_path / "in")
    write_lines(source / "log_data" / "b.json", PLAY)
    for prefix in ("raw", "lake"):
        s3.upload(source, "sized", prefix)
    _, size = access("s3a://sized/raw", "s3a://sized/lake", **s3.environment)
    assert size == sum(map(len, contents_of(source).values()))
    listed = [request.query["prefix"] for request in s3.requests if request.verb == "LIST"]
    assert listed == [["raw/song_data/"], ["raw/log_data/"], ["lake/"]]  # who has no right above them is not refused


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(laptop.SessionError, match=r"boto3.*pip install") as raised:
        access("s3a://any/raw")
    assert raised.value.exit_code == 2


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of the server that nobody else has signed, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=the company's own")
    now, alternative = datetime.now(timezone.utc), x509.IPAddress(ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem, secret = Encoding.PEM, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "ca.pem").write_bytes(b"# comments are allowed\n" + builder.sign(key, SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(secret)
    return folder / "ca.pem", folder / "key.pem"


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CONFIG_FILE"])
def test_java_is_told_of_the_bundle_that_boto3_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle, key = write_certificate(tmp_path)
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {bundle}\n")
    monkeypatch.setenv(name, str(tmp_path / "config" if name == "AWS_CONFIG_FILE" else bundle))
    with S3Server(str(bundle), str(key)) as server:
        server.make_bucket("inside")
        conf, _ = access("s3a://inside/raw", **server.environment)
    assert conf[laptop.BUNDLE] == str(bundle)


def test_java_and_duckdb_trust_the_authority_that_aws_ca_bundle_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, files = write_small(tmp_path / "in"), write_certificate(tmp_path)
    with S3Server(*map(str, files)) as server:
        server.make_bucket("inside")
        for name, value in {"AWS_CA_BUNDLE": str(files[0]), **server.environment}.items():
            monkeypatch.setenv(name, value)
        run_etl("--input", source, "--output", "s3a://inside/lake")
        with engines.duckdb_engine("s3://inside/lake") as query:
            assert query("SELECT title FROM songs ORDER BY title")[1] == [("One",), ("Two",)]
        assert tables_of(server.download("inside", "lake", tmp_path / "lake")) == oracle.read_lake(source).tables
