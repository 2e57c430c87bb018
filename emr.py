"""Runs etl.py on Amazon EMR from a laptop, with one command.

    python emr.py run --input s3://songs/raw --output s3://lake/sparkify --logs s3://logs/sparkify
    python emr.py run ... --cluster j-1ABC                          a step on a cluster that is already there
    python emr.py run ... --serverless 00f1abc --role arn:aws:...   on an EMR Serverless application
    python emr.py run ... --dry-run                                 prints the exact request, needs no AWS
    python emr.py status ID                                         ID as `run` printed it
    python emr.py logs ID

`run` checks everything that can be checked, shows the machines, uploads etl.py and dl.cfg (without its secrets),
starts a cluster that ends with its one step, follows it, and prints the job's report or the driver's last error lines.

Exit codes: 0 done, 1 the job failed, 2 wrong usage or a failed check, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import gzip
import importlib
import io
import json
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
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

# Options that say nothing to a cluster or an application that is already there.
NEW_CLUSTER = {"machines", "subnet", "service_role", "instance_profile", "security_configuration"}
NEW_JOB = {"workers", "max_hours", "tag"}
STEP_ENDS = {"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"}
CLUSTER_ENDS = {"TERMINATED", "TERMINATED_WITH_ERRORS"}
JOB_RUN_ENDS = {"SUCCESS", "FAILED", "CANCELLED"}
THROTTLED = re.compile("Throttl|TooManyRequests|RequestLimitExceeded|SlowDown")
ABSENT = {"404", "NoSuchBucket", "NoSuchEntity", "InvalidRequestException", "ResourceNotFoundException"}
ABSENT |= {"InvalidSubnetID.NotFound", "InvalidSubnetId.NotFound", "InvalidSubnetID.Malformed"}
DEFAULT_SUBNETS = [{"Name": "default-for-az", "Values": ["true"]}]  # where EMR starts a cluster that names no subnet
ERROR_LINE = re.compile(r"etl\.py: error:|\b(ERROR|FATAL)\b|Error\b|Exception\b|Traceback|Caused by")


class UsageError(Exception):
    """Wrong usage or failed checks, each a line: exit code 2."""


class RunError(Exception):
    """The run failed or cannot be followed; its message is what the user sees: exit code 1."""


# ---------------------------------------------------------------------------------------------------------------------
# The request: pure functions of the command line
# ---------------------------------------------------------------------------------------------------------------------


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
    job = ["--input", str(args.input), "--output", str(args.output), "--report", f"{folder}/report.json"]
    uploads = {
        f"{folder}/etl.py": (HERE / "etl.py").read_text(encoding="utf-8"),
        f"{folder}/dl.cfg": clean_config(args.config, args.input, args.output),
    }
    if args.serverless:
        return Plan(name, uploads, "emr-serverless", "start_job_run", *serverless_request(args, name, folder, job))
    # A job that failed would fail again. YARN does not count the loss of a machine: that is still tried again.
    conf = [f"spark.executor.cores={TASK_THREADS}", "spark.yarn.maxAppAttempts=1"]
    conf += python_conf(args.release, "spark.yarn.appMasterEnv")
    submit = ["spark-submit", "--deploy-mode", "cluster", "--name", name, "--files", f"{folder}/dl.cfg"]
    submit += [word for setting in conf for word in ("--conf", setting)]
    submit += [f"{folder}/etl.py", "--config", "dl.cfg", *job]
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


# ---------------------------------------------------------------------------------------------------------------------
# AWS
# ---------------------------------------------------------------------------------------------------------------------


class Aws:
    """boto3 and its clients, made where they are first used: --help and --dry-run do without."""

    def __init__(self, region: str | None) -> None:
        try:
            self.boto3: Any = importlib.import_module("boto3")
        except ImportError:
            raise UsageError("boto3 is missing: pip install -r requirements.txt") from None
        self.errors: Any = importlib.import_module("botocore.exceptions")
        self.failed = (self.errors.ClientError, self.errors.BotoCoreError)
        self.offline = (self.errors.HTTPClientError, self.errors.ConnectionError)
        self.config: Any = importlib.import_module("botocore.config").Config
        try:
            self.session = self.boto3.session.Session(region_name=region)
        except self.errors.BotoCoreError as error:  # AWS_PROFILE names no profile
            raise UsageError(f"{error}; see `aws configure list-profiles`") from None
        if self.session.region_name is None:
            raise UsageError("no AWS region is set: give --region, or set AWS_REGION, or run `aws configure`")
        self.region: str = self.session.region_name
        self.clients: dict[str, Any] = {}

    def __getattr__(self, service: str) -> Any:
        name = service.replace("_", "-")
        if name not in self.clients:
            config = self.config(retries={"mode": "adaptive", "max_attempts": 10}, connect_timeout=10, read_timeout=60)
            self.clients[name] = self.session.client(name, config=config)
        return self.clients[name]

    def start(self, plan: Plan) -> dict[str, Any]:
        """The request that spends money, sent again only where AWS surely did not take it: never two clusters."""
        once = self.config(retries={"total_max_attempts": 1}, read_timeout=120)
        client = self.session.client(plan.service, config=once)
        for attempt in range(10):
            try:
                answer: dict[str, Any] = getattr(client, plan.operation)(**plan.request)
                return answer
            except self.errors.ClientError as error:
                if not THROTTLED.search(code(error)):
                    raise UsageError(f"AWS refused to start the job: {error}") from None
            except self.offline as error:
                raise RunError(
                    f"no answer from AWS ({error}). The job may have started: look for {plan.name} with "
                    "`aws emr list-clusters --active`, or in the EMR console"
                ) from None
            time.sleep(min(2**attempt, 60))
        raise UsageError("AWS is throttling: nothing was started. Try again in some minutes")

    def read(self, place: Uri, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        try:
            body: bytes = self.s3.get_object(Bucket=place.bucket, Key=place.key(name))["Body"].read()
        except self.failed as error:
            if code(error) == "NoSuchKey":
                return None
            raise RunError(f"cannot read {place}/{name}: {error}") from None
        return gzip.decompress(body) if name.endswith(".gz") else body


def code(error: Any) -> str:
    """AWS's short name of an error; empty where AWS did not answer at all."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


