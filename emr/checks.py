"""Checks before anything is started: each problem is one line with its fix."""

import argparse
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from emr.aws import Aws, code
from emr.request import EMR_TAG, JOB, MOST_WORKERS, NIGHT, ONE_WORKER, TAGS, Uri, UsageError

ABSENT = re.compile("^404$|NoSuch|NotFound|Malformed|InvalidInstanceType|InvalidRequestException")
DEFAULT_SUBNETS = [{"Name": "default-for-az", "Values": ["true"]}]  # where EMR starts a cluster that names no subnet
GLUE = json.loads((JOB / "emr" / "iam" / "catalog.json").read_text(encoding="utf-8"))["Statement"][0]["Action"]
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def check_usage(args: argparse.Namespace) -> None:
    """What the command line alone can tell."""
    for one, other in itertools.permutations(("input", "output", "logs"), 2):
        if f"{getattr(args, one)}/".startswith(f"{getattr(args, other)}/"):
            raise UsageError(f"--{one} must not lie in --{other}: give each a prefix of its own")
    if bool(args.serverless) != bool(args.role):
        raise UsageError("--serverless needs --role, the role of the job, and --role needs --serverless")
    if NIGHT in (args.name or "") and not (args.dry_run or args.upload_only):
        raise UsageError(f"--name: {NIGHT} is for a scheduler to fill in: give --upload-only or --dry-run")
    if problem := _too_old(args.release, bool(args.serverless)):
        raise UsageError(f"--release: {problem}")


def _too_old(release: str, serverless: bool) -> str | None:
    first, lacking = (13, "Python 3.11 surely") if serverless else (10, "S3A behind s3://")
    known = re.fullmatch(r"emr-(\d+)\.(\d+)\.\d+", release)  # emr-spark-8.0.0 has both
    is_old = known and (int(known[1]), int(known[2])) < (7, first)
    return f"{release} has not {lacking}; emr-7.{first}.0 and newer have" if is_old else None


def check(aws: Aws, args: argparse.Namespace) -> None:
    """All that can be known before money is spent; raises UsageError with every problem found."""
    try:
        aws.sts.get_caller_identity()
    except aws.failed as error:
        way = aws.passes(error) or "no valid AWS credentials, run `aws configure` or `aws sso login`"
        raise UsageError(f"{way}, in region {aws.region!r}: {error}") from None
    checks = _Checks(aws, args)
    own = [checks.cluster] if args.cluster else [checks.roles, checks.machines, checks.network]
    for each in [checks.buckets, *([checks.serverless] if args.serverless else own)]:
        each()
    if checks.problems:
        raise UsageError("\n".join(checks.problems))


