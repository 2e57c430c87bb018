"""The launcher's requests: exact, valid for AWS's own service model, and made without AWS."""

from __future__ import annotations

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
from emr_cloud import PLACES, ROOT

import etl
from emr.__main__ import main
from emr.request import Uri, clean_config

GOLDEN = ROOT / "tests" / "golden"
Shown = pytest.CaptureFixture[str]
APPLICATION = "--serverless 00app --role arn:aws:iam::123456789012:role/sparkify-serverless"
NIGHTLY = "--name nightly-<aws.scheduler.execution-id>"
COMMANDS = {
    "cluster": "",
    "cluster_options": "--release emr-7.13.0 --workers 5 --max-hours 2 --machines r6i.2xlarge,r5.2xlarge --ebs-gb 100 "
    "--tag team=data --conf spark.executor.cores=8 --log-kms-key arn:aws:kms:eu-west-1:123456789012:key/1 --subnet subnet-1 --subnet subnet-2 "
    "--service-role svc --instance-profile prof --security-configuration sec --price 0.5",
    "cluster_one_worker": "--workers 1",
    "cluster_catalog": "--catalog glue.sparkify",
    "step": "--cluster j-1ABC",
    "serverless": APPLICATION,
    "serverless_options": f"{APPLICATION} --release emr-7.13.0 --workers 8 --max-hours 3 --tag team=data --log-kms-key arn:aws:kms:eu-west-1:123456789012:key/1",
    "serverless_small": f"{APPLICATION} --workers 2",
    "serverless_catalog": f"{APPLICATION} --release emr-7.13.0 --catalog glue.sparkify",
    "serverless_nightly": f"{APPLICATION} {NIGHTLY}",
}


def dry_run(options: str, capsys: Shown, places: str = PLACES) -> dict[str, Any]:
    assert main(f"run {places} {options} --dry-run".split()) == 0
    shown: dict[str, Any] = json.loads(re.sub(r"sparkify-\d{8}T\d{6}Z-[0-9a-f]{8}", "RUN", capsys.readouterr().out))
    return shown


def golden(name: str) -> dict[str, Any]:
    return dict(json.loads((GOLDEN / f"emr_{name}.json").read_text()))


def input_shape(name: str) -> Shape:
    service, operation = ("emr", "AddJobFlowSteps" if name == "step" else "RunJobFlow")
    if name.startswith("serverless"):
        service, operation = ("emr-serverless", "StartJobRun")
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


def uncapitalised(part: Any) -> Any:
    """A job run's request that is in a scheduler's writing, in that of the API."""
    if not isinstance(part, dict):
        return part
    return {key[0].lower() + key[1:]: uncapitalised(each) for key, each in part.items()}


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
def test_dry_run_prints_the_golden_request_which_fits_the_service_model(name: str, capsys: Shown) -> None:
    request, shape = dry_run(COMMANDS[name], capsys), input_shape(name)
    assert request == golden(name)
    plain = uncapitalised(request) if name.startswith("serverless") else request
    report = ParamValidator().validate(plain, shape)
    assert not report.has_errors(), report.generate_report()
    assert list(wrong_enums(plain, shape)) == []


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("", ["4 machines: 1 primary and 1 core on demand, 2 task on Spot", "between 1 and 10 workers", "$2.77 an hour for 11"]),
        ("--workers 1", ["2 machines: 1 primary and 1 core on demand, 0 task", "$0.50 an hour for 2 machines"]),
        ("--machines c5.xlarge", ["of c5.xlarge.", "12 hours at most", "No list price is known for c5.xlarge: give --price"]),
        ("--cluster j-1", ["No new cluster", "j-1"]),
        (APPLICATION, ["as many executors as the application allows", "$0.30 an hour for each worker"]),
        (f"{APPLICATION} --workers 7", ["application 00app", "at most 7 executors", "$2.42 an hour for 8 workers"]),
    ],
)  # fmt: skip
def test_machines_and_price_are_shown(options: str, lines: list[str], capsys: Shown) -> None:
    main(f"run {PLACES} {options} --dry-run".split())
    shown = capsys.readouterr().err
    assert [line for line in lines if line not in shown] == []


def test_help_and_dry_run_need_neither_boto3_nor_aws(tmp_path: Path) -> None:
    code = "import sys; sys.modules.update(boto3=None, botocore=None); from emr.__main__ import main; sys.exit(main())"
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    for arguments, end in (("--help", 0), (f"run {PLACES} --dry-run", 0), ("status j-1", 2)):
        command = [sys.executable, "-c", code, *arguments.split()]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, bool(done.stdout)) == (end, end == 0), done.stderr
    assert done.stderr == "emr: error: boto3 is missing: pip install -r requirements.txt\n"


