"""python -m emr against moto's AWS, with a clock that does not wait: each command and each way that it can fail."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import botocore.client
import pytest
from emr_cloud import (
    ACCOUNT,
    APPLICATION,
    PLACES,
    REGION,
    REPORT,
    ROOT,
    TAG,
    Cloud,
    actions,
    in_turn,
    refuse,
    statements,
    timed_out,
    unplugged,
)

from emr.__main__ import main
from emr.aws import Aws
from emr.checks import BLOCKS
from emr.following import LOG_WAIT_SECONDS
from emr.request import EMR_TAG

pytest_plugins = ["emr_cloud"]

Shown = pytest.CaptureFixture[str]
MONEY = {"s3:PutObject", "emr:RunJobFlow", "emr:AddJobFlowSteps", "emr-serverless:StartJobRun"}
OWN_ERROR = "etl.py: error: no song file under s3://my-songs/raw/song_data"


def interrupt() -> None:
    raise KeyboardInterrupt


def hang_up() -> None:
    raise EOFError


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def run_to_success(cloud: Cloud, options: str = "--yes") -> int:
    started = {30.0: lambda: cloud.becomes("PENDING", "BOOTSTRAPPING"), 300.0: lambda: cloud.becomes("RUNNING")}
    return cloud.run(options, {**started, 600.0: cloud.finish})


def run_to_failure(cloud: Cloud) -> int:
    logs_come = lambda: cloud.fail(f"INFO start\n{OWN_ERROR}\nERROR exited with 1\n")  # noqa: E731
    return cloud.run("--yes", {120: lambda: cloud.becomes("FAILED", "TERMINATING"), 420: logs_come})


def run_serverless(cloud: Cloud, state: str = "SUCCESS", events: dict[float, Any] | None = None) -> int:
    options = cloud.new_application()

    def become() -> None:
        cloud.job_run(options).state, cloud.job_run(options).state_details = state, "Job failed, see the logs"

    cloud.answers["GetJobRun"] = in_turn(become)
    return cloud.run(f"--yes {options}", events)


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Types at a terminal, where there is one, or does something else when asked."""

    def start(answer: Any) -> None:
        asks = io.StringIO()
        asks.isatty = lambda: answer is not None  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", asks)
        monkeypatch.setattr("builtins.input", lambda: answer() if callable(answer) else answer)

    return start


def test_a_run_uploads_starts_follows_and_prints_the_report(cloud: Cloud, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert run_to_success(cloud) == 0
    shown = capsys.readouterr()
    for line in (r"songs +14,896 +70 +1,234,567 +3\.2", "song_data: 14,897 lines of 14,896 files, 1 rejected", "plays that found their song: 87.5%", r"run 2026\S+ done, 1800 s; the whole report: s3://my-logs/sparkify/sparkify-"):  # fmt: skip
        assert re.search(line, shown.out)
    states = "WAITING, step RUNNING|BOOTSTRAPPING, step PENDING|RUNNING, step RUNNING|TERMINATING, step COMPLETED"
    assert re.findall(r"cluster (\w+, step \w+)", shown.err) == states.split("|")
    name, golden = cloud.cluster.name, (ROOT / "tests" / "golden" / "emr_cluster.json").read_text()
    body = cloud.s3.get_object(Bucket="my-logs", Key=f"sparkify/{name}/etl.py")["Body"].read()
    assert body == (ROOT / "etl.py").read_bytes()
    [sent] = [json.dumps(request) for operation, request in cloud.calls if operation == "emr:RunJobFlow"]
    assert json.loads(sent.replace(name, "RUN")) == json.loads(golden)
    cloud.put("sparkify-9/report.json", '{"state": "started"}')  # of a run that died
    monkeypatch.setitem(REPORT, "matched_share", None)  # where there is no play
    assert run_to_success(cloud, "--yes --workers 3 --price 1") == 0
    assert "$4.00 an hour for 4 machines (by --price). An earlier run took 0.60 hours" in capsys.readouterr().err
    cloud.put("sparkify-0/report.json", '{"state": "done", "seconds": 3600}')  # the newest has not the last name
    run_to_success(cloud)
    assert "An earlier run took 1.10 hours with its start: $1.11 to $3.05." in capsys.readouterr().err
    assert cloud.run(f"--yes --no-wait {cloud.new_application()}") == 0
    said = capsys.readouterr().err  # no cluster, which takes time to start; the last two reports may be of one second
    assert re.search(r"An earlier run took (0\.50|1\.00) hours", said)


def test_a_failed_run_waits_for_the_drivers_own_error(cloud: Cloud, capsys: Shown) -> None:
    assert run_to_failure(cloud) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{OWN_ERROR}\n"
    assert "ended as cluster TERMINATING, step FAILED" in shown.err
    assert shown.err.count("Waiting for the driver's log") == 1
    assert 420 <= cloud.clock.now < 480
    last = "INFO x\nTraceback (most recent call last):\nKeyError: second\nINFO bye"  # attempt
    assert cloud.run("--yes", {30: lambda: cloud.fail("java.lang.OutOfMemoryError: first", last)}) == 1
    shown = capsys.readouterr()
    assert shown.out == "Traceback (most recent call last):\nKeyError: second\n"
    assert "step FAILED: AWS gives no reason\n" in shown.err  # the cluster's own is none


NOTES, ERRORS = "INFO begin\nINFO end\n", "".join(f"ERROR {number}\n" for number in range(20))


@pytest.mark.parametrize(
    ("drivers", "submit", "shown"),
    [
        ([ERRORS], APPLICATION, ERRORS.partition("ERROR 4\n")[2]),
        ([NOTES], APPLICATION, f"INFO out\n{NOTES}"),
        ([], f"{APPLICATION}\nException: the driver never came\n", "Exception: the driver never came\n"),
    ],
)
def test_where_the_job_says_nothing_its_last_lines_are_shown(drivers: list[str], submit: str, shown: str, cloud: Cloud, capsys: Shown) -> None:  # fmt: skip
    assert cloud.run("--yes", {30: lambda: cloud.fail(*drivers, submit=submit, stdout="INFO out\n")}) == 1
    assert capsys.readouterr().out == shown


def test_a_failed_run_is_one_json_for_programs_at_once(cloud: Cloud, capsys: Shown) -> None:
    assert cloud.run("--yes --json", {30: lambda: cloud.becomes("FAILED")}) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["states"]["step"], shown["ended"], shown["done"], shown["report"]) == ("FAILED", True, False, None)
    assert cloud.clock.now < 60


