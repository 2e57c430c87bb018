"""moto's AWS with all that a run on EMR needs, and a clock that does not wait: for the launcher's tests."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import botocore.exceptions
import pytest
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.emr.models import emr_backends
from moto.emrserverless.models import emrserverless_backends

from emr.__main__ import main
from emr.checks import BLOCKS
from emr.following import STEP_ENDS
from emr.request import EMR_TAG

ROOT, ACCOUNT, REGION = Path(__file__).parents[1], DEFAULT_ACCOUNT_ID, "eu-west-1"
PLACES = "--input s3://my-songs/raw --output s3://my-lake/sparkify --logs s3://my-logs/sparkify"
TAG = {"Key": EMR_TAG, "Value": "true"}
APPLICATION = "application_1700000000000_0001"
TABLES = {"songs": {"rows": 14896, "files": 70, "bytes": 1234567, "seconds": 3.21}}
INPUTS = {"song_data": {"files": 14896, "lines": 14897, "rejected": 1}}
REPORT = {"run_id": "20260101T000000Z-0a1b2c3d", "state": "done", "seconds": 1800.4, "matched_share": 0.875}
Answer = Callable[[], Any]  # in place of moto's; None where moto's own is wanted


class Clock:
    """Stands for the time module: sleeping takes no time, and what is due by then happens."""

    def __init__(self) -> None:
        self.now, self.due = 0.0, dict[float, Callable[[], Any]]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for when in sorted(when for when in self.due if when <= self.now):
            self.due.pop(when)()
        assert self.now < 20_000, "this would wait for ever"


class Cloud:
    """The account, every call that is made on it, and answers that moto does not give."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.calls, self.answers = clock, list[tuple[str, dict[str, Any]]](), dict[str, Answer]()
        self.s3, self.emr, self.ec2, self.iam = (boto3.client(name) for name in ("s3", "emr", "ec2", "iam"))
        for bucket in ("my-songs", "my-lake", "my-logs"):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            self.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(BLOCKS, True))
        for folder in ("song_data", "log_data"):
            self.s3.put_object(Bucket="my-songs", Key=f"raw/{folder}/x.json", Body=b"{}")
        main_table = {"Name": "association.main", "Values": ["true"]}
        [table] = self.ec2.describe_route_tables(Filters=[main_table])["RouteTables"]
        self.vpc, self.main_table = table["VpcId"], table["RouteTableId"]
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        way_out = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway}
        self.ec2.create_route(RouteTableId=self.main_table, **way_out)

    def set_up(self) -> None:
        """What docs/emr.md has an administrator do."""
        for role, trust in (("emr-service", "emr"), ("job", "ec2"), ("serverless", "serverless")):
            policy = (ROOT / "emr" / "iam" / f"trust-{trust}.json").read_text()
            self.iam.create_role(RoleName=f"sparkify-{role}", AssumeRolePolicyDocument=policy)
        self.iam.create_instance_profile(InstanceProfileName="sparkify-job")
        self.iam.add_role_to_instance_profile(InstanceProfileName="sparkify-job", RoleName="sparkify-job")
        security = (ROOT / "emr" / "iam" / "imdsv2.json").read_text()
        self.emr.create_security_configuration(Name="sparkify-imdsv2", SecurityConfiguration=security)
        subnets = [subnet["SubnetId"] for subnet in self.ec2.describe_subnets()["Subnets"]]
        self.ec2.create_tags(Resources=[self.vpc, *subnets], Tags=[TAG])

    def put(self, key: str, text: str) -> None:
        body = gzip.compress(text.encode()) if key.endswith(".gz") else text.encode()
        self.s3.put_object(Bucket="my-logs", Key=f"sparkify/{key}", Body=body)

    def run(self, options: str = "--yes", events: dict[float, Callable[[], Any]] | None = None) -> int:
        """The launcher's run, to which these things happen after so many seconds."""
        self.clock.now, self.clock.due = 0.0, dict(events or {})
        return main(f"run {PLACES} {options}".split())

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    @property
    def cluster(self) -> Any:
        return list(emr_backends[ACCOUNT][REGION].clusters.values())[-1]

    @property
    def step(self) -> Any:
        return self.cluster.steps[-1]

    def becomes(self, step: str, cluster: str = "RUNNING", reason: str | None = None) -> None:
        self.step.state, self.cluster.state, self.cluster.last_state_change_reason = step, cluster, reason
        if step in STEP_ENDS:
            self.step.end_date_time = datetime.now(timezone.utc) - timedelta(minutes=1)

    def finish(self, cluster: str = "TERMINATING") -> None:
        report = {**REPORT, "tables": TABLES, "inputs": INPUTS}
        uri = self.step.args[self.step.args.index("--report") + 1]
        self.put(uri.removeprefix("s3://my-logs/sparkify/"), json.dumps(report))
        self.becomes("COMPLETED", cluster)

    def fail(self, *drivers: str, submit: str = APPLICATION, stdout: str = "") -> None:
        """The step fails, with the logs of spark-submit and of the driver's attempts."""
        self.becomes("FAILED", "TERMINATING", "no")
        self.put(f"{self.cluster.id}/steps/{self.step.id}/stderr.gz", submit)
        for attempt, stderr in enumerate(drivers):
            container = f"{self.cluster.id}/containers/{APPLICATION}/container_1700000000000_0001_0{attempt + 1}_00000"
            for name, text in (("1/stderr", stderr), ("1/stdout", stdout), ("2/stderr", "an executor's Error")):
                self.put(f"{container}{name}.gz", text)

    def new_application(self) -> str:
        """An EMR Serverless application; the options for it."""
        client = boto3.client("emr-serverless")
        made = client.create_application(name="x", releaseLabel="emr-7.13.0", type="SPARK", clientToken="x")
        role = f"arn:aws:iam::{ACCOUNT}:role/sparkify-serverless"
        return f"--serverless {made['applicationId']} --role {role} --release emr-7.13.0"

    def job_run(self, options: str) -> Any:
        return emrserverless_backends[ACCOUNT][REGION].job_runs[options.split()[1]][-1]

    def new_cluster(self, **options: Any) -> str:
        roles = {"JobFlowRole": "r", "ServiceRole": "r", "Tags": [{"Key": "project", "Value": "sparkify"}]}
        request = {"Name": "shared", "ReleaseLabel": "emr-spark-8.0.0", "LogUri": "s3://my-logs/sparkify/", **roles}
        alive = {"KeepJobFlowAliveWhenNoSteps": True}
        return str(self.emr.run_job_flow(**{**request, **options}, Instances=alive)["JobFlowId"])


def refuse(code: str, status: int = 400) -> Answer:
    def answer() -> None:
        shown: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise botocore.exceptions.ClientError(shown, "Operation")

    return answer


def unplugged() -> None:
    raise botocore.exceptions.EndpointConnectionError(endpoint_url="https://aws")


def timed_out() -> None:
    raise botocore.exceptions.ReadTimeoutError(endpoint_url="https://aws")


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
def bare_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The account before docs/emr.md is followed: three buckets with something to read."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(boto3.session.Session, "client", shared_client)
    for name in ("AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    clock = Clock()
    monkeypatch.setattr("emr.__main__.time", clock)
    monkeypatch.setattr("emr.following.time", clock)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with mock_aws():
        cloud, send = Cloud(clock), botocore.client.BaseClient._make_api_call

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


def statements(policy: str) -> list[dict[str, Any]]:
    return list(json.loads((ROOT / "emr" / "iam" / f"{policy}.json").read_text())["Statement"])


def actions(*found: dict[str, Any]) -> set[str]:
    each = [[one["Action"]] if isinstance(one["Action"], str) else one["Action"] for one in found]
    return {action for group in each for action in group}
