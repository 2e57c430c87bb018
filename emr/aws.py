"""AWS: clients, and the one call that spends money."""

from __future__ import annotations

import gzip
import importlib
import re
import time
from typing import Any

from emr import RunError, UsageError
from emr.request import Plan, Uri

THROTTLED = re.compile("Throttl|TooManyRequests|RequestLimitExceeded|SlowDown")


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