class _Checks:
    """Each method adds a line to `problems` for all that is not as the job needs it."""

    def __init__(self, aws: Aws, args: argparse.Namespace) -> None:
        self.aws, self.args = aws, args
        self.problems: list[str] = []

    def _note(self, option: str, problem: str) -> None:
        self.problems.append(f"{option}: {problem}")

    def _ask(self, option: str, absent: str, call: Callable[..., Any], **request: Any) -> dict[str, Any]:
        # A call's answer; empty, with the problem noted, where the thing is not there or AWS does not tell.
        try:
            return dict(call(**request))
        except self.aws.failed as error:
            refused = f"{error}; emr/iam/operator.json has all rights that are needed"
            self._note(option, absent if ABSENT.search(code(error)) else refused)
            return {}

    def buckets(self) -> None:
        """The three buckets: there, in the right region, private, with input in it."""
        for option, place in (("--input", self.args.input), ("--output", self.args.output), ("--logs", self.args.logs)):
            s3, name = self.aws.s3, place.bucket
            absent = f"there is no bucket {name}; create it with `aws s3 mb s3://{name}`"
            if not (bucket := self._ask(option, absent, s3.head_bucket, Bucket=name)):
                continue
            if option == "--logs" and (region := bucket.get("BucketRegion")) != self.aws.region:
                self._note(option, f"bucket {name} is in {region}; EMR needs one in its own {self.aws.region}")
            if option == "--logs" or (option == "--output" and not self.args.allow_public):
                way = ", or give --allow-public" if option == "--output" else ""
                public = f"bucket {name} may be public: turn on all four settings of its Block Public Access{way}"
                answer = self._ask(option, public, s3.get_public_access_block, Bucket=name)
                if answer and not all(answer["PublicAccessBlockConfiguration"].get(block) for block in BLOCKS):
                    self._note(option, public)
            for folder in ("song_data/", "log_data/") if option == "--input" else ():
                wanted = {"Bucket": name, "Prefix": Uri.of(f"{place}/{folder}").prefix + "/", "MaxKeys": 1}
                if self._ask(option, "", s3.list_objects_v2, **wanted).get("KeyCount") == 0:
                    self._note(option, f"nothing under {place}/{folder}: give the folder of song_data and log_data")

    def _role(self, option: str, name: str, service: str) -> None:
        absent = f"there is no role {name}: create it as docs/emr.md says"
        answer = self._ask(option, absent, self.aws.iam.get_role, RoleName=name)
        if answer and service not in json.dumps(answer["Role"]["AssumeRolePolicyDocument"]):
            self._note(option, f"role {name} does not trust {service}: see the trust policies in emr/iam/")
        if not (answer and self.args.catalog and option != "--service-role"):
            return
        role, database = answer["Role"]["Arn"], self.args.catalog.split(".")[1]  # IAM simulates what it may do in Glue
        start = f"arn:{role.split(':')[1]}:glue:{self.aws.region}:{role.split(':')[4]}:"
        places = [f"{start}catalog", f"{start}database/{database}", f"{start}table/{database}/songs"]
        wanted = {"PolicySourceArn": role, "ActionNames": GLUE, "ResourceArns": places}
        found = self._ask(option, "", self.aws.iam.simulate_principal_policy, **wanted).get("EvaluationResults", [])
        if lacking := {each["EvalActionName"] for each in found if each["EvalDecision"] != "allowed"}:
            self._note(option, f"{role} lacks {', '.join(sorted(lacking))} for --catalog: see emr/iam/catalog.json")

    def roles(self) -> None:
        self._role("--service-role", self.args.service_role, "elasticmapreduce.amazonaws.com")
        option, name = "--instance-profile", self.args.instance_profile
        absent = f"there is no instance profile {name}: create it as docs/emr.md says"
        if answer := self._ask(option, absent, self.aws.iam.get_instance_profile, InstanceProfileName=name):
            for role in answer["InstanceProfile"]["Roles"]:
                self._role(option, role["RoleName"], "ec2.amazonaws.com")
            if not answer["InstanceProfile"]["Roles"]:
                self._note(option, f"{name} holds no role: `aws iam add-role-to-instance-profile` as docs/emr.md says")
        option, name, file = "--security-configuration", self.args.security_configuration, "file://emr/iam/imdsv2.json"
        fix = f"aws emr create-security-configuration --name {name} --security-configuration {file}"
        self._ask(option, f"there is no {name}: `{fix}`", self.aws.emr.describe_security_configuration, Name=name)

    def machines(self) -> None:
        absent = f"{self.aws.region} has not all of {self.args.machines}"
        types = {"InstanceTypes": self.args.machines.split(",")}
        answer = self._ask("--machines", absent, self.aws.ec2.describe_instance_types, **types)
        for kind in answer.get("InstanceTypes", []) if self.args.workers == 1 else ():
            if kind["MemoryInfo"]["SizeInMiB"] < 16 * 1024 and not set(ONE_WORKER) <= set(dict(self.args.conf)):
                self._note("--workers", f"driver and executor need 16 GiB together, {kind['InstanceType']} has less")

    def network(self) -> None:
        """Room for the machines, EMR's tag on all that its role touches, and a way to EMR from private subnets."""
        wanted = {"SubnetIds": self.args.subnet} if self.args.subnet else {"Filters": DEFAULT_SUBNETS}
        lister = "`aws ec2 describe-subnets` lists them"
        ec2, option, absent = self.aws.ec2, "--subnet", f"there is no such subnet in {self.aws.region}; {lister}"
        answer = self._ask(option, absent, ec2.describe_subnets, **wanted)
        if answer and not answer["Subnets"]:
            self._note(option, f"{self.aws.region} has no default VPC, so give a subnet; {lister}")
        if not answer.get("Subnets"):
            return
        subnets, most = answer["Subnets"], 1 + (self.args.workers or MOST_WORKERS)
        for name in [each["SubnetId"] for each in subnets if each["AvailableIpAddressCount"] < most]:
            self._note(option, f"{name} has too few free addresses for {most} machines: take a larger one")
        here = {"Name": "vpc-id", "Values": sorted({each["VpcId"] for each in subnets})}
        groups = [here, {"Name": "group-name", "Values": ["ElasticMapReduce-*"]}]  # EMR takes these where they exist
        found = self._ask(option, "", ec2.describe_security_groups, Filters=groups).get("SecurityGroups", [])
        things = {each["GroupId"]: each for each in found} | {each["SubnetId"]: each for each in subnets}
        found = self._ask(option, "", ec2.describe_vpcs, VpcIds=here["Values"]).get("Vpcs", [])
        things |= {each["VpcId"]: each for each in found}
        tag = {"Key": EMR_TAG, "Value": "true"}
        if untagged := sorted(name for name in things if tag not in things[name].get("Tags", [])):
            fix = f"aws ec2 create-tags --resources {' '.join(untagged)} --tags Key={EMR_TAG},Value=true"
            self._note(option, f"a tag is missing, without which EMR's role may not use the network: `{fix}`")
        if "spark" in self.args.release:
            self._endpoint(subnets, here)

    def _endpoint(self, subnets: list[dict[str, Any]], here: dict[str, Any]) -> None:
        # From 8.0 on EMR and the machines of private subnets talk through an interface endpoint.
        ec2, is_open = self.aws.ec2, dict[str, bool]()
        for table in self._ask("--subnet", "", ec2.describe_route_tables, Filters=[here]).get("RouteTables", []):
            way_out = any(route.get("GatewayId", "").startswith("igw-") for route in table["Routes"])
            is_open |= {link.get("SubnetId", table["VpcId"]): way_out for link in table["Associations"]}
        private = [each for each in subnets if not is_open.get(each["SubnetId"], is_open.get(each["VpcId"], True))]
        service = f"aws.api.{self.aws.region}.emr-service-cell01"
        wanted = [here, {"Name": "service-name", "Values": [service]}]
        answer = self._ask("--subnet", "", ec2.describe_vpc_endpoints, Filters=wanted) if private else {}
        found = [each for each in answer.get("VpcEndpoints", []) if each["State"].lower() in ("pending", "available")]
        known = {each["VpcId"] for each in found}
        for name in [each["SubnetId"] for each in private if answer and each["VpcId"] not in known]:
            reason = "is private, and EMR 8 needs an interface endpoint there, billed by the hour until it is deleted"
            self._note("--subnet", f"{name} {reason}: `aws ec2 create-vpc-endpoint` as docs/emr.md says")

    def _release(self, option: str, name: str, found: str) -> None:
        is_other = found.split(".")[0] != self.args.release.split(".")[0]  # another Spark, another Python
        other = f"{name} is {found}: give --release {found}" if is_other else None
        if problem := _too_old(found, option == "--serverless") or other:
            self._note(option, problem)

    def cluster(self) -> None:
        name, option = self.args.cluster, "--cluster"
        absent = f"there is no cluster {name} in {self.aws.region}: `aws emr list-clusters --active`"
        if not (answer := self._ask(option, absent, self.aws.emr.describe_cluster, ClusterId=name)):
            return
        cluster = answer["Cluster"]
        if (state := cluster["Status"]["State"]) not in ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"):
            self._note(option, f"{name} is {state}; leave --cluster away and a new one is started")
        if not cluster.get("LogUri"):
            self._note(option, f"{name} keeps no logs in S3, so an error could not be shown: use one that does")
        if {"Key": "project", "Value": TAGS["project"]} not in cluster.get("Tags", []):
            fix = f"aws emr add-tags --resource-id {name} --tags project={TAGS['project']}"
            self._note(option, f"{name} is not tagged as this project's, whose steps go nowhere else: `{fix}`")
        if self.args.catalog and "iceberg-defaults" not in json.dumps(cluster.get("Configurations", [])):
            self._note(option, f"{name} has no Iceberg for --catalog: start one as emr/iceberg.json says")
        self._release(option, name, cluster["ReleaseLabel"])

    def serverless(self) -> None:
        name, option = self.args.serverless, "--serverless"
        absent = f"there is no application {name} in {self.aws.region}: `aws emr-serverless list-applications`"
        answer = self._ask(option, absent, self.aws.emr_serverless.get_application, applicationId=name)
        if application := answer.get("application"):
            if application["type"].upper() != "SPARK" or application["state"] in ("STOPPING", "TERMINATED"):
                found = f"{application['type']} application and {application['state']}"
                self._note(option, f"{name} is a {found}: give a Spark application that can start")
            self._release(option, name, application["releaseLabel"])
        self._role("--role", self.args.role.rpartition("/")[2], "emr-serverless.amazonaws.com")