def test_all_that_emr_says_of_an_end_is_shown_once(cloud: Cloud, capsys: Shown) -> None:
    said = {"StateChangeReason": {"Message": "bootstrap failed"}}
    cluster = {**said, "State": "TERMINATED_WITH_ERRORS", "ErrorDetails": [{"ErrorMessage": "no disk"}]}
    step = {**said, "State": "CANCELLED", "FailureDetails": {"Reason": "Unknown", "Message": "exit 1"}}
    cloud.answers["DescribeCluster"] = lambda: {"Cluster": {"Status": cluster}}
    cloud.answers["DescribeStep"] = lambda: {"Step": {"Status": step}}
    assert cloud.run() == 1
    assert "step CANCELLED: Unknown; exit 1; bootstrap failed; no disk\n" in capsys.readouterr().err


def test_a_log_copied_before_the_end_is_not_taken_for_the_end(cloud: Cloud, capsys: Shown) -> None:
    def fail(log: str) -> None:
        cloud.fail(f"INFO still going\n{log}")
        cloud.step.end_date_time = datetime.now(timezone.utc) + timedelta(hours=1)

    assert cloud.run("--yes", {30: lambda: fail("WARN TransientError"), 300: lambda: fail("ValueError: nearly")}) == 1
    shown = capsys.readouterr()
    assert ("The log may not be whole yet." in shown.err, shown.out) == (True, "ValueError: nearly\n")
    assert cloud.clock.now >= LOG_WAIT_SECONDS
    assert cloud.run("--yes", {30: lambda: fail(OWN_ERROR)}) == 1  # which is the end
    assert cloud.clock.now < 60


@pytest.mark.parametrize(
    ("step", "answers", "code", "message"),
    [
        ("FAILED", {}, 1, "try again later: python -m emr logs j-"),
        ("FAILED", {"ListObjectsV2": refuse("AccessDenied")}, 1, "emr: error: An error occurred (AccessDenied)"),
        ("COMPLETED", {}, 0, "There is no report to show from s3://my-logs/sparkify/"),
        ("COMPLETED", {"GetObject": refuse("AccessDenied")}, 0, "The job is done, but its report cannot be shown"),
        ("CANCELLED", {}, 1, "cluster TERMINATED_WITH_ERRORS, step CANCELLED: no free addresses"),
        ("PENDING", {}, 1, "cluster TERMINATED_WITH_ERRORS, step PENDING: no free addresses"),
    ],
)
def test_ends_without_logs_or_report(step: str, answers: Any, code: int, message: str, cloud: Cloud, capsys: Shown) -> None:  # fmt: skip
    def end() -> None:
        cloud.becomes(step, "TERMINATED_WITH_ERRORS", "no free addresses")
        cloud.answers |= answers

    assert cloud.run("--yes", {30: end}) == code
    assert message in capsys.readouterr().err
    assert cloud.clock.now < (2 * LOG_WAIT_SECONDS if step == "FAILED" else 60)  # only a step that ran has a log


