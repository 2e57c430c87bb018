"""The request, its machines and their price: pure functions of the command line."""

import argparse
import configparser
import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOB = Path(__file__).resolve().parents[1]  # where etl.py and dl.cfg are
CLUSTER = (JOB / "emr" / "cluster.json").read_text(encoding="utf-8")  # what each cluster is asked for
ICEBERG = (JOB / "emr" / "iceberg.json").read_text(encoding="utf-8")  # what --catalog adds
RELEASE = "emr-spark-8.0.0"
MACHINES = "m5.xlarge,m5a.xlarge,m6i.xlarge,m6a.xlarge,m7i.xlarge"  # 4 vCPU and 16 GiB each: any mix of them is even
FIRST_WORKERS, MOST_WORKERS = 3, 10  # where EMR's managed scaling begins and where it stops
CORES, THREADS = "spark.executor.cores", "16"  # a small S3 file is nearly all waiting, so four tasks share a vCPU
EVEN = {"spark.yarn.heterogeneousExecutors.enabled": "false"}  # else EMR takes these cores for the least
ON_CORE = {"spark.yarn.am.nodeLabelExpression": "CORE"}  # the driver: it ends with a Spot machine
ONE_WORKER = {"spark.driver.memory": "2g", "spark.executor.memory": "6g"}  # both fit the 12 GiB that YARN has of 16
ATTEMPTS = {"spark.yarn.maxAppAttempts": "2"}  # safe: the second knows that the lock of the first is dead
EMR_TAG = "for-use-with-amazon-emr-managed-policies"  # AmazonEMRServicePolicy_v2 touches nothing without it
TAGS = {"project": "sparkify"}
NIGHT = "<aws.scheduler.execution-id>"  # EventBridge Scheduler puts an ID in its place, a new one each night
# USD an hour in us-east-1 as public pages quote AWS's lists, 2025: EC2 on demand and EMR's fee, a quarter of that.
PRICES = {"m5.xlarge": 0.24, "m5a.xlarge": 0.215, "m6i.xlarge": 0.24, "m6a.xlarge": 0.216, "m7i.xlarge": 0.252}
PRICES["worker"] = 0.303  # of EMR Serverless: 4 vCPU at 0.052624 and 16 GB at 0.0057785
START_HOURS = 0.1  # a cluster is paid while it starts


class UsageError(Exception):
    """Wrong usage or failed checks, each a line: nothing was started."""

    exit_code = 2


class RunError(Exception):
    """What the user sees where the run failed (exit code 1), goes on unwatched (3), or may have started (4)."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def say(text: str) -> None:
    """Tells the user; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Uri:
    """A place in S3; the prefix neither starts nor ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, text: str) -> "Uri":
        """The place that a URI names."""
        bucket, _, prefix = text.partition("://")[2].partition("/")
        return cls(bucket, prefix.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass
class Plan:
    """What is uploaded, the one request that starts the job, and its machines in words."""

    name: str
    report: str
    uploads: dict[str, str]
    machines: list[str]
    service: str = "emr"
    operation: str = "run_job_flow"
    request: dict[str, Any] | None = None

    def as_json(self) -> str:
        """The bare request; one that waits for a scheduler's ID is in the writing of schedulers."""
        return json.dumps(_capitalised(self.request) if NIGHT in self.name else self.request, indent=2)


def _capitalised(part: Any) -> Any:
    # EventBridge Scheduler and Step Functions begin each parameter with a capital; names of tags are no parameters.
    if not isinstance(part, dict):
        return part
    return {key[0].upper() + key[1:]: each if key == "tags" else _capitalised(each) for key, each in part.items()}


