"""python -m emr against moto's AWS, with a clock that does not wait: each command and each way that it can fail."""

from __future__ import annotations

import gzip
import io
import json
import re
import signal
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
from emr.following import LOG_POLL_SECONDS, LOG_WAIT_SECONDS, STEP_ENDS
from emr.request import EMR_TAG

ROOT = Path(__file__).parents[1]
REGION = "eu-west-1"
PLACES = "--input s3://songs/raw --output s3://lake/sparkify --logs s3://my-logs/sparkify"
RUN = f"run {PLACES} --yes"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/sparkify-serverless"
APPLICATION = "application_1700000000000_0001"
REPORT = {
    "run_id": "20260101T000000Z-0a1b2c3d",
    "state": "done",
    "seconds": 61.4,
    "matched_share": 0.875,
    "tables": {"songs": {"rows": 14896, "files": 70, "bytes": 1234567, "seconds": 3.21}},
    "inputs": {"song_data": {"files": 14896, "lines": 14897, "rejected": 1}},
}
PUBLIC = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}]}
PUBLIC["Statement"][0]["Resource"] = "arn:aws:s3:::lake/*"  # type: ignore[index]


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
        assert self.now < 20_000, "this would wait for ever"

    def at(self, when: float, action: Callable[[], None]) -> None:
        self.due.append((when, action))


class Cloud:
    """moto's AWS with all that a run needs, every call that is made on it, and answers that moto does not give."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}
        self.s3 = boto3.client("s3", region_name=REGION)
        for bucket in ("songs", "lake", "my-logs"):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        for folder in ("song_data", "log_data"):
            self.put(f"raw/{folder}/x.json", b"{}", bucket="songs")
        iam = boto3.client("iam")
        for role, trust in {
            "sparkify-emr-service": "emr",
            "sparkify-job": "ec2",
            "sparkify-serverless": "serverless",
        }.items():
            policy = (ROOT / "emr" / "iam" / f"trust-{trust}.json").read_text()
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=policy)
        iam.create_instance_profile(InstanceProfileName="sparkify-job")
        iam.add_role_to_instance_profile(InstanceProfileName="sparkify-job", RoleName="sparkify-job")
        security = (ROOT / "emr" / "iam" / "imdsv2.json").read_text()
        self.emr = boto3.client("emr", region_name=REGION)
        self.emr.create_security_configuration(Name="sparkify-imdsv2", SecurityConfiguration=security)
        self.ec2 = boto3.client("ec2", region_name=REGION)
        subnets = [subnet["SubnetId"] for subnet in self.ec2.describe_subnets()["Subnets"]]
        self.ec2.create_tags(Resources=subnets, Tags=[{"Key": EMR_TAG, "Value": "true"}])

    def put(self, key: str, body: bytes, bucket: str = "my-logs") -> None:
        self.s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(body) if key.endswith(".gz") else body)

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.calls]

    def sent(self, operation: str) -> dict[str, Any]:
        """The one request of this kind."""
        [request] = [request for name, request in self.calls if name == operation]
        return request

    @property
    def cluster(self) -> Any:
        [cluster] = emr_backends[ACCOUNT][REGION].clusters.values()
        return cluster

    def step_becomes(self, state: str, cluster: str = "RUNNING", reason: str | None = None) -> None:
        self.cluster.steps[-1].state = state
        self.cluster.state = cluster
        self.cluster.last_state_change_reason = reason
        if state in STEP_ENDS:
            self.cluster.steps[-1].end_date_time = datetime.now(timezone.utc) - timedelta(minutes=1)

    def put_report(self) -> None:
        arguments = self.cluster.steps[-1].args
        uri = arguments[arguments.index("--report") + 1]
        self.put(uri.removeprefix("s3://my-logs/"), json.dumps(REPORT).encode())

    def finish(self, cluster: str = "TERMINATING") -> None:
        self.put_report()
        self.step_becomes("COMPLETED", cluster)

    def put_step_log(self, text: str) -> None:
        self.put(f"sparkify/{self.cluster.id}/steps/{self.cluster.steps[-1].id}/stderr.gz", text.encode())

    def put_driver_log(self, stderr: str, attempt: int = 1, stdout: str = "") -> None:
        folder = f"sparkify/{self.cluster.id}/containers/{APPLICATION}"
        for number, text in ((1, stderr), (2, "an executor's Error")):
            container = f"container_1700000000000_0001_{attempt:02}_{number:06}"
            self.put(f"{folder}/{container}/stderr.gz", text.encode())
        self.put(f"{folder}/container_1700000000000_0001_{attempt:02}_000001/stdout.gz", stdout.encode())

    def new_application(self) -> str:
        client = boto3.client("emr-serverless", region_name=REGION)
        made = client.create_application(name="sparkify", releaseLabel="emr-7.13.0", type="SPARK", clientToken="x")
        return str(made["applicationId"])

    def job_run_becomes(self, application: str, state: str, details: str = "") -> Any:
        [run] = emrserverless_backends[ACCOUNT][REGION].job_runs[application]
        run.state, run.state_details = state, details
        return run

    def new_cluster(self, **options: Any) -> str:
        request = {
            "Name": "shared", "ReleaseLabel": "emr-spark-8.0.0", "LogUri": "s3://my-logs/sparkify/",
            "Instances": {"KeepJobFlowAliveWhenNoSteps": True}, "JobFlowRole": "r", "ServiceRole": "r",
        }  # fmt: skip
        return str(self.emr.run_job_flow(**{**request, **options})["JobFlowId"])


def refuse(code: str, status: int = 400) -> Answer:
    def answer() -> dict[str, Any] | None:
        shown = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise botocore.exceptions.ClientError(shown, "Operation")

    return answer


def unplugged() -> dict[str, Any] | None:
    raise botocore.exceptions.EndpointConnectionError(endpoint_url="https://aws")


def in_turn(*answers: Answer) -> Answer:
    """One answer a call; after the last, moto's own."""
    left = list(answers)
    return lambda: left.pop(0)() if left else None


