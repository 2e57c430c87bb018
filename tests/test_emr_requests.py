"""The launcher's requests: exact, valid for AWS's own service model, and made without AWS."""

from __future__ import annotations

import configparser
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape
from botocore.validate import ParamValidator

import etl
from emr.__main__ import main
from emr.request import Uri, clean_config

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
PLACES = "--input s3://songs/raw --output s3://lake/sparkify --logs s3://my-logs/sparkify"
ROLE = "arn:aws:iam::123456789012:role/sparkify-serverless"
COMMANDS = {
    "cluster": "",
    "cluster_options": "--release emr-7.13.0 --workers 5 --max-hours 2 --machines r6i.2xlarge,r5.2xlarge "
    "--tag team=data --subnet subnet-1 --subnet subnet-2 "
    "--service-role svc --instance-profile prof --security-configuration sec",
    "cluster_one_worker": "--workers 1",
    "step": "--cluster j-1ABC",
    "serverless": f"--serverless 00app --role {ROLE}",
    "serverless_options": f"--serverless 00app --role {ROLE} --release emr-7.13.0 --workers 8 --max-hours 3 "
    "--tag team=data",
}
OPERATIONS = {"run_job_flow": "RunJobFlow", "add_job_flow_steps": "AddJobFlowSteps", "start_job_run": "StartJobRun"}