# ---------------------------------------------------------------------------------------------------------------------
# Checks before anything is started: each problem is one line with its fix
# ---------------------------------------------------------------------------------------------------------------------


def check_usage(args: argparse.Namespace) -> None:
    """What the command line alone can tell."""
    pairs = [("--input", "--output"), ("--input", "--logs"), ("--output", "--logs")]
    for one, other in pairs:
        if getattr(args, one[2:]).overlaps(getattr(args, other[2:])):
            raise UsageError(f"{one} and {other} must not lie in one another: give each a prefix of its own")
    if args.serverless and not args.role:
        raise UsageError("--serverless needs --role, the ARN of the role that the job runs with")
    if args.role and not args.serverless:
        raise UsageError("--role goes with --serverless; a cluster's role comes with --instance-profile")


def check(aws: Aws, args: argparse.Namespace) -> None:
    """All that can be known before money is spent; raises UsageError with every problem found."""
    try:
        aws.sts.get_caller_identity()
    except aws.offline as error:
        raise UsageError(f"AWS cannot be reached in region {aws.region!r}: {error}") from None
    except aws.failed as error:
        raise UsageError(f"no valid AWS credentials ({error}): run `aws configure` or `aws sso login`") from None
    checks = Checks(aws, args)
    checks.buckets()
    if args.serverless:
        checks.serverless()
    elif args.cluster:
        checks.cluster()
    else:
        checks.roles()
        checks.subnets()
    if checks.problems:
        raise UsageError("\n".join(checks.problems))


