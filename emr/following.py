"""A run that was started: its state, its logs, its report."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from emr import RunError, UsageError, say
from emr.aws import THROTTLED, Aws, code
from emr.request import Uri

POLL_SECONDS, LOG_POLL_SECONDS, LOG_WAIT_SECONDS = 15, 30, 900
STEP_ENDS = {"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"}
CLUSTER_ENDS = {"TERMINATED", "TERMINATED_WITH_ERRORS"}
JOB_RUN_ENDS = {"SUCCESS", "FAILED", "CANCELLED"}
ERROR_LINE = re.compile(r"etl\.py: error:|\b(ERROR|FATAL)\b|Error\b|Exception\b|Traceback|Caused by")


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
                    raise RunError(f"no driver log yet under {self.logs}; try again later: python -m emr logs {self}")
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
                raise RunError(f"cannot follow {run}: {error}. It goes on: python -m emr status {run}") from None
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
    say(f"emr: error: {run} ended as {seen}: {seen.reason or 'AWS gives no reason'}")
    if seen.states.get("step", "FAILED") == "FAILED":  # a step that never ran has no log
        say(f"The driver's last error lines (all of it: python -m emr logs {run}):")
        print("\n".join(error_lines(run.driver_log(seen))))
    return 1
