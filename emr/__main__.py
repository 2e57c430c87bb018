"""Runs etl.py on Amazon EMR from a laptop, with one command.

    python -m emr run --input s3://songs/raw --output s3://lake/sparkify --logs s3://logs/sparkify
    python -m emr run ... --dry-run                   prints the exact request, needs no AWS
    python -m emr status ID, python -m emr logs ID    ID as `run` printed it

`run` checks all that can be checked, shows machines and price, uploads etl.py and dl.cfg (without its secrets), starts
a cluster that ends with its one step, follows it, and prints the job's report or its last error lines.
Exit codes and more: docs/emr.md.
"""

import argparse
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from emr.aws import Aws
from emr.checks import check, check_usage
from emr.following import Run
from emr.request import JOB, MACHINES, MOST_WORKERS, NIGHT, RELEASE, RunError, Uri, UsageError, cost, make_plan, say

# Options that say nothing to a cluster or an application that is already there.
NEW_CLUSTER = {"machines", "subnet", "service_role", "instance_profile", "security_configuration", "ebs_gb"}
NEW_JOB = {"workers", "max_hours", "tag", "log_kms_key", "price"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def command_run(args: argparse.Namespace) -> int:
    """Starts the job and follows it, or finds the one of this name."""
    check_usage(args)
    plan = make_plan(args, args.name or f"sparkify-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}")
    say("\n".join(plan.machines))
    aws = None if args.dry_run else Aws(args.region)
    run = Run.named(aws, args) if aws and args.name and not args.upload_only else None
    if run:
        say(f"{plan.name} is there already as {run}: nothing is started.")
    elif aws:
        check(aws, args)
    if not (run or args.cluster):
        say(cost(args, aws.last_seconds(args.logs, plan.name) if aws else None))
    if aws and not run:
        if not (args.yes or args.upload_only):
            if not sys.stdin.isatty():
                raise UsageError("this costs money and there is no terminal to ask: give --yes")
            if _ask("Start it? [y/N] ") not in ("y", "yes"):
                raise UsageError("nothing was started")
        for uri, text in plan.uploads.items():
            aws.put(uri, text)
    if aws is None or args.upload_only:
        print(plan.as_json())
        return 0
    waiting: list[int] = []  # signals wait during the start: else the job could run with nobody knowing its ID
    before = {kind: signal.signal(kind, lambda number, _: waiting.append(number)) for kind in SIGNALS}

    def pause(seconds: int) -> None:
        say(f"AWS is throttling and has started nothing yet; the next try is in {seconds} s")
        for _ in range(seconds):
            if waiting:
                raise RunError("stopped; nothing was started", 128 + waiting[0])
            time.sleep(1)

    try:
        try:
            if run is None:
                answer = aws.start(plan, pause)
                parts = [args.serverless or args.cluster, answer.get("jobRunId") or answer.get("JobFlowId")]
                run = Run(aws, "/".join(filter(None, [*parts, *answer.get("StepIds", [])])))
                say(f"Started {run} as {plan.name}. From another terminal: python -m emr status {run}")
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
        for number in waiting:
            signal.raise_signal(number)
        if args.no_wait:
            print(json.dumps({"id": str(run), "name": plan.name, "report": plan.report}) if args.json else run)
            return 0
        seen = run.follow()
    except (KeyboardInterrupt, SystemExit) as signalled:
        if run is None:
            raise
        return _ask_what_now(run, not args.cluster, isinstance(signalled, SystemExit))
    return run.show_end(seen, args.json)


def _ask(question: str) -> str:
    print(question, end="", file=sys.stderr, flush=True)  # input itself would ask on stdout, which is for results
    try:
        return input().strip().lower()
    except EOFError:  # Ctrl-D
        return ""


def _ask_what_now(run: Run, own_cluster: bool, is_terminated: bool) -> int:
    # Ctrl-C asks whether to stop the job or leave it, and leaves it where there is no terminal; SIGTERM stops it.
    answer = ""
    if sys.stdin.isatty() and not is_terminated:
        try:
            answer = _ask("\nStop the job (s), or leave it running (Enter)? ")
        except KeyboardInterrupt:
            pass
        except SystemExit:  # SIGTERM stops it here too
            is_terminated = True
    end = " and its cluster ends by itself with the step" if run.is_cluster and own_cluster else ""
    goes_on = f"{run} goes on{end}: python -m emr status {run}"
    try:
        say(run.stop(own_cluster) if is_terminated or answer in ("s", "stop") else goes_on)
    except run.aws.failed as error:
        raise RunError(f"cannot stop it: {error}. {goes_on}", 3) from None
    return 143 if is_terminated else 130


def command_look(args: argparse.Namespace) -> int:
    """`status`, the state now and the report of a run that is done, and `logs`, the driver's whole log."""
    aws = Aws(args.region)
    run = Run(aws, args.id)
    try:
        seen = run.look()
    except aws.failed as error:
        raise UsageError(f"cannot find {args.id} in {aws.region}: {error}") from None
    if args.action == "logs":
        for name, text in run.driver_log(seen).items():
            print(f"==> {name} <==\n{text.rstrip()}")
        return 0
    if not args.json:
        print(f"{run}: {seen}", *filter(None, [seen.reason]), sep="\n")
    run.show(seen, args.json)
    return 1 if seen.ended and not seen.done else 0


def _take(make: Callable[[str], Any], pattern: str, example: str, text: str) -> Any:
    if not re.fullmatch(pattern, text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not like {example}")
    return make(text)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m emr", description="Runs etl.py on Amazon EMR.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="action")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--region", help="AWS region (default: AWS_REGION, or the profile's)")
    common.add_argument("--json", action="store_true", help="print what programs read (not for logs)")
    run = commands.add_parser("run", parents=[common], help="run the job, on a new cluster unless told otherwise")
    run.set_defaults(command=command_run)
    add = run.add_argument
    number = partial(_take, int, "0*[1-9][0-9]*", "a number above 0")
    words = "key=value, without blanks and quotes; project is always sparkify, for rights are given by it"
    pair = partial(_take, lambda text: tuple(text.split("=", 1)), r"""(?!project=)[^\s'"=]+=[^\s'"]*""", words)
    name = partial(_take, str, rf"[\w.-]{{1,64}}|[\w.-]{{1,27}}{NIGHT}", f"nightly-2026-05-01 or nightly-{NIGHT}")
    release = partial(_take, str, r"emr-(7|spark-[89])\.\d+\.\d+", f"{RELEASE} or emr-7.13.0")
    place = r"s3[an]?://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[\w.=+@-]+)*/*"  # Serverless splits at blanks and quotes
    uri = partial(_take, Uri.of, place, "s3://bucket/prefix, of letters, digits and ._=+@-")
    add("--input", required=True, type=uri, metavar="URI", help="holds song_data and log_data")
    add("--output", required=True, type=uri, metavar="URI", help="where the five tables go")
    add("--logs", required=True, type=uri, metavar="URI", help="for the code, the report and EMR's logs")
    add("--config", type=Path, default=JOB / "dl.cfg", help="uploaded without [AWS] (default: dl.cfg beside etl.py)")
    add("--dry-run", action="store_true", help="print the exact request as JSON; needs no AWS")
    add("--upload-only", action="store_true", help="check, upload, print the request; start nothing")
    add("--name", type=name, help="a run of this name that is there already is followed instead")
    add("--no-wait", action="store_true", help="print the ID and return")
    add("--yes", action="store_true", help="do not ask before machines are started")
    add("--workers", type=number, metavar="N", help=f"fixed size, or Serverless's most (default: 1 to {MOST_WORKERS})")
    add("--max-hours", type=number, default=12, metavar="N", help="a job that hangs is ended then (default: 12)")
    add("--allow-public", action="store_true", help="write to an output bucket that everyone can read")
    add("--tag", type=pair, action="append", default=[], metavar="K=V", help="may be repeated")
    catalog = partial(_take, str, r"[A-Za-z_]\w*\.[a-z_][a-z0-9_]*", "glue.sparkify")
    add("--catalog", type=catalog, metavar="NAME", help="write Iceberg tables to this catalog and database of Glue")
    add("--conf", type=pair, action="append", default=[], metavar="K=V", help="a setting of Spark; may be repeated")
    add("--log-kms-key", metavar="ARN", help="encrypts EMR's logs")
    price = partial(_take, float, r"(?=.*[1-9])\d*\.?\d+", "0.25")
    add("--price", type=price, metavar="USD", help="of one machine an hour (default: list prices of us-east-1)")
    add("--release", type=release, default=RELEASE, help="EMR release (default: %(default)s; emr-7.13.0 works too)")
    where = run.add_mutually_exclusive_group().add_argument
    where("--cluster", type=partial(_take, str, r"j-\w+", "j-1ABC"), metavar="ID", help="add a step to this cluster")
    where("--serverless", metavar="APPLICATION", help="run on this EMR Serverless application")
    add("--role", metavar="ARN", help="with --serverless: the role that the job runs with")

    add = run.add_argument_group("a cluster of its own").add_argument
    add("--machines", default=MACHINES, metavar="TYPES", help="instance types of one size (default: %(default)s)")
    add("--ebs-gb", type=number, metavar="N", help="disk of each machine (default: EMR's)")
    add("--subnet", action="append", default=[], metavar="ID", help="may be repeated (default: the default VPC's)")
    add("--service-role", default="sparkify-emr-service", metavar="NAME", help="EMR's role (default: %(default)s)")
    add("--instance-profile", default="sparkify-job", metavar="NAME", help="the job's role (default: %(default)s)")
    add("--security-configuration", default="sparkify-imdsv2", metavar="NAME", help="as emr/iam/imdsv2.json")
    for word, text in (("status", "how a run is doing, and its report"), ("logs", "the driver's whole log")):
        other = commands.add_parser(word, parents=[common], help=text)
        other.set_defaults(command=command_look)
        other.add_argument("id", metavar="ID", help="as `run` printed it: j-..., j-.../s-... or APPLICATION/JOB_RUN")
    args = parser.parse_args(argv)
    if args.action == "run" and (args.cluster or args.serverless):
        option, useless = ("--serverless", NEW_CLUSTER) if args.serverless else ("--cluster", NEW_CLUSTER | NEW_JOB)
        for word in sorted(useless):
            if getattr(args, word) != run.get_default(word):
                run.error(f"--{word.replace('_', '-')} does not go with {option}")
    return args


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = int(args.command(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        say("emr: stopped")
        return 130
    except BrokenPipeError:  # as with `logs ID | head`; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        if not isinstance(error, UsageError | RunError) and not type(error).__module__.startswith("botocore."):
            raise
        say("\n".join(f"emr: error: {line}" for line in str(error).splitlines()))
        return int(getattr(error, "exit_code", 1))  # 1: AWS refused a call once the job ran, or did not answer


if __name__ == "__main__":
    sys.exit(main())
