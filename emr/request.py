"""The request, in pure functions of the command line."""

from __future__ import annotations

import argparse
import configparser
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emr import UsageError

JOB = Path(__file__).resolve().parents[1]  # where etl.py and dl.cfg are
RELEASE = "emr-spark-8.0.0"
MACHINES = "m5.xlarge,m5a.xlarge,m6i.xlarge,m6a.xlarge,m7i.xlarge"  # 4 vCPU and 16 GiB each: any mix of them is even
FIRST_WORKERS, MOST_WORKERS = 3, 10  # where EMR's managed scaling begins and where it stops
SCALING = {
    "UnitType": "InstanceFleetUnits",
    "MinimumCapacityUnits": 1,
    "MaximumCapacityUnits": MOST_WORKERS,
    "MaximumOnDemandCapacityUnits": FIRST_WORKERS,  # room for on-demand machines in place of Spot; growth is on Spot
    "MaximumCoreCapacityUnits": 1,
}
SPOT = {"TimeoutAction": "SWITCH_TO_ON_DEMAND", "AllocationStrategy": "price-capacity-optimized"}
SPOT_MINUTES = 10
IDLE_SECONDS = 3600  # for a cluster whose step never comes to run
TASK_THREADS = 16  # a small S3 file is nearly all waiting, so four tasks share a vCPU; YARN on EMR counts memory only
EMR_TAG = "for-use-with-amazon-emr-managed-policies"  # AmazonEMRServicePolicy_v2 touches nothing without it
TAGS = {"project": "sparkify"}
POLL_SECONDS, LOG_POLL_SECONDS, LOG_WAIT_SECONDS = 15, 30, 900


