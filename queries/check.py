"""Compares the answers of a lake of the sample with those in expected/.

    python queries/check.py --lake lake
    python queries/check.py --lake s3://bucket/lake
    spark-submit queries/check.py --lake s3://bucket/lake --engine spark

Exit code: 0 all as expected, 1 some are different or the lake cannot be read, 2 the lake is not the sample's.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
import sys
from collections.abc import Sequence

from engines import FOLDER, LakeError, Query, as_text, read_questions, run

DIFF_LINES = 20

Result = list[list[str]]


def is_sample(query: Query) -> bool:
    """True where the lake's first song and first play, by their ids, are those of the sample."""
    marks = json.loads((FOLDER / "expected" / "sample.json").read_text(encoding="utf-8"))
    found = query("SELECT (SELECT MIN(song_id) FROM songs), (SELECT MIN(songplay_id) FROM songplays)")[1][0]
    return tuple(found) == (marks["song_id"], marks["songplay_id"])


def read_expected(name: str) -> Result:
    path = FOLDER / "expected" / f"{name}.csv"
    if not path.is_file():
        raise LakeError(f"{path.name} is missing in queries/expected; make it with: python queries/make_expected.py")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def difference(expected: Result, found: Result) -> list[str]:
    before, after = ([", ".join(row) for row in rows] for rows in (expected, found))
    lines = list(difflib.unified_diff(before, after, "expected", "found", lineterm="", n=0))
    return lines[:DIFF_LINES] + ([f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else [])


def check(query: Query, options: argparse.Namespace) -> int:
    """Prints a line for each question, and how its answer differs."""
    if not is_sample(query):
        print(f"nothing to compare: {options.lake} is not a lake of the sample (queries/show.py shows its answers)")
        return 2
    questions = read_questions()
    wrong = 0
    for question in questions:
        expected = read_expected(question.name)
        try:
            columns, rows = query(question.sql)
        except LakeError as error:
            wrong += 1
            print(f"FAILED       {question.name}: {error}")
            continue
        found = [list(columns), *(list(map(as_text, row)) for row in rows)]
        if found == expected:
            print(f"as expected  {question.name} ({len(rows)} rows)")
        else:
            wrong += 1
            print(f"DIFFERENT    {question.name}", *difference(expected, found), sep="\n    ")
    print(f"{len(questions) - wrong} of {len(questions)} queries as expected")
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    description = "Compare a lake of the sample with the expected answers."
    return run(argparse.ArgumentParser(prog="check.py", description=description), argv, check)


if __name__ == "__main__":
    sys.exit(main())
