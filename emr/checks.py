"""Checks before anything is started: each problem is one line with its fix."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from emr import UsageError
from emr.aws import Aws, code
from emr.request import EMR_TAG, MOST_WORKERS, Uri

ABSENT = {"404", "NoSuchBucket", "NoSuchEntity", "InvalidRequestException", "ResourceNotFoundException"}
ABSENT |= {"InvalidSubnetID.NotFound", "InvalidSubnetId.NotFound", "InvalidSubnetID.Malformed"}
DEFAULT_SUBNETS = [{"Name": "default-for-az", "Values": ["true"]}]  # where EMR starts a cluster that names no subnet


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
            refused = f"{error}; emr/iam/operator.json has all rights that are needed"
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
            self.note(option, f"cannot see whether {bucket} is public: {error}; see emr/iam/operator.json")
            return
        if reason:
            way = ", or give --allow-public" if option == "--output" else ""
            self.note(option, f"bucket {bucket} is public ({reason}): turn on its Block Public Access{way}")

    def trust(self, option: str, role: dict[str, Any], service: str) -> None:
        if service not in json.dumps(role["AssumeRolePolicyDocument"]):
            self.note(option, f"role {role['RoleName']} does not trust {service}: see the trust policies in emr/iam/")

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
        fix = f"aws emr create-security-configuration --name {name} --security-configuration file://emr/iam/imdsv2.json"
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