class Checks:
    """Each method adds a line to `problems` for all that is not as the job needs it."""

    def __init__(self, aws: Aws, args: argparse.Namespace) -> None:
        self.aws, self.args = aws, args
        self.problems: list[str] = []

    def note(self, option: str, problem: str) -> None:
        self.problems.append(f"{option}: {problem}")

    def ask(self, option: str, absent: str, call: Callable[..., Any], **request: Any) -> dict[str, Any]:
        """A call's answer; empty, with the problem noted, where the thing is not there or AWS does not tell."""
        try:
            answer: dict[str, Any] = call(**request)
            return answer
        except self.aws.failed as error:
            refused = f"{error}; iam/operator.json has all rights that are needed"
            self.note(option, absent if code(error) in ABSENT else refused)
            return {}

    def buckets(self) -> None:
        for option, place in (("--input", self.args.input), ("--output", self.args.output), ("--logs", self.args.logs)):
            absent = f"there is no bucket {place.bucket}; create it with `aws s3 mb s3://{place.bucket}`"
            bucket = self.ask(option, absent, self.aws.s3.head_bucket, Bucket=place.bucket)
            if not bucket:
                continue
            if option == "--logs" and (region := bucket.get("BucketRegion")) != self.aws.region:
                self.note(option, f"bucket {place.bucket} is in {region}; EMR needs one in its own {self.aws.region}")
            if option == "--input":
                self.folders(place)
            elif option == "--logs" or not self.args.allow_public:
                self.privacy(option, place.bucket)

    def folders(self, place: Uri) -> None:
        for folder in ("song_data/", "log_data/"):
            wanted = {"Bucket": place.bucket, "Prefix": place.key(folder), "MaxKeys": 1}
            if self.ask("--input", "", self.aws.s3.list_objects_v2, **wanted).get("KeyCount") == 0:
                self.note("--input", f"nothing under {place}/{folder}: give the folder of song_data and log_data")

    def privacy(self, option: str, bucket: str) -> None:
        try:
            reason = why_public(self.aws, bucket)
        except self.aws.failed as error:
            self.note(option, f"cannot see whether {bucket} is public: {error}; see iam/operator.json")
            return
        if reason:
            way = ", or give --allow-public" if option == "--output" else ""
            self.note(option, f"bucket {bucket} is public ({reason}): turn on its Block Public Access{way}")

    def trust(self, option: str, role: dict[str, Any], service: str) -> None:
        if service not in json.dumps(role["AssumeRolePolicyDocument"]):
            self.note(option, f"role {role['RoleName']} does not trust {service}: see the trust policies in iam/")

    def role(self, option: str, name: str, service: str) -> None:
        absent = f"there is no role {name}: create it as the README says"
        if answer := self.ask(option, absent, self.aws.iam.get_role, RoleName=name):
            self.trust(option, answer["Role"], service)

    def roles(self) -> None:
        self.role("--service-role", self.args.service_role, "elasticmapreduce.amazonaws.com")
        option, name = "--instance-profile", self.args.instance_profile
        absent = f"there is no instance profile {name}: create it as the README says"
        if answer := self.ask(option, absent, self.aws.iam.get_instance_profile, InstanceProfileName=name):
            for role in answer["InstanceProfile"]["Roles"]:
                self.trust(option, role, "ec2.amazonaws.com")
            if not answer["InstanceProfile"]["Roles"]:
                self.note(option, f"{name} holds no role: `aws iam add-role-to-instance-profile` as the README says")
        option, name = "--security-configuration", self.args.security_configuration
        fix = f"aws emr create-security-configuration --name {name} --security-configuration file://iam/imdsv2.json"
        self.ask(option, f"there is no {name}: `{fix}`", self.aws.emr.describe_security_configuration, Name=name)

    def subnets(self) -> None:
        wanted = {"SubnetIds": self.args.subnet} if self.args.subnet else {"Filters": DEFAULT_SUBNETS}
        lister = "`aws ec2 describe-subnets` lists them"
        absent = f"there is no such subnet in {self.aws.region}; {lister}"
        answer = self.ask("--subnet", absent, self.aws.ec2.describe_subnets, **wanted)
        if answer and not answer["Subnets"]:
            self.note("--subnet", f"{self.aws.region} has no default VPC, so give a subnet; {lister}")
        most = 1 + (self.args.workers or MOST_WORKERS)
        subnets = answer.get("Subnets", [])
        for name in [subnet["SubnetId"] for subnet in subnets if subnet["AvailableIpAddressCount"] < most]:
            self.note("--subnet", f"{name} has too few free addresses for {most} machines: take a larger one")
        tags = {"Key": EMR_TAG, "Value": "true"}
        if untagged := [subnet for subnet in subnets if tags not in subnet.get("Tags", [])]:
            names = sorted({subnet[key] for subnet in untagged for key in ("SubnetId", "VpcId")})
            fix = f"aws ec2 create-tags --resources {' '.join(names)} --tags Key={EMR_TAG},Value=true"
            self.note("--subnet", f"a tag is missing, without which EMR's role may not use the network: `{fix}`")

    def release(self, option: str, name: str, found: str) -> None:
        if found.split(".")[0] != self.args.release.split(".")[0]:  # another Spark, another Python
            self.note(option, f"{name} is {found}: give --release {found}")

    def cluster(self) -> None:
        name = self.args.cluster
        absent = f"there is no cluster {name} in {self.aws.region}: `aws emr list-clusters --active`"
        cluster = self.ask("--cluster", absent, self.aws.emr.describe_cluster, ClusterId=name).get("Cluster")
        if cluster and (state := cluster["Status"]["State"]) not in ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"):
            self.note("--cluster", f"{name} is {state}; leave --cluster away and a new one is started")
        if cluster and not cluster.get("LogUri"):
            self.note("--cluster", f"{name} keeps no logs in S3, so an error could not be shown: use one that does")
        if cluster:
            self.release("--cluster", name, cluster["ReleaseLabel"])

    def serverless(self) -> None:
        name, option = self.args.serverless, "--serverless"
        absent = f"there is no application {name} in {self.aws.region}: `aws emr-serverless list-applications`"
        answer = self.ask(option, absent, self.aws.emr_serverless.get_application, applicationId=name)
        if application := answer.get("application"):
            if application["type"].upper() != "SPARK" or application["state"] in ("STOPPING", "TERMINATED"):
                found = f"{application['type']} application and {application['state']}"
                self.note(option, f"{name} is a {found}: give a Spark application that can start")
            self.release(option, name, application["releaseLabel"])
        self.role("--role", self.args.role.rpartition("/")[2], "emr-serverless.amazonaws.com")


