"""The commands of docs/emr.md, as they stand there, by bash, against moto's AWS, but those of the primary node (`sh`).

In that bash `aws` and `python` are functions, which hand their words to this process and print what it answers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import boto3
import jmespath  # type: ignore[import-untyped]
import pytest
from botocore import xform_name
from botocore.model import Shape
from emr_cloud import ACCOUNT, ROOT, Cloud, actions

from emr.__main__ import main, parse

pytest_plugins = ["emr_cloud"]

BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", (ROOT / "docs" / "emr.md").read_text(), re.MULTILINE | re.DOTALL)
LIMITS = {"put-user-policy": 2_048, "put-role-policy": 10_240, "create-policy": 6_144}  # IAM's; moto has none
STARTS = ("emr:RunJobFlow", "emr:AddJobFlowSteps", "emr-serverless:StartJobRun")
PROLOGUE = """
set -euo pipefail
trap "printf 'quit\\0' > ask" EXIT
aws() { printf '%s\\0' aws "$@" > ask; cat answer; }
python() { printf '%s\\0' python "$@" > ask; cat answer; }
"""


def value(words: list[str], shape: Shape) -> Any:
    """An option's value: JSON, a file, or the AWS command line's shorthand."""
    text = Path(words[0][7:]).read_text() if words[0].startswith("file://") else words[0]
    if shape.type_name in ("structure", "list") and re.match(r'\s*(\[|{\s*")', text):
        return json.loads(text)
    if shape.type_name == "list":
        is_scalar = len(words) == 1 and shape.member.type_name != "structure"
        return [value([word], shape.member) for word in (text.split(",") if is_scalar else words)]
    if shape.type_name != "structure":
        return {"integer": int, "double": float}.get(shape.type_name, str)(text)
    found = {}
    for part in re.split(r",(?=\w+@?=)", text.removeprefix("{").removesuffix("}")):
        key, _, rest = part.partition("=")
        found[key.rstrip("@")] = value([rest], shape.members[key.rstrip("@")])
    return found


def aws(service: str, command: str, *words: str) -> str:
    """The AWS command line, as far as docs/emr.md uses it."""
    if service == "s3":  # a command of the command line's own
        return ""
    client = boto3.client({"s3api": "s3"}.get(service, service))
    method = {"terminate-clusters": "terminate_job_flows"}.get(command, command.replace("-", "_"))
    shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape
    names = {xform_name(name, "-"): name for name in shape.members}
    names |= {"notification-endpoint": "Endpoint", "cluster-ids": "JobFlowIds"}  # of the command line's own
    options = {each.split("\0")[0]: each.split("\0")[1:] for each in "\0".join(words).removeprefix("--").split("\0--")}
    query, *_ = (options.pop(name, None) for name in ("query", "output", "active"))
    if command == "add-tags":
        options["tags"] = [re.sub("(.*)=(.*)", r"Key=\1,Value=\2", tag) for tag in options["tags"]]
    file = options.pop("cli-input-json", None)
    request = {names[key]: value(each, shape.members[names[key]]) for key, each in options.items()}
    assert len("".join(request.get("PolicyDocument", "").split())) <= LIMITS.get(command, 0), "more than IAM takes"
    answer = getattr(client, method)(**(value(file, shape) if file else request))
    found = jmespath.search(query[0], answer) if query else ""
    return "\t".join(found) if isinstance(found, list) else str(found)


def serve(words: list[str], failed: list[str]) -> str:
    """The answer to one command."""
    shown = io.StringIO()
    try:
        if words[0] == "aws":
            return aws(*words[1:]) + "\n"
        with contextlib.redirect_stdout(shown):
            if words[1] == "-c":
                exec(words[2])
            else:
                assert words[:3] == ["python", "-m", "emr"] and main(words[3:]) == 0
    except Exception as error:
        failed.append(f"{' '.join(words)}: {error!r}")
    return shown.getvalue()


def test_every_command_works_and_the_last_ones_leave_nothing(bare_cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    bare_cloud.iam.create_user(UserName="operator")
    bare_cloud.answers |= {"AttachRolePolicy": dict, "DetachRolePolicy": dict}  # moto has no policies of AWS's own
    bare_cloud.answers["SimulatePrincipalPolicy"] = dict  # nor this
    boto3.client("glue").create_database(DatabaseInput={"Name": "sparkify"})  # the job does
    (tmp_path / "emr").symlink_to(ROOT / "emr")
    script = PROLOGUE + "\n".join(text for language, text in BLOCKS if language == "bash")
    failed: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda: "y")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for name in ("ask", "answer"):
        os.mkfifo(name)
    bash = subprocess.Popen(["bash", "-c", script], text=True, stderr=subprocess.PIPE)
    while (words := Path("ask").read_text().split("\0")[:-1]) != ["quit"]:
        bare_cloud.clock.due = {bare_cloud.clock.now + 30: lambda: bare_cloud.finish("WAITING")}
        Path("answer").write_text(serve(words, failed))
    _, errors = bash.communicate(timeout=60)
    assert failed == []
    assert (bash.returncode, errors) == (0, "")
    schedules = [request for name, request in bare_cloud.calls if name == "scheduler:CreateSchedule"]
    for schedule, path in zip(schedules, ("Steps", "JobDriver"), strict=True):
        request = json.loads(schedule["Target"]["Input"])
        assert "s3://my-logs/sparkify/nightly-<aws.scheduler.execution-id>/report.json" in json.dumps(request[path])
    keys = [request["Key"] for name, request in bare_cloud.calls if name == "s3:PutObject"]
    assert {"sparkify/nightly/dl.cfg", "sparkify/nightly/etl.py"} <= set(keys)
    assert [bare_cloud.names().count(name) for name in STARTS] == [3, 1, 2]
    left = [role["RoleName"] for role in bare_cloud.iam.list_roles()["Roles"]]
    assert [name for name in left if name.startswith("sparkify")] == []
    assert boto3.client("scheduler").list_schedules()["Schedules"] == boto3.client("events").list_rules()["Rules"] == []
    alarms = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert boto3.client("sns").list_topics()["Topics"] == alarms == []
    assert {each["State"] for each in bare_cloud.ec2.describe_vpc_endpoints()["VpcEndpoints"]} == {"deleted"}


def test_the_state_machine_is_taken_and_the_airflow_command_is_one(bare_cloud: Cloud) -> None:
    [definition] = [text for language, text in BLOCKS if language == "json"]
    role = f"arn:aws:iam::{ACCOUNT}:role/x"
    boto3.client("stepfunctions").create_state_machine(name="x", definition=definition, roleArn=role)
    assert json.loads(definition)["States"]["Start"]["Resource"] == "arn:aws:states:::aws-sdk:emr:runJobFlow"
    [code] = [text for language, text in BLOCKS if language == "python"]
    called: dict[str, str] = {}
    exec(code.split("\n\n", 1)[1], {"BashOperator": lambda **options: called.update(options)})
    words = re.sub(r"{{ (\w+\.)?(\w+) }}", r"\2", called["bash_command"]).split()
    assert parse(words[words.index("emr") + 1 :]).name == "sparkify-ts_nodash-try_number"


STEPS = ("AddJobFlowSteps", "AddTags", "CancelSteps", "TerminateJobFlows")
TAGGED = {f"elasticmapreduce:{name}": "Resource" for name in STEPS}
TAGGED["elasticmapreduce:RunJobFlow"] = "Request"


def test_no_policy_gives_away_more_than_it_must() -> None:
    for path in (ROOT / "emr" / "iam").glob("*.json"):
        for statement in json.loads(path.read_text()).get("Statement", []):
            found, condition = actions(statement), statement.get("Condition", {}).get("StringEquals", {})
            assert not [action for action in found if "*" in action], path
            if statement.get("Resource") == "*":  # calls that know no resource
                assert not [action for action in found if not re.search(":(Describe|List|RunJobFlow)", action)]
            for action in found & set(TAGGED):  # steps go to clusters of this project only
                assert condition == {f"aws:{TAGGED[action]}Tag/project": "sparkify"}
            assert "iam:PassRole" not in found or "iam:PassedToService" in condition