def test_a_reader_that_goes_away_is_no_error(unread: int) -> None:
    command = [sys.executable, "-m", "emr", *f"run {PLACES} --dry-run".split()]
    done = subprocess.run(command, cwd=ROOT, stdout=unread, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 141 and "Error" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run", "--input, --output, --logs"),
        ("run --input /tmp/x --output s3://lake/l --logs s3://my-logs/l", "'/tmp/x' is not like s3://bucket/prefix"),
        ("run --input s3://songs/x --output s3://lake/l';x --logs s3://my-logs/l", "is not like s3://bucket/prefix"),
        ("run --input s3://all/x --output s3://all/x/lake --logs s3://my-logs/l", "--output must not lie in --input"),
        ("run --input s3://all --output s3://lake --logs s3://all/logs", "--logs must not lie in --input"),
        (f"run {PLACES} --serverless 00app", "--serverless needs --role"),
        (f"run {PLACES} --role x", "--role needs --serverless"),
        (f"run {PLACES} --cluster j-1 --serverless 00app", "not allowed with argument"),
        (f"run {PLACES} --cluster 1ABC", "'1ABC' is not like j-1ABC"),
        (f"run {PLACES} --cluster j-1 --workers 5", "--workers does not go with --cluster"),
        (f"run {PLACES} {APPLICATION} --subnet s-1", "--subnet does not go with --serverless"),
        (f"run {PLACES} --price 0", "'0' is not like 0.25"),
        (f"run {PLACES} --workers 0", "'0' is not like a number above 0"),
        (f"run {PLACES} --release 7.1", "'7.1' is not like emr-spark-8.0.0 or emr-7.13.0"),
        (f"run {PLACES} --release emr-7.9.0", "emr-7.9.0 has not S3A behind s3://; emr-7.10.0 and newer have"),
        (f"run {PLACES} {APPLICATION} --release emr-7.12.0", "emr-7.12.0 has not Python 3.11 surely"),
        (f"run {PLACES} --tag team", "'team' is not like key=value"),
        (f"run {PLACES} --tag project=other", "project is always sparkify"),
        (f"run {PLACES} --conf spark.executor.cores=x", "--conf spark.executor.cores: 'x' is not a number"),
        (f"run {PLACES} --catalog sparkify", "'sparkify' is not like glue.sparkify"),
        (f"run {PLACES} --name a/b", "'a/b' is not like nightly-2026-05-01"),
        (f"run {PLACES} {NIGHTLY}", "is for a scheduler to fill in: give --upload-only or --dry-run"),
        (f"run {PLACES} --config nowhere.cfg", "--config: no configuration file nowhere.cfg"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: str, message: str, capsys: Shown) -> None:
    try:
        ended = main(arguments.split())
    except SystemExit as end:
        ended = int(str(end.code))
    assert ended == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in error


def test_neighbours_are_no_overlap_and_s3a_is_s3(capsys: Shown) -> None:
    dry_run("", capsys, "--input s3://all/in --output s3://all/in2 --logs s3://all/logs")
    places = "--input s3a://my-songs/raw/ --output s3a://my-lake/sparkify/ --logs s3://my-logs/sparkify//"
    assert dry_run("", capsys, places) == golden("cluster")


def test_config_goes_to_the_cluster_without_its_secrets(tmp_path: Path, capsys: Shown) -> None:
    config, places = tmp_path / "dl.cfg", (Uri.of("s3://songs/raw"), Uri.of("s3://lake/sparkify"))
    config.write_text(
        "\ufeff# aws_secret_access_key = OLDSECRET\n[AWS]\nAWS_ACCESS_KEY_ID = SECRET1\naws_secret_access_key = SECRET%2\n"
        "[PATHS]\nINPUT_DATA = /SECRET\n[PARTITIONS]\nsongs = year, artist_id\n"
    )
    text, _ = clean_config(config, *places)
    assert "SECRET" not in text.replace("AWS_SECRET_ACCESS_KEY", "")
    config.write_text(text)
    assert etl.read_config(str(config))["PARTITIONS"]["SONGS"] == "year, artist_id"
    config.write_text(clean_config(ROOT / "dl.cfg", *places)[0])
    shipped, uploaded = (etl.read_config(str(path)) for path in (ROOT / "dl.cfg", config))
    assert uploaded == {**shipped, "PATHS": {"INPUT_DATA": "s3://songs/raw", "OUTPUT_DATA": "s3://lake/sparkify"}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("AWS_SESSION_TOKEN = hidden", "line 1: missing section header"),
        ("[aws]\nAWS_SESSION_TOKEN = hidden", "unknown section [aws]"),
        ("[DEFAULT]\nAWS_SESSION_TOKEN = hidden", "unknown section [DEFAULT]"),
        ("[LAKE]\nAWS_SESSION_TOKEN = hidden", "unknown key AWS_SESSION_TOKEN in [LAKE]"),
        ("[AWS]\nAWS_SESSION_TOKEN = first\n  hidden", "AWS_SESSION_TOKEN in [AWS] has quotes"),
        ("[AWS]\nAWS_SESSION_TOKEN =\nhidden/of+it==", "unknown key (not shown) in [AWS]"),
        ("[PARTITIONS]\nSONGS = artist", "SONGS in [PARTITIONS] is 'artist'"),
        ("[LIMITS]\nMAX_REJECTED = 5", "MAX_REJECTED is '5'"),
        ("[LAKE]\nCATALOG = Glue.Bad-name", "CATALOG is 'Glue.Bad-name'"),
    ],
)
def test_a_dl_cfg_that_the_job_would_refuse_is_refused_before_it_is_uploaded(
    text: str, problem: str, tmp_path: Path, capsys: Shown
) -> None:
    (tmp_path / "dl.cfg").write_text(f"{text}\n")
    assert main([*f"run {PLACES} --dry-run --config".split(), str(tmp_path / "dl.cfg")]) == 2
    shown = capsys.readouterr()
    assert problem in shown.err and shown.out == "" and "hidden" not in shown.err.lower()