def make_plan(args: argparse.Namespace, name: str) -> Plan:
    """The whole run, decided from the command line and dl.cfg alone."""
    code = f"{args.logs}/{name.partition('<')[0].rstrip('-._')}"  # all nights of a schedule share their code
    report = f"{args.logs}/{name}/report.json"
    config, catalog = clean_config(args.config, args.input, args.output)
    args.catalog = args.catalog or catalog
    uploads = {f"{code}/etl.py": (JOB / "etl.py").read_text(encoding="utf-8"), f"{code}/dl.cfg": config}
    job = ["--config", "dl.cfg", "--input", str(args.input), "--output", str(args.output), "--report", report]
    job += ["--catalog", args.catalog] if args.catalog else []
    conf = {**_default_conf(args), **dict(args.conf)}
    words = ["--files", f"{code}/dl.cfg", *(word for key in conf for word in ("--conf", f"{key}={conf[key]}"))]
    plan = Plan(name, report, uploads, [])
    if args.serverless:
        spark = {"entryPoint": f"{code}/etl.py", "entryPointArguments": job, "sparkSubmitParameters": " ".join(words)}
        _ask_serverless(plan, args, spark)
        return plan
    submit = ["spark-submit", "--deploy-mode", "cluster", "--name", name, *words, f"{code}/etl.py", *job]
    step = {"Name": name, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": submit}}
    if args.cluster:
        plan.operation = "add_job_flow_steps"
        plan.request = {"JobFlowId": args.cluster, "Steps": [{**step, "ActionOnFailure": "CONTINUE"}]}
        plan.machines.append(f"No new cluster: one step on {args.cluster}, with the machines it has.")
        return plan
    submit[:0] = ["timeout", f"{args.max_hours}h"]  # a job that hangs fails too, and any failure ends the cluster
    _ask_cluster(plan, args, {**step, "ActionOnFailure": "TERMINATE_CLUSTER"}, conf[CORES])
    return plan


def _default_conf(args: argparse.Namespace) -> dict[str, str]:
    # As few settings as can be. A cluster that is there already decides on its executors itself.
    driver = "spark.emr-serverless.driverEnv" if args.serverless else "spark.yarn.appMasterEnv"
    keys = (f"{driver}.PYSPARK_DRIVER_PYTHON", f"{driver}.PYSPARK_PYTHON", "spark.executorEnv.PYSPARK_PYTHON")
    # On emr-7.x python3 is 3.9, too old for the job.
    python = dict.fromkeys(keys, "python3.11") if args.release.startswith("emr-7.") else {}
    name = (args.catalog or "").partition(".")[0]
    iceberg = json.loads(ICEBERG.replace("NAME", name).replace("OUTPUT", str(args.output)))
    conf = {**python, **(iceberg["conf"] if name else {})}
    if args.serverless:
        conf |= iceberg["conf_of_serverless_7"] if name and python else {}  # 8.0 finds Iceberg by itself
        executors = {"spark.dynamicAllocation.maxExecutors": str(args.workers)} if args.workers else {}
        if args.workers in (1, 2):  # Serverless begins with 3, and fails where that is more than the most
            first = ("spark.executor.instances", "spark.dynamicAllocation.initialExecutors")
            executors |= dict.fromkeys(first, str(args.workers))
        return {**conf, **executors}
    own = {} if args.cluster else {CORES: THREADS, **EVEN, **ON_CORE, **(ONE_WORKER if args.workers == 1 else {})}
    return {**own, **ATTEMPTS, **conf}


def clean_config(path: Path, source: Uri, destination: Uri) -> tuple[str, str]:
    """dl.cfg as the cluster gets it: no keys, no comments (old keys hide there), this run's paths; and its catalog."""
    import etl  # here, for PySpark takes a second

    paths = {"INPUT_DATA": str(source), "OUTPUT_DATA": str(destination)}
    places = ["--input", paths["INPUT_DATA"], "--output", paths["OUTPUT_DATA"]]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            etl.make_settings(etl.parse_options(["--config", str(path), *places]))  # what is wrong costs nothing yet
        config = etl.read_config(str(path))
    except etl.ConfigError as error:
        raise UsageError(f"--config: {error}") from None
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str.upper  # type: ignore[assignment,method-assign]
    parser.read_dict(config | {"PATHS": paths, "AWS": {}})  # the cluster's role takes the place of keys and region
    text = io.StringIO()
    parser.write(text)
    return text.getvalue(), config["LAKE"]["CATALOG"]


def _ask_cluster(plan: Plan, args: argparse.Namespace, step: dict[str, Any], cores: str) -> None:
    workers = args.workers or FIRST_WORKERS
    request = plan.request = json.loads(CLUSTER)
    request |= {"Name": plan.name, "ReleaseLabel": args.release, "LogUri": f"{args.logs}/", "Steps": [step]}
    request |= {"ServiceRole": args.service_role, "JobFlowRole": args.instance_profile}
    request["SecurityConfiguration"] = args.security_configuration
    tags = {**TAGS, **dict(args.tag), EMR_TAG: "true"}
    request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    if not cores.isdecimal():
        raise UsageError(f"--conf {CORES}: {cores!r} is not a number")
    # YARN refuses an executor of more vcores than a machine says it has; the driver takes one.
    for limit in ("yarn.nodemanager.resource.cpu-vcores", "yarn.scheduler.maximum-allocation-vcores"):
        request["Configurations"][0]["Properties"][limit] = str(int(cores) + 1)
    request["Configurations"] += [json.loads(ICEBERG)["cluster"]] if args.catalog else []
    fleets = request["Instances"]["InstanceFleets"]
    fleets[2]["TargetSpotCapacity"] = workers - 1
    volume = {"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": args.ebs_gb}, "VolumesPerInstance": 1}
    disk = {"EbsConfiguration": {"EbsBlockDeviceConfigs": [volume]}} if args.ebs_gb else {}
    kinds = [{"InstanceType": kind, "WeightedCapacity": 1, **disk} for kind in args.machines.split(",")]
    for fleet in fleets:
        fleet["InstanceTypeConfigs"] = kinds
    plan.machines = [f"{workers + 1} machines: 1 primary and 1 core on demand, {workers - 1} task on Spot."]
    if workers == 1:
        fleets.pop()
    else:
        plan.machines.append("Where Spot machines do not come in 10 minutes, on-demand ones take their place.")
    if args.workers:
        del request["ManagedScalingPolicy"]
    else:
        plan.machines.append(f"EMR then scales between 1 and {MOST_WORKERS} workers, at most 3 on demand.")
    request["Instances"] |= {"Ec2SubnetIds": args.subnet} if args.subnet else {}
    request |= {"LogEncryptionKmsKeyId": args.log_kms_key} if args.log_kms_key else {}
    plan.machines.append(f"Type: whichever is best to get of {args.machines.replace(',', ', ')}.")
    plan.machines.append(f"Paid from start to the end of the step, {args.max_hours} hours at most (--max-hours).")