@dataclass(frozen=True)
class Uri:
    """A place in S3; the prefix neither starts nor ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Uri:
        # No blanks or quotes: EMR Serverless splits its spark-submit parameters at them.
        match = re.fullmatch(r"s3[an]?://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[\w.=+@-]+)*/*", text, re.ASCII)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is not like s3://bucket/prefix, of letters, digits and ._=+@-")
        return cls.of(text)

    @classmethod
    def of(cls, text: str) -> Uri:
        bucket, _, prefix = text.partition("://")[2].partition("/")
        return cls(bucket, prefix.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}".lstrip("/")

    def overlaps(self, other: Uri) -> bool:
        ours, theirs = f"{self}/", f"{other}/"
        return ours.startswith(theirs) or theirs.startswith(ours)


@dataclass(frozen=True)
class Plan:
    """What is uploaded, the one request that starts the job, and what it costs in machines."""

    name: str
    uploads: dict[str, str]
    service: str
    operation: str
    request: dict[str, Any]
    machines: list[str]

    def as_json(self) -> str:
        call = {"service": self.service, "operation": self.operation, "request": self.request}
        return json.dumps({"uploads": sorted(self.uploads), **call}, indent=2)


def make_plan(args: argparse.Namespace, name: str) -> Plan:
    """The whole run, decided from the command line and dl.cfg alone."""
    folder = f"{args.logs}/{name}"
    job = ["--config", "dl.cfg", "--input", str(args.input), "--output", str(args.output)]
    job += ["--report", f"{folder}/report.json"]
    uploads = {
        f"{folder}/etl.py": (JOB / "etl.py").read_text(encoding="utf-8"),
        f"{folder}/dl.cfg": clean_config(args.config, args.input, args.output),
    }
    if args.serverless:
        return Plan(name, uploads, "emr-serverless", "start_job_run", *serverless_request(args, name, folder, job))
    # A job that failed would fail again. YARN does not count the loss of a machine: that is still tried again.
    conf = [f"spark.executor.cores={TASK_THREADS}", "spark.yarn.maxAppAttempts=1"]
    conf += python_conf(args.release, "spark.yarn.appMasterEnv")
    submit = ["spark-submit", "--deploy-mode", "cluster", "--name", name, "--files", f"{folder}/dl.cfg"]
    submit += [word for setting in conf for word in ("--conf", setting)]
    submit += [f"{folder}/etl.py", *job]
    step = {"Name": name, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": submit}}
    if args.cluster:
        request = {"JobFlowId": args.cluster, "Steps": [{**step, "ActionOnFailure": "CONTINUE"}]}
        machines = [f"No new cluster: one step on {args.cluster}, with the machines it has."]
        return Plan(name, uploads, "emr", "add_job_flow_steps", request, machines)
    submit[:0] = ["timeout", f"{args.max_hours}h"]  # a job that hangs fails too, and any failure ends the cluster
    return Plan(name, uploads, "emr", "run_job_flow", *cluster_request(args, name, step))


def python_conf(release: str, driver: str) -> list[str]:
    """On emr-7.x python3 is 3.9, too old for the job; 3.11 stands beside it."""
    keys = (driver, "spark.executorEnv") if release.startswith("emr-7.") else ()
    return [f"{key}.PYSPARK_PYTHON=python3.11" for key in keys]


def clean_config(path: Path, source: Uri, destination: Uri) -> str:
    """dl.cfg as the cluster gets it: no keys, no comments (old keys hide there), this run's paths."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str.upper  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give another with --config") from None
    except (configparser.Error, UnicodeDecodeError):  # their text may quote a line, and that line may hold a secret
        raise UsageError(f"{path} is not a valid dl.cfg; `python etl.py --config {path}` says which line") from None
    parser[parser.default_section].clear()
    parser["PATHS"] = {"INPUT_DATA": str(source), "OUTPUT_DATA": str(destination)}
    parser["AWS"] = {}  # the cluster's role takes the place of keys, region and endpoint
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def cluster_request(args: argparse.Namespace, name: str, step: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """run_job_flow's parameters and the machines in words: a cluster that lives as long as its one step."""
    workers = args.workers or FIRST_WORKERS
    on_demand = {"OnDemandSpecification": {"AllocationStrategy": "lowest-price"}}
    spot = {"SpotSpecification": {"TimeoutDurationMinutes": SPOT_MINUTES, **SPOT}}
    fleets: list[dict[str, Any]] = [
        {"InstanceFleetType": "MASTER", "TargetOnDemandCapacity": 1, "LaunchSpecifications": on_demand},
        {"InstanceFleetType": "CORE", "TargetOnDemandCapacity": 1, "LaunchSpecifications": on_demand},
        {"InstanceFleetType": "TASK", "TargetSpotCapacity": workers - 1, "LaunchSpecifications": spot},
    ]
    types = [{"InstanceType": machine, "WeightedCapacity": 1} for machine in args.machines.split(",")]
    instances = {
        "InstanceFleets": [{**fleet, "InstanceTypeConfigs": types} for fleet in fleets[: 3 if workers > 1 else 2]],
        "KeepJobFlowAliveWhenNoSteps": False,
        "TerminationProtected": False,
        **({"Ec2SubnetIds": args.subnet} if args.subnet else {}),
    }
    request: dict[str, Any] = {
        "Name": name,
        "ReleaseLabel": args.release,
        "Applications": [{"Name": "Spark"}],
        "LogUri": f"{args.logs}/",
        "ServiceRole": args.service_role,
        "JobFlowRole": args.instance_profile,
        "SecurityConfiguration": args.security_configuration,
        "Instances": instances,
        "Steps": [{**step, "ActionOnFailure": "TERMINATE_CLUSTER"}],
        "AutoTerminationPolicy": {"IdleTimeout": IDLE_SECONDS},
        "Tags": [{"Key": key, "Value": value} for key, value in {**TAGS, **dict(args.tag), EMR_TAG: "true"}.items()],
    }
    machines = [f"{workers + 1} machines: 1 primary and 1 core on demand, {workers - 1} task on Spot."]
    if workers > 1:
        machines.append(f"Where Spot machines do not come in {SPOT_MINUTES} minutes, on-demand ones take their place.")
    if not args.workers:
        request["ManagedScalingPolicy"] = {"ComputeLimits": SCALING}
        machines.append(f"EMR then scales between 1 and {MOST_WORKERS} workers, at most {FIRST_WORKERS} on demand.")
    machines.append(f"Type: whichever is best to get of {args.machines.replace(',', ', ')}.")
    machines.append(f"Paid from start to the end of the step, {args.max_hours} hours at most (--max-hours).")
    return request, machines


def serverless_request(
    args: argparse.Namespace, name: str, folder: str, job: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """start_job_run's parameters and the machines in words."""
    conf = python_conf(args.release, "spark.emr-serverless.driverEnv")
    if args.workers:
        conf.append(f"spark.dynamicAllocation.maxExecutors={args.workers}")
    spark = {
        "entryPoint": f"{folder}/etl.py",
        "entryPointArguments": job,
        "sparkSubmitParameters": " ".join([f"--files {folder}/dl.cfg", *(f"--conf {setting}" for setting in conf)]),
    }
    logs = {"s3MonitoringConfiguration": {"logUri": f"{args.logs}/"}}
    request = {
        "applicationId": args.serverless,
        "clientToken": name,
        "name": name,
        "executionRoleArn": args.role,
        "executionTimeoutMinutes": args.max_hours * 60,
        "jobDriver": {"sparkSubmit": spark},
        "configurationOverrides": {"monitoringConfiguration": logs},
        "tags": {**TAGS, **dict(args.tag)},
    }
    most = f"at most {args.workers} executors" if args.workers else "as many executors as the application allows"
    machines = [
        f"EMR Serverless application {args.serverless}: 1 driver and {most}.",
        "Each has 4 vCPU and 16 GB, unless the application says otherwise.",
        f"Paid by the second of each, {args.max_hours} hours at most (--max-hours).",
    ]
    return request, machines