CLIENTS: dict[tuple[str, str, str], Any] = {}
MAKE_CLIENT = boto3.session.Session.client


def shared_client(self: Any, name: str, region_name: str | None = None, config: Any = None) -> Any:
    """Session.client with each kind of client made once: loading AWS's models takes most of a test's time."""
    key = (name, region_name or self.region_name, repr(config.retries) if config else "")
    if key not in CLIENTS:
        CLIENTS[key] = MAKE_CLIENT(self, name, region_name=region_name, config=config)
    return CLIENTS[key]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    monkeypatch.setattr(boto3.session.Session, "client", shared_client)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    for name in ("AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    clock = Clock()
    monkeypatch.setattr("emr.aws.time", clock)
    monkeypatch.setattr("emr.following.time", clock)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with mock_aws():
        cloud = Cloud(clock)
        send = botocore.client.BaseClient._make_api_call

        def record(client: Any, operation: str, request: dict[str, Any]) -> Any:
            cloud.calls.append((f"{client.meta.service_model.service_name}:{operation}", request))
            answer = cloud.answers.get(operation, lambda: None)()
            return send(client, operation, request) if answer is None else answer

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
        yield cloud


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A terminal to ask at; the list holds what is typed there."""
    typed: list[str] = []
    asks = io.StringIO()
    asks.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", asks)
    monkeypatch.setattr("builtins.input", lambda _: typed.pop(0))
    return typed


def run_to_success(cloud: Cloud) -> int:
    cloud.clock.at(30, lambda: cloud.step_becomes("PENDING", "BOOTSTRAPPING"))
    cloud.clock.at(300, lambda: cloud.step_becomes("RUNNING"))
    cloud.clock.at(600, cloud.finish)
    return main(RUN.split())


def run_to_failure(cloud: Cloud) -> int:
    def fail() -> None:
        cloud.step_becomes("FAILED", "TERMINATING", "Steps completed with errors")

    def logs_come() -> None:
        cloud.put_step_log(f"INFO Submitted application {APPLICATION}\nException in thread main: SparkException")
        cloud.put_driver_log(
            "INFO start\netl.py: error: no song file under s3://songs/raw/song_data\nERROR exited with 1\n"
        )

    cloud.clock.at(60, lambda: cloud.step_becomes("RUNNING"))
    cloud.clock.at(120, fail)
    cloud.clock.at(420, logs_come)
    return main(RUN.split())


# --- a cluster of its own --------------------------------------------------------------------------------------------


def test_run_uploads_starts_follows_and_prints_the_report(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_to_success(cloud) == 0
    shown = capsys.readouterr()
    assert re.search(r"songs +14,896 +70 +1,234,567 +3\.2\n", shown.out)
    assert "song_data: 14,897 lines of 14,896 files, 1 rejected" in shown.out
    assert "plays that found their song: 87.5%" in shown.out
    assert "run 20260101T000000Z-0a1b2c3d done, 61 s; the whole report: s3://my-logs/sparkify/sparkify-" in shown.out
    states = [
        re.sub(r"^[\d:]{8} ", "", line) for line in shown.err.splitlines() if "cluster " in line and "step " in line
    ]
    assert states == [
        "cluster WAITING, step RUNNING",
        "cluster BOOTSTRAPPING, step PENDING",
        "cluster RUNNING, step RUNNING",
        "cluster TERMINATING, step COMPLETED",
    ]
    name = cloud.cluster.name
    for file in ("etl.py", "dl.cfg"):
        body = cloud.s3.get_object(Bucket="my-logs", Key=f"sparkify/{name}/{file}")["Body"].read()
        assert b"AWS_SECRET_ACCESS_KEY" not in body or file == "etl.py"
        assert body == (ROOT / "etl.py").read_bytes() or file == "dl.cfg"


def test_the_golden_request_is_what_is_sent(cloud: Cloud) -> None:
    assert run_to_success(cloud) == 0
    sent = cloud.sent("emr:RunJobFlow")
    golden = json.loads((ROOT / "tests" / "golden" / "emr_cluster.json").read_text())
    assert json.loads(json.dumps(sent).replace(sent["Name"], "RUN")) == golden["request"]


def test_a_failed_run_waits_for_the_drivers_own_error(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_to_failure(cloud) == 1
    shown = capsys.readouterr()
    assert shown.out == "etl.py: error: no song file under s3://songs/raw/song_data\n"
    assert "ended as cluster TERMINATING, step FAILED" in shown.err
    assert shown.err.count("Waiting for the driver's log") == 1
    assert 420 <= cloud.clock.now < 420 + 2 * LOG_POLL_SECONDS


def test_a_failure_reason_of_emr_is_shown(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    step = {"Status": {"State": "FAILED", "FailureDetails": {"Reason": "Unknown Error.", "Message": "exit 1"}}}
    cloud.answers["DescribeStep"] = lambda: {"Step": {**step, "Config": {"Args": []}}}
    cloud.clock.at(30, lambda: cloud.put_step_log("spark-submit: command not found"))
    assert main(RUN.split()) == 1
    shown = capsys.readouterr()
    assert "Unknown Error.; exit 1" in shown.err
    assert shown.out == "spark-submit: command not found\n"


def test_the_last_attempts_driver_speaks(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        cloud.step_becomes("FAILED")
        cloud.put_step_log(APPLICATION)
        cloud.put_driver_log("java.lang.OutOfMemoryError: first", attempt=1)
        cloud.put_driver_log("INFO x\nTraceback (most recent call last):\nKeyError: second\nINFO bye", attempt=2)

    cloud.clock.at(30, fail)
    assert main(RUN.split()) == 1
    assert capsys.readouterr().out == "Traceback (most recent call last):\nKeyError: second\n"


def test_a_log_copied_before_the_end_is_not_taken_for_the_end(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        cloud.step_becomes("FAILED")
        cloud.cluster.steps[0].end_date_time = datetime.now(timezone.utc) + timedelta(hours=1)
        cloud.put_step_log(APPLICATION)
        cloud.put_driver_log("INFO still going\nWARN TransientError, trying again")

    cloud.clock.at(30, fail)
    cloud.clock.at(300, lambda: cloud.put_driver_log("INFO still going\nValueError: nearly the end"))
    assert main(RUN.split()) == 1
    shown = capsys.readouterr()
    assert "The log may not be whole yet." in shown.err
    assert "ValueError: nearly the end" in shown.out
    assert cloud.clock.now >= LOG_WAIT_SECONDS


def test_logs_that_never_come_end_the_wait(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.clock.at(30, lambda: cloud.step_becomes("FAILED"))
    assert main(RUN.split()) == 1
    assert f"try again later: python -m emr logs {cloud.cluster.id}/s-" in capsys.readouterr().err
    assert LOG_WAIT_SECONDS <= cloud.clock.now < 2 * LOG_WAIT_SECONDS


def test_a_cluster_that_does_not_start_says_why(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        cloud.step_becomes("CANCELLED", "TERMINATED_WITH_ERRORS", "The VPC has no free addresses")

    cloud.clock.at(30, fail)
    assert main(RUN.split()) == 1
    shown = capsys.readouterr()
    assert "cluster TERMINATED_WITH_ERRORS, step CANCELLED: The VPC has no free addresses" in shown.err
    assert "Waiting" not in shown.err
    assert shown.out == ""


def test_a_missing_report_is_said(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.clock.at(30, lambda: cloud.step_becomes("COMPLETED"))
    assert main(RUN.split()) == 0
    assert "There is no report at s3://my-logs/sparkify/" in capsys.readouterr().err


def test_a_report_that_cannot_be_read_does_not_fail_the_job(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.answers["GetObject"] = refuse("AccessDenied")
    cloud.clock.at(30, lambda: cloud.step_becomes("COMPLETED"))
    assert main(RUN.split()) == 0
    assert "The job is done, but its report cannot be shown" in capsys.readouterr().err


def test_logs_that_are_refused_are_one_line(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.clock.at(30, lambda: cloud.step_becomes("FAILED"))
    cloud.clock.at(30, lambda: cloud.answers.update({"ListObjectsV2": refuse("AccessDenied")}))
    assert main(RUN.split()) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("emr: error: An error occurred (AccessDenied)")


def test_a_long_run_is_followed_to_its_end(cloud: Cloud) -> None:
    cloud.clock.at(5400, cloud.finish)
    assert main(RUN.split()) == 0
    assert cloud.clock.now >= 5400


def test_one_line_updates_on_a_terminal(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    cloud.clock.at(60, lambda: cloud.step_becomes("COMPLETED"))
    assert main(RUN.split()) == 0
    progress = capsys.readouterr().err.split("\r\x1b[K")[1:]
    assert progress[:2] == ["cluster WAITING 0:00, step RUNNING 0:00", "cluster WAITING 0:15, step RUNNING 0:15"]
    assert progress[4].startswith("cluster RUNNING 0:00, step COMPLETED 0:00\n")


# --- a bad line to AWS -----------------------------------------------------------------------------------------------


def test_following_survives_throttling_and_a_lost_network(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.answers["DescribeCluster"] = in_turn(
        lambda: None, unplugged, unplugged, refuse("ThrottlingException"), refuse("InternalFailure", 500)
    )
    cloud.clock.at(120, lambda: cloud.step_becomes("COMPLETED"))
    assert main(RUN.split()) == 0
    shown = capsys.readouterr().err
    assert shown.count("no answer from AWS, still trying") == 1
    assert shown.count("AWS is busy, still trying") == 1


def test_credentials_that_run_out_end_the_watch_but_not_the_run(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.answers["DescribeStep"] = in_turn(lambda: None, refuse("ExpiredTokenException"))
    assert main(RUN.split()) == 1
    shown = capsys.readouterr().err
    assert "ExpiredTokenException" in shown
    assert f"It goes on: python -m emr status {cloud.cluster.id}" in shown
    assert "emr:TerminateJobFlows" not in cloud.operations()


def test_a_throttled_start_is_tried_again(cloud: Cloud) -> None:
    cloud.answers["RunJobFlow"] = in_turn(refuse("ThrottlingException"), refuse("ThrottlingException"))
    assert run_to_success(cloud) == 0
    assert cloud.operations().count("emr:RunJobFlow") == 3
    assert len(emr_backends[ACCOUNT][REGION].clusters) == 1


def test_a_start_that_may_have_worked_is_never_sent_twice(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.answers["RunJobFlow"] = in_turn(unplugged)
    assert main(RUN.split()) == 1
    assert cloud.operations().count("emr:RunJobFlow") == 1
    assert re.search(r"The job may have started: look for sparkify-\S+ with", capsys.readouterr().err)


def test_a_start_that_is_throttled_for_ever_gives_up(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.answers["RunJobFlow"] = refuse("ThrottlingException")
    assert main(RUN.split()) == 2
    assert "nothing was started" in capsys.readouterr().err


def test_a_refused_start_is_one_line(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.answers["RunJobFlow"] = refuse("ValidationException")
    assert main(RUN.split()) == 2
    assert (
        "emr: error: AWS refused to start the job: An error occurred (ValidationException)" in capsys.readouterr().err
    )


def test_clients_retry_throttling_but_the_start_does_not(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, Any]] = []

    def client(self: Any, name: str, config: Any) -> Any:
        made.append((name, dict(config.retries)))
        return shared_client(self, name, config=config)

    monkeypatch.setattr(boto3.session.Session, "client", client)
    assert run_to_success(cloud) == 0
    patient = {"mode": "adaptive", "max_attempts": 10}
    assert [retries for name, retries in made if name == "emr"] == [patient, {"total_max_attempts": 1}]
    assert {name for name, retries in made if retries == patient} == {"sts", "s3", "iam", "ec2", "emr"}


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def interrupt() -> None:
    raise KeyboardInterrupt


def stop_own_cluster(cloud: Cloud, typed: list[str]) -> int:
    typed.append("s")
    cloud.clock.at(60, interrupt)
    return main(RUN.split())


def test_ctrl_c_can_stop_the_run_and_its_cluster(
    cloud: Cloud, terminal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop_own_cluster(cloud, terminal) == 130
    assert cloud.sent("emr:TerminateJobFlows") == {"JobFlowIds": [cloud.cluster.id]}
    assert "being terminated" in capsys.readouterr().err


def test_ctrl_c_can_leave_the_run(cloud: Cloud, terminal: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    terminal.append("")
    cloud.clock.at(60, interrupt)
    assert main(RUN.split()) == 130
    assert "emr:TerminateJobFlows" not in cloud.operations()
    shown = capsys.readouterr().err
    assert f"goes on and its cluster ends by itself with the step: python -m emr status {cloud.cluster.id}/s-" in shown


def test_ctrl_c_twice_leaves_the_run(cloud: Cloud, terminal: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: interrupt())
    cloud.clock.at(60, interrupt)
    assert main(RUN.split()) == 130
    assert "emr:TerminateJobFlows" not in cloud.operations()


def test_ctrl_c_without_a_terminal_leaves_the_run(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.clock.at(60, interrupt)
    assert main(RUN.split()) == 130
    assert "goes on" in capsys.readouterr().err
    assert "emr:TerminateJobFlows" not in cloud.operations()


def test_ctrl_c_while_waiting_for_logs_ends_the_wait(cloud: Cloud) -> None:
    cloud.clock.at(60, lambda: cloud.step_becomes("FAILED"))
    cloud.clock.at(120, interrupt)
    assert main(RUN.split()) == 130


def test_no_ctrl_c_between_the_start_and_its_id(cloud: Cloud) -> None:
    seen = []
    cloud.answers["RunJobFlow"] = lambda: seen.append(signal.getsignal(signal.SIGINT)) or None  # type: ignore[func-returns-value]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background process may ignore it from the start
    assert run_to_success(cloud) == 0
    assert seen == [signal.SIG_IGN]
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


# --- money -----------------------------------------------------------------------------------------------------------


def test_without_a_terminal_yes_is_needed(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"run {PLACES}".split()) == 2
    shown = capsys.readouterr().err
    assert shown.index("4 machines: 1 primary") < shown.index("give --yes")
    assert not {"s3:PutObject", "emr:RunJobFlow"} & set(cloud.operations())


@pytest.mark.parametrize("typed", ["", "n", "nope"])
def test_anything_but_yes_starts_nothing(cloud: Cloud, terminal: list[str], typed: str) -> None:
    terminal.append(typed)
    assert main(f"run {PLACES}".split()) == 2
    assert not {"s3:PutObject", "emr:RunJobFlow"} & set(cloud.operations())


def test_yes_at_the_terminal_starts_it(cloud: Cloud, terminal: list[str]) -> None:
    terminal.append("y")
    cloud.clock.at(60, lambda: cloud.step_becomes("COMPLETED"))
    assert main(f"run {PLACES}".split()) == 0


# --- a step on a running cluster, and EMR Serverless -----------------------------------------------------------------


def step_to_success(cloud: Cloud) -> int:
    cluster = cloud.new_cluster()
    cloud.clock.at(60, lambda: cloud.finish("WAITING"))
    return main([*RUN.split(), "--cluster", cluster])


def stop_step(cloud: Cloud, typed: list[str]) -> int:
    cluster = cloud.new_cluster()
    typed.append("stop")
    cloud.answers["CancelSteps"] = lambda: {"CancelStepsInfoList": []}  # not in moto
    cloud.clock.at(60, interrupt)
    return main([*RUN.split(), "--cluster", cluster])


def serverless_to_success(cloud: Cloud) -> int:
    application = cloud.new_application()
    return main([*RUN.split(), "--release", "emr-7.13.0", "--serverless", application, "--role", ROLE])


def stop_job_run(cloud: Cloud, typed: list[str]) -> int:
    application = cloud.new_application()
    cloud.answers["GetJobRun"] = in_turn(lambda: cloud.job_run_becomes(application, "RUNNING") and None)
    typed.append("s")
    cloud.clock.at(15, interrupt)
    return main([*RUN.split(), "--release", "emr-7.13.0", "--serverless", application, "--role", ROLE])


def test_a_step_on_a_running_cluster(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_to_success(cloud) == 0
    assert "songs  " in capsys.readouterr().out
    assert "emr:RunJobFlow" not in cloud.operations()[cloud.operations().index("sts:GetCallerIdentity") :]
    sent = cloud.sent("emr:AddJobFlowSteps")
    golden = json.loads((ROOT / "tests" / "golden" / "emr_step.json").read_text())["request"]
    assert sent["JobFlowId"] == cloud.cluster.id
    assert json.loads(json.dumps(sent).replace(sent["Steps"][0]["Name"], "RUN"))["Steps"] == golden["Steps"]


def test_stopping_a_step_leaves_the_cluster_to_its_owner(
    cloud: Cloud, terminal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop_step(cloud, terminal) == 130
    step = cloud.cluster.steps[0].id
    assert cloud.sent("emr:CancelSteps")["StepIds"] == [step]
    assert "emr:TerminateJobFlows" not in cloud.operations()
    assert "yarn application" in capsys.readouterr().err


def test_serverless(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert serverless_to_success(cloud) == 0
    assert "job run SUCCESS" in capsys.readouterr().err
    sent = cloud.sent("emr-serverless:StartJobRun")
    assert sent["executionRoleArn"] == ROLE
    assert sent["clientToken"] == sent["name"]
    assert sent["jobDriver"]["sparkSubmit"]["entryPoint"] == f"s3://my-logs/sparkify/{sent['name']}/etl.py"


def test_serverless_can_be_stopped(cloud: Cloud, terminal: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert stop_job_run(cloud, terminal) == 130
    assert cloud.operations()[-1] == "emr-serverless:CancelJobRun"
    assert "being cancelled" in capsys.readouterr().err


def test_a_failed_serverless_run_shows_the_driver(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    application = cloud.new_application()

    def fail() -> dict[str, Any] | None:
        run = cloud.job_run_becomes(application, "FAILED", "Job failed, please check complete logs")
        folder = f"sparkify/applications/{application}/jobs/{run.id}/SPARK_DRIVER"
        cloud.put(f"{folder}/stderr.gz", b"INFO x\netl.py: error: all is lost\n")
        cloud.put(f"{folder}/stdout.gz", b"")
        return None

    cloud.answers["GetJobRun"] = in_turn(fail)
    assert main([*RUN.split(), "--release", "emr-7.13.0", "--serverless", application, "--role", ROLE]) == 1
    shown = capsys.readouterr()
    assert shown.out == "etl.py: error: all is lost\n"
    assert "job run FAILED: Job failed, please check complete logs" in shown.err


# --- status and logs -------------------------------------------------------------------------------------------------


def test_status_of_a_run_that_goes_on_and_one_that_is_done(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.clock.at(15, interrupt)
    main(RUN.split())
    cluster, step = cloud.cluster.id, cloud.cluster.steps[0].id
    capsys.readouterr()
    assert main(["status", cluster]) == 0
    assert capsys.readouterr().out == f"{cluster}/{step}: cluster WAITING, step RUNNING\n"
    cloud.put_report()
    cloud.step_becomes("COMPLETED", "TERMINATED")
    assert main(["status", f"{cluster}/{step}"]) == 0
    assert "songs  " in capsys.readouterr().out
    cloud.step_becomes("FAILED", "TERMINATED_WITH_ERRORS")
    assert main(["status", cluster]) == 1


def test_status_of_a_job_run(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    serverless_to_success(cloud)
    [identifier] = re.findall(r"Started (\w+/\w+) as", capsys.readouterr().err)
    assert main(["status", identifier]) == 0
    assert capsys.readouterr().out == f"{identifier}: job run SUCCESS\n"


def test_logs_prints_the_whole_driver_log(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    run_to_failure(cloud)
    cloud.put_driver_log("line 1\nline 2\n", stdout="out 1\n")
    capsys.readouterr()
    assert main(["logs", cloud.cluster.id]) == 0
    assert capsys.readouterr().out == "==> stderr <==\nline 1\nline 2\n==> stdout <==\nout 1\n"


def test_logs_of_a_cluster_without_a_step(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", cloud.new_cluster()]) == 1
    assert "has no step yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("x", "'x' is no ID"),
        ("j-1/x", "'j-1/x' is no ID"),
        ("j-404", "cannot find j-404 in eu-west-1"),
        ("00app/00run", "cannot find"),
    ],
)
def test_an_id_that_is_none(cloud: Cloud, identifier: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", identifier]) == 2
    assert f"emr: error: {message}" in capsys.readouterr().err


# --- checks before anything is started -------------------------------------------------------------------------------

Breaks = Callable[[Cloud], None]


def trusts_no_one(role: str) -> Breaks:
    document = (ROOT / "emr" / "iam" / "trust-emr.json").read_text().replace("elasticmapreduce", "glue")
    return lambda cloud: boto3.client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=document)


def drop_profile(cloud: Cloud) -> None:
    iam = boto3.client("iam")
    iam.remove_role_from_instance_profile(InstanceProfileName="sparkify-job", RoleName="sparkify-job")
    iam.delete_instance_profile(InstanceProfileName="sparkify-job")


def empty_profile(cloud: Cloud) -> None:
    iam = boto3.client("iam")
    iam.remove_role_from_instance_profile(InstanceProfileName="sparkify-job", RoleName="sparkify-job")


def no_default_subnets(cloud: Cloud) -> None:
    for subnet in cloud.ec2.describe_subnets()["Subnets"]:
        cloud.ec2.delete_subnet(SubnetId=subnet["SubnetId"])


def untag(cloud: Cloud) -> None:
    subnet = cloud.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    cloud.ec2.delete_tags(Resources=[subnet], Tags=[{"Key": EMR_TAG}])


def answer(operation: str, how: Answer) -> Breaks:
    return lambda cloud: cloud.answers.update({operation: how})


def delete_bucket(bucket: str) -> Breaks:
    return lambda cloud: cloud.s3.delete_bucket(Bucket=bucket)


def delete_input(folder: str) -> Breaks:
    return lambda cloud: cloud.s3.delete_object(Bucket="songs", Key=f"raw/{folder}/x.json")


def logs_elsewhere(cloud: Cloud) -> None:
    cloud.s3.delete_bucket(Bucket="my-logs")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="my-logs")


def make_public(bucket: str, how: str) -> Breaks:
    def act(cloud: Cloud) -> None:
        if how == "policy":
            cloud.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(PUBLIC).replace("lake", bucket))
        else:
            cloud.s3.put_bucket_acl(Bucket=bucket, ACL="public-read")

    return act


PROBLEMS: dict[str, tuple[Breaks, str]] = {
    "credentials": (answer("GetCallerIdentity", refuse("InvalidClientTokenId")), "no valid AWS credentials"),
    "network": (answer("GetCallerIdentity", unplugged), "AWS cannot be reached in region 'eu-west-1'"),
    "no output bucket": (
        delete_bucket("lake"),
        "--output: there is no bucket lake; create it with `aws s3 mb s3://lake`",
    ),
    "no log bucket": (delete_bucket("my-logs"), "--logs: there is no bucket my-logs; create it"),
    "closed bucket": (answer("HeadBucket", in_turn(refuse("403"))), "--input: An error occurred (403)"),
    "no songs": (delete_input("song_data"), "--input: nothing under s3://songs/raw/song_data/"),
    "no logs": (delete_input("log_data"), "--input: nothing under s3://songs/raw/log_data/"),
    "logs elsewhere": (logs_elsewhere, "--logs: bucket my-logs is in us-east-1; EMR needs one in its own eu-west-1"),
    "public policy": (make_public("lake", "policy"), "--output: bucket lake is public (by its policy)"),
    "public acl": (make_public("lake", "acl"), "--output: bucket lake is public (by its access control list)"),
    "public logs": (make_public("my-logs", "policy"), "--logs: bucket my-logs is public (by its policy)"),
    "unknown privacy": (
        answer("GetBucketPolicyStatus", in_turn(refuse("AccessDenied"))),
        "--output: cannot see whether lake is public",
    ),
    "no service role": (
        lambda cloud: boto3.client("iam").delete_role(RoleName="sparkify-emr-service"),
        "--service-role: there is no role sparkify-emr-service: create it as the README says",
    ),
    "service role of others": (trusts_no_one("sparkify-emr-service"), "does not trust elasticmapreduce.amazonaws.com"),
    "role refused": (answer("GetRole", refuse("AccessDenied")), "emr/iam/operator.json has all rights that are needed"),
    "no profile": (drop_profile, "--instance-profile: there is no instance profile sparkify-job"),
    "empty profile": (empty_profile, "--instance-profile: sparkify-job holds no role"),
    "profile of others": (trusts_no_one("sparkify-job"), "role sparkify-job does not trust ec2.amazonaws.com"),
    "no security configuration": (
        lambda cloud: cloud.emr.delete_security_configuration(Name="sparkify-imdsv2"),
        "aws emr create-security-configuration --name sparkify-imdsv2 --security-configuration file://emr/iam/imdsv2.json",
    ),
    "untagged network": (
        untag,
        "--subnet: a tag is missing, without which EMR's role may not use the network: `aws ec2",
    ),
    "no default VPC": (no_default_subnets, "--subnet: eu-west-1 has no default VPC, so give a subnet"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_is_one_line_and_nothing_is_started(
    name: str, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks, message = PROBLEMS[name]
    breaks(cloud)
    assert main(RUN.split()) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("emr: error: ")]
    assert message in line
    assert not {"s3:PutObject", "emr:RunJobFlow"} & set(cloud.operations())


def test_all_problems_are_shown_at_once(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("no songs", "public policy", "no service role", "no profile", "no default VPC"):
        PROBLEMS[name][0](cloud)
    assert main(RUN.split()) == 2
    assert capsys.readouterr().err.count("emr: error: ") == 5


def test_a_blocked_public_policy_is_private(cloud: Cloud) -> None:
    for how in ("policy", "acl"):
        make_public("lake", how)(cloud)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    cloud.s3.put_public_access_block(Bucket="lake", PublicAccessBlockConfiguration=block)
    assert run_to_success(cloud) == 0


def test_a_public_lake_can_be_meant_but_public_logs_can_not(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    make_public("lake", "policy")(cloud)
    cloud.clock.at(60, lambda: cloud.step_becomes("COMPLETED"))
    assert main([*RUN.split(), "--allow-public"]) == 0
    make_public("my-logs", "policy")(cloud)
    assert main([*RUN.split(), "--allow-public"]) == 2
    assert "--logs: bucket my-logs is public" in capsys.readouterr().err


def test_no_region_is_said(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert main(RUN.split()) == 2
    assert "no AWS region is set: give --region" in capsys.readouterr().err


def test_an_unknown_profile_is_said(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert main(RUN.split()) == 2
    assert "(nobody)" in capsys.readouterr().err


def test_subnets_are_checked(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    vpc = cloud.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    small = cloud.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/28")["Subnet"]["SubnetId"]
    assert main([*RUN.split(), "--subnet", small, "--workers", "11"]) == 2
    shown = capsys.readouterr().err
    assert f"{small} has too few free addresses for 12 machines" in shown
    assert f"aws ec2 create-tags --resources {small} {vpc} --tags Key={EMR_TAG},Value=true" in shown
    cloud.ec2.create_tags(Resources=[small], Tags=[{"Key": EMR_TAG, "Value": "true"}])
    cloud.clock.at(60, lambda: cloud.step_becomes("COMPLETED"))
    assert main([*RUN.split(), "--subnet", small, "--workers", "3"]) == 0
    assert cloud.sent("emr:RunJobFlow")["Instances"]["Ec2SubnetIds"] == [small]
    assert main([*RUN.split(), "--subnet", "subnet-404"]) == 2
    assert "--subnet: there is no such subnet in eu-west-1" in capsys.readouterr().err


def test_running_clusters_are_checked(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN.split(), "--cluster", "j-404"]) == 2
    assert "--cluster: there is no cluster j-404 in eu-west-1" in capsys.readouterr().err
    cluster = cloud.new_cluster(ReleaseLabel="emr-7.13.0")
    assert main([*RUN.split(), "--cluster", cluster]) == 2
    assert f"--cluster: {cluster} is emr-7.13.0: give --release emr-7.13.0" in capsys.readouterr().err
    cloud.emr.terminate_job_flows(JobFlowIds=[cluster])
    assert main([*RUN.split(), "--release", "emr-7.13.0", "--cluster", cluster]) == 2
    assert re.search(rf"--cluster: {cluster} is TERMINAT\w+; leave --cluster away", capsys.readouterr().err)
    other = cloud.new_cluster(LogUri="")
    assert main([*RUN.split(), "--cluster", other]) == 2
    assert f"--cluster: {other} keeps no logs in S3" in capsys.readouterr().err
    assert "emr:AddJobFlowSteps" not in cloud.operations()


def test_applications_are_checked(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*RUN.split(), "--role", ROLE, "--serverless"]
    assert main([*command, "00none"]) == 2
    assert "--serverless: there is no application 00none in eu-west-1" in capsys.readouterr().err
    application = cloud.new_application()
    assert main([*command, application]) == 2
    assert f"{application} is emr-7.13.0: give --release emr-7.13.0" in capsys.readouterr().err
    trusts_no_one("sparkify-serverless")(cloud)
    assert main([*command, application, "--release", "emr-7.13.0"]) == 2
    assert "--role: role sparkify-serverless does not trust emr-serverless.amazonaws.com" in capsys.readouterr().err
    boto3.client("emr-serverless", region_name=REGION).stop_application(applicationId=application)
    boto3.client("emr-serverless", region_name=REGION).delete_application(applicationId=application)
    assert main([*command, application, "--release", "emr-7.13.0"]) == 2
    assert "Spark application and TERMINATED: give a Spark application" in capsys.readouterr().err


def test_an_upload_that_is_refused_starts_nothing(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.answers["PutObject"] = refuse("AccessDenied")
    assert main(RUN.split()) == 2
    assert "--logs: cannot write s3://my-logs/sparkify/" in capsys.readouterr().err
    assert "emr:RunJobFlow" not in cloud.operations()


# --- iam/ ------------------------------------------------------------------------------------------------------------

# The rights that each call needs, as the service authorization reference has them. GetCallerIdentity needs none.
RIGHTS = {
    "sts:GetCallerIdentity": set(),
    "s3:HeadBucket": {"s3:ListBucket"},
    "s3:ListObjectsV2": {"s3:ListBucket"},
    "s3:GetObject": {"s3:GetObject"},
    "s3:PutObject": {"s3:PutObject"},
    "s3:GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"},
    "s3:GetBucketPolicyStatus": {"s3:GetBucketPolicyStatus"},
    "s3:GetBucketAcl": {"s3:GetBucketAcl"},
    "iam:GetRole": {"iam:GetRole"},
    "iam:GetInstanceProfile": {"iam:GetInstanceProfile"},
    "ec2:DescribeSubnets": {"ec2:DescribeSubnets"},
    # A start with tags, scaling, an idle limit and roles needs the rights to set each of them.
    "emr:RunJobFlow": {
        "elasticmapreduce:RunJobFlow", "elasticmapreduce:AddTags", "elasticmapreduce:PutManagedScalingPolicy",
        "elasticmapreduce:PutAutoTerminationPolicy", "iam:PassRole",
    },
    "emr-serverless:StartJobRun": {"emr-serverless:StartJobRun", "emr-serverless:TagResource", "iam:PassRole"},
    **{
        f"emr:{name}": {f"elasticmapreduce:{name}"}
        for name in (
            "AddJobFlowSteps", "CancelSteps", "DescribeCluster", "DescribeSecurityConfiguration", "DescribeStep",
            "ListSteps", "TerminateJobFlows",
        )
    },
    **{name: {name} for name in (f"emr-serverless:{word}" for word in ("CancelJobRun", "GetApplication", "GetJobRun"))},
}  # fmt: skip


def statements(policy: str) -> list[dict[str, Any]]:
    return list(json.loads((ROOT / "emr" / "iam" / f"{policy}.json").read_text())["Statement"])


def listed(value: str | list[str]) -> set[str]:
    return {value} if isinstance(value, str) else set(value)


def test_the_operators_policy_names_each_action_that_is_called_and_no_other(cloud: Cloud, terminal: list[str]) -> None:
    scenarios: list[Callable[[], int]] = [
        lambda: run_to_success(cloud),
        lambda: run_to_failure(cloud),
        lambda: stop_own_cluster(cloud, terminal),
        lambda: step_to_success(cloud),
        lambda: stop_step(cloud, terminal),
        lambda: serverless_to_success(cloud),
        lambda: stop_job_run(cloud, terminal),
    ]
    called: set[str] = set()
    ends = []
    for scenario in scenarios:
        cloud.clock.now, cloud.clock.due = 0.0, []
        emr_backends[ACCOUNT][REGION].clusters.clear()
        start = len(cloud.calls)
        ends.append(scenario())
        operations = cloud.operations()[start:]
        called |= set(operations[operations.index("sts:GetCallerIdentity") :]) - {"s3:CreateBucket"}
    assert ends == [0, 1, 130, 0, 130, 0, 130]
    needed = set().union(*(RIGHTS[operation] for operation in called))
    granted = set().union(*(listed(statement["Action"]) for statement in statements("operator")))
    assert granted == needed
    assert set(RIGHTS) == called


def test_the_jobs_policy_gives_each_prefix_what_the_job_does_there() -> None:
    granted: dict[str, set[str]] = {}
    for statement in statements("job"):
        assert statement["Effect"] == "Allow"
        for resource in listed(statement["Resource"]):
            granted.setdefault(resource.removeprefix("arn:aws:s3:::"), set()).update(listed(statement["Action"]))
    read = {"s3:GetObject"}
    write = read | {"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
    assert granted == {
        "INPUT_BUCKET": {"s3:ListBucket"},
        "INPUT_BUCKET/INPUT_PREFIX": read,
        "INPUT_BUCKET/INPUT_PREFIX/*": read,
        "OUTPUT_BUCKET": {"s3:ListBucket", "s3:ListBucketMultipartUploads"},
        "OUTPUT_BUCKET/OUTPUT_PREFIX": write,
        "OUTPUT_BUCKET/OUTPUT_PREFIX/*": write,
        "LOG_BUCKET": {"s3:ListBucket"},
        "LOG_BUCKET/LOG_PREFIX/*": {"s3:GetObject", "s3:PutObject"},
    }


def test_no_policy_gives_away_more_than_it_must() -> None:
    for path in (ROOT / "emr" / "iam").glob("*.json"):
        document = json.loads(path.read_text())
        for statement in document.get("Statement", []):
            assert not [action for action in listed(statement["Action"]) if "*" in action], path
            if statement.get("Resource") == "*":  # calls that know no resource
                calls = {
                    "ec2:DescribeSubnets",
                    "elasticmapreduce:RunJobFlow",
                    "elasticmapreduce:DescribeSecurityConfiguration",
                }
                assert listed(statement["Action"]) <= calls
            if "iam:PassRole" in listed(statement["Action"]):
                assert "iam:PassedToService" in statement["Condition"]["StringEquals"]
