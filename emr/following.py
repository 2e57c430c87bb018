"""A run that was started: its state, its logs, its report."""

import argparse
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from emr.aws import Aws
from emr.request import RunError, Uri, UsageError, say

POLL_SECONDS, LOG_POLL_SECONDS, LOG_WAIT_SECONDS = 15, 30, 900
STEP_ENDS, CLUSTER_ENDS = {"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"}, {"TERMINATED", "TERMINATED_WITH_ERRORS"}
ERROR_LINE = re.compile(r"etl\.py: error:|\b(ERROR|FATAL)\b|Error\b|Exception\b|Traceback|Caused by")


@dataclass
class Seen:
    """One look at a run: the states to show, why it ended as it did, and where its report is."""

    states: dict[str, str]
    ended: bool
    done: bool
    reasons: list[str | None]
    ended_at: datetime | None
    arguments: list[str]

    def __post_init__(self) -> None:
        self.reason = "" if self.done else "; ".join(dict.fromkeys(filter(None, self.reasons)))
        self.report = dict(zip(self.arguments, self.arguments[1:], strict=False)).get("--report")

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

    @classmethod
    def named(cls, aws: Aws, args: argparse.Namespace) -> "Run | None":
        """The newest run that has this name already, in whatever state it is."""
        client, kind, wanted = aws.emr, "list_clusters", dict[str, str]()
        if args.serverless:
            client, kind, wanted = aws.emr_serverless, "list_job_runs", {"applicationId": args.serverless}
        elif args.cluster:
            kind, wanted = "list_steps", {"ClusterId": args.cluster}
        try:
            found = client.get_paginator(kind).paginate(**wanted).build_full_result()
        except aws.failed as error:
            raise UsageError(f"--name: cannot look for {args.name}: {error}; nothing was started") from None
        things = found.get("Clusters", []) + found.get("Steps", []) + found.get("jobRuns", [])  # in no order
        same = [each for each in things if args.name in (each.get("Name"), each.get("name"))]
        if not same:
            return None
        newest = max(same, key=lambda each: each.get("createdAt") or each["Status"]["Timeline"]["CreationDateTime"])
        return cls(aws, "/".join([*wanted.values(), newest.get("Id") or newest["id"]]))

    def look(self) -> Seen:
        """Its state now."""
        if not self.is_cluster:
            return self._look_at_job_run()
        cluster = self.aws.emr.describe_cluster(ClusterId=self.owner)["Cluster"]
        if cluster.get("LogUri"):
            self.logs = Uri.of(f"{cluster['LogUri'].rstrip('/')}/{self.owner}")
        if not self.part:  # the newest step comes first; a cluster just born has none yet
            steps = self.aws.emr.list_steps(ClusterId=self.owner)["Steps"]
            self.part = steps[0]["Id"] if steps else ""
        step = self.aws.emr.describe_step(ClusterId=self.owner, StepId=self.part)["Step"] if self.part else {}
        arguments, state = step.get("Config", {}).get("Args", []), step.get("Status", {})
        states = {"cluster": cluster["Status"]["State"], "step": state.get("State", "PENDING")}
        failure, times = state.get("FailureDetails", {}), state.get("Timeline", {})
        limit = int(arguments[1][:-1]) if arguments[:1] == ["timeout"] else 0
        reasons = [_over(limit, times.get("StartDateTime"), times.get("EndDateTime")), failure.get("Reason")]
        whose = [state] if states["step"] in {"COMPLETED", "FAILED"} else [state, cluster["Status"]]
        reasons += [failure.get("Message"), *(each.get("StateChangeReason", {}).get("Message") for each in whose)]
        reasons += [detail.get("ErrorMessage") for each in whose for detail in each.get("ErrorDetails", [])]
        ended = states["step"] in STEP_ENDS or states["cluster"] in CLUSTER_ENDS
        return Seen(states, ended, states["step"] == "COMPLETED", reasons, times.get("EndDateTime"), arguments)

    def _look_at_job_run(self) -> Seen:
        run = self.aws.emr_serverless.get_job_run(applicationId=self.owner, jobRunId=self.part)["jobRun"]
        monitoring = run.get("configurationOverrides", {}).get("monitoringConfiguration", {})
        if folder := monitoring.get("s3MonitoringConfiguration", {}).get("logUri"):
            self.logs = Uri.of(f"{folder.rstrip('/')}/applications/{self.owner}/jobs/{self.part}")
        state, ended_at = run["state"], run.get("endedAt")
        limit = _over(run.get("executionTimeoutMinutes", 0) // 60, run.get("startedAt"), ended_at)
        reasons, arguments = [limit, run.get("stateDetails")], run["jobDriver"]["sparkSubmit"]["entryPointArguments"]
        ended = state in {"SUCCESS", "FAILED", "CANCELLED"}
        return Seen({"job run": state}, ended, state == "SUCCESS", reasons, ended_at, arguments)

    def follow(self) -> Seen:
        """Looks until the run has ended, however long that takes, through throttling and a bad network."""
        shown = ""
        while True:
            seen = None
            try:
                seen = self.look()
            except self.aws.failed as error:  # credentials that ran out, most often
                if not (note := self.aws.passes(error)):
                    text = f"cannot follow {self}: {error}. It goes on: python -m emr status {self}"
                    raise RunError(text, 3) from None
            if (change := str(seen) if seen else f"{note}, still trying") != shown:
                say(f"{datetime.now():%H:%M:%S} {change}")
                shown = change
            if seen and seen.ended:
                return seen
            time.sleep(POLL_SECONDS)

    def stop(self, own_cluster: bool) -> str:
        """Asks AWS to stop; says what happens now."""
        if not self.is_cluster:
            self.aws.emr_serverless.cancel_job_run(applicationId=self.owner, jobRunId=self.part)
            return "The job run is being cancelled."
        if own_cluster:  # made for this step alone: the surest way to stop the step and its application
            self.aws.emr.terminate_job_flows(JobFlowIds=[self.owner])
            return "The step and its cluster are being terminated."
        request = {"ClusterId": self.owner, "StepIds": [self.part], "StepCancellationOption": "SEND_INTERRUPT"}
        for each in self.aws.emr.cancel_steps(**request)["CancelStepsInfoList"]:
            if each["Status"] == "FAILED":
                return f"EMR does not cancel the step: {each.get('Reason')}"
        return "The step is being cancelled. YARN may still run its application: `yarn application -list` and `-kill`."

    def show(self, seen: Seen, as_json: bool) -> None:
        """A run's report when it is done; for programs its state too."""
        report: dict[str, Any] | None = None
        if seen.done and seen.report:
            try:
                report = json.loads(self.aws.read(seen.report) or "null")
            except RunError as error:
                say(f"The job is done, but its report cannot be shown: {error}")
            if not report:
                say(f"There is no report to show from {seen.report}.")
        if as_json:
            known = {key: getattr(seen, key) for key in ("states", "ended", "done", "reason")}
            print(json.dumps({"id": str(self), **known, "report": report}, indent=2))
        elif report:
            print(f"{'table':<12}{'rows':>14}{'files':>8}{'bytes':>16}{'seconds':>10}")
            for table, row in report["tables"].items():
                print(f"{table:<12}{row['rows']:>14,}{row['files']:>8,}{row['bytes']:>16,}{row['seconds']:>10.1f}")
            for name, read in report["inputs"].items():
                print(f"{name}: {read['lines']:,} lines of {read['files']:,} files, {read['rejected']:,} rejected")
            if report["matched_share"] is not None:
                print(f"plays that found their song: {report['matched_share']:.1%}")
            ended = f"run {report['run_id']} {report['state']}, {report['seconds']:.0f} s"
            print(f"{ended}; the whole report: {seen.report}")

    def show_end(self, seen: Seen, as_json: bool) -> int:
        """The report of a run that is done; of another the reason and the driver's own words. Returns the exit code."""
        self.show(seen, as_json)
        if seen.done:
            return 0
        say(f"emr: error: {self} ended as {seen}: {seen.reason or 'AWS gives no reason'}")
        if not as_json and seen.states.get("step", "FAILED") == "FAILED":  # a step that never ran has no log
            say(f"The driver's last error lines (all of it: python -m emr logs {self}):")
            texts = self.driver_log(seen)
            lines = [line for name in ("stdout", "stderr") for line in texts.get(name, "").splitlines() if line.strip()]
            own = [line for line in lines if line.startswith("etl.py: error:")]
            print("\n".join(own or [line for line in lines if ERROR_LINE.search(line)][-15:] or lines[-15:]))
        return 1

    def driver_log(self, seen: Seen) -> dict[str, str]:
        """The driver's stderr and stdout, waited for: EMR copies them to S3 some minutes late."""
        if self.logs is None or not self.part:
            raise RunError(f"{self} has no step yet, or keeps no logs in S3")
        deadline = time.monotonic() + LOG_WAIT_SECONDS
        texts, is_whole = self._read_driver_log(self.logs, seen)
        if not is_whole:
            say("Waiting for the driver's log: EMR copies it to S3 some minutes late. Ctrl-C stops the waiting.")
        while not is_whole and time.monotonic() < deadline:
            time.sleep(LOG_POLL_SECONDS)
            texts, is_whole = self._read_driver_log(self.logs, seen)
        if not texts:
            raise RunError(f"no driver log yet under {self.logs}; try again later: python -m emr logs {self}")
        if not is_whole:
            say("The log may not be whole yet.")
        return texts

    def _read_driver_log(self, logs: Uri, seen: Seen) -> tuple[dict[str, str], bool]:
        # As far as it is there, and whether that is all of it. The log of spark-submit names the application.
        texts, is_whole = self._read_logs(logs, f"steps/{self.part}/" if self.is_cluster else "SPARK_DRIVER/", seen)
        application = re.search(r"application_\d+_\d+", texts.get("stderr", ""))
        if application is None or not self.is_cluster:
            return texts, is_whole
        driver, is_whole = self._read_logs(logs, f"containers/{application[0]}/", seen)
        return driver or texts, is_whole

    def _read_logs(self, logs: Uri, folder: str, seen: Seen) -> tuple[dict[str, str], bool]:
        # The first container of an application is its driver; of several attempts, the last counts.
        start = Uri.of(f"{logs}/{folder}").prefix + "/"
        pages = self.aws.s3.get_paginator("list_objects_v2").paginate(Bucket=logs.bucket, Prefix=start)
        found = {entry["Key"]: entry["LastModified"] for page in pages for entry in page.get("Contents", [])}
        pattern = re.escape(start) + r"(container_\w+_000001/)?std(err|out)(\.gz)?"
        last = max((key.rpartition("/")[0] for key in found if re.fullmatch(pattern, key)), default="")
        keys = sorted(key for key in found if re.fullmatch(pattern, key) and key.rpartition("/")[0] == last)
        texts = {Path(key).name.removesuffix(".gz"): self.aws.read(f"s3://{logs.bucket}/{key}") for key in keys}
        shown = {name: (body or b"").decode(errors="replace") for name, body in texts.items()}
        is_after_end = all(seen.ended_at is None or found[key] >= seen.ended_at for key in keys)
        return shown, bool(keys) and (is_after_end or "etl.py: error:" in shown.get("stderr", ""))


def _over(hours: int, start: datetime | None, end: datetime | None) -> str | None:
    long = hours and start and end and (end - start).total_seconds() >= hours * 3600
    return f"it came to its limit of {hours} hours (--max-hours)" if long else None