def _ask_serverless(plan: Plan, args: argparse.Namespace, spark: dict[str, Any]) -> None:
    logs = {"logUri": f"{args.logs}/", **({"encryptionKeyArn": args.log_kms_key} if args.log_kms_key else {})}
    plan.service, plan.operation = "emr-serverless", "start_job_run"
    plan.request = {"applicationId": args.serverless, "clientToken": plan.name, "name": plan.name}
    plan.request |= {"executionRoleArn": args.role, "executionTimeoutMinutes": args.max_hours * 60}
    plan.request["jobDriver"] = {"sparkSubmit": spark}
    plan.request["configurationOverrides"] = {"monitoringConfiguration": {"s3MonitoringConfiguration": logs}}
    plan.request["tags"] = {**TAGS, **dict(args.tag)}
    most = f"at most {args.workers} executors" if args.workers else "as many executors as the application allows"
    plan.machines.append(f"EMR Serverless application {args.serverless}: 1 driver and {most}.")
    plan.machines.append("Each has 4 vCPU and 16 GB, unless the application says otherwise.")
    plan.machines.append(f"Paid by the second of each, {args.max_hours} hours at most (--max-hours).")


def cost(args: argparse.Namespace, seconds: float | None) -> str:
    """A run's price in words; seconds is what an earlier run took."""
    unit, types = ("worker", ["worker"]) if args.serverless else ("machine", args.machines.split(","))
    if not args.price and (unknown := ", ".join(name for name in types if name not in PRICES)):
        return f"No list price is known for {unknown}: give --price, USD an hour for one machine."
    price = args.price or max(PRICES[name] for name in types)
    sizes = [args.workers + 1] if args.workers else [] if args.serverless else [FIRST_WORKERS + 1, MOST_WORKERS + 1]
    hourly = ", ".join(f"${size * price:.2f} an hour for {size} {unit}s" for size in sizes)
    basis = "by --price" if args.price else "list prices of us-east-1 in 2025, on demand"
    hours = (seconds or 0) / 3600 + START_HOURS * (not args.serverless)
    costs = " to ".join(f"${hours * size * price:.2f}" for size in sizes) or "executors are as many as it allows"
    earlier = f" An earlier run took {hours:.2f} hours with its start: {costs}." if seconds else ""
    return f"Price: up to {hourly or f'${price:.2f} an hour for each worker'} ({basis}).{earlier}"