@pytest.mark.parametrize(("hours", "is_named"), [(12, True), (11, False)])
@pytest.mark.parametrize("state", ["step FAILED", "job run CANCELLED"])
def test_the_limit_of_hours_is_named_when_it_strikes(state: str, hours: int, is_named: bool, cloud: Cloud, capsys: Shown) -> None:  # fmt: skip
    start = datetime(2026, 5, 1, tzinfo=timezone.utc)
    end = start + timedelta(hours=hours, seconds=2)
    status = {"State": "FAILED", "Timeline": {"StartDateTime": start, "EndDateTime": end}}
    cloud.answers["DescribeStep"] = lambda: {"Step": {"Status": status, "Config": {"Args": ["timeout", "12h"]}}}
    run = {"state": "CANCELLED", "startedAt": start, "endedAt": end, "executionTimeoutMinutes": 720}
    cloud.answers["GetJobRun"] = lambda: {"jobRun": {**run, "jobDriver": {"sparkSubmit": {"entryPointArguments": []}}}}
    cloud.run("--yes" if "step" in state else f"--yes {cloud.new_application()}")
    assert (f"{state}: it came to its limit of 12 hours (--max-hours)" in capsys.readouterr().err) == is_named


def test_a_failed_job_run_shows_its_driver(cloud: Cloud, capsys: Shown) -> None:
    def logs() -> None:
        application, run = re.findall(r"Started (\w+)/(\w+) as", capsys.readouterr().err)[0]
        folder = f"applications/{application}/jobs/{run}/SPARK_DRIVER"
        cloud.put(f"{folder}/stderr.gz", "INFO x\netl.py: error: all is lost\n")

    assert run_serverless(cloud, "FAILED", {30: logs}) == 1
    assert capsys.readouterr().out == "etl.py: error: all is lost\n"


def test_a_job_run_that_is_being_cancelled_has_not_ended(cloud: Cloud, capsys: Shown) -> None:
    run = {"state": "CANCELLED", "stateDetails": "by Ann", "jobDriver": {"sparkSubmit": {"entryPointArguments": []}}}
    cancelled = {30.0: lambda: cloud.answers.update(GetJobRun=lambda: {"jobRun": run})}
    assert run_serverless(cloud, "CANCELLING", cancelled) == 1
    assert "ended as job run CANCELLED: by Ann\n" in capsys.readouterr().err


def test_following_survives_throttling_and_a_lost_network(cloud: Cloud, capsys: Shown) -> None:
    bad = (unplugged, unplugged, refuse("ThrottlingException"), refuse("InternalFailure", 500))
    cloud.answers["DescribeCluster"] = in_turn(lambda: None, *bad)
    assert cloud.run("--yes", {120: lambda: cloud.becomes("COMPLETED")}) == 0
    said = re.findall("no answer from AWS, still trying|AWS is busy, still trying", capsys.readouterr().err)
    assert said == ["no answer from AWS, still trying", "AWS is busy, still trying"]


def test_credentials_that_run_out_end_the_watch_with_a_code_of_its_own(cloud: Cloud, capsys: Shown) -> None:
    cloud.answers["DescribeStep"] = in_turn(lambda: None, refuse("ExpiredTokenException"))
    assert cloud.run() == 3
    assert f"It goes on: python -m emr status {cloud.cluster.id}" in capsys.readouterr().err
    assert "emr:TerminateJobFlows" not in cloud.names()


@pytest.mark.parametrize(
    ("answer", "times", "code", "message"),
    [
        (in_turn(*2 * [refuse("ThrottlingException")]), 3, 0, "Started j-"),
        (in_turn(refuse("TooManyRequestsException", 429)), 2, 0, "Started j-"),
        (in_turn(timed_out), 1, 4, "The job may have started"),
        (in_turn(unplugged), 1, 4, r"The job may have started: the same command with --name sparkify-\S+ finds it"),
        (refuse("InternalFailure", 500), 1, 4, "The job may have started"),
        (refuse("ValidationException"), 1, 2, r"AWS refused to start the job: .*\(ValidationException\)"),
        (refuse("ThrottlingException"), 10, 2, "AWS is throttling: nothing was started"),
    ],
)
def test_a_start_that_may_have_worked_is_never_sent_twice(answer: Any, times: int, code: int, message: str, cloud: Cloud, capsys: Shown) -> None:  # fmt: skip
    cloud.answers["RunJobFlow"] = answer
    assert cloud.run("--yes --no-wait") == code
    assert cloud.names().count("emr:RunJobFlow") == times
    assert cloud.clock.now >= times - 1  # a second or more before each new try
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("the next try is in") == times - 1


