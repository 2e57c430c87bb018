"""Runs etl.py on Amazon EMR from a laptop, with one command.

    python -m emr run --input s3://songs/raw --output s3://lake/sparkify --logs s3://logs/sparkify
    python -m emr run ... --cluster j-1ABC                          a step on a cluster that is already there
    python -m emr run ... --serverless 00f1abc --role arn:aws:...   on an EMR Serverless application
    python -m emr run ... --dry-run                                 prints the exact request, needs no AWS
    python -m emr status ID                                         ID as `run` printed it
    python -m emr logs ID

`run` checks everything that can be checked, shows the machines, uploads etl.py and dl.cfg (without its secrets),
starts a cluster that ends with its one step, follows it, and prints the job's report or the driver's last error lines.

Exit codes: 0 done, 1 the job failed, 2 wrong usage or a failed check, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from emr import RunError, UsageError, say
from emr.aws import Aws
from emr.checks import check, check_usage
from emr.following import Run, Seen, follow, show_end, show_report
from emr.request import JOB, MACHINES, MOST_WORKERS, RELEASE, Uri, make_plan

# Options that say nothing to a cluster or an application that is already there.
NEW_CLUSTER = {"machines", "subnet", "service_role", "instance_profile", "security_configuration"}
NEW_JOB = {"workers", "max_hours", "tag"}


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
            raise UsageError(f"--logs: cannot write {uri}: {error}; see emr/iam/operator.json") from None
    with uninterrupted():
        answer = aws.start(plan)
    if args.serverless:
        run = Run(aws, f"{args.serverless}/{answer['jobRunId']}")
    elif args.cluster:
        run = Run(aws, f"{args.cluster}/{answer['StepIds'][0]}")
    else:
        run = Run(aws, answer["JobFlowId"])
    say(f"Started {run} as {plan.name}. From another terminal: python -m emr status {run}")
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
        say(f"{run} goes on{end}: python -m emr status {run}")
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
    parser = argparse.ArgumentParser(prog="python -m emr", description="Runs etl.py on Amazon EMR.")
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
    add("--config", type=Path, default=JOB / "dl.cfg", help="uploaded without [AWS] (default: dl.cfg beside etl.py)")
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
    given = "like emr/iam/imdsv2.json (default: %(default)s)"
    add("--security-configuration", default="sparkify-imdsv2", metavar="NAME", help=given)

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
        say("emr: stopped")
        return 130
    except UsageError as error:
        for line in str(error).splitlines():
            say(f"emr: error: {line}")
        return 2
    except RunError as error:
        say(f"emr: error: {error}")
        return 1
    except Exception as error:
        if not type(error).__module__.startswith("botocore."):
            raise
        say(f"emr: error: {error}")  # AWS refused a call once the job ran, or did not answer
        return 1


if __name__ == "__main__":
    sys.exit(main())
