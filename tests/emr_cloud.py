"""moto's AWS with all that a run on EMR needs, and a clock that does not wait: for the launcher's tests."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import botocore.exceptions
import pytest
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.emr.models import emr_backends
from moto.emrserverless.models import emrserverless_backends

from emr.__main__ import main
from emr.checks import BLOCKS
from emr.following import STEP_ENDS
from emr.request import EMR_TAG

ROOT = Path(__file__).parents[1]
REGION = "eu-west-1"
PLACES = "--input s3://my-songs/raw --output s3://my-lake/sparkify --logs s3://my-logs/sparkify"
TAG = {"Key": EMR_TAG, "Value": "true"}
APPLICATION = "application_1700000000000_0001"
REPORT = {
    "run_id": "20260101T000000Z-0a1b2c3d", "state": "done", "seconds": 1800.4, "matched_share": 0.875,
    "tables": {"songs": {"rows": 14896, "files": 70, "bytes": 1234567, "seconds": 3.21}},
    "inputs": {"song_data": {"files": 14896, "lines": 14897, "rejected": 1}},
}  # fmt: skip

Answer = Callable[[], dict[str, Any] | None]  # in place of moto's; None where moto's own is wanted


class Clock:
    """Stands for the time module: sleeping takes no time, and what is due by then happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        ready = [action for when, action in self.due if when <= self.now]
        self.due = [(when, action) for when, action in self.due if when > self.now]
        for action in ready:
            action()
        assert self.now < 60_000, "this would wait for ever"


class Cloud:
    """The account, every call that is made on it, and answers that moto does not give."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}
        self.s3, self.emr, self.ec2, self.iam = (boto3.client(name) for name in ("s3", "emr", "ec2", "iam"))
        for bucket in ("my-songs", "my-lake", "my-logs"):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            blocks = dict.fromkeys(BLOCKS, True)
            self.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocks)
        for folder in ("song_data", "log_data"):
            self.put(f"raw/{folder}/x.json", b"{}", bucket="my-songs")

    def set_up(self) -> None:
        """What docs/emr.md has an administrator do."""
        for role, trust in (("emr-service", "emr"), ("job", "ec2"), ("serverless", "serverless")):
            policy = (ROOT / "emr" / "iam" / f"trust-{trust}.json").read_text()
            self.iam.create_role(RoleName=f"sparkify-{role}", AssumeRolePolicyDocument=policy)
        self.iam.create_instance_profile(InstanceProfileName="sparkify-job")
        self.iam.add_role_to_instance_profile(InstanceProfileName="sparkify-job", RoleName="sparkify-job")
        security = (ROOT / "emr" / "iam" / "imdsv2.json").read_text()
        self.emr.create_security_configuration(Name="sparkify-imdsv2", SecurityConfiguration=security)
        subnets = self.ec2.describe_subnets()["Subnets"]
        self.vpc = str(subnets[0]["VpcId"])
        self.ec2.create_tags(Resources=[self.vpc, *(subnet["SubnetId"] for subnet in subnets)], Tags=[TAG])

    def make_public_subnets(self) -> None:
        [table] = self.ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}])[
            "RouteTables"
        ]
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=table["VpcId"])
        way_out = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway}
        self.ec2.create_route(RouteTableId=table["RouteTableId"], **way_out)

    def put(self, key: str, body: bytes, bucket: str = "my-logs") -> None:
        self.s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(body) if key.endswith(".gz") else body)

    def at(self, when: float, action: Callable[[], Any]) -> None:
        self.clock.due.append((when, action))

    def run(self, options: str = "--yes", events: dict[float, Callable[[], Any]] | None = None) -> int:
        """The launcher's run, to which these things happen after so many seconds."""
        self.clock.now, self.clock.due = 0.0, list((events or {}).items())
        return main(f"run {PLACES} {options}".split())

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def sent(self, operation: str) -> dict[str, Any]:
        """The one request of this kind."""
        [request] = [request for name, request in self.calls if name == operation]
        return request

    @property
    def cluster(self) -> Any:
        return list(emr_backends[ACCOUNT][REGION].clusters.values())[-1]

    @property
    def id(self) -> str:
        return f"{self.cluster.id}/{self.cluster.steps[-1].id}"

    def becomes(self, step: str, cluster: str = "RUNNING", reason: str | None = None) -> None:
        self.cluster.steps[-1].state, self.cluster.state = step, cluster
        self.cluster.last_state_change_reason = reason
        if step in STEP_ENDS:
            self.cluster.steps[-1].end_date_time = datetime.now(timezone.utc) - timedelta(minutes=1)

    def finish(self, cluster: str = "TERMINATING") -> None:
        arguments = self.cluster.steps[-1].args
        self.put(arguments[arguments.index("--report") + 1].removeprefix("s3://my-logs/"), json.dumps(REPORT).encode())
        self.becomes("COMPLETED", cluster)

    def put_step_log(self, text: str) -> None:
        self.put(f"sparkify/{self.cluster.id}/steps/{self.cluster.steps[-1].id}/stderr.gz", text.encode())

    def put_driver_log(self, stderr: str, attempt: int = 1, stdout: str = "") -> None:
        container = f"sparkify/{self.cluster.id}/containers/{APPLICATION}/container_1700000000000_0001_{attempt:02}"
        for name, text in (("1/stderr", stderr), ("1/stdout", stdout), ("2/stderr", "an executor's Error")):
            self.put(f"{container}_00000{name}.gz", text.encode())

    def new_application(self) -> str:
        """An EMR Serverless application; the options for it."""
        client = boto3.client("emr-serverless")
        made = client.create_application(name="x", releaseLabel="emr-7.13.0", type="SPARK", clientToken="x")
        role = f"arn:aws:iam::{ACCOUNT}:role/sparkify-serverless"
        return f"--serverless {made['applicationId']} --role {role} --release emr-7.13.0"

    def job_run(self, options: str) -> Any:
        return emrserverless_backends[ACCOUNT][REGION].job_runs[options.split()[1]][-1]

    def new_cluster(self, **options: Any) -> str:
        request = {
            "Name": "shared", "ReleaseLabel": "emr-spark-8.0.0", "LogUri": "s3://my-logs/sparkify/", "JobFlowRole": "r",
            "Instances": {"KeepJobFlowAliveWhenNoSteps": True}, "ServiceRole": "r",
            "Tags": [{"Key": "project", "Value": "sparkify"}],
        }  # fmt: skip
        return str(self.emr.run_job_flow(**{**request, **options})["JobFlowId"])


