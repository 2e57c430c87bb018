"""Shows the team's questions and a lake's answers.

    python queries/show.py --lake lake
    python queries/show.py --lake s3://bucket/lake weekly_listeners
    python queries/show.py --lake lake --markdown > queries/README.md

A question is a file of this folder. Without a name, all are asked.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from engines import Answer, LakeError, Query, Question, as_text, read_questions, run

MOST_ROWS, ENDS = 24, 5  # of a longer answer, so many rows of its beginning and its end
BAR_WIDTH = 20
INTRO = """\
# The team's questions

Each `*.sql` of this folder is a question in its first line. This page holds the answers on the sample, made by
`python queries/show.py --lake lake --markdown > queries/README.md`; a test keeps it fresh. On your own lake:

```bash
python queries/show.py --lake lake
python queries/show.py --lake lake weekly_listeners
python queries/show.py --lake s3://bucket/lake
```

The first asks all questions, the second one of them, the third a lake on S3, with your AWS credentials.

- Times, days and weeks are UTC. A dash is null. A bar of percent is drawn to 100, any other to the largest value.
- The SQL runs unchanged on DuckDB and on Spark (`--engine spark`). For Trino, whose SQL Athena speaks, a test
  parses and plans each query in that dialect with sqlglot; none was run there.
- `expected/` holds the sample's answers by plain Python from the raw files (`python queries/make_expected.py`).
  `python queries/check.py --lake lake` compares a lake of the sample with them.
"""


def as_cell(value: Any) -> str:
    return "–" if value is None else as_text(value).replace("|", "\\|")


def bar(value: Any, largest: Any) -> str:
    return "█" * round(BAR_WIDTH * float(value or 0) / float(largest or 1))


def as_table(answer: Answer, bar_column: str) -> str:
    """The answer as a table of markdown, numbers to the right, with a bar for one column."""
    names, rows = list(answer[0]), [list(row) for row in answer[1]]
    if not rows:
        return "No rows."
    is_number = [any(isinstance(row[place], int | float | Decimal) for row in rows) for place in range(len(names))]
    cells = [list(map(as_cell, row)) for row in rows]
    if bar_column:
        values = [row[names.index(bar_column)] for row in rows]
        largest = 100 if "percent" in bar_column else max((value for value in values if value is not None), default=0)
        cells = [[*row, bar(value, largest)] for row, value in zip(cells, values, strict=True)]
        names, is_number = [*names, f"({bar_column})"], [*is_number, False]
    if len(cells) > MOST_ROWS:
        cells = [*cells[:ENDS], ["…"] * len(names), *cells[-ENDS:]]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    rules = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, is_number, strict=True)]
    lines = [
        "| " + " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ) + " |"
        for row in (names, rules, *cells)
    ]  # fmt: skip
    left_out = (
        f"\n\n{len(rows):,} rows, {len(rows) - 2 * ENDS:,} in the middle left out." if len(rows) > MOST_ROWS else ""
    )
    return "\n".join(lines) + left_out


def as_section(question: Question, answer: Answer, with_sql: bool) -> str:
    note = [textwrap.fill(question.note, 110)] if question.note else []
    parts = [f"## {question.text}", *note, as_table(answer, question.bar)]
    if with_sql:
        summary = f"<summary>{question.name}.sql</summary>"
        parts.append(f"<details>{summary}\n\n```sql\n{question.sql}\n```\n\n</details>")
    return "\n\n".join(parts) + "\n"


def show(query: Query, options: argparse.Namespace) -> int:
    questions = {question.name: question for question in read_questions()}
    if unknown := [name for name in options.question if name not in questions]:
        raise LakeError(f"no question {', '.join(unknown)}; there are {', '.join(questions)}")
    wanted = [questions[name] for name in options.question or questions]
    print("\n".join(
        ([INTRO] if options.markdown else [])
        + [as_section(question, query(question.sql), options.markdown) for question in wanted]
    ))  # fmt: skip
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="show.py", description="Show the team's questions and a lake's answers.")
    parser.add_argument("question", nargs="*", metavar="QUESTION", help="the name of a file here, without .sql")
    parser.add_argument("--markdown", action="store_true", help="print queries/README.md: with the SQL of each")
    return run(parser, argv, show)


if __name__ == "__main__":
    sys.exit(main())