def dry_run(options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(f"run {PLACES} {options} --dry-run".split()) == 0
    text = capsys.readouterr().out
    names = set(re.findall(r"sparkify-\d{8}T\d{6}Z-[0-9a-f]{8}", text))
    assert len(names) == 1
    shown: dict[str, Any] = json.loads(text.replace(names.pop(), "RUN"))
    return shown


def submitted(shown: dict[str, Any]) -> list[str]:
    """The words of the spark-submit command."""
    if shown["service"] == "emr":
        words: list[str] = shown["request"]["Steps"][0]["HadoopJarStep"]["Args"]
        return words
    spark = shown["request"]["jobDriver"]["sparkSubmit"]
    return [*spark["sparkSubmitParameters"].split(), spark["entryPoint"], *spark["entryPointArguments"]]


def wrong_enums(value: Any, shape: Shape) -> Iterator[str]:
    """botocore's validator leaves enums to AWS; this does not."""
    if shape.type_name == "structure":
        for key, member in value.items():
            yield from wrong_enums(member, shape.members[key])
    elif shape.type_name == "list":
        for member in value:
            yield from wrong_enums(member, shape.member)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{value} is none of {shape.enum}"


@pytest.mark.parametrize("name", COMMANDS)
def test_dry_run_prints_the_golden_request(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(COMMANDS[name], capsys) == json.loads((GOLDEN / f"emr_{name}.json").read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_golden_requests_fit_the_service_model(name: str) -> None:
    golden = json.loads((GOLDEN / f"emr_{name}.json").read_text())
    model = botocore.session.get_session().get_service_model(golden["service"])
    shape = model.operation_model(OPERATIONS[golden["operation"]]).input_shape
    report = ParamValidator().validate(golden["request"], shape)
    assert not report.has_errors(), report.generate_report()
    assert list(wrong_enums(golden["request"], shape)) == []


def test_the_service_model_check_finds_what_is_wrong() -> None:
    golden = json.loads((GOLDEN / "emr_cluster.json").read_text())["request"]
    model = botocore.session.get_session().get_service_model("emr")
    shape = model.operation_model("RunJobFlow").input_shape
    golden["Steps"][0]["ActionOnFailure"] = "GIVE_UP"
    golden["Instances"]["Fleets"] = []
    assert list(wrong_enums(golden["Steps"], shape.members["Steps"])) != []
    assert "Fleets" in ParamValidator().validate(golden, shape).generate_report()


def test_a_new_cluster_ends_by_itself_in_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    request = dry_run("", capsys)["request"]
    assert request["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
    assert request["Instances"]["TerminationProtected"] is False
    assert [step["ActionOnFailure"] for step in request["Steps"]] == ["TERMINATE_CLUSTER"]
    assert request["AutoTerminationPolicy"]["IdleTimeout"] == 3600
    assert request["Steps"][0]["HadoopJarStep"]["Args"][:2] == ["timeout", "12h"]
    assert "Ec2KeyName" not in request["Instances"]
    assert "Configurations" not in request  # so nothing that EMR sets on the machines is changed


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cluster", {"spark.executor.cores", "spark.yarn.maxAppAttempts"}),
        ("serverless", set()),
    ],
)
def test_the_platform_owns_its_settings(name: str, keys: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = submitted(dry_run(COMMANDS[name], capsys))
    assert {word.partition("=")[0] for before, word in itertools.pairwise(words) if before == "--conf"} == keys
    assert not {"--master", "--jars", "--packages", "--py-files", "--driver-memory", "--executor-memory"} & set(words)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            "",
            [
                "4 machines: 1 primary and 1 core on demand, 2 task on Spot",
                "between 1 and 10 workers",
                "m5.xlarge, m5a.xlarge",
            ],
        ),
        ("--workers 1", ["2 machines: 1 primary and 1 core on demand, 0 task"]),
        ("--workers 5 --machines c5.xlarge", ["6 machines", "4 task on Spot", "of c5.xlarge.", "12 hours at most"]),
        ("--cluster j-1", ["No new cluster", "j-1"]),
        (
            f"--serverless 00app --role {ROLE} --workers 7",
            ["application 00app", "at most 7 executors", "4 vCPU and 16 GB"],
        ),
    ],
)
def test_machines_are_shown_first(options: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(f"run {PLACES} {options} --dry-run".split())
    shown = capsys.readouterr().err
    assert [line for line in lines if line not in shown] == []


def test_help_and_dry_run_need_neither_boto3_nor_aws(tmp_path: Path) -> None:
    code = "import sys; sys.modules.update(boto3=None, botocore=None); from emr.__main__ import main; sys.exit(main(sys.argv[1:]))"
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    for arguments in ("--help", "run --help", f"run {PLACES} --dry-run"):
        command = [sys.executable, "-c", code, *arguments.split()]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr
    command = [sys.executable, "-c", code, "status", "j-1"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "emr: error: boto3 is missing: pip install -r requirements.txt\n")


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.partition("options:")[2].split())
    for option in (
        "input",
        "output",
        "logs",
        "config",
        "dry-run",
        "yes",
        "workers",
        "cluster",
        "serverless",
        "role",
        "release",
    ):
        assert re.search(rf"--{option}\b[^-]*\w", text), option


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run", "--input, --output, --logs"),
        ("run --input /tmp/x --output s3://lake/l --logs s3://my-logs/l", "'/tmp/x' is not like s3://bucket/prefix"),
        ("run --input s3://s/x --output s3://lake/l --logs s3://my-logs/l", "'s3://s/x' is not like"),
        ("run --input s3://songs/x --output s3://lake/l';x --logs s3://my-logs/l", "is not like s3://bucket/prefix"),
        (
            "run --input s3://all/x --output s3://all/x/lake --logs s3://my-logs/l",
            "--input and --output must not lie in one another",
        ),
        (
            "run --input s3://all --output s3://lake --logs s3://all/logs",
            "--input and --logs must not lie in one another",
        ),
        (
            "run --input s3://all/in --output s3://lake/x --logs s3://lake/x",
            "--output and --logs must not lie in one another",
        ),
        (f"run {PLACES} --serverless 00app", "--serverless needs --role"),
        (f"run {PLACES} --role {ROLE}", "--role goes with --serverless"),
        (f"run {PLACES} --cluster j-1 --serverless 00app", "not allowed with argument"),
        (f"run {PLACES} --cluster 1ABC", "'1ABC' is not like j-1ABC"),
        (f"run {PLACES} --cluster j-1 --workers 5", "--workers does not go with --cluster"),
        (f"run {PLACES} --serverless 00app --role {ROLE} --subnet s-1", "--subnet does not go with --serverless"),
        (f"run {PLACES} --workers 0", "'0' is not a number above 0"),
        (f"run {PLACES} --release 7.1", "'7.1' is not like emr-spark-8.0.0 or emr-7.13.0"),
        (f"run {PLACES} --tag team", "'team' is not like key=value"),
        (f"run {PLACES} --config nowhere.cfg", "cannot read nowhere.cfg: No such file or directory"),
        ("stop j-1", "invalid choice: 'stop'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        ended = main(arguments.split())
    except SystemExit as end:
        ended = int(str(end.code))
    assert ended == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_neighbours_are_no_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    places = "--input s3://all/in --output s3://all/in2 --logs s3://all/logs"
    assert main(["run", *places.split(), "--dry-run"]) == 0


def test_s3a_and_a_trailing_slash_mean_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    golden = json.loads((GOLDEN / "emr_cluster.json").read_text())
    other = "run --input s3a://songs/raw/ --output s3a://lake/sparkify/ --logs s3://my-logs/sparkify// --dry-run"
    main(other.split())
    text = re.sub(r"sparkify-\d{8}T\d{6}Z-[0-9a-f]{8}", "RUN", capsys.readouterr().out)
    assert json.loads(text) == golden


def test_config_goes_to_the_cluster_without_its_secrets(tmp_path: Path) -> None:
    config = tmp_path / "dl.cfg"
    config.write_text(
        "# aws_secret_access_key = OLDSECRET\n[DEFAULT]\nAWS_SESSION_TOKEN = SECRET0\n"
        "[AWS]\nAWS_ACCESS_KEY_ID = SECRET1\naws_secret_access_key = SECRET%2\n  SECRET3\nAWS_ENDPOINT_URL = http://x\n"
        "[PATHS]\nINPUT_DATA = /home/me/SECRETPLACE\n"
        "[PARTITIONS]\nsongs = year, artist_id\n[LIMITS]\nMAX_REJECTED = 0.5\n"
    )
    text = clean_config(config, Uri.parse("s3://songs/raw"), Uri.parse("s3://lake/sparkify"))
    assert "SECRET" not in text.replace("AWS_SECRET_ACCESS_KEY", "")
    assert "http" not in text
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert dict(parser["AWS"]) == {}
    assert dict(parser["PATHS"]) == {"input_data": "s3://songs/raw", "output_data": "s3://lake/sparkify"}
    assert dict(parser["PARTITIONS"]) == {"songs": "year, artist_id"}
    assert dict(parser["LIMITS"]) == {"max_rejected": "0.5"}


def test_a_broken_config_is_not_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "dl.cfg"
    config.write_text("AWS_SECRET_ACCESS_KEY = SECRET\n")
    assert main([*f"run {PLACES} --dry-run --config".split(), str(config)]) == 2
    shown = capsys.readouterr().err
    assert "SECRET" not in shown
    assert "is not a valid dl.cfg" in shown


def test_uploaded_config_is_one_that_the_job_takes(tmp_path: Path) -> None:
    text = clean_config(ROOT / "dl.cfg", Uri.parse("s3://songs/raw"), Uri.parse("s3://lake/sparkify"))
    (tmp_path / "dl.cfg").write_text(text)
    shipped, uploaded = (etl.read_config(str(folder / "dl.cfg")) for folder in (ROOT, tmp_path))
    assert uploaded == {**shipped, "PATHS": {"INPUT_DATA": "s3://songs/raw", "OUTPUT_DATA": "s3://lake/sparkify"}}