def refuse(code: str, status: int = 400) -> Answer:
    def answer() -> dict[str, Any] | None:
        shown = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise botocore.exceptions.ClientError(shown, "Operation")  # type: ignore[arg-type]

    return answer


def unplugged() -> dict[str, Any] | None:
    raise botocore.exceptions.EndpointConnectionError(endpoint_url="https://aws")


def in_turn(*answers: Answer) -> Answer:
    """One answer a call; after the last, moto's own."""
    left = list(answers)
    return lambda: left.pop(0)() if left else None


CLIENTS: dict[tuple[str, str, str], Any] = {}
MAKE_CLIENT = boto3.session.Session.client


def shared_client(self: Any, name: str, region_name: str | None = None, config: Any = None, **options: Any) -> Any:
    """Session.client with each kind of client made once: loading AWS's models takes most of a test's time."""
    key = (name, region_name or self.region_name, repr(config.retries) if config else "")
    if key not in CLIENTS:
        CLIENTS[key] = MAKE_CLIENT(self, name, region_name=region_name, config=config)
    return CLIENTS[key]


@pytest.fixture
def bare_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    """The account before docs/emr.md is followed: three buckets with something to read."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(boto3.session.Session, "client", shared_client)
    for name in ("AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    clock = Clock()
    monkeypatch.setattr("emr.aws.time", clock)
    monkeypatch.setattr("emr.following.time", clock)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with mock_aws():
        cloud = Cloud(clock)
        cloud.make_public_subnets()
        send = botocore.client.BaseClient._make_api_call

        def record(client: Any, operation: str, request: dict[str, Any]) -> Any:
            cloud.calls.append((f"{client.meta.service_model.service_name}:{operation}", request))
            answer = cloud.answers.get(operation, lambda: None)()
            return send(client, operation, request) if answer is None else answer

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
        yield cloud


@pytest.fixture
def cloud(bare_cloud: Cloud) -> Cloud:
    """The account as docs/emr.md leaves it."""
    bare_cloud.set_up()
    bare_cloud.calls.clear()
    return bare_cloud


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A terminal to ask at; the list holds what is typed there."""
    asks, words = io.StringIO(), list[str]()
    asks.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", asks)
    monkeypatch.setattr("builtins.input", lambda _: words.pop(0))
    return words


def states(shown: str) -> list[str]:
    """The lines of progress, without their time."""
    return [line[9:] for line in shown.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]


def statements(policy: str) -> list[dict[str, Any]]:
    return list(json.loads((ROOT / "emr" / "iam" / f"{policy}.json").read_text())["Statement"])


def actions(*found: dict[str, Any]) -> set[str]:
    each = [[one["Action"]] if isinstance(one["Action"], str) else one["Action"] for one in found]
    return {action for group in each for action in group}
