"""Runs etl.py on Amazon EMR: `python -m emr run ...`."""

from __future__ import annotations

import sys


class UsageError(Exception):
    """Wrong usage or failed checks, each a line: exit code 2."""


class RunError(Exception):
    """The run failed or cannot be followed; its message is what the user sees: exit code 1."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
