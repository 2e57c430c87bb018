"""AWS: its clients, and the one call that spends money."""

import gzip
import json
import os
import re
from collections.abc import Callable
from typing import Any

from emr.request import Plan, RunError, Uri, UsageError

THROTTLED = re.compile("Throttl|TooManyRequests|RequestLimitExceeded|SlowDown")


class Aws:
    """boto3 and its clients, made where they are first used: --help and --dry-run do without."""

    def __init__(self, region: str | None) -> None:
        try:
            import boto3
            import botocore.config
            import botocore.exceptions as errors
        except ImportError:
            raise UsageError("boto3 is missing: pip install -r requirements.txt") from None
        self.config: Any = botocore.config.Config
        self.failed = (errors.ClientError, errors.BotoCoreError)
        self.offline = (errors.HTTPClientError, errors.ConnectionError)
        try:
            # as the AWS command line has it; boto3 itself does not know AWS_REGION
            self.session = boto3.session.Session(region_name=region or os.environ.get("AWS_REGION"))
        except errors.BotoCoreError as error:  # AWS_PROFILE names no profile
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

    def passes(self, error: Any) -> str | None:
        """Why a call may work later: AWS did not answer, or was busy."""
        if isinstance(error, self.offline):
            return "no answer from AWS"
        status = answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return "AWS is busy" if status >= 500 or THROTTLED.search(code(error)) else None

    def start(self, plan: Plan, pause: Callable[[int], None]) -> dict[str, Any]:
        """The request that spends money, sent again only where AWS surely did not take it: never two clusters.

        It calls `pause` with seconds to wait, where nothing was started yet; what that raises ends the tries.
        """
        once = self.config(retries={"total_max_attempts": 1}, read_timeout=120)
        client = self.session.client(plan.service, config=once)
        for seconds in (1, 2, 4, 8, 16, 32, 60, 60, 60, 0):
            try:
                return dict(getattr(client, plan.operation)(**plan.request))
            except self.failed as error:
                if not self.passes(error):
                    raise UsageError(f"AWS refused to start the job: {error}") from None
                if not THROTTLED.search(code(error)):
                    way = f"the same command with --name {plan.name} finds it, or starts it where there is none"
                    raise RunError(f"no clear answer ({error}). The job may have started: {way}", 4) from None
            if seconds:
                pause(seconds)
        raise UsageError("AWS is throttling: nothing was started. Try again in some minutes")

    def put(self, uri: str, text: str) -> None:
        """Uploads a text."""
        try:
            self.s3.put_object(Bucket=Uri.of(uri).bucket, Key=Uri.of(uri).prefix, Body=text.encode())
        except self.failed as error:
            raise UsageError(f"--logs: cannot write {uri}: {error}; see emr/iam/operator.json") from None

    def read(self, uri: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        try:
            body: bytes = self.s3.get_object(Bucket=Uri.of(uri).bucket, Key=Uri.of(uri).prefix)["Body"].read()
        except self.failed as error:
            if code(error) == "NoSuchKey":
                return None
            raise RunError(f"cannot read {uri}: {error}") from None
        return gzip.decompress(body) if uri.endswith(".gz") else body

    def last_seconds(self, logs: Uri, name: str) -> float | None:
        """What an earlier run took, from the newest report of a run that is done and whose name begins alike."""
        start = Uri.of(f"{logs}/{re.split('[-<]', name)[0]}-").prefix
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=logs.bucket, Prefix=start)
        try:
            objects = (each for page in pages for each in page.get("Contents", []))
            found = [each for each in objects if each["Key"].endswith("/report.json")]
            newest = sorted(found, key=lambda each: each["LastModified"], reverse=True)[:9]
            reports = (json.loads(self.read(f"s3://{logs.bucket}/{each['Key']}") or "{}") for each in newest)
            return next((float(report["seconds"]) for report in reports if report.get("state") == "done"), None)
        except (RunError, *self.failed):  # an estimate is no reason not to start
            return None


def answer_of(error: Any) -> dict[str, Any]:
    """What AWS answered; empty where it did not, for which botocore has no response or None."""
    return getattr(error, "response", None) or {}


def code(error: Any) -> str:
    """AWS's short name of an error; empty where AWS did not answer at all."""
    return str(answer_of(error).get("Error", {}).get("Code", ""))