def why_public(aws: Aws, bucket: str) -> str | None:
    """What makes a bucket readable or writable by everyone; None where nothing does."""

    def ask(call: Callable[..., Any], absent: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = call(Bucket=bucket)
            return answer
        except aws.errors.ClientError as error:
            if code(error) != absent:
                raise
            return {}

    blocks = ask(aws.s3.get_public_access_block, "NoSuchPublicAccessBlockConfiguration")
    blocked = blocks.get("PublicAccessBlockConfiguration", {})
    status = ask(aws.s3.get_bucket_policy_status, "NoSuchBucketPolicy")
    if status.get("PolicyStatus", {}).get("IsPublic") and not blocked.get("RestrictPublicBuckets"):
        return "by its policy"
    grants = [grant["Grantee"].get("URI", "") for grant in ask(aws.s3.get_bucket_acl, "")["Grants"]]
    everyone = any(uri.endswith(("/global/AllUsers", "/global/AuthenticatedUsers")) for uri in grants)
    return "by its access control list" if everyone and not blocked.get("IgnorePublicAcls") else None


# ---------------------------------------------------------------------------------------------------------------------
# A run that was started
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One look at a run: the states to show, and what is known once it has ended."""

    states: dict[str, str]
    ended: bool
    done: bool
    reason: str
    ended_at: datetime | None
    report: str | None

    def __str__(self) -> str:
        return ", ".join(f"{part} {state}" for part, state in self.states.items())


class Run:
    """A step of a cluster (j-.../s-...) or a job run of an EMR Serverless application (application/job run)."""

    def __init__(self, aws: Aws, text: str) -> None:
        self.aws = aws
        self.owner, _, self.part = text.partition("/")
        self.is_cluster = self.owner.startswith("j-")
        if not re.fullmatch(r"j-\w+(/s-\w+)?|\w+/\w+", text, re.ASCII):
            raise UsageError(f"{text!r} is no ID: it is like j-1ABC, j-1ABC/s-2DEF, or APPLICATION/JOB_RUN")
        self.logs: Uri | None = None

    def __str__(self) -> str:
        return f"{self.owner}/{self.part}".rstrip("/")

    def look(self) -> Seen:
        return self._look_at_step() if self.is_cluster else self._look_at_job_run()

    def _look_at_step(self) -> Seen:
        cluster = self.aws.emr.describe_cluster(ClusterId=self.owner)["Cluster"]
        if cluster.get("LogUri"):
            self.logs = Uri.of(f"{cluster['LogUri'].rstrip('/')}/{self.owner}")
        if not self.part:  # the newest step comes first; a cluster just born has none yet
            steps = self.aws.emr.list_steps(ClusterId=self.owner)["Steps"]
            self.part = steps[0]["Id"] if steps else ""
        step = self.aws.emr.describe_step(ClusterId=self.owner, StepId=self.part)["Step"] if self.part else {}
        status = step.get("Status", {})
        states = {"cluster": cluster["Status"]["State"], "step": status.get("State", "PENDING")}
        failure = status.get("FailureDetails", {})
        reasons = [failure.get("Reason"), failure.get("Message"), status.get("StateChangeReason", {}).get("Message")]
        if states["step"] not in {"COMPLETED", "FAILED"}:  # then it is the cluster that has something to say
            reasons.append(cluster["Status"].get("StateChangeReason", {}).get("Message"))
            reasons += [detail.get("ErrorMessage") for detail in cluster["Status"].get("ErrorDetails", [])]
        return Seen(
            states,
            ended=states["step"] in STEP_ENDS or states["cluster"] in CLUSTER_ENDS,
            done=states["step"] == "COMPLETED",
            reason="; ".join(dict.fromkeys(filter(None, reasons))),
            ended_at=status.get("Timeline", {}).get("EndDateTime"),
            report=report_of(step.get("Config", {}).get("Args", [])),
        )

    def _look_at_job_run(self) -> Seen:
        run = self.aws.emr_serverless.get_job_run(applicationId=self.owner, jobRunId=self.part)["jobRun"]
        monitoring = run.get("configurationOverrides", {}).get("monitoringConfiguration", {})
        if folder := monitoring.get("s3MonitoringConfiguration", {}).get("logUri"):
            self.logs = Uri.of(f"{folder.rstrip('/')}/applications/{self.owner}/jobs/{self.part}")
        return Seen(
            {"job run": run["state"]},
            ended=run["state"] in JOB_RUN_ENDS,
            done=run["state"] == "SUCCESS",
            reason=run.get("stateDetails", ""),
            ended_at=run.get("endedAt"),
            report=report_of(run["jobDriver"]["sparkSubmit"].get("entryPointArguments", [])),
        )

    def stop(self, own_cluster: bool) -> str:
        """Asks AWS to stop; says what happens now."""
        if not self.is_cluster:
            self.aws.emr_serverless.cancel_job_run(applicationId=self.owner, jobRunId=self.part)
            return "The job run is being cancelled."
        if own_cluster:  # made for this step alone: the surest way to stop the step and its application
            self.aws.emr.terminate_job_flows(JobFlowIds=[self.owner])
            return "The step and its cluster are being terminated."
        self.aws.emr.cancel_steps(ClusterId=self.owner, StepIds=[self.part], StepCancellationOption="SEND_INTERRUPT")
        return (
            "The step is being cancelled. In cluster mode YARN may still run its application: "
            "`yarn application -list` and `-kill` on the primary node."
        )

    def driver_log(self, seen: Seen) -> dict[str, str]:
        """The driver's stderr and stdout, waited for: EMR copies them to S3 some minutes late."""
        if self.logs is None or not self.part:
            raise RunError(f"{self} has no step yet, or keeps no logs in S3")
        deadline = time.monotonic() + LOG_WAIT_SECONDS
        said = False
        while True:
            texts, is_whole = self._read_driver_log(seen)
            if is_whole:
                return texts
            if not said:
                say("Waiting for the driver's log: EMR copies it to S3 some minutes late. Ctrl-C stops the waiting.")
                said = True
            if time.monotonic() >= deadline:
                if not texts:
                    raise RunError(f"no driver log yet under {self.logs}; try again later: python emr.py logs {self}")
                say("The log may not be whole yet.")
                return texts
            time.sleep(LOG_POLL_SECONDS)

    def _read_driver_log(self, seen: Seen) -> tuple[dict[str, str], bool]:
        """The log as far as it is there, and whether that is all of it."""
        folder, submit = "SPARK_DRIVER/", dict[str, str]()
        if self.is_cluster:
            submit, is_whole = self._read_logs(f"steps/{self.part}/", "stderr", seen)
            application = re.search(r"application_\d+_\d+", submit.get("stderr", ""))
            if application is None:  # spark-submit itself failed, or has not come that far
                return submit, bool(submit) and is_whole
            folder = f"containers/{application[0]}/"
        # The first container of an application is its driver; of several attempts, the last counts.
        texts, is_whole = self._read_logs(folder, r"(?:container_\w+_000001/)?std(?:err|out)", seen)
        is_whole = is_whole or "etl.py: error:" in texts.get("stderr", "")
        return texts or submit, bool(texts) and is_whole

    def _read_logs(self, folder: str, files: str, seen: Seen) -> tuple[dict[str, str], bool]:
        """The files of a folder whose names match, by name, and whether EMR copied them after the run's end."""
        assert self.logs is not None
        start = self.logs.key(folder)
        pages = self.aws.s3.get_paginator("list_objects_v2").paginate(Bucket=self.logs.bucket, Prefix=start)
        found = {entry["Key"]: entry["LastModified"] for page in pages for entry in page.get("Contents", [])}
        found = {key: found[key] for key in found if re.fullmatch(rf"{files}(\.gz)?", key[len(start) :])}
        last = max((key.rpartition("/")[0] for key in found), default="")
        keys = sorted(key for key in found if key.rpartition("/")[0] == last)
        texts = {}
        for key in keys:
            body = self.aws.read(Uri(self.logs.bucket, ""), key) or b""
            texts[Path(key).name.removesuffix(".gz")] = body.decode(errors="replace")
        return texts, all(seen.ended_at is None or found[key] >= seen.ended_at for key in keys)


def report_of(arguments: list[str]) -> str | None:
    return arguments[arguments.index("--report") + 1] if "--report" in arguments[:-1] else None


def follow(run: Run) -> Seen:
    """Looks until the run has ended, however long that takes, through throttling and a network that comes and goes."""
    started: dict[tuple[str, str], float] = {}
    shown = ""
    aws = run.aws
    while True:
        note = ""
        try:
            seen = run.look()
        except aws.offline:
            note = "no answer from AWS, still trying"
        except aws.failed as error:
            status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if not THROTTLED.search(code(error)) and status < 500:  # credentials that ran out, most often
                raise RunError(f"cannot follow {run}: {error}. It goes on: python emr.py status {run}") from None
            note = "AWS is busy, still trying"
        now = time.monotonic()
        times = []
        for part, state in seen.states.items() if not note else ():
            spent = divmod(int(now - started.setdefault((part, state), now)), 60)
            times.append(f"{part} {state} {spent[0]}:{spent[1]:02}")
        change = note or str(seen)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{note or ', '.join(times)}")
            sys.stderr.flush()
        elif change != shown:
            say(f"{datetime.now():%H:%M:%S} {change}")
        shown = change
        if not note and seen.ended:
            if sys.stderr.isatty():
                sys.stderr.write("\n")
            return seen
        time.sleep(POLL_SECONDS)


def error_lines(texts: dict[str, str]) -> list[str]:
    """The job's own error line where there is one, else the last lines that speak of an error, else the last lines."""
    lines = [line for name in ("stdout", "stderr") for line in texts.get(name, "").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("etl.py: error:")]
    return own or [line for line in lines if ERROR_LINE.search(line)][-15:] or lines[-15:]


def show_report(aws: Aws, uri: str | None) -> None:
    if uri is None:
        return
    folder, _, name = uri.rpartition("/")
    body = aws.read(Uri.of(folder), name)
    if body is None:
        say(f"There is no report at {uri}.")
        return
    report = json.loads(body)
    print(f"{'table':<12}{'rows':>14}{'files':>8}{'bytes':>16}{'seconds':>10}")
    for table, row in report["tables"].items():
        print(f"{table:<12}{row['rows']:>14,}{row['files']:>8,}{row['bytes']:>16,}{row['seconds']:>10.1f}")
    for name, counts in report["inputs"].items():
        print(f"{name}: {counts['lines']:,} lines of {counts['files']:,} files, {counts['rejected']:,} rejected")
    if report["matched_share"] is not None:
        print(f"plays that found their song: {report['matched_share']:.1%}")
    print(f"run {report['run_id']} {report['state']}, {report['seconds']:.0f} s; the whole report: {uri}")


def show_end(run: Run, seen: Seen) -> int:
    """The report of a run that is done; of another the reason and the driver's own words. Returns the exit code."""
    if seen.done:
        try:
            show_report(run.aws, seen.report)
        except RunError as error:
            say(f"The job is done, but its report cannot be shown: {error}")
        return 0
    say(f"emr.py: error: {run} ended as {seen}: {seen.reason or 'AWS gives no reason'}")
    if seen.states.get("step", "FAILED") == "FAILED":  # a step that never ran has no log
        say(f"The driver's last error lines (all of it: python emr.py logs {run}):")
        print("\n".join(error_lines(run.driver_log(seen))))
    return 1


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def command_run(args: argparse.Namespace) -> int:
    check_usage(args)
    plan = make_plan(args, f"sparkify-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}")
    say("\n".join(plan.machines))
    if args.dry_run:
        print(plan.as_json())
        return 0
    aws = Aws(args.region)
    check(aws, args)
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("this costs money and there is no terminal to ask: give --yes")
        if input("Start it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was started")
    for uri, text in plan.uploads.items():
        folder, _, name = uri.rpartition("/")
        place = Uri.of(folder)
        try:
            aws.s3.put_object(Bucket=place.bucket, Key=place.key(name), Body=text.encode())
        except aws.errors.ClientError as error:
            raise UsageError(f"--logs: cannot write {uri}: {error}; see iam/operator.json") from None
    with uninterrupted():
        answer = aws.start(plan)
    if args.serverless:
        run = Run(aws, f"{args.serverless}/{answer['jobRunId']}")
    elif args.cluster:
        run = Run(aws, f"{args.cluster}/{answer['StepIds'][0]}")
    else:
        run = Run(aws, answer["JobFlowId"])
    say(f"Started {run} as {plan.name}. From another terminal: python emr.py status {run}")
    try:
        seen = follow(run)
    except KeyboardInterrupt:
        return ask_what_now(run, own_cluster=not args.cluster)
    return show_end(run, seen)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """No Ctrl-C while the job is started: else it could run with nobody knowing its ID."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def ask_what_now(run: Run, own_cluster: bool) -> int:
    """After Ctrl-C: stop the job or leave it; without a terminal it is left."""
    answer = ""
    if sys.stdin.isatty():
        with contextlib.suppress(KeyboardInterrupt, EOFError):
            answer = input("\nStop the job (s), or leave it running (Enter)? ").strip().lower()
    if answer in ("s", "stop"):
        say(run.stop(own_cluster))
    else:
        end = " and its cluster ends by itself with the step" if run.is_cluster and own_cluster else ""
        say(f"{run} goes on{end}: python emr.py status {run}")
    return 130


def command_status(args: argparse.Namespace) -> int:
    run, seen = find_run(args)
    print(f"{run}: {seen}")
    if seen.reason:
        print(seen.reason)
    if seen.done:
        show_report(run.aws, seen.report)
    return 1 if seen.ended and not seen.done else 0


def command_logs(args: argparse.Namespace) -> int:
    run, seen = find_run(args)
    for name, text in run.driver_log(seen).items():
        print(f"==> {name} <==\n{text.rstrip()}")
    return 0


def find_run(args: argparse.Namespace) -> tuple[Run, Seen]:
    aws = Aws(args.region)
    run = Run(aws, args.id)
    try:
        return run, run.look()
    except aws.failed as error:
        raise UsageError(f"cannot find {args.id} in {aws.region}: {error}") from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="emr.py", description="Runs etl.py on Amazon EMR.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    region = argparse.ArgumentParser(add_help=False)
    region.add_argument("--region", help="AWS region (default: AWS_REGION, or the profile's)")

    run = commands.add_parser(
        "run", parents=[region], help="run the job, on a cluster of its own unless told otherwise"
    )
    run.set_defaults(command=command_run)
    add = run.add_argument
    add("--input", required=True, type=Uri.parse, metavar="URI", help="holds song_data and log_data")
    add("--output", required=True, type=Uri.parse, metavar="URI", help="where the five tables go")
    add("--logs", required=True, type=Uri.parse, metavar="URI", help="for the code, the report and EMR's logs")
    add("--config", type=Path, default=HERE / "dl.cfg", help="uploaded without [AWS] (default: dl.cfg beside emr.py)")
    add("--dry-run", action="store_true", help="print the exact request as JSON; needs no AWS")
    add("--yes", action="store_true", help="do not ask before machines are started")
    add("--workers", type=positive, metavar="N", help=f"fixed size (default: EMR scales, 1 to {MOST_WORKERS})")
    add("--max-hours", type=positive, default=12, metavar="N", help="a job that hangs is ended then (default: 12)")
    add("--allow-public", action="store_true", help="write to an output bucket that everyone can read")
    add("--tag", type=tag, action="append", default=[], metavar="K=V", help="may be repeated")
    add("--release", type=release, default=RELEASE, help="EMR release (default: %(default)s; emr-7.x works too)")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--cluster", type=cluster_id, metavar="ID", help="add a step to this running cluster instead")
    where.add_argument("--serverless", metavar="APPLICATION", help="run on this EMR Serverless application instead")
    add("--role", metavar="ARN", help="with --serverless: the role that the job runs with")

    add = run.add_argument_group("a cluster of its own").add_argument
    add("--machines", default=MACHINES, metavar="TYPES", help="instance types of one size (default: %(default)s)")
    add("--subnet", action="append", default=[], metavar="ID", help="may be repeated (default: the default VPC's)")
    add("--service-role", default="sparkify-emr-service", metavar="NAME", help="EMR's role (default: %(default)s)")
    add("--instance-profile", default="sparkify-job", metavar="NAME", help="the job's role (default: %(default)s)")
    security = "sparkify-imdsv2"
    add("--security-configuration", default=security, metavar="NAME", help="as iam/imdsv2.json (default: %(default)s)")

    for name, command, text in (
        ("status", command_status, "how a run is doing, and its report"),
        ("logs", command_logs, "the driver's whole log"),
    ):
        other = commands.add_parser(name, parents=[region], help=text)
        other.set_defaults(command=command)
        other.add_argument("id", metavar="ID", help="as `run` printed it: j-..., j-.../s-... or APPLICATION/JOB_RUN")
    args = parser.parse_args(argv)
    if args.command is command_run and (args.cluster or args.serverless):
        option, useless = ("--serverless", NEW_CLUSTER) if args.serverless else ("--cluster", {*NEW_CLUSTER, *NEW_JOB})
        for name in sorted(useless):
            if getattr(args, name) != run.get_default(name):
                run.error(f"--{name.replace('_', '-')} does not go with {option}")
    return args


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not like key=value")
    return key, value


def release(text: str) -> str:
    if not re.fullmatch(r"emr-(7|spark-[89])\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like {RELEASE} or emr-7.13.0")
    return text


def cluster_id(text: str) -> str:
    if not re.fullmatch(r"j-\w+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not like j-1ABC")
    return text


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        return int(args.command(args))
    except KeyboardInterrupt:
        say("emr.py: stopped")
        return 130
    except UsageError as error:
        for line in str(error).splitlines():
            say(f"emr.py: error: {line}")
        return 2
    except RunError as error:
        say(f"emr.py: error: {error}")
        return 1
    except Exception as error:
        if not type(error).__module__.startswith("botocore."):
            raise
        say(f"emr.py: error: {error}")  # AWS refused a call once the job ran, or did not answer
        return 1


if __name__ == "__main__":
    sys.exit(main())