def test_botocore_does_not_send_a_start_twice_either(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, send = dict[str, int](), botocore.client.BaseClient._make_api_call

    def note(client: Any, operation: str, request: Any) -> Any:
        tries[operation] = client.meta.config.retries.get("total_max_attempts")
        return send(client, operation, request)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", note)
    for options in ("", f"--cluster {cloud.new_cluster()}", cloud.new_application()):
        assert cloud.run(f"--yes --no-wait {options}") == 0
    assert [tries[name] for name in ("RunJobFlow", "AddJobFlowSteps", "StartJobRun")] == [1, 1, 1]


@pytest.mark.parametrize("where", ["", "--cluster", "--serverless"])
def test_the_same_name_finds_the_run_and_starts_no_second(where: str, cloud: Cloud, capsys: Shown) -> None:
    on = {"": "", "--cluster": f"--cluster {cloud.new_cluster()}", "--serverless": cloud.new_application()}[where]
    command = f"--name night-1 --no-wait --json {on}"
    cloud.calls.clear()
    cloud.answers["ListJobRuns"] = in_turn(lambda: {"jobRuns": []})  # where moto has an error
    assert [cloud.run(f"--yes {command}"), cloud.run(command)] == [0, 0]  # what is there needs no yes
    shown = capsys.readouterr()
    first, second = (json.loads(line) for line in shown.out.splitlines())
    assert (first, first["report"]) == (second, "s3://my-logs/sparkify/night-1/report.json")
    assert f"night-1 is there already as {first['id']}" in shown.err
    assert len([name for name in cloud.names() if name in MONEY - {"s3:PutObject"}]) == 1


def test_upload_only_uploads_for_a_name_that_is_there_and_checks_first(cloud: Cloud) -> None:
    assert cloud.run("--yes --no-wait --name n") == 0
    cloud.calls.clear()
    assert cloud.run("--upload-only --name n") == 0
    assert MONEY & set(cloud.names()) == {"s3:PutObject"}
    empty_profile(cloud)
    cloud.calls.clear()
    assert cloud.run("--upload-only --name n") == 2
    assert not MONEY & set(cloud.names())


def test_of_several_runs_of_one_name_the_newest_is_found(cloud: Cloud, capsys: Shown) -> None:
    days = {"00first": 1, "00third": 3, "00second": 2}
    runs = [
        {"id": run, "name": "n", "createdAt": datetime(2026, 1, day, tzinfo=timezone.utc)} for run, day in days.items()
    ]
    runs.append({**runs[0], "id": "00other", "name": "n2", "createdAt": datetime(2026, 1, 4, tzinfo=timezone.utc)})
    cloud.answers["ListJobRuns"] = lambda: {"jobRuns": runs}
    assert cloud.run(f"--yes --name n --no-wait {cloud.new_application()}") == 0
    assert "n is there already as 00app/00third" in re.sub(r"as \w+/", "as 00app/", capsys.readouterr().err)


def test_status_and_logs_for_people_and_programs(cloud: Cloud, capsys: Shown) -> None:
    for identifier in ("x", "j-1/x", "j-404", "00app/00run"):
        assert main(["status", identifier]) == 2
        assert re.search(f"cannot find {identifier} in|'{identifier}' is no ID", capsys.readouterr().err)
    cloud.run("--yes", {15: interrupt})
    cluster, both = cloud.cluster.id, f"{cloud.cluster.id}/{cloud.step.id}"
    capsys.readouterr()
    assert main(["status", cluster]) == 0
    assert capsys.readouterr().out == f"{both}: cluster WAITING, step RUNNING\n"
    cloud.finish("TERMINATED")
    assert main(["status", both, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["done"], shown["report"]["tables"]["songs"]["rows"]) == (both, True, 14896)
    cloud.fail("line 1\nline 2\n", stdout="out 1\n")
    assert main(["status", cluster]) == 1
    capsys.readouterr()
    assert main(["logs", cluster]) == 0
    assert capsys.readouterr().out == "==> stderr <==\nline 1\nline 2\n==> stdout <==\nout 1\n"
    cloud.cluster.state = "WAITING"
    assert cloud.run(f"--yes --no-wait --cluster {cluster}") == main(["status", cluster]) == 0  # its newest step


@pytest.mark.parametrize(
    ("end", "answer", "code", "is_stopped"),
    [
        (interrupt, "s", 130, True),
        (interrupt, "", 130, False),
        (interrupt, None, 130, False),
        (interrupt, interrupt, 130, False),
        (interrupt, hang_up, 130, False),
        (interrupt, terminate, 143, True),
        (terminate, None, 143, True),
        (terminate, pytest.fail, 143, True),
    ],
)
def test_ctrl_c_asks_and_sigterm_stops(end: Any, answer: Any, code: int, is_stopped: bool, cloud: Cloud, capsys: Shown, types: Any) -> None:  # fmt: skip
    types(answer)
    assert cloud.run("--yes", {60: end}) == code
    assert ("emr:TerminateJobFlows" in cloud.names()) == is_stopped
    assert ("being terminated" if is_stopped else "goes on and its cluster ends by itself") in capsys.readouterr().err


@pytest.mark.parametrize(("status", "said"), [("SUBMITTED", "being cancelled. YARN may"), ("FAILED", "step: too late")])
def test_stopping_a_step_leaves_the_cluster_to_its_owner(status: str, said: str, cloud: Cloud, capsys: Shown) -> None:
    answer = {"CancelStepsInfoList": [{"Status": status, "Reason": "too late"}]}
    cloud.answers["CancelSteps"] = lambda: answer  # not in moto
    assert cloud.run(f"--yes --cluster {cloud.new_cluster()}", {60: terminate}) == 143
    assert said in capsys.readouterr().err
    assert cloud.calls[-1][1]["StepIds"] == [cloud.step.id]
    assert "emr:TerminateJobFlows" not in cloud.names()
    assert run_serverless(cloud, "RUNNING", {15: terminate}) == 143
    assert cloud.names()[-1] == "emr-serverless:CancelJobRun"


def test_a_cluster_that_was_there_is_not_said_to_end(cloud: Cloud, capsys: Shown) -> None:
    assert cloud.run(f"--yes --cluster {cloud.new_cluster()}", {60: interrupt}) == 130
    assert f"{cloud.step.id} goes on: python -m emr status" in capsys.readouterr().err


def test_a_job_that_cannot_be_stopped_goes_on_with_a_code_of_its_own(cloud: Cloud, capsys: Shown) -> None:
    cloud.answers["TerminateJobFlows"] = refuse("ExpiredTokenException")
    assert cloud.run("--yes", {60: terminate}) == 3
    assert "cannot stop it: An error occurred (ExpiredTokenException) when calling" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_start_waits_for_the_id(number: int, code: int, cloud: Cloud, capsys: Shown) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may ignore it
    cloud.answers["RunJobFlow"] = lambda: os.kill(os.getpid(), number)
    assert cloud.run() == code
    assert f"Started {cloud.cluster.id} as" in capsys.readouterr().err
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_aws_takes_no_start_ends_the_tries(number: int, code: int, cloud: Cloud, capsys: Shown) -> None:
    cloud.answers["RunJobFlow"] = refuse("ThrottlingException")
    assert cloud.run("--yes", {70.0: lambda: signal.raise_signal(number)}) == code
    assert cloud.names().count("emr:RunJobFlow") == 7  # after 0, 1, 3, 7, 15, 31 and 63 seconds
    said = capsys.readouterr().err
    assert "the next try is in 60 s\n" in said
    assert said.endswith("emr: error: stopped; nothing was started\n")


@pytest.mark.parametrize(
    ("answer", "starts"), [(None, False), ("", False), ("nope", False), (hang_up, False), ("y", True), ("Yes ", True)]
)
def test_nothing_starts_without_a_yes(answer: Any, starts: bool, cloud: Cloud, capsys: Shown, types: Any) -> None:  # fmt: skip
    types(answer)
    assert cloud.run("--no-wait") == (0 if starts else 2)
    out, shown = capsys.readouterr()
    assert shown.index("4 machines: 1 primary") < shown.index("Price: up to $1.01 an hour for 4 machines")
    assert out == (f"{cloud.cluster.id}\n" if starts else "")
    assert bool(MONEY & set(cloud.names())) == starts


@pytest.mark.parametrize("how", [refuse("AccessDenied"), timed_out])
def test_a_report_that_cannot_be_read_keeps_no_run_from_starting(how: Any, cloud: Cloud) -> None:
    cloud.put("sparkify-9/report.json", "{}")
    cloud.answers["GetObject"] = how
    assert cloud.run("--yes --no-wait") == 0


def trusts_no_one(cloud: Cloud, role: str) -> None:
    document = (ROOT / "emr" / "iam" / "trust-emr.json").read_text().replace("elasticmapreduce", "glue")
    cloud.iam.update_assume_role_policy(RoleName=role, PolicyDocument=document)


def distrusted_application(cloud: Cloud) -> str:
    trusts_no_one(cloud, "sparkify-serverless")
    return cloud.new_application()


def empty_profile(cloud: Cloud) -> None:
    cloud.iam.remove_role_from_instance_profile(InstanceProfileName="sparkify-job", RoleName="sparkify-job")


def private(cloud: Cloud) -> str:
    made = cloud.ec2.create_subnet(VpcId=cloud.vpc, CidrBlock="172.31.200.0/27")["Subnet"]["SubnetId"]
    table = cloud.ec2.create_route_table(VpcId=cloud.vpc)["RouteTable"]["RouteTableId"]
    cloud.ec2.associate_route_table(RouteTableId=table, SubnetId=made)
    cloud.ec2.create_tags(Resources=[made], Tags=[TAG])
    return f"--subnet {made}"


def first_subnet(cloud: Cloud) -> str:
    return str(cloud.ec2.describe_subnets()["Subnets"][0]["SubnetId"])


def private_by_main_table(cloud: Cloud) -> str:
    cloud.ec2.delete_route(RouteTableId=cloud.main_table, DestinationCidrBlock="0.0.0.0/0")
    return f"--subnet {first_subnet(cloud)} --release emr-spark-8.1.0"


def ending_cluster(cloud: Cloud) -> str:
    name, cloud.cluster.state = cloud.new_cluster(), "TERMINATING"
    return f"--cluster {name}"


def application(cloud: Cloud, **other: str) -> str:
    found = {"type": "SPARK", "state": "STARTED", "releaseLabel": "emr-7.13.0", **other}
    cloud.answers["GetApplication"] = lambda: {"application": found}
    return cloud.new_application()


def answer(operation: str, how: Any) -> Callable[[Cloud], None]:
    return lambda cloud: cloud.answers.update({operation: how})


def simulation(cloud: Cloud, decision: str) -> str:
    """IAM's answer, which moto does not give; the option that makes the launcher ask."""
    decisions = {"glue:GetTable": "allowed", "glue:UpdateTable": decision}
    results = [{"EvalActionName": name, "EvalDecision": each} for name, each in decisions.items()]
    cloud.answers["SimulatePrincipalPolicy"] = lambda: {"EvaluationResults": results}
    return "--catalog glue.sparkify"


# What breaks it, or the options that do not fit, and the problem's line.
PROBLEMS: dict[str, tuple[Callable[[Cloud], Any], str]] = {
    "credentials": (answer("GetCallerIdentity", refuse("InvalidClientTokenId")), "no valid AWS credentials"),
    "network": (answer("GetCallerIdentity", unplugged), "no answer from AWS, in region 'eu-west-1'"),
    "no output bucket": (lambda cloud: cloud.s3.delete_bucket(Bucket="my-lake"), "create it with `aws s3 mb s3://my-lake`"),
    "closed bucket": (answer("HeadBucket", in_turn(refuse("403"))), "--input: An error occurred (403)"),
    "no songs": (lambda cloud: cloud.s3.delete_object(Bucket="my-songs", Key="raw/song_data/x.json"), "--input: nothing under s3://my-songs/raw/song_data/"),
    "no log": (lambda cloud: cloud.s3.delete_object(Bucket="my-songs", Key="raw/log_data/x.json"), "--input: nothing under s3://my-songs/raw/log_data/"),
    "logs elsewhere": (answer("HeadBucket", in_turn(lambda: None, lambda: None, lambda: {"BucketRegion": "us-east-1"})), "--logs: bucket my-logs is in us-east-1"),
    "public lake": (lambda cloud: cloud.s3.delete_public_access_block(Bucket="my-lake"), "--output: bucket my-lake may be public"),
    "half public lake": (lambda cloud: cloud.s3.put_public_access_block(Bucket="my-lake", PublicAccessBlockConfiguration=dict.fromkeys(BLOCKS[1:], True)), "--output: bucket my-lake may be public"),
    "public logs": (lambda cloud: cloud.s3.delete_public_access_block(Bucket="my-logs") and "--allow-public", "--logs: bucket my-logs may be public"),
    "unknown privacy": (answer("GetPublicAccessBlock", in_turn(refuse("AccessDenied"))), "--output: An error occurred (AccessDenied)"),
    "no service role": (lambda cloud: cloud.iam.delete_role(RoleName="sparkify-emr-service"), "--service-role: there is no role sparkify-emr-service: create it as docs/emr.md says"),
    "service role of others": (lambda cloud: trusts_no_one(cloud, "sparkify-emr-service"), "does not trust elasticmapreduce.amazonaws.com"),
    "role refused": (answer("GetRole", in_turn(refuse("AccessDenied"))), "emr/iam/operator.json has all rights that are needed"),
    "no profile": (answer("GetInstanceProfile", refuse("NoSuchEntity")), "--instance-profile: there is no instance profile sparkify-job"),
    "empty profile": (empty_profile, "--instance-profile: sparkify-job holds no role"),
    "profile of others": (lambda cloud: trusts_no_one(cloud, "sparkify-job"), "role sparkify-job does not trust ec2.amazonaws.com"),
    "no security configuration": (lambda cloud: cloud.emr.delete_security_configuration(Name="sparkify-imdsv2"), "--security-configuration file://emr/iam/imdsv2.json"),
    "untagged VPC": (lambda cloud: cloud.ec2.delete_tags(Resources=[cloud.vpc], Tags=[{"Key": EMR_TAG}]), "aws ec2 create-tags --resources vpc-"),
    "untagged subnet": (lambda cloud: cloud.ec2.delete_tags(Resources=[first_subnet(cloud)], Tags=[{"Key": EMR_TAG}]), "aws ec2 create-tags --resources subnet-"),
    "untagged group": (lambda cloud: cloud.ec2.create_security_group(GroupName="ElasticMapReduce-master", Description="x", VpcId=cloud.vpc), "aws ec2 create-tags --resources sg-"),
    "no default VPC": (answer("DescribeSubnets", lambda: {"Subnets": []}), "--subnet: eu-west-1 has no default VPC, so give a subnet"),
    "no such subnet": (lambda cloud: "--subnet subnet-404", "--subnet: there is no such subnet in eu-west-1"),
    "small subnet": (lambda cloud: f"{private(cloud)} --workers 40 --release emr-7.13.0", "has too few free addresses for 41 machines"),
    "full subnet": (lambda cloud: cloud.answers.update(DescribeSubnets=lambda: {"Subnets": [{"SubnetId": "subnet-1", "VpcId": cloud.vpc, "AvailableIpAddressCount": 10, "Tags": [TAG]}]}), "subnet-1 has too few free addresses for 11 machines"),
    "private subnet": (private, "is private, and EMR 8 needs an interface endpoint there, billed by the hour"),
    "private VPC": (private_by_main_table, "is private, and EMR 8 needs an interface endpoint there"),
    "small machine": (lambda cloud: "--workers 1 --machines c5.xlarge", "driver and executor need 16 GiB together, c5.xlarge has less"),
    "no machine": (lambda cloud: "--machines m99.xlarge", "eu-west-1 has not all of m99.xlarge"),
    "upload": (answer("PutObject", refuse("AccessDenied")), "--logs: cannot write s3://my-logs/sparkify/"),
    "no region": (lambda cloud: os.environ.pop("AWS_DEFAULT_REGION") and None, "no AWS region is set: give --region"),
    "profile": (lambda cloud: os.environ.update(AWS_PROFILE="nobody"), "(nobody)"),
    "no cluster": (lambda cloud: "--cluster j-404", "there is no cluster j-404 in eu-west-1"),
    "ending cluster": (ending_cluster, "is TERMINATING; leave --cluster away and a new one is started"),
    "old cluster": (lambda cloud: f"--cluster {cloud.new_cluster(ReleaseLabel='emr-7.1.0')} --release emr-7.10.0", "emr-7.1.0 has not S3A behind s3://"),
    "other release": (lambda cloud: f"--cluster {cloud.new_cluster(ReleaseLabel='emr-7.13.0')}", "is emr-7.13.0: give --release emr-7.13.0"),
    "untagged cluster": (lambda cloud: f"--cluster {cloud.new_cluster(Tags=[])}", "aws emr add-tags --resource-id j-"),
    "cluster without logs": (lambda cloud: f"--cluster {cloud.new_cluster(LogUri='')}", "keeps no logs in S3"),
    "cluster without Iceberg": (lambda cloud: f"--cluster {cloud.new_cluster()} --catalog glue.sparkify", "has no Iceberg for --catalog: start one as emr/iceberg.json says"),
    "no rights in Glue": (lambda cloud: simulation(cloud, "implicitDeny"), "role/sparkify-job lacks glue:UpdateTable for --catalog: see emr/iam/catalog.json"),
    "no rights of job runs": (lambda cloud: f"{simulation(cloud, 'explicitDeny')} {cloud.new_application()}", "--role: arn:aws:iam::123456789012:role/sparkify-serverless lacks glue:UpdateTable"),
    "no application": (lambda cloud: "--serverless 00no --role x/sparkify-serverless", "there is no application 00no in eu-west-1"),
    "Hive application": (lambda cloud: application(cloud, type="HIVE"), "is a HIVE application and STARTED: give a Spark application"),
    "ended application": (lambda cloud: application(cloud, state="TERMINATED"), "is a SPARK application and TERMINATED: give"),
    "other release of job runs": (lambda cloud: application(cloud, releaseLabel="emr-spark-8.0.0"), "is emr-spark-8.0.0: give --release emr-spark-8.0.0"),
    "job runs' role of others": (distrusted_application, "role sparkify-serverless does not trust emr-serverless.amazonaws.com"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_is_one_line_and_nothing_is_started(name: str, cloud: Cloud, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(os, "environ", os.environ.copy())
    breaks, message = PROBLEMS[name]
    options = breaks(cloud)
    cloud.calls.clear()
    assert cloud.run(f"--yes {options if isinstance(options, str) else ''}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("emr: error: ")]
    assert message in line
    assert not (MONEY - ({"s3:PutObject"} if name == "upload" else set())) & set(cloud.names())


def test_an_endpoint_that_is_there_serves_a_private_subnet(cloud: Cloud) -> None:
    options = f"--yes --no-wait {private(cloud)} --workers"
    cloud.ec2.create_vpc_endpoint(VpcId=cloud.vpc, ServiceName="com.amazonaws.eu-west-1.s3")  # serves it not
    assert cloud.run(f"{options} 1") == 2
    service = {"ServiceName": "aws.api.eu-west-1.emr-service-cell01", "VpcEndpointType": "Interface"}
    made = cloud.ec2.create_vpc_endpoint(VpcId=cloud.vpc, **service)["VpcEndpoint"]["VpcEndpointId"]
    for workers in (1, 26):  # all addresses that it has
        assert cloud.run(f"{options} {workers}") == 0
    cloud.ec2.delete_vpc_endpoints(VpcEndpointIds=[made])  # AWS still lists it for a while
    assert cloud.run(f"{options} 1") == 2


def test_a_group_of_emr_in_another_vpc_needs_no_tag(cloud: Cloud) -> None:
    vpc = cloud.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    cloud.ec2.create_security_group(GroupName="ElasticMapReduce-master", Description="x", VpcId=vpc)
    assert cloud.run("--yes --no-wait") == 0


def test_a_small_machine_will_do_for_a_driver_and_an_executor_that_are_told_so(cloud: Cloud) -> None:
    sizes = "--conf spark.driver.memory=1g --conf spark.executor.memory=3g"
    assert cloud.run(f"--yes --no-wait --workers 1 --machines c5.xlarge {sizes}") == 0


@pytest.mark.parametrize("state", ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"])
def test_a_cluster_of_a_later_release_with_the_same_spark_will_do(state: str, cloud: Cloud) -> None:
    name, cloud.cluster.state = cloud.new_cluster(ReleaseLabel="emr-spark-8.1.0"), state
    assert cloud.run(f"--yes --no-wait --cluster {name}") == 0


def test_all_problems_are_shown_at_once_and_a_public_lake_can_be_meant(cloud: Cloud, capsys: Shown) -> None:
    for name in ("no songs", "public lake", "no service role", "empty profile", "no default VPC"):
        PROBLEMS[name][0](cloud)
    for option, count in (("", 5), ("--allow-public", 4)):
        assert cloud.run(f"--yes {option}") == 2
        assert capsys.readouterr().err.count("emr: error: ") == count


def test_a_catalog_of_iceberg_is_asked_for_where_the_job_has_its_rights(cloud: Cloud, tmp_path: Path) -> None:
    config, option = tmp_path / "dl.cfg", simulation(cloud, "allowed")
    config.write_text("[LAKE]\nCATALOG = glue.sparkify\n")
    iceberg = json.loads((ROOT / "emr" / "iceberg.json").read_text())["cluster"]
    cluster = cloud.new_cluster(Configurations=[iceberg])
    for options in (
        option,
        f"--config {config}",
        f"{option} --cluster {cluster}",
        f"{option} {cloud.new_application()}",
    ):
        assert cloud.run(f"--yes --no-wait {options}") == 0
        assert '"--catalog", "glue.sparkify"' in json.dumps(cloud.calls[-1][1])
    asked = [request for name, request in cloud.calls if name == "iam:SimulatePrincipalPolicy"]
    assert [request["PolicySourceArn"].rpartition("/")[2] for request in asked] == [
        *2 * ["sparkify-job"],
        "sparkify-serverless",
    ]
    [policy] = statements("catalog")
    assert policy["Action"] == asked[0]["ActionNames"]
    filled = json.dumps(policy["Resource"]).replace("REGION", REGION).replace("ACCOUNT_ID", ACCOUNT)
    assert json.loads(filled.replace("DATABASE", "sparkify").replace("*", "songs")) == asked[0]["ResourceArns"]


# The rights that a call needs where they are not its own name, as the service authorization reference has them.
START = {"iam:PassRole", *(f"elasticmapreduce:{name}" for name in ("RunJobFlow", "AddTags", "PutManagedScalingPolicy", "PutAutoTerminationPolicy"))}  # fmt: skip
RIGHTS = {
    "sts:GetCallerIdentity": set(), "s3:HeadBucket": {"s3:ListBucket"}, "s3:ListObjectsV2": {"s3:ListBucket"},
    "s3:GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"}, "emr:RunJobFlow": START,
    "emr-serverless:StartJobRun": {"emr-serverless:StartJobRun", "emr-serverless:TagResource", "iam:PassRole"},
}  # fmt: skip


def test_the_policies_for_a_start_name_each_action_that_is_called_and_no_other(cloud: Cloud) -> None:
    cloud.answers["CancelSteps"] = lambda: {"CancelStepsInfoList": []}
    on_cluster, on_application, on_subnet = f"--cluster {cloud.new_cluster()}", cloud.new_application(), private(cloud)
    cloud.calls.clear()
    ends = [run_to_success(cloud), run_to_failure(cloud), cloud.run("--yes", {15: terminate})]
    ends += [cloud.run(f"--yes {on_subnet}")]
    ends += [cloud.run(f"--yes --name n {on}", {15: terminate}) for on in (on_cluster, on_application, "--max-hours 1")]
    ends += [run_serverless(cloud, "RUNNING", {15: terminate}), main(["status", cloud.cluster.id])]
    ends += [cloud.run(f"--yes --no-wait {simulation(cloud, 'allowed')}")]
    assert ends == [0, 1, 143, 2, 143, 2, 143, 143, 1, 0]
    called = set(cloud.names()) - {"emr-serverless:CreateApplication"}
    needed = [RIGHTS.get(name, {name.replace("emr:", "elasticmapreduce:")}) for name in called]
    assert actions(*statements("operator")) == set().union(*needed)
    assert actions(*statements("scheduler")) == START
    assert actions(*statements("scheduler-serverless")) == RIGHTS["emr-serverless:StartJobRun"]


def test_the_region_is_the_one_of_the_aws_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert Aws(None).region == "eu-west-2"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert (Aws(None).region, Aws("eu-west-1").region) == ("eu-west-3", "eu-west-1")


def test_an_aws_that_is_silent_is_given_up_in_two_minutes() -> None:
    config = Aws(REGION).sts.meta.config
    assert config.connect_timeout * config.retries["total_max_attempts"] <= 120


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"run {PLACES} --yes", "bucket my-logs is in eu-west-1; EMR needs one in its own eu-west-3"),
        ("status j-404", "cannot find j-404 in eu-west-3"),
    ],
)
def test_a_command_goes_to_the_region_that_it_is_given(command: str, message: str, cloud: Cloud, capsys: Shown) -> None:
    assert main(f"{command} --region eu-west-3".split()) == 2
    assert message in capsys.readouterr().err
